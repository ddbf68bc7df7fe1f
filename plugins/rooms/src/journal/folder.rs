//! Where journals lie, and how one is found.
//!
//! For: everything that looks for a journal by room or by file.
//! Shape: `<room>.journal` for an untitled notebook, `<room>.<16 hex digits of its path's hash>.journal` for
//! one with a file; `quarantine/` holds damaged ones, `aside/` those that a file has left behind.
//! Promises: a look-up reads names and nothing else; nothing is ever overwritten.
//! Never: looks at what a journal says.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::file::NEW;

/// Ends the name of a journal.
const JOURNAL: &str = "journal";
/// Only the user reads notebooks.
const MODE: u32 = 0o700;

/// The folder of all journals.
#[derive(Clone, Debug)]
pub(crate) struct JournalFolder(PathBuf);

/// A journal that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) room: Uuid,
    /// The notebook's file, as 16 hex digits of its path's hash; none for an untitled notebook.
    pub(crate) key: Option<String>,
    pub(crate) path: PathBuf,
}

impl JournalFolder {
    /// The journals below the daemon's base.
    pub(crate) fn new(base: &Path) -> Self {
        Self(base.join("rooms"))
    }

    /// What the journal of a room is called.
    pub(crate) fn path(&self, room: Uuid, notebook: Option<&Path>) -> PathBuf {
        match notebook {
            Some(notebook) => self.0.join(format!("{room}.{}.{JOURNAL}", key(notebook))),
            None => self.0.join(format!("{room}.{JOURNAL}")),
        }
    }

    /// Makes the folder if it is not there. May block, as all below.
    ///
    /// # Errors
    /// What the file system says; so for all below, where no folder is no error.
    pub(crate) fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(MODE).create(&self.0)
    }

    /// Every journal, in no particular order.
    pub(crate) fn all(&self) -> io::Result<Vec<Named>> {
        Ok(files_in(&self.0)?.into_iter().filter_map(named).collect())
    }

    /// Every journal that was moved out of the way because it is damaged.
    pub(crate) fn quarantined(&self) -> io::Result<Vec<PathBuf>> {
        files_in(&self.0.join("quarantine"))
    }

    /// Every journal that was moved out of the way because its file is gone, or another notebook's by now.
    pub(crate) fn left_behind(&self) -> io::Result<Vec<PathBuf>> {
        files_in(&self.0.join("aside"))
    }

    /// Whether a file lies here, so that its bytes are nobody else's.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        let folder = |path: &Path| path.canonicalize().ok();
        folder(path).zip(folder(&self.0)).is_some_and(|(path, folder)| path.starts_with(folder))
    }

    /// The journal of a room.
    pub(crate) fn of_room(&self, room: Uuid) -> io::Result<Option<PathBuf>> {
        self.newest(|journal| journal.room == room).map(|found| found.map(|journal| journal.path))
    }

    /// The journal of a notebook's file, by its canonical path.
    pub(crate) fn of_file(&self, notebook: &Path) -> io::Result<Option<Named>> {
        let key = key(notebook);
        self.newest(|journal| journal.key.as_ref() == Some(&key))
    }

    /// Moves a damaged journal out of the way. Says where it is now.
    pub(crate) fn quarantine(&self, journal: &Path) -> io::Result<PathBuf> {
        self.move_to("quarantine", journal)
    }

    /// Moves a journal that says nothing its file does not say out of the way.
    pub(crate) fn set_aside(&self, journal: &Path) -> io::Result<PathBuf> {
        self.move_to("aside", journal)
    }

    /// The beginnings of shorter journals, most of which a daemon did not live to finish.
    pub(crate) fn beginnings(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|path| path.to_string_lossy().ends_with(NEW)).collect()
    }

    /// Lets `room` have the name of a notebook's file. A journal of another room that has it belongs to a
    /// notebook that was overwritten by `room`: it is moved aside.
    pub(crate) fn make_way(&self, notebook: Option<&Path>, room: Uuid) -> io::Result<()> {
        let Some(notebook) = notebook else { return Ok(()) };
        let key = key(notebook);
        let others = self.all()?.into_iter();
        others
            .filter(|journal| journal.room != room && journal.key.as_ref() == Some(&key))
            .try_for_each(|journal| self.set_aside(&journal.path).map(drop))
    }

    fn move_to(&self, folder: &str, journal: &Path) -> io::Result<PathBuf> {
        let folder = self.0.join(folder);
        DirBuilder::new().recursive(true).mode(MODE).create(&folder)?;
        let stem = journal.file_stem().unwrap_or_default().to_string_lossy();
        // Several of one room are told apart by when they came.
        let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let to = folder.join(format!("{stem}.{millis}.{JOURNAL}"));
        if to.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(journal, &to)?;
        Ok(to)
    }

    /// The journal that was written last, of those that are wanted.
    fn newest(&self, wanted: impl Fn(&Named) -> bool) -> io::Result<Option<Named>> {
        let modified = |journal: &Named| fs::metadata(&journal.path).and_then(|it| it.modified()).ok();
        Ok(self.all()?.into_iter().filter(wanted).max_by_key(modified))
    }
}

/// Everything in a folder; nothing if there is no such folder.
///
/// # Errors
/// What the file system says.
pub(crate) fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether nothing was written to a file for longer than `age`.
pub(crate) fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|file| file.modified()).ok();
    modified.and_then(|modified| modified.elapsed().ok()).is_some_and(|since| since > age)
}

/// What a notebook's path is called in the name of its journal.
fn key(notebook: &Path) -> String {
    let hash = Sha256::digest(notebook.as_os_str().as_bytes());
    hex::encode(hash.get(..8).unwrap_or_default())
}

fn named(path: PathBuf) -> Option<Named> {
    let name = path.file_name()?.to_str()?.strip_suffix(JOURNAL)?.strip_suffix('.')?;
    let (room, key) = match name.split_once('.') {
        Some((room, key)) if key.len() == 16 && key.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            (room, Some(key.to_owned()))
        }
        Some(_) => return None,
        None => (name, None),
    };
    Some(Named { room: room.parse().ok()?, key, path })
}
