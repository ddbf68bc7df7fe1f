//! Where the parts of an upload wait to become a blob.
//!
//! For: uploads of up to 256 MiB by every connection, of which memory holds one part each.
//! Promises: what is staged has no name, so it is gone with the connection or the daemon, however that ends;
//! of all uploads one at a time is put together in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use runtimed_plugin_api::{BlobStore, Digest, PluginError};
use tokio::sync::Semaphore;

use crate::outputs::mime::digest;

/// The files of all uploads.
pub(crate) struct Staging {
    folder: PathBuf,
    /// Lets one upload at a time be put together: a store takes a blob as one piece of memory.
    turn: Semaphore,
}

/// The file of one upload. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Staged {
    file: Arc<File>,
    staging: Arc<Staging>,
}

impl Staging {
    /// Files on the file system of `folder`.
    pub(crate) fn new(folder: &Path) -> Arc<Self> {
        Arc::new(Self { folder: folder.to_owned(), turn: Semaphore::new(1) })
    }

    /// A file that nobody else can open.
    ///
    /// # Errors
    /// What the file system says; so for all below.
    pub(crate) async fn begin(self: Arc<Self>) -> Result<Staged, PluginError> {
        let folder = self.folder.clone();
        let file = Arc::new(blocking(move || tempfile::tempfile_in(folder)).await?);
        Ok(Staged { file, staging: self })
    }
}

impl Staged {
    /// Writes a part to `at`, if it is not there yet, and says what it is.
    pub(crate) async fn stage(self, at: Option<u64>, part: Bytes) -> Result<Digest, PluginError> {
        blocking(move || {
            if let Some(at) = at {
                self.file.write_all_at(&part, at)?;
            }
            Ok(digest(&part))
        })
        .await
    }

    /// Stores the bytes at `pieces` (offsets and lengths), one behind the other.
    pub(crate) async fn store(
        self,
        pieces: Vec<(u64, u64)>,
        media_type: &str,
        blobs: Arc<dyn BlobStore>,
    ) -> Result<Digest, PluginError> {
        let turn = self.staging.turn.acquire().await;
        let _turn = turn.map_err(|error| PluginError::internal(error.to_string()))?;
        let file = self.file;
        let whole = blocking(move || {
            let mut whole = Vec::new();
            for (at, length) in pieces {
                let (begin, length) = (whole.len(), usize::try_from(length).map_err(io::Error::other)?);
                whole.resize(begin + length, 0);
                file.read_exact_at(whole.get_mut(begin..).unwrap_or_default(), at)?;
            }
            Ok(whole)
        })
        .await?;
        blobs.put(whole.into(), media_type).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, PluginError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
    done.map_err(|error| {
        PluginError::internal(format!("The upload was not staged: {error}. Nothing was stored."))
            .help("Make room on the disk and upload it again.")
    })
}
