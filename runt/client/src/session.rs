//! An open notebook.
//!
//! For: reading and editing a notebook live, and running it.
//! Promises: reads look at our own replica and never wait; an edit is on its way when the call returns,
//! and whatever is asked afterwards is answered with the edit taken into account.
//! A lost connection ends it, unless the [`Client`] is patient: then it goes on with the next daemon.

mod progress;
mod repeated;
mod replicas;
mod resume;
mod shared;
mod task;

use std::sync::Arc;
use std::time::Duration;

use runtimed_protocol::bootstrap::Bootstrap;
use runtimed_protocol::documents::{self, Document, NotebookDoc};
use runtimed_protocol::frame::FrameType;
use runtimed_protocol::handshake::{CreateNotebook, Handshake, OpenNotebook};
use runtimed_protocol::presence::{LOCAL_PEER, Presence, PresenceData, PresenceUpdate};
use runtimed_protocol::request::{NotebookRequest, RequestEnvelope};
use runtimed_protocol::response::{NotebookResponse, QueuedCell};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::connection::CONNECT_LIMIT;
use crate::{Client, ClientError, Result};

pub use progress::{Progress, Watch};
use repeated::Again;
pub use replicas::Documents;
use replicas::Replicas;
use resume::Resume;
pub(crate) use resume::introduce;
use shared::{Pending, Shared, State};

/// An open notebook. Dropping it ends the connection at once; [`NotebookSession::close`] lets what is
/// queued leave first.
pub struct NotebookSession {
    /// The replica and all that is in flight.
    shared: Arc<Shared>,
    /// The daemon's first words.
    bootstrap: Bootstrap,
    /// What others call us.
    name: String,
    /// Moves the bytes. Ended when the session is dropped.
    task: JoinHandle<()>,
}

impl NotebookSession {
    /// Makes a notebook. `typed_bootstrap`, and `operator` if it is none, are filled in.
    ///
    /// # Errors
    /// `Connect`, `Timeout`, `Disconnected` and `Protocol`; and `Daemon` with the reason of a refusal.
    pub async fn create(client: &Client, create: CreateNotebook) -> Result<Self> {
        let operator = Some(create.operator.unwrap_or_else(|| client.operator()));
        let create = CreateNotebook { typed_bootstrap: true, operator, ..create };
        Self::connect(client, &Handshake::CreateNotebook(create)).await
    }

    /// Opens the notebook in a file, which is made on save if it is not there. `typed_bootstrap`, and
    /// `operator` if it is none, are filled in.
    ///
    /// # Errors
    /// See [`NotebookSession::create`].
    pub async fn open(client: &Client, open: OpenNotebook) -> Result<Self> {
        let operator = Some(open.operator.unwrap_or_else(|| client.operator()));
        let open = OpenNotebook { typed_bootstrap: true, operator, ..open };
        Self::connect(client, &Handshake::OpenNotebook(open)).await
    }

    /// Joins a notebook that is open, or kept, by its id or path.
    ///
    /// # Errors
    /// See [`NotebookSession::create`].
    pub async fn join(client: &Client, notebook_id: impl Into<String>) -> Result<Self> {
        Self::connect(client, &resume::join(&notebook_id.into(), Some(client.operator()))).await
    }

    /// Connects as any of the above.
    async fn connect(client: &Client, handshake: &Handshake) -> Result<Self> {
        let (connection, bootstrap) = introduce(client.socket(), handshake).await?;
        let Some(actor) = &bootstrap.capabilities().actor_label else {
            return Err(ClientError::Protocol("the daemon did not say as whom to write".into()));
        };
        let shared = Arc::new(Shared::new(Replicas::new(actor)?));
        let resume = client.patience().map(|patience| Resume {
            socket: client.socket().to_path_buf(),
            operator: handshake.operator().map(ToOwned::to_owned),
            actor: Some(actor.clone()),
            patience,
        });
        let id = match &bootstrap {
            Bootstrap::NotebookConnectionInfo(info) => Some(info.notebook_id.clone()),
            Bootstrap::ProtocolCapabilities(_) => None,
        };
        let task = tokio::spawn(task::run(Arc::clone(&shared), connection, resume, id));
        Ok(Self { shared, bootstrap, name: client.name().to_owned(), task })
    }

    /// What the daemon said on connecting.
    pub fn bootstrap(&self) -> &Bootstrap {
        &self.bootstrap
    }

    /// UUID of the notebook; none only for one joined by path that has not arrived yet.
    pub fn notebook_id(&self) -> Option<String> {
        match &self.bootstrap {
            Bootstrap::NotebookConnectionInfo(info) => Some(info.notebook_id.clone()),
            Bootstrap::ProtocolCapabilities(_) => self.read(|documents| documents.notebook.notebook_id()),
        }
    }

