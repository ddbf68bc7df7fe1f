//! Stopping: who asks for it and who hears about it.
//!
//! For: signals and the `shutdown` request on one side, every task on the other.
//! Promises: asked once, heard by all clones; a second request changes nothing but whether kernels end.

use std::io::{IsTerminal, stderr};
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
    hang_up: Signal,
    /// Somebody watches, or did until the terminal was closed.
    on_terminal: bool,
}

impl Signals {
    /// From now on SIGTERM, SIGINT and SIGHUP end nothing by themselves.
    ///
    /// # Errors
    /// When the system refuses to deliver signals to us.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            on_terminal: stderr().is_terminal(),
        })
    }

    /// Waits for the next signal that asks to stop and tells its name. SIGHUP does when the daemon was started on a
    /// terminal, which is closed now; otherwise there is nothing to read again: settings are watched. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => {
                    if self.on_terminal {
                        return "SIGHUP";
                    }
                    tracing::info!("SIGHUP: nothing to do; changed settings are taken over as they are saved");
                }
            }
        }
    }
}
