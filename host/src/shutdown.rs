//! Stopping: who asks for it and who hears about it.
//!
//! For: signals and the `shutdown` request on one side, every task on the other.
//! Promises: asked once, heard by all clones; a second request changes nothing.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The daemon's stop signal. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Asks the daemon to stop.
    pub fn begin(&self) {
        self.0.cancel();
    }

    /// Whether the daemon is stopping.
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when the daemon begins to stop.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// The token behind it.
    pub fn token(&self) -> &CancellationToken {
        &self.0
    }
}

/// Resolves at the first SIGTERM or SIGINT, with its name.
///
/// # Errors
/// When the system refuses to deliver signals to us.
pub async fn signalled() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
