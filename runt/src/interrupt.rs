//! Being asked to end, by Ctrl-C or a signal.
//!
//! For: commands that have something to tidy up before they do.
//! Promises: from the moment one is made, no request is lost, even if nobody waits for it just then.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears of requests to end, which no longer end this program by themselves.
pub(crate) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// What somebody asks. As an error: why something was not done to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Ctrl-C: stop what is being done.
    Stop,
    /// SIGTERM, or the terminal is gone: end.
    End,
}

impl Asked {
    /// What shells say of a program that a signal has ended: 128 and its number.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Stop => 128 + 2,
            Self::End => 128 + 15,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("interrupted")
    }
}

impl Error for Asked {}

impl Interrupt {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until somebody asks.
    pub(crate) async fn asked(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::End,
            _ = self.hang_up.recv() => Asked::End,
        }
    }

    /// Does `work`, which is dropped when somebody asks.
    ///
    /// # Errors
    /// Those of the work, and one that says that it was interrupted.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            asked = self.asked() => Err(asked.into()),
            done = work => done,
        }
    }
}
