//! Questions to the daemon as a whole.
//!
//! For: everything that needs no open notebook.
//! Promises: each call is a connection of its own, accepted within 2 s and answered within 3 s or failed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use runtimed_protocol::environments::{EnvironmentList, EnvironmentsCleaned};
use runtimed_protocol::frame::POOL_MAX;
use runtimed_protocol::handshake::Handshake;
use runtimed_protocol::identity::agent_operator;
use runtimed_protocol::pool::{
    DaemonInfo, NotebooksVerified, PluginRow, PoolReply, PoolRequest, PoolStats, RoomsList,
};
use serde_json::{Map, Value};
use tokio::time::timeout;
use uuid::Uuid;

use crate::connection::Connection;
use crate::endpoint::Places;
use crate::retry::until_reached;
use crate::{ClientError, Result};

/// Longest wait for a reply. Source: what clients of protocol v4 use.
const REPLY_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait until the daemon has looked for plugins again. It gives each of them 30 s to load and 20 s to
/// start, all at a time, and those that are replaced some seconds to stop.
const RELOAD_LIMIT: Duration = Duration::from_secs(90);

/// Longest wait until a notebook is closed. The daemon gives a room as long to save and to end its kernel.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait until the daemon has looked at every file of every environment, and deleted some: a cold, slow disk.
const WALK_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Longest wait until the daemon has read everything that is kept: an hour, for a slow disk that is full.
const VERIFY_LIMIT: Duration = Duration::from_secs(60 * 60);

/// The name of sessions that have been given none.
const DEFAULT_NAME: &str = "runtimed-client";
/// Longest name; it is part of every change that a session makes.
const NAME_CHARACTERS: usize = 40;

/// A daemon, by its socket. Cheap to clone; holds no connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where it listens.
    socket: PathBuf,
    /// How long sessions wait for the next daemon.
    patience: Option<Duration>,
    /// Under which name sessions act.
    name: String,
}

/// The answer to a ping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pong {
    /// Protocol the daemon speaks, if it says so.
    pub protocol_version: Option<u32>,
    /// Version of the daemon, free text.
    pub daemon_version: Option<String>,
}

