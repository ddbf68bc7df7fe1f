//! The user's plugin folder: what `runt plugins add` and `remove` change.
//!
//! Promises: one command at a time changes it; a plugin and its pin are both new, or both as before, also when
//! this program is killed half way: what was under way then is taken back by the next command.
//! Never: leaves a plugin without the pin that belongs to it where the daemon looks.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, anyhow};
use runtimed_plugin_api::lock_file::{self, LockFile, Pin};
use runtimed_plugin_api::permissions;
use runtimed_plugin_api::search::{SearchPath, Source};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use super::staging::{Staged, sha256};

/// Begins the names of folders in which a change is prepared. The daemon passes them over, for they have no
/// manifest of their own.
const WORK_PREFIX: &str = ".runt-";
/// In a work folder: the id of the plugin that is being moved from or to its place.
const MOVING: &str = "moving";
/// In a work folder: the plugin that was in place before.
const OLD: &str = "old";
/// In a work folder: what is to be put in place, in a folder named like it.
const NEW: &str = "new";

/// The user's plugin folder, for this command alone until dropped.
pub(crate) struct UserFolder {
    path: PathBuf,
    lock: LockFile,
    /// Holds the advisory lock.
    _only_us: File,
}

/// A place in the user's plugin folder to prepare something in. Deleted when dropped.
pub(crate) struct Work(TempDir);

/// Where the user's plugins are; none without a home.
pub(crate) fn path() -> Option<PathBuf> {
    let path = SearchPath::of_this_process(&[]);
    path.0.into_iter().find(|(source, _)| *source == Source::User).map(|(_, folder)| folder)
}

