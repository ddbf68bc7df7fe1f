//! The pool document: how full the pools are, shown to every notebook connection.
//!
//! For: `notebook.rs`, which carries it in frames of type 06.
//! Promises: only the daemon writes it; what a client writes is dropped without an endless exchange.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use runtimed_protocol::documents::pool::PoolState;
use runtimed_protocol::documents::sync::{Incoming, SyncError};
use runtimed_protocol::documents::{Document, PoolDoc, SyncPeer};
use runtimed_protocol::pool::PoolStatus;
use tokio::sync::watch;

use crate::pools::Pools;
use crate::shutdown::Shutdown;

/// The daemon's one pool document.
pub struct PoolDocument {
    document: Mutex<PoolDoc>,
    /// Grows with each change, for the connections.
    version: watch::Sender<u64>,
}

impl PoolDocument {
    /// A document that shows empty pools.
    ///
    /// # Errors
    /// None that can happen on a new document.
    pub fn new() -> anyhow::Result<Self> {
        // A label of its own for each life of the daemon: two lives never number changes alike.
        let actor = format!("runtimed:pool:{}", uuid::Uuid::new_v4().simple());
        Ok(Self { document: Mutex::new(PoolDoc::new(&actor)?), version: watch::Sender::new(0) })
    }

    /// Shows every change of the pools until the daemon stops.
    pub async fn follow(&self, pools: &Pools, shutdown: &Shutdown) {
        let mut changes = pools.watch();
        let mut shown = BTreeMap::new();
        loop {
            let pools = changes.borrow_and_update().clone();
            if self.show(&pools, &shown) {
                self.version.send_modify(|version| *version += 1);
            }
            shown = pools;
            tokio::select! {
                () = shutdown.begun() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Writes what is different from `before`; false if nothing is.
    fn show(&self, pools: &BTreeMap<String, PoolStatus>, before: &BTreeMap<String, PoolStatus>) -> bool {
        let mut document = self.document();
        for kind in before.keys().filter(|kind| !pools.contains_key(*kind)) {
            if let Err(error) = document.remove(kind) {
                tracing::error!("could not remove the {kind} pool: {error}");
            }
        }
        for (kind, status) in pools {
            if let Err(error) = document.set(kind, &shown(status)) {
                tracing::error!("could not show the {kind} pool: {error}");
            }
        }
        document.commit().is_some()
    }

    /// Hears about changes.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The next sync message for a client, if there is anything to say.
    pub(super) fn message_for(&self, peer: &mut SyncPeer) -> Option<Vec<u8>> {
        peer.generate(&mut *self.document())
    }

    /// Takes a client's message; changes in it are dropped.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn receive(&self, peer: &mut SyncPeer, message: &[u8]) -> Result<(), SyncError> {
        let incoming = Incoming::decode(message)?;
        peer.receive_stripped(&mut *self.document(), incoming)?;
        Ok(())
    }

    fn document(&self) -> MutexGuard<'_, PoolDoc> {
        self.document.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn shown(status: &PoolStatus) -> PoolState {
    PoolState {
        available: status.available,
        warming: status.warming,
        pool_size: status.pool_size,
        consecutive_failures: status.consecutive_failures,
        retry_in_secs: status.retry_in_secs,
        error: status.error.clone(),
        failed_package: status.failed_package.clone(),
        error_kind: status.error_kind.clone(),
    }
}
