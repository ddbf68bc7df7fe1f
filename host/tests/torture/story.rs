//! Notebooks that are edited, run and saved through our own client.

use std::path::Path;

use runtimed_client::protocol::documents::Document as _;
use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::documents::runtime_state::Status;
use runtimed_client::protocol::handshake::{CreateNotebook, OpenNotebook};
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::protocol::response::NotebookResponse;
use runtimed_client::{Client, NotebookSession, Result};
use serde_json::Value;

use crate::support::Daemon;

/// A window of a notebook.
pub(crate) struct Story {
    pub(crate) session: NotebookSession,
}

impl Story {
    /// A new notebook without a file.
    pub(crate) async fn create(daemon: &Daemon) -> Result<Self> {
        let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
        Self::ready(NotebookSession::create(&Client::new(&daemon.socket), create).await?).await
    }

    /// The notebook in a file, which need not be there.
    pub(crate) async fn open(daemon: &Daemon, file: &Path) -> Result<Self> {
        let open = OpenNotebook { path: file.display().to_string(), ..OpenNotebook::default() };
        Self::ready(NotebookSession::open(&Client::new(&daemon.socket), open).await?).await
    }

    /// The notebook with this id.
    pub(crate) async fn join(daemon: &Daemon, id: &str) -> Result<Self> {
        Self::ready(NotebookSession::join(&Client::new(&daemon.socket), id).await?).await
    }

    async fn ready(session: NotebookSession) -> Result<Self> {
        session.ready().await?;
        Ok(Self { session })
    }

    pub(crate) fn id(&self) -> String {
        self.session.read(|it| it.notebook.notebook_id()).unwrap()
    }

    /// Adds a cell and waits until the daemon has it.
    pub(crate) async fn add(&self, id: &str, source: &str) -> Result<()> {
        let (id, cell_type, source) = (id.to_owned(), "code".to_owned(), source.to_owned());
        let cell = NewCell { id, cell_type, source, ..NewCell::default() };
        self.session.edit(|notebook| notebook.insert_cell(Place::End, &cell))?;
        self.session.request(NotebookRequest::AcknowledgeNotebookSync).await.map(drop)
    }

    /// Runs a cell to its end; returns the execution's id and whether it ended well.
    pub(crate) async fn run(&self, cell: &str) -> Result<(String, bool)> {
        let id = self.session.execute_cell(cell).await?.execution_id;
        let ended =
            self.session.wait_for(|it| it.runtime_state.execution(&id).filter(|it| it.status.is_terminal()));
        let well = ended.await?.status == Status::Done;
        Ok((id, well))
    }

    pub(crate) async fn save(&self) -> Result<NotebookResponse> {
        self.session.request(NotebookRequest::SaveNotebook { format_cells: false, path: None }).await
    }

    /// What the notebook says.
    pub(crate) fn content(&self) -> Value {
        self.session.read(|it| it.notebook.to_json())
    }

    /// What an execution showed.
    pub(crate) fn outputs(&self, execution: &str) -> Vec<Value> {
        self.session.read(|it| {
            it.runtime_state.outputs(execution).into_iter().map(|output| output.manifest).collect()
        })
    }

    /// What the user is told is wrong with the notebook; empty if nothing is.
    pub(crate) fn trouble(&self) -> String {
        self.session.read(|it| it.runtime_state.file_checkpoint().source_issue_reason)
    }
}