/// Creates a folder for nobody but the user, and those above it; one that exists stays as it is.
///
/// # Errors
/// Those of the file system.
pub(crate) fn create_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// What earlier commands left behind when they were killed.
pub(crate) fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let ours = |name: &str| {
        name.starts_with(WORK_PREFIX) || name.starts_with(&format!(".{}.", lock_file::FILE_NAME))
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| ours(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

/// Whether every file that was pinned is as it was then.
pub(crate) fn is_as_pinned(folder: &Path, pin: &Pin) -> bool {
    pin.files.iter().all(|(path, pinned)| sha256(&folder.join(path)).is_ok_and(|found| found == *pinned))
}

impl UserFolder {
    /// Opens the folder, waits until no other command changes it, and takes back what a killed one left.
    ///
    /// # Errors
    /// When it cannot be created, read or written, or its lock file is damaged.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let path = path().context(
            "there is no home for plugins.\nNothing was changed.\nSet HOME (or XDG_DATA_HOME) and try again",
        )?;
        Self::open_at(path)
    }

    fn open_at(path: PathBuf) -> anyhow::Result<Self> {
        let opened = create_private(&path).and_then(|()| File::open(&path));
        let only_us = opened.with_context(|| unusable(&path))?;
        if flock(&only_us, FlockOperation::NonBlockingLockExclusive).is_err() {
            anstream::eprintln!("Waiting for another 'runt plugins' command to finish...");
            flock(&only_us, FlockOperation::LockExclusive).with_context(|| unusable(&path))?;
        }
        let lock = LockFile::read(&path).map_err(|error| {
            anyhow!(
                "{error}.\nNothing was changed, and the daemon loads nothing from that folder.\nRestore the file \
                 from a backup, or move it away and add your plugins again."
            )
        })?;
        let mut folder = Self { path, lock, _only_us: only_us };
        folder.clean().with_context(|| unusable(&folder.path))?;
        Ok(folder)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that nobody else can put something here; the daemon would load nothing from such a folder.
    ///
    /// # Errors
    /// When somebody can, with what to do.
    pub(crate) fn closed_to_others(&self) -> anyhow::Result<()> {
        let path = self.path.canonicalize().with_context(|| unusable(&self.path))?;
        permissions::check(&path, rustix::process::geteuid().as_raw()).map_err(|exposed| {
            anyhow!("{exposed}.\nNothing was changed.\nClose it first: {}", exposed.remedy)
        })
    }

    /// What was pinned when the plugin was added.
    pub(crate) fn pin(&self, id: &str) -> Option<&Pin> {
        self.lock.plugins.get(id)
    }

    /// A place to prepare something in.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn work(&self) -> anyhow::Result<Work> {
        let work = tempfile::Builder::new().prefix(WORK_PREFIX).tempdir_in(&self.path);
        Ok(Work(work.with_context(|| unusable(&self.path))?))
    }

    /// Puts a plugin that was staged in `work` in place, with its pin.
    ///
    /// # Errors
    /// When that is not possible; everything is as it was then.
    pub(crate) fn install(&mut self, staged: &Staged, pin: Pin, work: &Work) -> anyhow::Result<()> {
        let id = &staged.manifest.id;
        let place = self.path.join(id);
        let mut lock = self.lock.clone();
        lock.plugins.insert(id.clone(), pin);
        let moved = || -> anyhow::Result<()> {
            fs::write(work.path().join(MOVING), id)?;
            if let Err(error) = fs::rename(&place, work.path().join(OLD))
                && error.kind() != ErrorKind::NotFound
            {
                return Err(error.into());
            }
            fs::rename(&staged.folder, &place)?;
            lock.write(&self.path)?;
            File::open(&self.path)?.sync_all()?;
            Ok(())
        };
        if let Err(error) = moved() {
            self.take_back(work.path())?;
            return Err(error);
        }
        self.lock = lock;
        Ok(())
    }

    /// Takes a plugin and its pin away. False if neither was there.
    ///
    /// # Errors
    /// When that is not possible; both are as they were then.
    pub(crate) fn remove(&mut self, id: &str) -> anyhow::Result<bool> {
        let work = self.work()?;
        let (place, gone) = (self.path.join(id), work.path().join(OLD));
        let was_there = match fs::rename(&place, &gone) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => {
                return Err(error).with_context(|| format!("`{}` could not be moved", place.display()));
            }
        };
        let mut lock = self.lock.clone();
        let was_pinned = lock.plugins.remove(id).is_some();
        if was_pinned && let Err(error) = lock.write(&self.path) {
            if was_there {
                fs::rename(&gone, &place)?;
            }
            return Err(error.into());
        }
        self.lock = lock;
        Ok(was_there || was_pinned)
    }

    /// Takes back what killed commands had begun, and forgets pins of plugins that are gone.
    fn clean(&mut self) -> anyhow::Result<()> {
        for left in leftovers(&self.path) {
            if left.is_dir() {
                self.take_back(&left)?;
                fs::remove_dir_all(&left)?;
            } else {
                fs::remove_file(&left)?;
            }
        }
        let gone = |id: &str| fs::symlink_metadata(self.path.join(id)).is_err();
        if self.lock.plugins.keys().any(|id| gone(id)) {
            let mut lock = self.lock.clone();
            lock.plugins.retain(|id, _| !gone(id));
            lock.write(&self.path)?;
            self.lock = lock;
        }
        Ok(())
    }

    /// Undoes an installation that was interrupted anywhere, seen from its work folder. One that was complete
    /// but for its tidying up stays.
    fn take_back(&self, work: &Path) -> io::Result<()> {
        let Ok(id) = fs::read_to_string(work.join(MOVING)) else { return Ok(()) };
        if !matches!(Path::new(&id).components().collect::<Vec<_>>().as_slice(), [Component::Normal(_)]) {
            return Ok(());
        }
        let place = self.path.join(&id);
        let there = |path: &Path| fs::symlink_metadata(path).is_ok();
        let complete = self.pin(&id).is_some_and(|pin| there(&place) && is_as_pinned(&place, pin));
        let was_moved = !there(&work.join(NEW).join(&id));
        if was_moved && there(&place) && !complete {
            fs::rename(&place, work.join("failed"))?;
        }
        if there(&work.join(OLD)) && !there(&place) {
            fs::rename(work.join(OLD), &place)?;
        }
        Ok(())
    }
}

impl Work {
    /// The place itself.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where plugins are staged.
    pub(crate) fn staging(&self) -> PathBuf {
        self.path().join(NEW)
    }
}

