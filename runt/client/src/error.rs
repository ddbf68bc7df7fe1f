//! What can go wrong between a client and the daemon.
//!
//! For: callers that print it; the texts are those that users and scripts know.

use std::io;
use std::time::Duration;

use runtimed_protocol::documents::DocumentError;

/// Result of a call to the daemon.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// A failed call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("Failed to connect to daemon: {0}")]
    Connect(#[source] io::Error),
    /// The daemon took too long to accept or to answer.
    #[error("Connection timeout")]
    Timeout,
    /// A request to a notebook was not answered in time. It may still be carried out.
    #[error("The daemon did not answer `{action}` within {} s", limit.as_secs())]
    Unanswered {
        /// Name of the request.
        action: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection ended: the daemon went away, or closed it.
    #[error("Protocol error: connection closed")]
    Disconnected,
    /// The daemon said something that makes no sense here.
    #[error("Protocol error: {0}")]
    Protocol(String),
    /// A shared document cannot be read or changed.
    #[error("Protocol error: {0}")]
    Document(#[from] DocumentError),
    /// The daemon does not have this content, and will not have it again by itself.
    #[error("Protocol error: blob {0} is not there any more")]
    NoBlob(String),
    /// The daemon refused, and says why.
    #[error("Daemon returned error: {0}")]
    Daemon(String),
}

impl ClientError {
    /// A peer that breaks the protocol.
    pub(crate) fn protocol(error: impl ToString) -> Self {
        Self::Protocol(error.to_string())
    }
}
