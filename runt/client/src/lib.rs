//! An async client of the notebook runtime daemon.
//!
//! For: the command line, desktop applications and tests.
//! Promises: what a session holds is a replica; reading it never waits. Nothing outlives its owner: a
//! dropped session ends its task and its connection.
//! Never: starts a daemon, or knows what is inside it.
//!
//! # Reaching the daemon
//!
//! A [`Client`] is the daemon's address. It holds no connection, so it can be made before there is a daemon, and cloned.
//! Questions about the daemon as a whole are its methods, each a connection of its own.
//!
//! ```no_run
//! use std::time::Duration;
//! use runtimed_client::Client;
//!
//! # async fn example() -> runtimed_client::Result<()> {
//! // Where `runt` finds it, too: RUNTIMED_SOCKET_PATH, or the user's cache directory.
//! let client = Client::discover();
//! // Whoever has just asked a service manager to start it waits for it.
//! let pong = client.reach(Duration::from_secs(10)).await?;
//! println!("{}", pong.daemon_version.unwrap_or_default());
//! for room in client.list_rooms().await?.rooms {
//!     println!("{} {:?}", room.notebook_id, room.notebook_path);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Opening a notebook
//!
//! A [`NotebookSession`] is an open notebook: made ([`create`](NotebookSession::create)), opened from its file
//! ([`open`](NotebookSession::open)), or joined where somebody has it open already ([`join`](NotebookSession::join)).
//! A long file arrives piece by piece; [`ready`](NotebookSession::ready) says when it is here whole.
//!
//! ```no_run
//! use runtimed_client::protocol::handshake::OpenNotebook;
//! use runtimed_client::{Client, NotebookSession};
//!
//! # async fn example() -> runtimed_client::Result<()> {
//! let client = Client::discover().named("my-app");
//! let open = OpenNotebook { path: "/home/ana/analysis.ipynb".into(), ..OpenNotebook::default() };
//! let session = NotebookSession::open(&client, open).await?;
//! session.ready().await?;
//! for cell in session.read(|documents| documents.notebook.cells()) {
//!     println!("{}: {}", cell.id, cell.source);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Editing
//!
//! Everybody who has the notebook open edits a copy of the same documents. [`edit`](NotebookSession::edit) changes the one
//! here and returns at once; the change leaves by itself and is merged with what others do meanwhile. What is asked of the
//! notebook afterwards is answered with the edit taken into account. [`changes`](NotebookSession::changes) and
//! [`wait_for`](NotebookSession::wait_for) tell when something else has changed.
//!
//! ```no_run
//! use runtimed_client::NotebookSession;
//! use runtimed_client::protocol::documents::notebook::{NewCell, Place};
//! use runtimed_client::protocol::request::NotebookRequest;
//!
//! # async fn example(session: NotebookSession) -> runtimed_client::Result<()> {
//! let cell = NewCell {
//!     id: "my-cell".into(),
//!     cell_type: "code".into(),
//!     source: "print('hello')".into(),
//!     ..NewCell::default()
//! };
//! // One change, or none if any of it fails.
//! session.edit(|notebook| {
//!     notebook.insert_cell(Place::End, &cell)?;
//!     notebook.set_source("my-cell", "print('hello, world')")
//! })?;
//! // Only for who wants to be sure that the daemon has it:
//! session.request(NotebookRequest::AcknowledgeNotebookSync).await?;
//! // Somebody else's turn.
//! let theirs = session.wait_for(|documents| documents.notebook.source("their-cell")).await?;
//! println!("{theirs}");
//! # Ok(())
//! # }
//! ```
//!
//! # Running, and outputs as they are made
//!
//! A run is an execution with an id. [`watch`](NotebookSession::watch) follows one, step by step, from where it is: it does
//! not matter who began it, or when. Large and binary content is not in the documents but in a blob that they name; a
//! [`BlobReader`] fetches it.
//!
//! ```no_run
//! use runtimed_client::protocol::documents::{ContentRef, Output};
//! use runtimed_client::protocol::request::NotebookRequest;
//! use runtimed_client::{Client, NotebookSession};
//!
//! # async fn example(client: Client, session: NotebookSession) -> runtimed_client::Result<()> {
//! // Brings a kernel up, or waits for the one that is coming.
//! let launch = NotebookRequest::LaunchKernel {
//!     kernel_type: String::new(),
//!     env_source: "auto".into(),
//!     notebook_path: None,
//! };
//! session.request(launch).await?;
//! let queued = session.execute_cell("my-cell").await?;
//! let mut execution = session.watch(queued.execution_id);
//! while let Some(progress) = execution.next().await? {
//!     println!("{:?}, {} outputs", progress.execution.status, progress.outputs.len());
//!     if !progress.is_over() {
//!         continue;
//!     }
//!     for output in &progress.outputs {
//!         match output {
//!             Output::Stream { text: ContentRef::Inline { inline }, .. } => print!("{inline}"),
//!             Output::Stream { text: ContentRef::Blob { hash, .. }, .. } => {
//!                 let bytes = client.blobs().await?.read(hash).await?;
//!                 print!("{}", String::from_utf8_lossy(&bytes));
//!             }
//!             other => println!("{:?}", other.bundle()),
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # When the daemon is restarted
//!
//! Kernels outlive the daemon, and so can sessions: those of a [`patient`](Client::patient) client go on with the next
//! daemon, of whatever version. Meanwhile they can be read and edited; what was edited is sent once it is back, and an
//! execution that was being watched goes on where it was, without a gap or a repetition. What was asked and not answered
//! is asked again if that does no harm, or fails as [`ClientError::Disconnected`].
//!
//! ```no_run
//! use std::time::Duration;
//! use runtimed_client::{Client, ClientError, NotebookSession};
//!
//! # async fn example() -> runtimed_client::Result<()> {
//! let client = Client::discover().patient(Duration::from_secs(60));
//! let session = NotebookSession::join(&client, "8d9f3f1e-5d7c-4a5e-9a39-0d1c4a0d6b10").await?;
//! let mut changes = session.changes();
//! loop {
//!     match changes.next().await {
//!         Ok(()) if session.is_connected() => println!("show what is here now"),
//!         Ok(()) => println!("show that the daemon is away"),
//!         // The patience is over, or the next daemon does not know the notebook.
//!         Err(ClientError::Disconnected) => break,
//!         Err(error) => return Err(error),
//!     }
//! }
//! // A later one is joined anew.
//! client.reach(Duration::from_secs(3600)).await?;
//! let session = NotebookSession::join(&client, "8d9f3f1e-5d7c-4a5e-9a39-0d1c4a0d6b10").await?;
//! session.ready().await?;
//! // Leave orderly: what was edited last goes out first.
//! session.close().await;
//! # Ok(())
//! # }
//! ```

mod blobs;
mod client;
mod connection;
mod endpoint;
mod error;
mod frames;
mod retry;
mod session;

pub use blobs::BlobReader;
pub use client::{Client, Pong};
pub use endpoint::Places;
pub use error::{ClientError, Result};
pub use frames::{FrameReader, FrameWriter, HEARTBEAT};
pub use runtimed_protocol as protocol;
pub use session::{Changes, Documents, NotebookSession, Progress, Watch};
