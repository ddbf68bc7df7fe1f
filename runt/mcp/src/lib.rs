//! Notebooks for language models: an MCP server in front of the notebook runtime daemon.
//!
//! For: `runt mcp`, which agents start and talk to on its standard input and output. docs/MCP.md is the manual.
//! Promises: nothing but MCP on stdout; the server goes on when the daemon is restarted, also by another version; what a
//! tool reported as done is with the daemon.
//! Never: starts a daemon, allows packages, or reads and writes files: the daemon does, for everybody who has a notebook
//! open.

mod notebook;
mod notebooks;
mod refusal;
mod replace;
mod server;
mod summary;
mod tools;

use std::io;
use std::sync::Arc;

use rmcp::ServiceExt;
use rmcp::service::{QuitReason, ServerInitializeError};
use rmcp::transport::io::stdio_pipes;
use runtimed_client::Client;
use tokio::task::JoinError;
use tracing_subscriber::EnvFilter;

use notebooks::Notebooks;
use server::Server;

/// Why a server ended other than by the end of its input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Whoever started it does not speak MCP, or went away at once.
    #[error("the other side does not speak MCP: {0}")]
    Greeting(#[from] Box<ServerInitializeError>),
    /// A defect of the server.
    #[error("the server broke: {0}")]
    Broken(#[from] JoinError),
}

/// Serves MCP on stdin and stdout until stdin ends or `ended` resolves; then notebooks are let go. The server calls itself
/// `version`. Logs go to stderr, as much as `RUST_LOG` says.
///
/// # Errors
/// If the other side never greets, or not in MCP.
pub async fn serve(
    client: Client,
    version: String,
    ended: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    // Who embeds the server may log in another way.
    let _ = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(EnvFilter::from_default_env())
        .with_ansi(false)
        .try_init();
    let notebooks = Arc::new(Notebooks::new(client));
    let server = Server::new(Arc::clone(&notebooks), version);
    let serving = async {
        let running = match server.serve(stdio_pipes()).await {
            Ok(running) => running,
            // The other side looked whether we start, and left.
            Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
            Err(error) => return Err(ServeError::Greeting(Box::new(error))),
        };
        match running.waiting().await? {
            QuitReason::JoinError(error) => Err(error.into()),
            _ => Ok(()),
        }
    };
    let how = tokio::select! {
        how = serving => how,
        () = ended => Ok(()),
    };
    notebooks.close().await;
    how
}
