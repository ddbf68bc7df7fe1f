//! Content of outputs that the blob store could not take: the disk is full, or not to be written.
//!
//! For: the [shell](super), which shows such outputs all the same.
//! Promises: what was refused stays in memory, where saves find it, and is tried again whenever the journal is; until it
//! is stored the journal names none of it, and no kernel forgets what the next daemon would have to ask for again. With
//! more than [`MOST`] of it nothing more is shown until it is stored.
//! Never: for a room without a journal, which nothing outlives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use runtimed_plugin_api::{
    Blob, BlobFile, BlobStore, Bytes, Digest, LiveSet, PluginError, Result, Swept, async_trait,
};

use super::{Done, RoomTask};
use crate::disk::{self, Refused};
use crate::ids::JobId;
use crate::outputs::NewBlob;
use crate::room::event::Event;

/// Bytes of refused content in memory, above which the room waits: as much as it collects before it listens no more.
const MOST: usize = 32 << 20;

/// What was refused.
#[derive(Default)]
pub(super) struct Unstored {
    blobs: Vec<NewBlob>,
    /// In the store's words.
    reason: String,
    /// Those that are being tried again. More may be refused meanwhile.
    trying: BTreeSet<Digest>,
    /// The end of this was not told to the core, so that no more comes.
    held: Option<JobId>,
}

impl Unstored {
    /// What is to be tried again now; nothing while that is under way.
    fn begin(&mut self) -> Vec<NewBlob> {
        if !self.trying.is_empty() {
            return Vec::new();
        }
        self.trying = self.blobs.iter().map(|blob| blob.digest).collect();
        self.blobs.clone()
    }

    /// What was tried again is stored, or comes back as refused.
    fn end(&mut self) {
        let tried = std::mem::take(&mut self.trying);
        self.blobs.retain(|blob| !tried.contains(&blob.digest));
    }

    fn bytes(&self) -> usize {
        self.blobs.iter().map(|blob| blob.bytes.len()).sum()
    }
}

impl RoomTask {
    /// The end of storing blobs: new ones for `job`, or those that were refused before.
    pub(super) fn blobs_stored(&mut self, job: Option<JobId>, refused: Option<Refused>) {
        let unstored = &mut self.unstored;
        if job.is_none() {
            unstored.end();
        }
        self.keep_unstored(refused);
        let unstored = &mut self.unstored;
        let held = unstored.held.take();
        match job.or(held) {
            Some(job) if unstored.bytes() > MOST => {
                unstored.held = Some(job);
                let reason = unstored.reason.clone();
                self.handle(Event::JournalFailed { reason, lost: false });
            }
            Some(job) => self.handle(Event::BlobsStored { job }),
            None => {}
        }
        if job.is_none() && self.unstored.blobs.is_empty() {
            self.handle(Event::BlobsTaken);
        }
    }

    /// Keeps what was refused, before anything is told that names it.
    pub(super) fn keep_unstored(&mut self, refused: Option<Refused>) {
        if let Some(Refused { blobs, reason }) = refused.filter(|_| self.core.has_journal()) {
            self.unstored.blobs.extend(blobs);
            self.unstored.reason = reason;
        }
    }

    /// Why nothing may be appended now, if so. What was refused is tried again.
    pub(super) fn refused(&mut self) -> Option<String> {
        if self.unstored.blobs.is_empty() {
            return None;
        }
        let blobs = self.unstored.begin();
        if !blobs.is_empty() {
            let store = self.host.blob_store();
            self.jobs
                .spawn(async move { Done::Stored(None, disk::store_blobs(store.as_deref(), blobs).await) });
        }
        Some(self.unstored.reason.clone())
    }

    /// The blob store, and what it refused.
    pub(super) fn all_blobs(&self) -> Option<Arc<dyn BlobStore>> {
        let store = self.host.blob_store()?;
        let refused: BTreeMap<_, _> =
            self.unstored.blobs.iter().map(|blob| (blob.digest, blob.clone())).collect();
        Some(if refused.is_empty() { store } else { Arc::new(Both { store, refused }) })
    }
}

/// A blob store, and content that it refused, for readers.
struct Both {
    store: Arc<dyn BlobStore>,
    refused: BTreeMap<Digest, NewBlob>,
}

#[async_trait]
impl BlobStore for Both {
    async fn put(&self, bytes: Bytes, media_type: &str) -> Result<Digest> {
        self.store.put(bytes, media_type).await
    }

    async fn get(&self, digest: Digest) -> Result<Option<Blob>, PluginError> {
        match self.refused.get(&digest) {
            Some(blob) => Ok(Some(Blob { bytes: blob.bytes.clone(), media_type: blob.media_type.clone() })),
            None => self.store.get(digest).await,
        }
    }

    async fn locate(&self, digest: Digest) -> Result<Option<BlobFile>> {
        self.store.locate(digest).await
    }

    async fn sweep(&self, live: LiveSet) -> Result<Swept> {
        self.store.sweep(live).await
    }

    async fn flush(&self) -> Result<()> {
        self.store.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(text: &'static str) -> NewBlob {
        NewBlob {
            digest: Digest([text.as_bytes()[0]; 32]),
            bytes: text.into(),
            media_type: "text/plain".into(),
        }
    }

    #[test]
    fn what_is_refused_while_others_are_tried_again_stays() {
        let mut unstored = Unstored { blobs: vec![blob("a"), blob("b")], ..Unstored::default() };
        assert_eq!(unstored.begin().len(), 2);
        assert!(unstored.begin().is_empty(), "it is under way");
        unstored.blobs.push(blob("c"));
        // `a` could be stored, `b` could not.
        unstored.end();
        unstored.blobs.push(blob("b"));
        let left: Vec<_> = unstored.begin().iter().map(|blob| blob.bytes.clone()).collect();
        assert_eq!(left, ["c", "b"]);
    }
}