impl Client {
    /// The daemon that listens on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), patience: None, name: DEFAULT_NAME.into() }
    }

    /// Lets sessions that are made from now on outlive the daemon: when the connection is lost they wait for the next
    /// one, each time at most for `patience`, and go on with what they have. Meanwhile they can be read and edited.
    /// What was asked and not answered is asked again, or fails as `Disconnected` if it might be done twice.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Lets sessions that are made from now on act under this name, which others see beside what they do. What a name
    /// cannot hold becomes `-`; without anything left it stays what it was.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        let fits = |it: char| if it.is_ascii_alphanumeric() || "-_.".contains(it) { it } else { '-' };
        let name: String = name.trim().chars().take(NAME_CHARACTERS).map(fits).collect();
        if !name.is_empty() {
            self.name = name;
        }
        self
    }

    /// The name of its sessions.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The operator of one more session: the name, and what tells sessions of one name apart.
    pub(crate) fn operator(&self) -> String {
        agent_operator(&self.name, Uuid::new_v4().as_fields().0)
    }

    /// How long sessions wait for the next daemon, if they do.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// The daemon that the environment names: `RUNTIMED_SOCKET_PATH`, or `runt/runtimed.sock` in the
    /// user's cache directory.
    pub fn discover() -> Self {
        Self::new(Places::of_this_process().socket)
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends one request and waits for its reply, whatever it is.
    ///
    /// # Errors
    /// `Connect`, `Timeout`, `Disconnected` and `Protocol`; and `Daemon` for an error reply.
    pub async fn ask(&self, request: &PoolRequest) -> Result<PoolReply> {
        let limit = limit(request);
        let mut connection = Connection::open(&self.socket, &Handshake::Pool).await?;
        let exchange = async {
            connection.send(request, POOL_MAX).await?;
            connection.receive(POOL_MAX).await
        };
        let body = timeout(limit, exchange).await.map_err(|_| ClientError::Timeout)??;
        match serde_json::from_slice(&body).map_err(ClientError::protocol)? {
            PoolReply::Error { message } => Err(ClientError::Daemon(message)),
            reply => Ok(reply),
        }
    }

    /// Whether the daemon answers.
    ///
    /// # Errors
    /// See [`Client::ask`]; so for every call below.
    pub async fn ping(&self) -> Result<Pong> {
        match self.ask(&PoolRequest::Ping).await? {
            PoolReply::Pong { protocol_version, daemon_version } => {
                Ok(Pong { protocol_version, daemon_version })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for a daemon that answers, at most for `patience`: one that is being started, or replaced.
    ///
    /// # Errors
    /// What was wrong at last: `Connect`, `Timeout` or `Disconnected`; and at once those that waiting does not heal.
    pub async fn reach(&self, patience: Duration) -> Result<Pong> {
        until_reached(patience, || self.ping()).await
    }

    /// How full the pools are.
    pub async fn status(&self) -> Result<PoolStats> {
        match self.ask(&PoolRequest::Status).await? {
            PoolReply::Stats { state } => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// The rooms, and how many of them did not fit into the reply.
    pub async fn list_rooms(&self) -> Result<RoomsList> {
        match self.ask(&PoolRequest::ListRooms).await? {
            PoolReply::RoomsList(list) => Ok(list),
            other => Err(unexpected(&other)),
        }
    }

    /// Facts about the daemon.
    pub async fn daemon_info(&self) -> Result<DaemonInfo> {
        match self.ask(&PoolRequest::GetDaemonInfo).await? {
            PoolReply::DaemonInfo(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    /// Every plugin the daemon found. A daemon that does not know the question closes the connection.
    pub async fn list_plugins(&self) -> Result<Vec<PluginRow>> {
        plugins(self.ask(&PoolRequest::ListPlugins).await?)
    }

    /// Has the daemon look for plugins again and take over what it can without a restart. Returns every plugin
    /// it found, when that is done.
    pub async fn reload_plugins(&self) -> Result<Vec<PluginRow>> {
        plugins(self.ask(&PoolRequest::ReloadPlugins).await?)
    }

    /// Switches a plugin on or off in the settings, then as [`Client::reload_plugins`].
    pub async fn set_plugin_enabled(&self, id: &str, enabled: bool) -> Result<Vec<PluginRow>> {
        let request = PoolRequest::SetPluginEnabled { id: id.to_owned(), enabled };
        plugins(self.ask(&request).await?)
    }

    /// Drops the pooled environments; they are built anew.
    pub async fn flush(&self) -> Result<()> {
        match self.ask(&PoolRequest::FlushPool).await? {
            PoolReply::Flushed => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends kernels and the daemon. Returns when it has agreed, not when it is gone.
    pub async fn shutdown(&self) -> Result<()> {
        match self.ask(&PoolRequest::Shutdown).await? {
            PoolReply::ShuttingDown => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends the daemon and lets kernels go on, for the next one. Returns when it has agreed, not when it is gone.
    pub async fn detach(&self) -> Result<()> {
        match self.ask(&PoolRequest::Detach).await? {
            PoolReply::ShuttingDown => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends a notebook's kernel and closes its room. False if there is no such room. The notebook is named by its UUID or
    /// the canonical path of its file.
    pub async fn shutdown_notebook(&self, notebook: &str) -> Result<bool> {
        let request = PoolRequest::ShutdownNotebook { notebook_id: notebook.to_owned() };
        match self.ask(&request).await? {
            PoolReply::NotebookShutdown { found } => Ok(found),
            other => Err(unexpected(&other)),
        }
    }

    /// What is in a notebook that is open, or kept: `cells`, `outputs_by_cell`, `source` and `kernel_info`. It is named
    /// by its UUID or the canonical path of its file.
    ///
    /// # Errors
    /// `Daemon` for one that is unknown, and for one too long for a reply.
    pub async fn inspect_notebook(&self, notebook: &str) -> Result<Map<String, Value>> {
        match self.ask(&PoolRequest::InspectNotebook { notebook_id: notebook.to_owned() }).await? {
            PoolReply::NotebookState { state, .. } => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether what is kept of every notebook can be read again; with `repair`, what is damaged is brought in
    /// order. There is no limit but an hour: every byte is read.
    pub async fn verify_notebooks(&self, repair: bool) -> Result<NotebooksVerified> {
        match self.ask(&PoolRequest::VerifyNotebooks { repair }).await? {
            PoolReply::NotebooksVerified(verified) => Ok(verified),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes what is kept of a notebook (UUID, or path of a journal) to the new file `output`, an absolute
    /// path. Returns the number of cells, and of outputs whose content is not there any more.
    pub async fn recover_notebook(&self, notebook: &str, output: &str) -> Result<(u64, u64)> {
        let request =
            PoolRequest::RecoverNotebook { notebook: notebook.to_owned(), output: output.to_owned() };
        match self.ask(&request).await? {
            PoolReply::NotebookRecovered { cells, missing_blobs } => Ok((cells, missing_blobs)),
            other => Err(unexpected(&other)),
        }
    }

    /// Every environment on disk, with sizes and owners.
    pub async fn list_environments(&self) -> Result<EnvironmentList> {
        match self.ask(&PoolRequest::ListEnvironments).await? {
            PoolReply::EnvironmentsList(list) => Ok(list),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes environments that nobody uses and that are old or too many; with `all`, however new they are. With
    /// `dry_run` it only says so.
    pub async fn clean_environments(&self, dry_run: bool, all: bool) -> Result<EnvironmentsCleaned> {
        match self.ask(&PoolRequest::CleanEnvironments { dry_run, all }).await? {
            PoolReply::EnvironmentsCleaned(cleaned) => Ok(cleaned),
            other => Err(unexpected(&other)),
        }
    }

    /// Has what pools keep ready built anew: of the kind or at the path `what`, or everything. Returns kinds, or the path.
    pub async fn rebuild_environments(&self, what: Option<&str>) -> Result<Vec<String>> {
        let request = PoolRequest::RebuildEnvironments { what: what.map(str::to_owned) };
        match self.ask(&request).await? {
            PoolReply::EnvironmentsRebuilt { rebuilt } => Ok(rebuilt),
            other => Err(unexpected(&other)),
        }
    }

    /// The record of an execution, also after its notebook was closed.
    pub async fn get_execution_result(&self, execution_id: &str) -> Result<Value> {
        match self.ask(&PoolRequest::GetExecutionResult { execution_id: execution_id.into() }).await? {
            PoolReply::ExecutionResult { record } => Ok(record),
            other => Err(unexpected(&other)),
        }
    }
}

fn plugins(reply: PoolReply) -> Result<Vec<PluginRow>> {
    match reply {
        PoolReply::PluginsList { plugins } => Ok(plugins),
        other => Err(unexpected(&other)),
    }
}

/// Longest wait for the reply to `request`.
fn limit(request: &PoolRequest) -> Duration {
    match request {
        PoolRequest::ReloadPlugins | PoolRequest::SetPluginEnabled { .. } => RELOAD_LIMIT,
        PoolRequest::ShutdownNotebook { .. } => CLOSE_LIMIT,
        PoolRequest::VerifyNotebooks { .. } | PoolRequest::RecoverNotebook { .. } => VERIFY_LIMIT,
        PoolRequest::ListEnvironments
        | PoolRequest::CleanEnvironments { .. }
        | PoolRequest::RebuildEnvironments { .. } => WALK_LIMIT,
        _ => REPLY_LIMIT,
    }
}

/// A reply to another question.
fn unexpected(reply: &PoolReply) -> ClientError {
    let name = serde_json::to_value(reply).ok().and_then(|reply| reply["type"].as_str().map(str::to_owned));
    ClientError::Protocol(format!("unexpected reply `{}`", name.unwrap_or_default()))
}
