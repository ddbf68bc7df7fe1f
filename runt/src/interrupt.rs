//! Being asked to end, by Ctrl-C or a signal.
//!
//! For: commands that have something to tidy up before they do.
//! Promises: from the moment one is made, no request is lost, even if nobody waits for it just then.

use std::future::Future;
use std::io;

use anyhow::anyhow;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears of requests to end, which no longer end this program by themselves.
pub(crate) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits until somebody asks.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Does `work`, which is dropped when somebody asks.
    ///
    /// # Errors
    /// Those of the work, and one that says that it was interrupted.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            () = self.asked() => Err(anyhow!("interrupted")),
            done = work => done,
        }
    }
}
