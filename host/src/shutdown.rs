//! Stopping: who asks for it and who hears about it.
//!
//! For: signals and the `shutdown` request on one side, every task on the other.
//! Promises: asked once, heard by all clones; a second request changes nothing but whether kernels end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The daemon's stop signal. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    begun: CancellationToken,
    ends_kernels: Arc<AtomicBool>,
}

impl Shutdown {
    /// Asks the daemon to stop. Kernels that can outlive it do.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Asks the daemon to stop, and every kernel before it.
    pub fn begin_with_kernels(&self) {
        self.ends_kernels.store(true, Ordering::Release);
        self.begun.cancel();
    }

    /// Whether kernels are to end with the daemon.
    pub fn ends_kernels(&self) -> bool {
        self.ends_kernels.load(Ordering::Acquire)
    }

    /// Whether the daemon is stopping.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Resolves when the daemon begins to stop.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// The token behind it.
    pub fn token(&self) -> &CancellationToken {
        &self.begun
    }
}

/// The signals that ask a daemon to stop.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on SIGTERM and SIGINT end nothing by themselves.
    ///
    /// # Errors
    /// When the system refuses to deliver signals to us.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal and tells its name. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
