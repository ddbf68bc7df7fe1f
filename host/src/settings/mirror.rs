//! `settings.json`: the settings as a file the user may edit.
//!
//! For: `Settings`, whose changes it writes, and editors, whose changes it reads.
//! Promises: written atomically; a change by temp file and rename is noticed every time; a file that is
//! not valid JSON is backed up, reported and left alone until it is valid again; what cannot be written or read is
//! reported, and tried again until it can.
//! Never: reacts to its own writes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use runtimed_plugin_api::SettingsView;
use runtimed_plugin_api::replace::remove_unfinished;
use runtimed_plugin_api::search::SearchPath;
use runtimed_plugin_api::settings_schema::sections;
use runtimed_protocol::documents::SettingsDoc;
use runtimed_protocol::settings as schema;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Settings;
use crate::disk;
use crate::shutdown::Shutdown;
use crate::socket::create_private;

/// Quiet time after which an edit counts as finished (environments contract, section 10.5).
const DEBOUNCE: Duration = Duration::from_millis(500);
/// A file that is written again and again is read after this long all the same (our choice).
const DEBOUNCE_LIMIT: Duration = Duration::from_secs(5);
/// Pause before a file that the system refused is tried again; doubles up to the longest (our choice, that of journals).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Settings name nobody's secrets, but they are the user's own.
const FILE_MODE: u32 = 0o600;
/// The name editors look for the schema under, relative to the file.
const SCHEMA_FILE: &str = "settings.schema.json";

/// Keeps the file and the document equal. Run it once.
pub struct Mirror {
    settings: Settings,
    path: PathBuf,
    /// Where the plugins are that describe settings of their own.
    plugins: SearchPath,
    /// What the file said when it was last read or written; edits are told from it.
    seen: Map<String, Value>,
    /// The file cannot be read, so it must not be written either.
    unreadable: bool,
    /// The system refused something: after this long it is tried again.
    again: Option<Duration>,
}

impl Mirror {
    pub(super) fn new(settings: Settings, path: PathBuf, plugins: SearchPath) -> Self {
        let found = read(&path);
        let unreadable = found.is_err();
        let seen = found.ok().flatten().unwrap_or_default();
        Self { settings, path, plugins, seen, unreadable, again: None }
    }

