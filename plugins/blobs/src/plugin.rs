//! The plugin's life.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtimed_plugin_api::{BlobStore, Host, Plugin, Result, async_trait};
use tokio::task::JoinSet;

use crate::capability::DiskBlobs;
use crate::store::Store;
use crate::sweep::delete_unfinished;

/// Keeps blobs in the host's blob directory.
pub struct BlobsPlugin {
    store: Arc<Store>,
    capability: Arc<DiskBlobs>,
    /// The start's clean-up of unfinished files.
    background: Mutex<JoinSet<()>>,
}

#[async_trait]
impl Plugin for BlobsPlugin {
    fn create(host: Host) -> Result<Self> {
        let store = Arc::new(Store::new(host.directories().blobs));
        let capability = Arc::new(DiskBlobs(store.clone()));
        Ok(Self { store, capability, background: Mutex::default() })
    }

    async fn start(&self) -> Result<()> {
        // Clients look for it once, when they connect, and read blobs over HTTP only if it is not there.
        if let Err(error) = self.store.prepare() {
            tracing::warn!(%error, "the folder of blobs was not made; the first blob will say why");
        }
        // Listed now, before the first put can add one of ours; deleted without holding up the start.
        let unfinished = self.store.unfinished();
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        background.spawn_blocking(move || delete_unfinished(unfinished));
        Ok(())
    }

    async fn stop(&self, _grace: Duration) -> Result<()> {
        let mut background =
            std::mem::take(&mut *self.background.lock().unwrap_or_else(PoisonError::into_inner));
        while background.join_next().await.is_some() {}
        self.capability.flush().await
    }

    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        Some(self.capability.clone())
    }
}
