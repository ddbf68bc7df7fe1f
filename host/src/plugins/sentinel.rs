//! Whom the daemon died of, remembered for its next life.
//!
//! For: not dying of the same plugin again and again. A file for each plugin that is being loaded outlives a
//! sudden death, and so does the note of the fatal-signal handler (`adapter::crash`).
//! Promises: a third party's plugin is kept out once its code was running when the daemon crashed, or after
//! two lives in a row that ended without a word while it was being loaded; until another build of it comes or
//! the user forgives it. What came with the daemon or the system is never kept out, only named. One sudden
//! death, such as a kill or a power cut, keeps nobody out.
//! Never: judges a plugin in a child, which cannot take the daemon along.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use runtimed_plugin_api::adapter::crash::{self, Death};
use serde::{Deserialize, Serialize};

use super::row::Problem;
use super::search::Source;

/// Folder below the base with a file for each plugin that is being loaded or kept out.
const RECORDS: &str = "plugin-loading";
/// File below the base for the signal handler's note.
const NOTE: &str = "plugin-crash";
/// Lives in a row that may end without a word while a plugin is being loaded, before it is kept out.
const LIVES: u32 = 2;

/// The memory of one daemon.
pub(super) struct Sentinel {
    folder: PathBuf,
    records: Mutex<BTreeMap<String, Record>>,
}

/// What is remembered of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// SHA-256 of the library it is about.
    sha256: String,
    /// It is being loaded in this very life.
    loading: bool,
    /// Lives in a row that ended without a word while it was being loaded.
    deaths: u32,
    /// What its code was doing when a life ended: `SIGSEGV`, `exit`.
    cause: Option<String>,
    /// When the last of that happened, or the loading began, in seconds since 1970, UTC.
    at: i64,
}

/// A plugin is being loaded; over when dropped, however that went. Only a sudden death of the process leaves
/// its file behind.
pub(super) struct Loading {
    sentinel: Arc<Sentinel>,
    id: String,
}

impl Sentinel {
    /// Learns how the last life ended, and watches this one. Blocks on the file system.
    pub(super) fn open(base: &Path) -> Arc<Self> {
        let (folder, note) = (base.join(RECORDS), base.join(NOTE));
        let death = fs::read_to_string(&note).ok().and_then(|note| Death::parse(&note));
        if let Some(death) = &death {
            tracing::error!("the last life of the daemon ended with {}", in_words(death));
        }
        let before = read(&folder);
        let sentinel = Self { records: Mutex::new(resolve(before.clone(), death.as_ref())), folder };
        for id in before.keys().filter(|id| !sentinel.records().contains_key(*id)) {
            sentinel.erase(id);
        }
        for (id, record) in &*sentinel.records() {
            sentinel.write(id, record);
        }
        let watching = fs::create_dir_all(&sentinel.folder).and_then(|()| crash::watch(File::create(&note)?));
        if let Err(error) = watching {
            tracing::warn!("should the daemon crash, nobody will know of which plugin: {error}");
        }
        Arc::new(sentinel)
    }

    /// Whether the plugin with this id and library is kept out, and why. For one that is not kept out whatever
    /// it did, the problem is only to be told.
    pub(super) fn verdict(&self, id: &str, sha256: &str, source: Source) -> Verdict {
        let Some(record) = self.records().get(id).filter(|it| it.sha256 == sha256 && !it.loading).cloned()
        else {
            return Verdict::Welcome;
        };
        let at = Timestamp::from_second(record.at).unwrap_or_default().strftime("%Y-%m-%d %H:%M:%S UTC");
        let happened = match &record.cause {
            Some(cause) if cause == "exit" => {
                format!("plugin `{id}` ended the daemon by calling exit, on {at}")
            }
            Some(cause) => format!("the daemon crashed with {cause} in plugin `{id}`, on {at}"),
            None if record.deaths >= LIVES => {
                format!(
                    "the daemon ended {LIVES} times in a row while plugin `{id}` was being loaded, last on {at}"
                )
            }
            None => return Verdict::Welcome,
        };
        match source {
            Source::Bundled | Source::System => Verdict::Suspect(Problem::refused(
                happened,
                "if it happens again, report it with the daemon's log",
            )),
            Source::Argument | Source::Environment | Source::User => Verdict::KeptOut(Problem::refused(
                format!("{happened}; it was not loaded again"),
                format!("update the plugin, or give it another try: runt plugins enable {id}"),
            )),
        }
    }

    /// Writes down that a library is about to be loaded in this process. Blocks on the file system.
    pub(super) fn loading(self: &Arc<Self>, id: &str, sha256: &str) -> Loading {
        let mut records = self.records();
        let now = Timestamp::now().as_second();
        let deaths = records.get(id).filter(|it| it.sha256 == sha256).map_or(0, |it| it.deaths);
        let record = Record { sha256: sha256.to_owned(), loading: true, deaths, cause: None, at: now };
        self.write(id, &record);
        records.insert(id.to_owned(), record);
        Loading { sentinel: Arc::clone(self), id: id.to_owned() }
    }

    /// Forgets what a plugin did. Whether there was anything. Blocks on the file system.
    pub(super) fn forgive(&self, id: &str) -> bool {
        let known = self.records().remove(id).is_some();
        self.erase(id);
        known
    }

