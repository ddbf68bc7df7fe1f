//! The blob store as the host sees it.
//!
//! Promises: every call runs on a thread that may block; nothing here holds one of the runtime's.

use std::sync::Arc;

use runtimed_plugin_api::{
    Blob, BlobFile, BlobStore, Bytes, Digest, ErrorCode, LiveSet, PluginError, Result, Swept, async_trait,
};

use crate::store::Store;

/// A [`Store`] behind the capability's trait.
pub(crate) struct DiskBlobs(pub(crate) Arc<Store>);

impl DiskBlobs {
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.0.clone();
        let done = tokio::task::spawn_blocking(move || call(&store)).await;
        done.map_err(|error| match error.is_panic() {
            true => PluginError::new(ErrorCode::Panicked, "the blob store panicked"),
            false => PluginError::new(ErrorCode::Cancelled, "the daemon is stopping; the call was not made"),
        })?
    }
}

#[async_trait]
impl BlobStore for DiskBlobs {
    async fn put(&self, bytes: Bytes, media_type: &str) -> Result<Digest> {
        let media_type = media_type.to_owned();
        self.run(move |store| store.put(&bytes, &media_type)).await
    }

    async fn get(&self, digest: Digest) -> Result<Option<Blob>> {
        self.run(move |store| store.get(digest)).await
    }

    async fn locate(&self, digest: Digest) -> Result<Option<BlobFile>> {
        self.run(move |store| store.locate(digest)).await
    }

    async fn sweep(&self, live: LiveSet) -> Result<Swept> {
        self.run(move |store| store.sweep(&live)).await
    }

    async fn flush(&self) -> Result<()> {
        self.run(Store::flush).await
    }
}
