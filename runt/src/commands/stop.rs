//! `runt stop`: a notebook's kernel ends and the notebook is closed.
//!
//! Promises: nothing is lost: the daemon refuses where it would be.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use runtimed_client::{Client, ClientError};
use serde_json::json;

use crate::notebook_name::notebook;
use crate::terminal;

/// Stops the notebook that `name` means.
pub(crate) async fn stop(name: &str, json: bool) -> anyhow::Result<ExitCode> {
    let named = notebook(name).unwrap_or_else(|| name.to_owned());
    let found = match Client::discover().shutdown_notebook(&named).await {
        Ok(found) => found,
        Err(ClientError::Daemon(refusal)) => bail!("Failed to shutdown notebook: {refusal}"),
        Err(error) => {
            bail!("Failed to shutdown notebook: {error}\nIs the daemon running? Try 'runt daemon status'")
        }
    };
    let shown = terminal::tilde(Path::new(&named));
    if json {
        terminal::print_json(&json!({ "notebook": named, "found": found }))?;
    }
    if !found {
        anstream::eprintln!("Notebook not found: {shown}\nUse 'runt notebooks' to see open notebooks.");
        return Ok(ExitCode::FAILURE);
    }
    if !json {
        say!("Shutdown notebook: {shown}");
    }
    Ok(ExitCode::SUCCESS)
}