    /// Mirrors until the daemon stops; the last state is on disk then.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut changes = self.settings.watch();
        let (edited, mut edits) = watch::channel(());
        if let Some(directory) = self.path.parent() {
            create_private(directory).ok();
        }
        let _watcher = match watch_file(&self.path, edited.clone()) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!("edits of `{}` are not noticed until a restart: {error}", self.path.display());
                None
            }
        };
        self = self
            .on_disk(|mirror| {
                mirror.begin();
                mirror.read_in();
                mirror.write_out();
            })
            .await;
        loop {
            let pause = self.again.unwrap_or_default();
            tokio::select! {
                biased;
                () = shutdown.begun() => break,
                Ok(()) = edits.changed() => {
                    let quiet = async { while timeout(DEBOUNCE, edits.changed()).await.is_ok() {} };
                    tokio::select! {
                        () = shutdown.begun() => {}
                        _ = timeout(DEBOUNCE_LIMIT, quiet) => {}
                    }
                    self = self.on_disk(Self::read_in).await;
                }
                Ok(()) = changes.changed() => self = self.on_disk(Self::write_out).await,
                () = sleep(pause), if self.again.is_some() => self = self.on_disk(Self::write_out).await,
            }
        }
        self.on_disk(Self::write_out).await;
    }

    /// Runs `work` on the blocking pool.
    async fn on_disk(mut self, work: impl FnOnce(&mut Self) + Send + 'static) -> Self {
        let (settings, path, plugins) = (self.settings.clone(), self.path.clone(), self.plugins.clone());
        let task = tokio::task::spawn_blocking(move || {
            work(&mut self);
            self
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!("mirroring the settings failed: {error}");
            let mirror = Self::new(settings, path, plugins);
            mirror.tell(
                "The settings could not be written to their file, because of a defect of the daemon. The settings in use \
                 stay. Change one of them to try again, and restart the daemon if that does not help."
                    .to_owned(),
            );
            // Who waits has been told.
            mirror.settings.0.mirrored.send_replace(mirror.settings.view().revision);
            mirror
        })
    }

    /// Applies what was edited in the file since it was last seen.
    fn read_in(&mut self) {
        let _lock = self.lock();
        self.read_locked();
    }

    /// Keeps other programs of ours from reading and writing until it is dropped. Where it cannot be had nobody can
    /// write either.
    fn lock(&self) -> Option<File> {
        let file = File::create(self.path.with_file_name(schema::LOCK_NAME)).ok()?;
        file.lock().ok().map(|()| file)
    }

    fn read_locked(&mut self) {
        match read(&self.path) {
            Ok(Some(now)) => {
                self.settings.apply(&schema::edits(&self.seen, &now));
                self.seen = now;
                self.well_again();
            }
            Ok(None) => {
                self.seen = Map::new();
                self.well_again();
            }
            Err(error) => {
                self.unreadable = true;
                self.again = pause_after(&error, self.again);
                self.tell(unreadable(&self.path, &error));
            }
        }
    }

    /// The file can be read.
    fn well_again(&mut self) {
        if std::mem::take(&mut self.unreadable) {
            tracing::info!("`{}` can be read again", self.path.display());
            self.again = None;
            self.settings.set_problem(None);
        }
    }

    /// Tells the user what is wrong, once.
    fn tell(&self, problem: String) {
        if self.settings.problem().as_ref() != Some(&problem) {
            self.settings.set_problem(Some(problem));
        }
    }

    /// Writes the settings unless the file says them already or cannot be read; who waits for that goes on.
    fn write_out(&mut self) {
        let _lock = self.lock();
        self.read_locked();
        let view = self.settings.view();
        if !self.unreadable {
            self.write_locked(&view);
        }
        self.settings.0.mirrored.send_replace(view.revision);
    }

    fn write_locked(&mut self, view: &SettingsView) {
        let mut file = Map::new();
        let values = view.values.as_object().cloned().unwrap_or_default();
        // Unknown keys keep the order the user gave them.
        let known = schema::complete(&Map::new());
        let (ours, others): (Vec<_>, Vec<_>) =
            values.into_iter().partition(|(name, _)| known.contains_key(name));
        file.extend(ours);
        file.extend(
            self.seen.keys().filter_map(|name| others.iter().find(|(other, _)| other == name)).cloned(),
        );
        file.extend(others);
        file.insert("$schema".into(), Value::from(format!("./{SCHEMA_FILE}")));
        if file == self.seen {
            return self.written();
        }
        // It may have been impossible until now; if it still is, the write says so.
        self.path.parent().map(create_private);
        let written = serde_json::to_string_pretty(&file).map_err(io::Error::from);
        let written =
            written.and_then(|text| disk::replace(&self.path, format!("{text}\n").as_bytes(), FILE_MODE));
        match written {
            Ok(replaced) => {
                let before = std::mem::replace(&mut self.seen, file);
                self.rescue(&before, replaced);
                self.written();
            }
            Err(error) => {
                self.again = Some(longer(self.again));
                self.tell(format!(
                    "`{}` cannot be written: {error}. The settings in use stay, and are written as soon as that is \
                     possible. Make room, or make the folder writable for you.",
                    self.path.display()
                ));
            }
        }
    }

    /// The file says what the settings are.
    fn written(&mut self) {
        if self.again.take().is_some() {
            tracing::info!("`{}` is written again", self.path.display());
            self.settings.set_problem(None);
        }
    }

    /// Looks at the file we replaced: an edit that was saved after we last read it is not lost.
    fn rescue(&self, before: &Map<String, Value>, replaced: Option<Vec<u8>>) {
        let Some(bytes) = replaced else { return };
        match serde_json::from_slice::<Map<String, Value>>(&bytes) {
            // Applying it wakes us, and the next write has it.
            Ok(edited) => self.settings.apply(&schema::edits(before, &edited)),
            Err(_) => {
                let backup = backup_of(&self.path);
                let kept = std::fs::write(&backup, bytes).is_ok();
                let place =
                    if kept { format!("is in `{}`", backup.display()) } else { "was lost".to_owned() };
                tracing::warn!("an edit of `{}` is no JSON and {place}", self.path.display());
            }
        }
    }

    /// Brings what lies beside the file in order.
    fn begin(&self) {
        // Others of us write with the lock only.
        if let (Some(_lock), Some(folder)) = (self.lock(), self.path.parent()) {
            if let Err(error) = remove_unfinished(folder) {
                tracing::warn!("what an earlier daemon left in `{}` stays there: {error}", folder.display());
            }
            self.write_schema();
        }
    }

    fn write_schema(&self) {
        let path = self.path.with_file_name(SCHEMA_FILE);
        let Ok(text) = serde_json::to_string_pretty(&schema::json_schema(&sections(&self.plugins))) else {
            return;
        };
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return;
        }
        if let Err(error) = disk::replace(&path, text.as_bytes(), FILE_MODE) {
            tracing::warn!("could not write `{}`: {error}", path.display());
        }
    }
}

/// What to start from, and what is wrong with the file. An unreadable file is backed up.
pub(super) fn read_at_start(path: &Path, base: &Path) -> (Map<String, Value>, Option<String>) {
    match read(path) {
        Ok(Some(raw)) => (raw, None),
        Ok(None) => (read_legacy(&base.join("settings.automerge")).unwrap_or_default(), None),
        Err(error) => {
            let backup = backup_of(path);
            let kept = match std::fs::copy(path, &backup) {
                Ok(_) => format!(" A copy is in `{}`.", backup.display()),
                Err(_) => String::new(),
            };
            let legacy = read_legacy(&base.join("settings.automerge")).unwrap_or_default();
            (legacy, Some(unreadable(path, &error) + &kept))
        }
    }
}

/// When to try again what the system refused; never for a file that is read and is no JSON, which its editor will change.
fn pause_after(error: &io::Error, last: Option<Duration>) -> Option<Duration> {
    let content = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
    (!content).then(|| longer(last))
}

