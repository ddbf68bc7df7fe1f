//! The store itself, as blocking calls.
//!
//! For: [`crate::capability`], which runs these calls on threads that may block.
//! Promises: a reader never sees half a blob, nor one without its type: both files are renamed into place,
//! the sidecar first; what is damaged is reported, moved aside and counts as missing, and storing it again repairs it.
//! Never: a cache (the system's page cache is one), a lock on another blob's way: only a sweep excludes puts.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use jiff::Timestamp;
use runtimed_plugin_api::{Blob, BlobFile, Digest, ErrorCode, PluginError, Result};
use sha2::{Digest as _, Sha256};

use crate::layout::{Layout, Meta};

/// Flushes under way at once. A file system puts those that wait together into one commit of its journal:
/// 300 blobs of 1 KiB took 940 ms one by one and 34 ms so (ext4 on a virtual disk).
const FLUSHES_AT_ONCE: usize = 8;

/// Bytes of a file that are compared at once: few system calls, and little stack.
const COMPARED_AT_ONCE: usize = 16 << 10;

/// Blobs below one folder.
#[derive(Debug)]
pub(crate) struct Store {
    layout: Layout,
    /// Written by a sweep for each deletion, read by each put: a sweep never deletes what a put has just
    /// found or made.
    pub(crate) deleting: RwLock<()>,
    /// What was stored since the last flush.
    unsynced: Mutex<BTreeSet<Digest>>,
    /// Held during a flush, so that a second one waits for what the first is still writing.
    flushing: Mutex<()>,
}

