//! Kernels that outlived a daemon, and whose they are.
//!
//! For: work that goes on though nobody has opened its notebook again.
//! Promises: a notebook whose journal names a kernel that is there comes back and goes on with it; a kernel that no
//! journal names ends; one whose journal cannot be read stays for whoever mends that.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use runtimed_plugin_api::{
    Channel, ExitReport, KernelBackend, KernelEvents, KernelRecord, PluginError, Sequence,
};
use uuid::Uuid;

use crate::journal::{Folded, JournalFolder};
use crate::room::task::GRACE;
use crate::rooms::OpenNotebooks;

/// Looks after every kernel that is there at start.
pub(crate) async fn claim(rooms: Arc<OpenNotebooks>) {
    let Some(backend) = rooms.directory.host.kernel_backend("") else { return };
    let records = match backend.running().await {
        Ok(records) => records,
        Err(error) => return tracing::warn!(%error, "kernels of a former daemon were not looked for"),
    };
    for record in records {
        let kernel = record.spec.kernel.clone();
        let room: Option<Uuid> = record.spec.room.parse().ok();
        let done = match owner(&rooms.directory.journals, record).await {
            Ok(Some(room)) => rooms.existing(room).await.map(drop),
            // Of a room that is open it may be the new kernel, which the journal does not name before it is up.
            Ok(None) if room.is_some_and(|room| rooms.directory.is_open(room)) => Ok(()),
            Ok(None) => end(&*backend, &kernel).await,
            Err(error) => Err(PluginError::unavailable(error.to_string())),
        };
        if let Err(error) = done {
            tracing::warn!(%error, kernel, "a kernel of a former daemon was not taken over");
        }
    }
}

/// The room whose journal names the kernel.
async fn owner(journals: &JournalFolder, record: KernelRecord) -> io::Result<Option<Uuid>> {
    let (Ok(room), Ok(kernel)) = (record.spec.room.parse::<Uuid>(), record.spec.kernel.parse::<Uuid>())
    else {
        return Ok(None);
    };
    let journals = journals.clone();
    let names_it = tokio::task::spawn_blocking(move || {
        let Some(journal) = journals.of_room(room)? else { return Ok(false) };
        let folded = Folded::read(&std::fs::read(journal)?).map_err(io::Error::other)?;
        Ok::<_, io::Error>(folded.kernel.is_some_and(|named| named.kernel == kernel))
    });
    Ok(names_it.await.map_err(io::Error::other)??.then_some(room))
}

async fn end(backend: &dyn KernelBackend, kernel: &str) -> Result<(), PluginError> {
    tracing::info!(kernel, "a kernel ends that belongs to no notebook");
    // What it said is nobody's any more.
    let kernel = backend.attach(kernel, Sequence::MAX, Arc::new(Nobody)).await?;
    kernel.shutdown(GRACE).await.map(drop)
}

/// Hears nothing.
struct Nobody;

impl KernelEvents for Nobody {
    fn message(&self, _: Sequence, _: Channel, _: Bytes) {}
    fn exited(&self, _: ExitReport) {}
}