    fn erase(&self, id: &str) {
        if let Err(error) = fs::remove_file(self.folder.join(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("what plugin `{id}` did will be remembered in the daemon's next life: {error}");
        }
    }

    /// Not synced: after a power cut nobody is accused anyway.
    fn write(&self, id: &str, record: &Record) {
        let written = serde_json::to_vec(record).map_err(io::Error::from).and_then(|text| {
            fs::create_dir_all(&self.folder).and_then(|()| fs::write(self.folder.join(id), text))
        });
        if let Err(error) = written {
            tracing::warn!("should plugin `{id}` take the daemon down, that will not be remembered: {error}");
        }
    }

    /// Locks for a moment; what is behind is plain data, whole at all times.
    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the past says about a plugin.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing.
    Welcome,
    /// It is used, and its past is told.
    Suspect(Problem),
    /// It is not loaded.
    KeptOut(Problem),
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.sentinel.forgive(&self.id);
    }
}

/// Every record there is; what cannot be read was never finished.
fn read(folder: &Path) -> BTreeMap<String, Record> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let records = entries.filter_map(|entry| {
        let record = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
        Some((entry.file_name().into_string().ok()?, record))
    });
    records.collect()
}

/// What the end of the last life means for those who were being loaded in it. Pure.
fn resolve(mut records: BTreeMap<String, Record>, death: Option<&Death>) -> BTreeMap<String, Record> {
    let culprit = death.and_then(|death| {
        let (id, sha256) = death.owner.as_deref()?.split_once(' ')?;
        let Death { cause, at, .. } = death;
        let record = Record {
            sha256: sha256.to_owned(),
            loading: false,
            deaths: 0,
            cause: Some(cause.clone()),
            at: *at,
        };
        Some((id.to_owned(), record))
    });
    for record in records.values_mut().filter(|record| record.loading) {
        record.loading = false;
        // With a culprit, whoever was being loaded beside it is innocent.
        record.deaths = if culprit.is_some() { 0 } else { record.deaths + 1 };
    }
    records.retain(|_, record| record.deaths > 0 || record.cause.is_some());
    records.extend(culprit);
    records
}

fn in_words(death: &Death) -> String {
    let what = if death.was_exit() { "a call of exit" } else { &death.cause };
    match death.owner.as_deref().and_then(|owner| owner.split(' ').next()) {
        Some(id) => format!("{what} in plugin `{id}`"),
        None => format!("{what}, outside of any plugin"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "00";

    /// Lets a life of the daemon load a plugin and then die without a word, as of SIGKILL.
    fn die_loading(base: &Path, id: &str, sha256: &str) {
        std::mem::forget(Sentinel::open(base).loading(id, sha256));
    }

    fn kept_out(base: &Path, sha256: &str, source: Source) -> bool {
        matches!(Sentinel::open(base).verdict("bad", sha256, source), Verdict::KeptOut(_))
    }

    fn death(owner: Option<&str>) -> Death {
        Death { cause: "SIGBUS".to_owned(), at: 7, owner: owner.map(str::to_owned) }
    }

    fn record(loading: bool, deaths: u32) -> Record {
        Record { sha256: HASH.to_owned(), loading, deaths, cause: None, at: 0 }
    }

    #[test]
    fn one_sudden_death_accuses_nobody_and_two_in_a_row_do() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        die_loading(base, "bad", HASH);
        assert!(!kept_out(base, HASH, Source::User));
        die_loading(base, "bad", HASH);
        assert!(kept_out(base, HASH, Source::User) && kept_out(base, HASH, Source::Argument));
        assert!(!kept_out(base, "11", Source::User), "another build");
        assert!(!kept_out(base, HASH, Source::Bundled));
        let Verdict::KeptOut(problem) = Sentinel::open(base).verdict("bad", HASH, Source::User) else {
            panic!()
        };
        assert!(
            problem.reason.starts_with(
                "the daemon ended 2 times in a row while plugin `bad` was being loaded, last on 20"
            ),
            "{}",
            problem.reason
        );
        assert!(Sentinel::open(base).forgive("bad"));
        assert!(!kept_out(base, HASH, Source::User));
    }

    #[test]
    fn a_load_that_ends_breaks_the_row_and_another_build_begins_a_new_one() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        die_loading(base, "bad", HASH);
        drop(Sentinel::open(base).loading("bad", HASH));
        die_loading(base, "bad", HASH);
        assert!(!kept_out(base, HASH, Source::User));
        die_loading(base, "bad", "11");
        assert!(!kept_out(base, HASH, Source::User) && !kept_out(base, "11", Source::User));
    }

    #[test]
    fn a_life_without_trying_does_not_count() {
        let before = BTreeMap::from([("bad".to_owned(), record(false, 1))]);
        assert_eq!(resolve(before.clone(), None), before);
    }

    #[test]
    fn with_a_culprit_those_beside_it_are_innocent() {
        let before = BTreeMap::from([
            ("beside".to_owned(), record(true, 1)),
            ("bad".to_owned(), record(true, 0)),
            ("known".to_owned(), record(false, 2)),
        ]);
        let after = resolve(before.clone(), Some(&death(Some("bad 00"))));
        assert_eq!(after.keys().collect::<Vec<_>>(), ["bad", "known"]);
        assert_eq!(after["bad"].cause.as_deref(), Some("SIGBUS"));
        let after = resolve(before, Some(&death(None)));
        assert_eq!((after["beside"].deaths, after["bad"].deaths), (2, 1), "it may have been either");
    }

    #[test]
    fn what_cannot_be_read_is_forgotten() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join(RECORDS);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("bad"), "{\"sha256\":").unwrap();
        fs::write(base.path().join(NOTE), "SIGSEGV when").unwrap();
        assert!(Sentinel::open(base.path()).records().is_empty());
    }
}
