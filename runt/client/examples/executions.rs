//! What the daemon adds to an execution when the client costs little: this crate's own, against a daemon that listens on
//! the given socket and has an environment for Python.
//!
//! For: `cargo xtask bench --only own`, which measures the bare kernel beside it.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::{Client, NotebookSession};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Executions of one cell.
const TIMES: usize = 1000;
/// Of which so many are looked at, the first and the last.
const SHOWN: usize = 100;

#[tokio::main]
async fn main() -> Outcome<()> {
    let Some(socket) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err("usage: executions SOCKET".into());
    };
    let client = Client::new(socket);
    let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
    let session = NotebookSession::create(&client, create).await?;
    session.ready().await?;
    for (id, source) in [("expression", "6 * 7"), ("silent", "x = 1"), ("print", "print(1)")] {
        let cell =
            NewCell { id: id.into(), cell_type: "code".into(), source: source.into(), ..NewCell::default() };
        session.edit(|notebook| notebook.insert_cell(Place::End, &cell))?;
        // The kernel is up.
        run(&session, id).await?;
        let mut times = Vec::new();
        for _ in 0..TIMES {
            times.push(run(&session, id).await?);
        }
        show(&format!("{id}, executions 1 to {SHOWN}"), &times[..SHOWN]);
        show(&format!("{id}, executions {} to {TIMES}", TIMES - SHOWN), &times[TIMES - SHOWN..]);
    }
    let id = session.notebook_id().ok_or("a notebook without an id")?;
    session.close().await;
    client.shutdown_notebook(&id).await?;
    Ok(())
}

/// The time from the request until the client has the outputs and the end.
async fn run(session: &NotebookSession, cell: &str) -> Outcome<Duration> {
    let start = Instant::now();
    let id = session.execute_cell(cell).await?.execution_id;
    session
        .wait_for(|it| {
            it.runtime_state.execution(&id).filter(|it| it.status.is_terminal())?;
            Some(it.runtime_state.outputs(&id))
        })
        .await?;
    Ok(start.elapsed())
}

fn show(what: &str, times: &[Duration]) {
    let mut times = times.to_vec();
    times.sort();
    let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1000.0;
    println!("{what}: {:.2} ms in the median, {:.2} at the 95th percentile", at(50), at(95));
}