impl Store {
    /// The store below `root`, which need not exist yet.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            layout: Layout::new(root),
            deleting: RwLock::default(),
            unsynced: Mutex::default(),
            flushing: Mutex::default(),
        }
    }

    /// Makes the store's folder.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        make_private_folder(self.layout.root())
    }

    /// The store's file names.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// See [`runtimed_plugin_api::BlobStore::put`].
    pub(crate) fn put(&self, bytes: &[u8], media_type: &str) -> Result<Digest> {
        let digest = Digest(Sha256::digest(bytes).into());
        let _no_deletion = self.deleting.read().unwrap_or_else(PoisonError::into_inner);
        self.write(digest, bytes, media_type).map_err(|error| self.unwritable(&error))?;
        Ok(digest)
    }

    /// See [`runtimed_plugin_api::BlobStore::get`].
    pub(crate) fn get(&self, digest: Digest) -> Result<Option<Blob>> {
        let Some(file) = self.locate(digest)? else { return Ok(None) };
        let Some(bytes) = found(fs::read(&file.path)).map_err(|error| self.unreadable(&error))? else {
            return Ok(None);
        };
        if Digest(Sha256::digest(&bytes).into()) != digest {
            self.set_aside(digest, "it has other content than it should");
            return Ok(None);
        }
        Ok(Some(Blob { bytes: bytes.into(), media_type: file.media_type }))
    }

    /// See [`runtimed_plugin_api::BlobStore::locate`]. Two small file operations; the content is not read.
    pub(crate) fn locate(&self, digest: Digest) -> Result<Option<BlobFile>> {
        let path = self.layout.data(digest);
        let metadata = found(fs::metadata(&path)).map_err(|error| self.unreadable(&error))?;
        let Some(size) = metadata.map(|metadata| metadata.len()) else { return Ok(None) };
        let meta = self.meta(digest).map_err(|error| self.unreadable(&error))?;
        match meta {
            Some(meta) if meta.size == size => Ok(Some(BlobFile { path, size, media_type: meta.media_type })),
            Some(_) => {
                self.set_aside(digest, "it has another length than it should");
                Ok(None)
            }
            None => {
                tracing::error!(%digest, size, "a blob has lost its type; it counts as missing");
                Ok(None)
            }
        }
    }

    /// See [`runtimed_plugin_api::BlobStore::flush`].
    pub(crate) fn flush(&self) -> Result<()> {
        let _order = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut digests = std::mem::take(&mut *self.unsynced());
        let result = self.sync(&digests);
        if result.is_err() {
            self.unsynced().append(&mut digests);
        }
        result.map_err(|error| self.unwritable(&error))
    }

    /// Moves a damaged blob out of everybody's way, unless it was stored anew meanwhile.
    fn set_aside(&self, digest: Digest, why: &str) {
        let _alone = self.deleting.write().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = (self.layout.data(digest), self.layout.quarantined(digest));
        let is_wrong = fs::read(&from).is_ok_and(|bytes| Digest(Sha256::digest(&bytes).into()) != digest);
        if !is_wrong {
            return;
        }
        let moved = make_private_folder(&self.layout.quarantine()).and_then(|()| fs::rename(&from, &to));
        match moved {
            Ok(()) => {
                tracing::error!(%digest, why, moved_to = %to.display(), "a blob is damaged; it counts as missing")
            }
            Err(error) => {
                tracing::error!(%digest, why, %error, "a blob is damaged and cannot be moved; it counts as missing")
            }
        }
    }

    fn write(&self, digest: Digest, bytes: &[u8], media_type: &str) -> io::Result<()> {
        let (path, size) = (self.layout.data(digest), bytes.len() as u64);
        let whole = holds(&path, bytes);
        let old = self.meta(digest)?;
        let mut meta = Meta::new(media_type, size, Timestamp::now());
        if let Some(old) = &old {
            meta.created_at.clone_from(&old.created_at);
        }
        if !whole {
            make_private_folder(&self.layout.folder(digest))?;
        }
        if old.as_ref() != Some(&meta) {
            let mut line = serde_json::to_vec(&meta)?;
            line.push(b'\n');
            self.replace(&self.layout.meta(digest), &line)?;
        }
        if whole {
            // Young again: a sweep that does not know of this put yet must leave it.
            File::options().write(true).open(&path)?.set_modified(SystemTime::now())?;
        } else {
            self.replace(&path, bytes)?;
        }
        self.unsynced().insert(digest);
        Ok(())
    }

    /// Puts a finished file in place at once.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.layout.temporary();
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let placed =
            written.and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&temporary, path));
        if placed.is_err() {
            // If even this fails, the next start removes it.
            let _ = fs::remove_file(&temporary);
        }
        placed
    }

    /// The sidecar of `digest`; none if it is missing or unreadable as JSON.
    fn meta(&self, digest: Digest) -> io::Result<Option<Meta>> {
        let json = found(fs::read(self.layout.meta(digest)))?;
        Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    fn sync(&self, digests: &BTreeSet<Digest>) -> io::Result<()> {
        let files = digests.iter().flat_map(|digest| [self.layout.data(*digest), self.layout.meta(*digest)]);
        sync_all(&files.collect::<Vec<_>>())?;
        // The names: of blobs in their folders, of folders in the root.
        let folders: BTreeSet<_> = digests.iter().map(|digest| self.layout.folder(*digest)).collect();
        let root = (!folders.is_empty()).then(|| self.layout.root().to_owned());
        sync_all(&folders.into_iter().chain(root).collect::<Vec<_>>())
    }

    fn unsynced(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn unwritable(&self, error: &io::Error) -> PluginError {
        let message =
            format!("could not write to the blob store `{}`: {error}", self.layout.root().display());
        let blob = "This content was not stored; everything stored before is untouched.";
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                PluginError::new(ErrorCode::Denied, message)
                    .help(format!("{blob} Make the folder writable for the daemon's user."))
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                PluginError::unavailable(message).help(format!("{blob} Free some space and try again."))
            }
            _ => PluginError::internal(message).help(blob),
        }
    }

    fn unreadable(&self, error: &io::Error) -> PluginError {
        let message =
            format!("could not read from the blob store `{}`: {error}", self.layout.root().display());
        match error.kind() {
            io::ErrorKind::PermissionDenied => PluginError::new(ErrorCode::Denied, message)
                .help("Nothing was changed. Make the folder readable for the daemon's user."),
            _ => PluginError::internal(message),
        }
    }
}

/// Whether a file holds exactly `bytes`. One that cannot be read does not.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    let mut chunk = [0; COMPARED_AT_ONCE];
    let mut rest = bytes;
    while let Ok(count) = file.read(&mut chunk) {
        let (read, expected) = (chunk.get(..count).unwrap_or_default(), rest.get(..count));
        if count == 0 {
            return rest.is_empty();
        }
        if expected != Some(read) {
            return false;
        }
        rest = rest.get(count..).unwrap_or_default();
    }
    false
}

/// What is there, or none if there is nothing of that name.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Flushes files and folders to the disk, several at once. What was swept meanwhile needs no flush.
fn sync_all(paths: &[PathBuf]) -> io::Result<()> {
    let sync = |path: &PathBuf| found(File::open(path))?.map_or(Ok(()), |file| file.sync_all());
    std::thread::scope(|scope| {
        let chunks = paths.chunks(paths.len().div_ceil(FLUSHES_AT_ONCE).max(1));
        let threads: Vec<_> =
            chunks.map(|chunk| scope.spawn(move || chunk.iter().try_for_each(sync))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread that flushes panicked")))
        })
    })
}

/// Makes a folder, and those above it, that only our user can enter.
fn make_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
