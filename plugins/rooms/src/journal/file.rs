//! One journal on disk.
//!
//! For: the room's task, which appends; threads that may block, which flush and shorten.
//! Promises: a record is in the file, whole, when [`JournalFile::append`] returns; a failed append leaves the
//! file as it was, or the next one makes it so; the file under its name is a whole journal at any moment.
//! Never: decides what is written, or when it is flushed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::{NamedTempFile, TempPath};
use uuid::Uuid;

use super::fold::{Folded, compacted};
use super::format::header;

/// Only the user reads notebooks.
const MODE: u32 = 0o600;
/// Below this many bytes behind the last snapshot a journal is not shortened: reading them takes less than
/// the eye sees, and a small notebook is not written anew all the time.
const WORTH_COMPACTING: u64 = 1024 * 1024;
/// Ends the name of a file that may take a journal's place.
pub(super) const NEW: &str = ".new";

/// A journal that is being written.
pub(crate) struct JournalFile {
    room: Uuid,
    path: PathBuf,
    file: Arc<File>,
    /// Bytes of whole records, and the header.
    length: u64,
    /// Bytes up to the end of the last snapshot.
    snapshot: u64,
    /// Behind `length` is what is left of an append that failed.
    littered: bool,
    /// Whether something was appended that is not flushed.
    unflushed: bool,
    /// Whether the name is not flushed.
    unnamed: bool,
    shortening: Shortening,
}

/// How far a shorter journal is that will take this one's place.
enum Shortening {
    No,
    /// It is being made of the bytes there were.
    Making,
    /// It holds everything, is appended to as well, and is being flushed.
    Joined {
        file: Arc<File>,
        length: u64,
        place: Place,
    },
}

/// Where a shorter journal is. Held locked for a rename and no longer.
type Place = Arc<Mutex<Placed>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Placed {
    /// Beside the long one.
    Beside,
    /// In its place.
    There,
    /// Nowhere: nobody wants it any more.
    Nowhere,
}

/// A shorter journal to be made. May block.
pub(crate) struct Compaction {
    path: PathBuf,
    length: u64,
}

/// A shorter journal that is there, and how much of the long one is in it.
pub(crate) struct Compacted {
    file: NamedTempFile,
    covers: u64,
    length: u64,
}

/// A shorter journal that holds everything, to be put in place. May block.
pub(crate) struct Replacement {
    from: TempPath,
    to: PathBuf,
    file: Arc<File>,
    place: Place,
}

