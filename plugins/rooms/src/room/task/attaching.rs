//! Kernels that outlived the daemon.
//!
//! For: a room that comes back, and whose kernel is still there.
//! Promises: the kernel says everything again that the journal does not have; one that cannot be reached in time
//! counts as gone.

use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{Host, Kernel};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::{FromKernel, Line};
use crate::ids::LaunchId;
use crate::room::revive::Left;

/// A kernel answers in milliseconds. One that does not for this long keeps its notebook closed no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Goes on with the kernel that the journal names, if it is there.
pub(super) async fn attach(
    host: &Host,
    left: &Left,
    sender: &UnboundedSender<FromKernel>,
) -> Option<(LaunchId, Arc<dyn Kernel>)> {
    let kept = left.kernel.as_ref()?;
    let launch = LaunchId(kept.kernel);
    let events = Arc::new(Line { launch, sender: sender.clone() });
    let backend = host.kernel_backend(&kept.kind)?;
    let kernel = kept.kernel.to_string();
    let attached = timeout(PATIENCE, backend.attach(&kernel, left.heard.sequence, events)).await;
    match attached {
        Ok(Ok(kernel)) => {
            tracing::info!(kernel = %kept.kernel, after = left.heard.sequence, "a notebook goes on with its kernel");
            Some((launch, kernel.into()))
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, kernel, "a notebook lost its kernel");
            None
        }
        Err(_) => {
            tracing::warn!(kernel, "a notebook lost its kernel: it does not answer");
            None
        }
    }
}