/// The pause after another failure.
fn longer(last: Option<Duration>) -> Duration {
    last.map_or(FIRST_PAUSE, |last| LONGEST_PAUSE.min(last * 2))
}

/// Where a file that is no JSON is kept.
fn backup_of(path: &Path) -> PathBuf {
    path.with_extension("json.invalid")
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    let what = pause_after(error, None).map_or("cannot be read as JSON", |_| "cannot be read");
    format!(
        "`{}` {what}: {error}. The settings in use stay, and the file is not touched. \
         Correct it; it is read again by itself.",
        path.display()
    )
}

/// The object in the file; none if there is no file.
fn read(path: &Path) -> io::Result<Option<Map<String, Value>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a daemon of early 2026 kept as an Automerge document.
fn read_legacy(path: &Path) -> Option<Map<String, Value>> {
    let mut raw = SettingsDoc::load(&std::fs::read(path).ok()?, "runtimed:settings").ok()?.settings();
    if !raw.contains_key("onboarding_completed")
        && (raw.contains_key("theme") || raw.contains_key("default_runtime"))
    {
        raw.insert("onboarding_completed".into(), Value::from(true));
    }
    Some(raw)
}

/// Watches the directory, since editors replace files; also that of the target if the file is a link.
fn watch_file(path: &Path, edited: watch::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let names = [path.file_name().map(ToOwned::to_owned), target.file_name().map(ToOwned::to_owned)];
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let ours = |path: &PathBuf| names.contains(&path.file_name().map(ToOwned::to_owned));
        if !event.kind.is_access() && event.paths.iter().any(ours) {
            edited.send_replace(());
        }
    })?;
    let directories = [path.parent(), target.parent().filter(|parent| Some(*parent) != path.parent())];
    for directory in directories.into_iter().flatten() {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(path: &Path) -> Mirror {
        Settings::open(path, path.parent().unwrap(), SearchPath::default()).1
    }

    #[test]
    fn defaults_are_written_out_and_unknown_keys_stay_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        std::fs::write(&path, r#"{"zebra": 1, "theme": "dark", "apple": {"b": 2, "a": 1}}"#).unwrap();
        mirror(&path).write_out();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\n  \"theme\": \"dark\",\n  \"color_theme\""), "{text}");
        assert!(text.find("zebra") < text.find("apple"), "{text}");
        assert!(text.ends_with("\"$schema\": \"./settings.schema.json\"\n}\n"), "{text}");
    }

    #[test]
    fn an_invalid_file_is_backed_up_reported_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        std::fs::write(&path, "{\"theme\": ").unwrap();
        let mut mirror = mirror(&path);
        let settings = mirror.settings.clone();
        assert!(settings.problem().is_some());
        settings.apply(serde_json::json!({"theme": "light"}).as_object().unwrap());
        mirror.write_out();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"theme\": ");
        assert_eq!(
            std::fs::read_to_string(dir.path().join("settings.json.invalid")).unwrap(),
            "{\"theme\": "
        );

        std::fs::write(&path, "{\"uv_pool_size\": 5}").unwrap();
        mirror.read_in();
        mirror.write_out();
        assert_eq!(settings.problem(), None);
        assert_eq!(
            (&settings.view().values["theme"], &settings.view().values["uv_pool_size"]),
            (&"light".into(), &5.into())
        );
        assert_eq!(read(&path).unwrap().unwrap()["theme"], "light");
    }

    #[test]
    fn what_cannot_be_written_is_told_and_written_once_it_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("config");
        std::fs::write(&folder, "in the way").unwrap();
        let path = folder.join("settings.json");
        let mut mirror = mirror(&path);
        let settings = mirror.settings.clone();
        settings.apply(serde_json::json!({"theme": "light"}).as_object().unwrap());
        mirror.write_out();
        assert!(settings.problem().unwrap().contains("Not a directory"), "{:?}", settings.problem());
        assert_eq!(mirror.again, Some(FIRST_PAUSE));
        mirror.write_out();
        assert_eq!(mirror.again, Some(2 * FIRST_PAUSE));
        assert_eq!(*settings.0.mirrored.borrow(), settings.view().revision);

        std::fs::remove_file(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        mirror.write_out();
        assert_eq!((settings.problem(), mirror.again), (None, None));
        assert_eq!(read(&path).unwrap().unwrap()["theme"], "light");
    }

    #[test]
    fn an_edit_made_before_our_write_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.json");
        let mut mirror = mirror(&path);
        mirror.write_out();
        let text =
            std::fs::read_to_string(&path).unwrap().replace("\"uv_pool_size\": 2", "\"uv_pool_size\": 7");
        std::fs::write(&path, text).unwrap();
        mirror.settings.apply(serde_json::json!({"theme": "dark"}).as_object().unwrap());
        mirror.write_out();
        let file = read(&path).unwrap().unwrap();
        assert_eq!((&file["uv_pool_size"], &file["theme"]), (&7.into(), &"dark".into()));
    }
}