impl JournalFile {
    /// A new journal of `room`, in a folder that need not exist. The first append writes it.
    ///
    /// # Errors
    /// What the file system says; `AlreadyExists` if there is a journal with this name.
    pub(crate) fn create(path: PathBuf, room: Uuid) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).read(true).mode(MODE).open(&path)?;
        if file.metadata()?.len() > 0 {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(Self::new(path, room, file, 0, 0))
    }

    /// The journal that was read as `folded`, to go on with. What is behind its last whole record is cut off.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn resume(path: PathBuf, folded: &Folded) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).read(true).open(&path)?;
        let length = folded.intact as u64;
        if file.metadata()?.len() != length {
            file.set_len(length)?;
        }
        let mut journal = Self::new(path, folded.room, file, length, folded.snapshot as u64);
        // It may have been written just before the daemon was killed.
        (journal.unflushed, journal.unnamed) = (true, true);
        Ok(journal)
    }

    fn new(path: PathBuf, room: Uuid, file: File, length: u64, snapshot: u64) -> Self {
        Self {
            room,
            path,
            file: Arc::new(file),
            length,
            snapshot,
            littered: false,
            unflushed: false,
            unnamed: true,
            shortening: Shortening::No,
        }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a record, into the system's memory: it outlives the daemon, not the machine.
    ///
    /// # Errors
    /// What the file system says; the journal holds what it held before.
    pub(crate) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.littered {
            self.file.set_len(self.length)?;
            self.littered = false;
        }
        let first = (self.length == 0).then(|| [&header(self.room), record].concat());
        let bytes = first.as_deref().unwrap_or(record);
        if let Err(error) = (&*self.file).write_all(bytes) {
            self.littered = self.file.set_len(self.length).is_err();
            return Err(error);
        }
        self.length += bytes.len() as u64;
        if first.is_some() {
            self.snapshot = self.length;
        }
        self.unflushed = true;
        if let Shortening::Joined { file, length, .. } = &mut self.shortening {
            match (&**file).write_all(record) {
                Ok(()) => *length += record.len() as u64,
                Err(error) => {
                    let littered = file.set_len(*length).is_err();
                    if self.give_up_shortening() {
                        // It is the journal already, and lacks the record.
                        self.littered = littered;
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// What has to be flushed for everything so far to survive a power cut: see [`flush`].
    pub(crate) fn take_unflushed(&mut self) -> Vec<Arc<File>> {
        let mut files = Vec::new();
        if std::mem::take(&mut self.unflushed) {
            files.push(self.file.clone());
            if let Shortening::Joined { file, .. } = &self.shortening {
                files.push(file.clone());
            }
        }
        if std::mem::take(&mut self.unnamed) {
            files.extend(self.path.parent().and_then(|folder| File::open(folder).ok()).map(Arc::new));
        }
        files
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// What the file system says; it has the name it had.
    pub(crate) fn rename(&mut self, path: PathBuf) -> io::Result<()> {
        if path != self.path {
            self.give_up_shortening();
            fs::rename(&self.path, &path)?;
            self.path = path;
            self.unnamed = true;
        }
        Ok(())
    }

    /// Lets no shorter journal take this one's place any more: another may be about to read it, or it gets
    /// another name. Says whether one had done so already; then that is the journal from now on.
    pub(crate) fn give_up_shortening(&mut self) -> bool {
        let Shortening::Joined { file, length, place } =
            std::mem::replace(&mut self.shortening, Shortening::No)
        else {
            return false;
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = *place == Placed::There;
        if is_there {
            (self.file, self.length, self.snapshot) = (file, length, length);
            (self.unflushed, self.unnamed) = (true, true);
        } else {
            *place = Placed::Nowhere;
            // Tried again when there is as much more.
            self.snapshot = self.length;
        }
        is_there
    }

    /// A shorter journal to be made, if it is time.
    pub(crate) fn compaction(&mut self) -> Option<Compaction> {
        let worth = WORTH_COMPACTING.max(2 * self.snapshot);
        let due = matches!(self.shortening, Shortening::No) && self.length - self.snapshot > worth;
        due.then(|| {
            self.shortening = Shortening::Making;
            Compaction { path: self.path.clone(), length: self.length }
        })
    }

    /// Brings a shorter journal up to date; from now on both are written. None if it is of no use.
    ///
    /// # Errors
    /// What the file system says; the journal goes on as it is.
    pub(crate) fn join(&mut self, compacted: Option<Compacted>) -> io::Result<Option<Replacement>> {
        if !matches!(self.shortening, Shortening::Making) {
            return Ok(None);
        }
        self.shortening = Shortening::No;
        let Some(Compacted { file, covers, length }) = compacted else {
            // It cannot be read, or there is no room: tried again when there is as much more.
            self.snapshot = self.length;
            return Ok(None);
        };
        let mut tail = Vec::new();
        let mut long = File::open(&self.path)?;
        long.seek(SeekFrom::Start(covers))?;
        long.take(self.length - covers).read_to_end(&mut tail)?;
        let (file, from) = file.into_parts();
        (&file).write_all(&tail)?;
        let (file, place) = (Arc::new(file), Place::new(Mutex::new(Placed::Beside)));
        let length = length + tail.len() as u64;
        self.shortening = Shortening::Joined { file: file.clone(), length, place: place.clone() };
        Ok(Some(Replacement { from, to: self.path.clone(), file, place }))
    }
}

impl Compaction {
    /// Makes the shorter journal. None if it cannot be made.
    pub(crate) fn run(self) -> Option<Compacted> {
        let mut bytes = Vec::new();
        File::open(&self.path).ok()?.take(self.length).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 != self.length {
            return None;
        }
        let short = compacted(&bytes)?;
        // Private from the start, and gone again if nobody puts it in place.
        let mut file = tempfile::Builder::new();
        let file = file.prefix(".").suffix(NEW).append(true).tempfile_in(self.path.parent()?).ok()?;
        file.as_file().write_all(&short).ok()?;
        file.as_file().sync_data().ok()?;
        Some(Compacted { file, covers: self.length, length: short.len() as u64 })
    }
}

impl Replacement {
    /// Puts it in place, unless nobody wants it there any more.
    ///
    /// # Errors
    /// What the file system says; the long journal is in place then.
    pub(crate) fn run(self) -> io::Result<()> {
        self.file.sync_data()?;
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if *place == Placed::Beside {
            self.from.persist(&self.to).map_err(|error| error.error)?;
            *place = Placed::There;
        }
        Ok(())
    }
}

/// Makes what [`JournalFile::take_unflushed`] gave survive a power cut. May block.
///
/// # Errors
/// The disk could not keep it. What was not kept is not known.
pub(crate) fn flush(files: &[Arc<File>]) -> io::Result<()> {
    files.iter().try_for_each(|file| file.sync_data())
}
