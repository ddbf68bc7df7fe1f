//! A session that goes on with the next daemon.
//!
//! For: long work, which outlives the daemon and wants to be watched to its end.
//! Promises: tries again until its patience ends; a refusal ends it at once. What was edited meanwhile is sent, and
//! requests that may be repeated are.

use std::path::PathBuf;
use std::time::Duration;

use runtimed_protocol::bootstrap::Bootstrap;
use runtimed_protocol::frame::FRAME_MAX;
use runtimed_protocol::handshake::{Handshake, NotebookSync};
use tokio::time::timeout;

use crate::connection::Connection;
use crate::retry::until_reached;
use crate::{ClientError, Result};

/// Longest wait for the daemon to open a notebook. The content is not awaited: it follows.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(30);

/// How a lost connection is made again.
pub(super) struct Resume {
    pub(super) socket: PathBuf,
    /// As whom.
    pub(super) operator: Option<String>,
    /// The name under which the replicas write, which must stay what it was.
    pub(super) actor: Option<String>,
    /// How long to try.
    pub(super) patience: Duration,
}

impl Resume {
    /// Joins the notebook again.
    ///
    /// # Errors
    /// The daemon's refusal, or `Disconnected` when there is no more patience.
    pub(super) async fn connect(&self, notebook_id: &str) -> Result<Connection> {
        let handshake = join(notebook_id, self.operator.clone());
        let joining = until_reached(self.patience, || introduce(&self.socket, &handshake));
        let (connection, bootstrap) = match joining.await {
            Err(ClientError::Connect(_) | ClientError::Timeout) => return Err(ClientError::Disconnected),
            joined => joined?,
        };
        if bootstrap.capabilities().actor_label != self.actor {
            return Err(ClientError::Protocol("the next daemon knows us by another name".into()));
        }
        Ok(connection)
    }
}

/// The handshake that joins a notebook by its id or path.
pub(super) fn join(notebook_id: &str, operator: Option<String>) -> Handshake {
    Handshake::NotebookSync(NotebookSync {
        notebook_id: notebook_id.to_owned(),
        protocol: Some("v4".into()),
        typed_bootstrap: true,
        operator,
        ..NotebookSync::default()
    })
}

/// Connects, and hears the daemon's first words.
pub(crate) async fn introduce(
    socket: &std::path::Path,
    handshake: &Handshake,
) -> Result<(Connection, Bootstrap)> {
    let mut connection = Connection::open(socket, handshake).await?;
    let body =
        timeout(BOOTSTRAP_LIMIT, connection.receive(FRAME_MAX)).await.map_err(|_| ClientError::Timeout)??;
    let bootstrap = Bootstrap::decode(&body).map_err(ClientError::protocol)?;
    match bootstrap.error() {
        Some(refusal) => Err(ClientError::Daemon(refusal.to_owned())),
        None => Ok((connection, bootstrap)),
    }
}
