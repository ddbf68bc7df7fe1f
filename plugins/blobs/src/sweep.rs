//! Deleting what nothing refers to any more, and what was never finished.
//!
//! Promises: what is in the live set, or was within the grace time, or was stored in it, stays;
//! the bytes go before their sidecar, so a blob never stands there without its type.
//! Never: touches a file whose name is not one of ours.

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use runtimed_plugin_api::{Digest, LiveSet, Result, Swept};

use crate::layout::{Layout, TEMPORARY};
use crate::store::{Store, found};

impl Store {
    /// See [`runtimed_plugin_api::BlobStore::sweep`].
    pub(crate) fn sweep(&self, live: &LiveSet) -> Result<Swept> {
        self.delete_unreferenced(live).map_err(|error| self.unwritable(&error))
    }

    fn delete_unreferenced(&self, live: &LiveSet) -> io::Result<Swept> {
        let grace = Duration::from_secs(live.grace_secs);
        let mut swept = Swept::default();
        for folder in entries(self.layout().root())? {
            let Some(folder_name) = folder.file_name().to_str().map(str::to_owned) else { continue };
            if folder_name.len() != 2 || !folder.file_type()?.is_dir() {
                continue;
            }
            for file in entries(&folder.path())? {
                let name = file.file_name();
                let Some(digest) = name.to_str().and_then(|name| Layout::digest(&folder_name, name)) else {
                    continue;
                };
                let is_data = file.path() == self.layout().data(digest);
                match (live.digests.contains(&digest), is_data) {
                    (true, true) => {
                        swept.kept += 1;
                        self.keep(digest, grace)?;
                    }
                    (true, false) => {}
                    (false, true) => match self.delete(digest, grace)? {
                        Some(bytes) => {
                            swept.deleted += 1;
                            swept.bytes += bytes;
                        }
                        None => swept.kept += 1,
                    },
                    (false, false) => self.delete_orphan(digest, grace)?,
                }
            }
        }
        Ok(swept)
    }

    /// Makes a blob young that is referred to: what counts is when something last did.
    fn keep(&self, digest: Digest, grace: Duration) -> io::Result<()> {
        let path = self.layout().data(digest);
        if is_older(&path, grace / 2)? {
            found(
                File::options().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now())),
            )?;
        }
        Ok(())
    }

    /// Deletes a blob that is older than `grace`; says how many bytes it had.
    fn delete(&self, digest: Digest, grace: Duration) -> io::Result<Option<u64>> {
        let _alone = self.deleting.write().unwrap_or_else(PoisonError::into_inner);
        let path = self.layout().data(digest);
        if !is_older(&path, grace)? {
            return Ok(None);
        }
        let size = fs::metadata(&path)?.len();
        fs::remove_file(&path)?;
        found(fs::remove_file(self.layout().meta(digest)))?;
        Ok(Some(size))
    }

    /// Deletes a sidecar without a blob: a crash between the two renames left it.
    fn delete_orphan(&self, digest: Digest, grace: Duration) -> io::Result<()> {
        let _alone = self.deleting.write().unwrap_or_else(PoisonError::into_inner);
        let path = self.layout().meta(digest);
        if !self.layout().data(digest).try_exists()? && is_older(&path, grace)? {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Files that were being written when an earlier daemon ended; to be called before the first put.
    pub(crate) fn unfinished(&self) -> Vec<PathBuf> {
        let entries = entries(self.layout().root()).unwrap_or_default().into_iter();
        let unfinished = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY));
        unfinished.map(|entry| entry.path()).collect()
    }
}

/// Deletes `files`, reporting those that cannot be.
pub(crate) fn delete_unfinished(files: Vec<PathBuf>) {
    for file in files {
        if let Err(error) = fs::remove_file(&file) {
            tracing::warn!(file = %file.display(), %error, "could not delete an unfinished blob");
        }
    }
}

/// Whether `path` is there and was last changed more than `grace` ago. A time in the future counts as now.
fn is_older(path: &Path, grace: Duration) -> io::Result<bool> {
    let Some(metadata) = found(fs::metadata(path))? else { return Ok(false) };
    let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
    Ok(age >= grace)
}

fn entries(folder: &Path) -> io::Result<Vec<DirEntry>> {
    found(fs::read_dir(folder))?.map_or_else(|| Ok(Vec::new()), Iterator::collect)
}