    /// Whether the daemon is there. False while a patient session waits for the next one.
    pub fn is_connected(&self) -> bool {
        self.shared.lock().is_connected()
    }

    /// Waits until the daemon is there: at once, or for as long as a patient session waits for the next one.
    ///
    /// # Errors
    /// Why there will be none: the session has ended, and another must be made.
    pub async fn connected(&self) -> Result<()> {
        self.until(|state| state.is_connected().then_some(())).await
    }

    /// Waits until the notebook is here whole and may be worked with. There is no limit: a long file
    /// takes its time.
    ///
    /// # Errors
    /// `Protocol` if the file cannot be read; `Disconnected` and `Protocol` if the connection ended.
    pub async fn ready(&self) -> Result<()> {
        let is_ready = |state: &State| state.status.as_ref().is_some_and(|status| status.is_ready());
        self.until(|state| is_ready(state).then_some(())).await
    }

    /// Looks at the documents as they are here and now. Keep it short: meanwhile nothing arrives.
    pub fn read<T>(&self, look: impl FnOnce(&Documents) -> T) -> T {
        look(&self.shared.lock().replicas.documents)
    }

    /// Waits until `look` finds something, now or after a change.
    ///
    /// # Errors
    /// If the connection ended before.
    pub async fn wait_for<T>(&self, mut look: impl FnMut(&Documents) -> Option<T>) -> Result<T> {
        self.until(|state| look(&state.replicas.documents)).await
    }

    /// How far an execution is; none if it is not known here.
    pub fn progress(&self, execution_id: &str) -> Option<Progress> {
        self.read(|documents| Progress::of(documents, execution_id))
    }

    /// Follows an execution from where it is to its end, outputs included.
    pub fn watch(&self, execution_id: impl Into<String>) -> Watch<'_> {
        Watch::new(self, execution_id.into())
    }

    /// Notifies of every change of documents and phases from now on.
    pub fn changes(&self) -> Changes {
        Changes { shared: Arc::clone(&self.shared), counter: self.shared.subscribe() }
    }

    /// Edits the notebook. All that `edit` does is one change, or nothing if it fails.
    ///
    /// # Errors
    /// `edit`'s own, and those of a connection that ended.
    pub fn edit<T>(&self, edit: impl FnOnce(&mut NotebookDoc) -> documents::Result<T>) -> Result<T> {
        let mut state = self.shared.lock();
        state.check()?;
        let notebook = &mut state.replicas.documents.notebook;
        let done = match edit(notebook) {
            Ok(done) => done,
            Err(error) => {
                notebook.rollback();
                return Err(error.into());
            }
        };
        notebook.commit();
        state.replicas.notebook_edited();
        drop(state);
        self.shared.work.notify_one();
        self.shared.announce();
        Ok(done)
    }

    /// Shows everybody else where we are, under the client's name. The next daemon does not know it any more.
    ///
    /// # Errors
    /// `Protocol` if it is too much to show, and those of a connection that ended.
    pub fn present(&self, data: PresenceData) -> Result<()> {
        let (peer_id, peer_label) = (LOCAL_PEER.to_owned(), Some(self.name.clone()));
        let update = Presence::Update(PresenceUpdate { peer_id, peer_label, actor_label: None, data });
        let payload = update.encode().map_err(ClientError::protocol)?;
        let mut state = self.shared.lock();
        state.check()?;
        state.queue(FrameType::PRESENCE, &payload)?;
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Queues a cell. The source that runs is the one here.
    ///
    /// # Errors
    /// As [`NotebookSession::request`], and `Daemon` if there is no kernel to run it.
    pub async fn execute_cell(&self, cell_id: &str) -> Result<QueuedCell> {
        let execution_id = Some(Uuid::new_v4().to_string());
        let request = NotebookRequest::ExecuteCell { cell_id: cell_id.into(), execution_id };
        match self.request(request).await? {
            NotebookResponse::CellQueued(queued) => Ok(queued),
            other => Err(unexpected(other)),
        }
    }

    /// Queues every code cell, in order.
    ///
    /// # Errors
    /// As [`NotebookSession::execute_cell`].
    pub async fn run_all_cells(&self) -> Result<Vec<QueuedCell>> {
        match self.request(NotebookRequest::RunAllCells { cell_execution_ids: None }).await? {
            NotebookResponse::AllCellsQueued { queued } => Ok(queued),
            other => Err(unexpected(other)),
        }
    }

    /// Sends a request and waits for its response. Requests about the notebook's content wait at the
    /// daemon until it has every edit made here.
    ///
    /// # Errors
    /// `Daemon` for an error response, `Unanswered` when the limit of the request has passed, and those
    /// of a connection that ended.
    pub async fn request(&self, request: NotebookRequest) -> Result<NotebookResponse> {
        let (action, limit) = (request.action(), limit(&request));
        let waiting = self.send(request)?;
        let response = timeout(limit, waiting.answer()).await;
        match response.map_err(|_| ClientError::Unanswered { action, limit })?? {
            NotebookResponse::Error { error } => Err(ClientError::Daemon(error)),
            response => Ok(response),
        }
    }

    /// Ends the connection after everything queued has left, and waits for the daemon to let go, at
    /// most 2 s.
    pub async fn close(mut self) {
        self.shared.close();
        // A daemon that takes nothing more, and a task that panicked, are given up alike.
        let _ = timeout(CONNECT_LIMIT, &mut self.task).await;
    }

    /// Queues a request.
    fn send(&self, request: NotebookRequest) -> Result<Waiting<'_>> {
        let mut state = self.shared.lock();
        state.check()?;
        let id = Uuid::new_v4().to_string();
        let required_heads = if reads_notebook(&request) {
            state.replicas.documents.notebook.heads().iter().map(ToString::to_string).collect()
        } else {
            Vec::new()
        };
        let envelope = RequestEnvelope { id: Some(id.clone()), required_heads, request };
        let payload = serde_json::to_vec(&envelope).map_err(ClientError::protocol)?;
        state.queue(FrameType::REQUEST, &payload)?;
        let (answer, response) = oneshot::channel();
        let again = Again::of(envelope.request, payload);
        state.pending.push(Pending { id: id.clone(), answer, again });
        drop(state);
        self.shared.work.notify_one();
        Ok(Waiting { shared: &self.shared, id, response })
    }

    /// Waits until `find` finds something.
    async fn until<T>(&self, mut find: impl FnMut(&State) -> Option<T>) -> Result<T> {
        let mut changes = self.changes();
        loop {
            {
                let state = self.shared.lock();
                if let Some(found) = find(&state) {
                    return Ok(found);
                }
            }
            changes.next().await?;
        }
    }
}