fn unusable(folder: &Path) -> String {
    format!(
        "the folder for your plugins, `{}`, cannot be used.\nNothing was changed.\nCheck its owner and permissions",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use runtimed_plugin_api::manifest::{FILE_NAME, Manifest, this_target};
    use semver::Version;

    use super::*;

    /// A plugin of one file, its manifest, staged in `into`.
    fn staged(into: &Path, version: &str) -> Staged {
        let folder = into.join("x");
        create_private(&folder).unwrap();
        let text = format!(
            "manifest_version = 1\nid = \"x\"\nname = \"X\"\nversion = \"{version}\"\nabi = {{ major = 1 }}\n\
             [library]\n{} = {{ path = \"libx.so\" }}\n",
            this_target()
        );
        fs::write(folder.join(FILE_NAME), text).unwrap();
        let hash = sha256(&folder.join(FILE_NAME)).unwrap();
        let manifest = Manifest::read(&folder).unwrap();
        Staged { folder, manifest, files: BTreeMap::from([(FILE_NAME.into(), hash)]) }
    }

    fn pin(staged: &Staged) -> Pin {
        Pin {
            version: staged.manifest.version.clone(),
            from: "/here".to_owned(),
            added: "2026-11-22T10:00:00Z".to_owned(),
            files: staged.files.clone(),
        }
    }

    fn install(plugins: &Path, version: &str) {
        let mut folder = UserFolder::open_at(plugins.to_owned()).unwrap();
        let work = folder.work().unwrap();
        let staged = staged(&work.staging(), version);
        folder.install(&staged, pin(&staged), &work).unwrap();
    }

    /// The version that is installed as it was pinned, and that nothing else is in the folder.
    fn installed(plugins: &Path) -> Option<Version> {
        let folder = UserFolder::open_at(plugins.to_owned()).unwrap();
        let entries = fs::read_dir(plugins).unwrap().map(|it| it.unwrap().file_name());
        let entries: Vec<_> = entries.filter(|name| name != lock_file::FILE_NAME).collect();
        let Some(pin) = folder.pin("x") else {
            assert!(entries.is_empty(), "{entries:?}");
            return None;
        };
        assert_eq!(entries, ["x"]);
        assert!(is_as_pinned(&plugins.join("x"), pin));
        Some(pin.version.clone())
    }

    /// Does what an installation does until it is killed before its `step`th change.
    fn killed_at(step: usize, plugins: &Path, version: &str) {
        let folder = UserFolder::open_at(plugins.to_owned()).unwrap();
        let work = folder.work().unwrap().0.keep();
        let staged = staged(&work.join(NEW), version);
        let place = plugins.join("x");
        let mut lock = folder.lock.clone();
        lock.plugins.insert("x".to_owned(), pin(&staged));
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(work.join(MOVING), "x").unwrap(),
            &|| drop(fs::rename(&place, work.join(OLD))),
            &|| fs::rename(&staged.folder, &place).unwrap(),
            &|| lock.write(plugins).unwrap(),
        ];
        changes.iter().take(step).for_each(|change| change());
    }

    #[test]
    fn a_killed_installation_leaves_the_old_version_or_the_new_one() {
        let home = tempfile::tempdir().unwrap();
        for step in 0..=4 {
            let (fresh, upgrade) =
                (home.path().join(format!("f{step}")), home.path().join(format!("u{step}")));
            killed_at(step, &fresh, "2.0.0");
            assert_eq!(installed(&fresh), (step == 4).then(|| Version::new(2, 0, 0)), "step {step}");
            install(&upgrade, "1.0.0");
            killed_at(step, &upgrade, "2.0.0");
            let wanted = if step == 4 { Version::new(2, 0, 0) } else { Version::new(1, 0, 0) };
            assert_eq!(installed(&upgrade), Some(wanted), "step {step}");
        }
    }

    #[test]
    fn a_plugin_nobody_added_survives_a_killed_installation() {
        let home = tempfile::tempdir().unwrap();
        for step in 0..4 {
            let plugins = home.path().join(step.to_string());
            staged(&plugins, "1.0.0");
            killed_at(step, &plugins, "2.0.0");
            drop(UserFolder::open_at(plugins.clone()).unwrap());
            assert_eq!(
                Manifest::read(&plugins.join("x")).unwrap().version,
                Version::new(1, 0, 0),
                "step {step}"
            );
        }
    }

    #[test]
    fn what_is_removed_is_gone_with_its_pin() {
        let home = tempfile::tempdir().unwrap();
        let plugins = home.path().join("plugins");
        install(&plugins, "1.0.0");
        assert!(UserFolder::open_at(plugins.clone()).unwrap().remove("x").unwrap());
        assert_eq!(installed(&plugins), None);
        assert!(!UserFolder::open_at(plugins.clone()).unwrap().remove("x").unwrap());
        // Killed between taking the files away and forgetting the pin.
        install(&plugins, "1.0.0");
        let work = tempfile::Builder::new().prefix(WORK_PREFIX).tempdir_in(&plugins).unwrap().keep();
        fs::rename(plugins.join("x"), work.join(OLD)).unwrap();
        assert_eq!(installed(&plugins), None);
    }

    #[test]
    fn an_installation_that_fails_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let plugins = home.path().join("plugins");
        install(&plugins, "1.0.0");
        let mut folder = UserFolder::open_at(plugins.clone()).unwrap();
        let work = folder.work().unwrap();
        let staged = staged(&work.staging(), "2.0.0");
        // A folder in the place of the lock file's temporary one makes writing it fail.
        let in_the_way = plugins.join(format!(".{}.{}", lock_file::FILE_NAME, std::process::id()));
        fs::create_dir(&in_the_way).unwrap();
        folder.install(&staged, pin(&staged), &work).unwrap_err();
        fs::remove_dir(in_the_way).unwrap();
        drop((work, folder));
        assert_eq!(installed(&plugins), Some(Version::new(1, 0, 0)));
    }
}
