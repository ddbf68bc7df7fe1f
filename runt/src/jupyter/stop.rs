//! Ending a kernel that has a connection file.
//!
//! Promises: it is asked first; one that does not listen is ended by force, with all processes below it; the file goes
//! when the kernel is gone, not before.

use std::io;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use serde_json::json;

use super::client::{Channel, KernelClient};
use super::connection::Connection;
use super::find::Found;
use super::processes::Processes;
use crate::process::gone;

/// How long a kernel that was asked may take (the command line's contract).
const POLITE: Duration = Duration::from_secs(5);
/// How long one may take that was told.
const FIRM: Duration = Duration::from_secs(2);

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It ended.
    Now,
    /// There was only its file.
    Before,
}

/// Ends a kernel and removes its connection file.
///
/// # Errors
/// When it goes on, or the file cannot be removed.
pub(crate) async fn stop(found: &Found) -> anyhow::Result<Stopped> {
    let connection = Connection::read(&found.path)?;
    let pid = tokio::task::spawn_blocking({
        let path = found.path.clone();
        move || Processes::look().of_file(&path)
    });
    let pid = pid.await?;
    let asked = tokio::time::timeout(POLITE, ask(&connection, pid)).await;
    let stopped = match (asked, pid) {
        (Ok(Ok(())), None) => Stopped::Now,
        // Nobody listens, and nobody is there.
        (Ok(Err(_)), None) => Stopped::Before,
        (Err(_), None) => bail!(
            "Failed to stop {}: it does not react, and which process it is cannot be seen from here. \
             Its connection file was left where it is.",
            found.id
        ),
        // Who has the file and does not listen is no kernel, or not any more: it may be an editor.
        (Ok(Err(_)), Some(_)) => Stopped::Before,
        (asked, Some(pid)) => {
            if asked.is_err() || !gone(pid, POLITE).await {
                force(pid).await.with_context(|| format!("Failed to stop {}", found.id))?;
            }
            Stopped::Now
        }
    };
    match std::fs::remove_file(&found.path) {
        // Kernels that jupyter_client started have theirs removed by it.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", found.path.display()))
        }
        _ => Ok(stopped),
    }
}

/// Asks the kernel to end and waits until it says that it does, or is gone.
async fn ask(connection: &Connection, pid: Option<u32>) -> io::Result<()> {
    // One that is just starting will listen.
    let patience = if pid.is_some() { POLITE } else { Duration::ZERO };
    let mut client = KernelClient::connect_within(connection, patience).await?;
    let id = client.send(Channel::Control, "shutdown_request", json!({ "restart": false }))?;
    let answered = async {
        loop {
            match client.next().await {
                Ok(said) if said.channel == Channel::Control && said.parent == id => return,
                Ok(_) => {}
                // It closed its sockets.
                Err(_) => return,
            }
        }
    };
    match pid {
        None => answered.await,
        // A kernel that runs something may end before it answers.
        Some(pid) => tokio::select! {
            () = answered => {}
            _ = gone(pid, POLITE) => {}
        },
    }
    Ok(())
}

async fn force(pid: u32) -> anyhow::Result<()> {
    for signal in [Signal::TERM, Signal::KILL] {
        tokio::task::spawn_blocking(move || Processes::look().signal_tree(pid, signal)).await?;
        if gone(pid, FIRM).await {
            return Ok(());
        }
    }
    bail!("process {pid} cannot be ended")
}