impl Drop for NotebookSession {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.end(Ok(()));
    }
}

/// Notifies of changes to an open notebook.
pub struct Changes {
    shared: Arc<Shared>,
    counter: watch::Receiver<u64>,
}

impl Changes {
    /// Waits for a change since the last call; any number of changes count as one. Cancel-safe.
    ///
    /// # Errors
    /// If the connection ended.
    pub async fn next(&mut self) -> Result<()> {
        self.shared.lock().check()?;
        // The sender lives in `shared`, so it is never gone.
        self.counter.changed().await.map_err(|_| ClientError::Disconnected)
    }
}

/// A request without a response. Dropping it gives up waiting.
struct Waiting<'a> {
    shared: &'a Shared,
    id: String,
    response: oneshot::Receiver<Result<NotebookResponse>>,
}

impl Waiting<'_> {
    async fn answer(mut self) -> Result<NotebookResponse> {
        match (&mut self.response).await {
            Ok(response) => response,
            // Nobody will answer: the connection ended.
            Err(_) => Err(self.shared.lock().check().err().unwrap_or(ClientError::Disconnected)),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.lock().take(&self.id);
    }
}

/// Whether the request is about the notebook's content as it is here.
fn reads_notebook(request: &NotebookRequest) -> bool {
    matches!(
        request,
        NotebookRequest::ExecuteCell { .. }
            | NotebookRequest::ExecuteCellGuarded { .. }
            | NotebookRequest::RunAllCells { .. }
            | NotebookRequest::RunAllCellsGuarded { .. }
            | NotebookRequest::LaunchKernel { .. }
            | NotebookRequest::SaveNotebook { .. }
            | NotebookRequest::SyncEnvironment { .. }
            | NotebookRequest::ApproveTrust { .. }
            | NotebookRequest::AcknowledgeNotebookSync
    )
}

/// Longest wait for the response. Source: what clients of protocol v4 use.
fn limit(request: &NotebookRequest) -> Duration {
    Duration::from_secs(match request {
        NotebookRequest::LaunchKernel { .. } | NotebookRequest::SyncEnvironment { .. } => 300,
        NotebookRequest::Complete { .. } => 7,
        _ => 30,
    })
}

/// What a response means that is not the one hoped for.
fn unexpected(response: NotebookResponse) -> ClientError {
    match response {
        NotebookResponse::NoKernel => ClientError::Daemon("no kernel is running".into()),
        NotebookResponse::GuardRejected { reason } => ClientError::Daemon(reason),
        other => ClientError::Protocol(format!("unexpected response: {other:?}")),
    }
}
