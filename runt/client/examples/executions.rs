//! What the daemon adds to an execution when the client costs little: this crate's own, against a daemon that listens on
//! the given socket and has an environment for Python.
//!
//! For: `cargo xtask bench --only own`, which measures the bare kernel beside it.

#![allow(clippy::print_stdout, reason = "a command-line program")]

mod figure;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::{Client, NotebookSession};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Executions of one cell.
const TIMES: usize = 1000;
/// Of which so many are looked at, the first and the last.
const SHOWN: usize = 100;
/// Executions of the cell that displays, as often as the bare kernel is asked with `--runs 10`.
const DISPLAYS: usize = 10;
/// Cells that are queued at once, and how often.
const QUEUED: usize = 51;
const QUEUES: usize = 10;
/// What the cell displays 1,000 times; `xtask/bench/raw_kernel.py` has the same.
const DISPLAY: &str =
    "from IPython.display import display, HTML\nfor i in range(1000): display(HTML(f'<b>{i}</b>'))";

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
        let id = add(&session, id, source)?;
        // The kernel is up.
        run(&session, id).await?;
        let mut times = Vec::new();
        for _ in 0..TIMES {
            times.push(run(&session, id).await?);
        }
        let (first, last) = (&times[..SHOWN], &times[TIMES - SHOWN..]);
        figure::times(&format!("own_{id}_first"), &format!("{id}, executions 1 to {SHOWN}"), first)?;
        let what = format!("{id}, executions {} to {TIMES}", TIMES - SHOWN);
        figure::times(&format!("own_{id}_last"), &what, last)?;
    }
    let displays = add(&session, "displays", DISPLAY)?;
    let mut times = Vec::new();
    for _ in 0..DISPLAYS {
        times.push(run(&session, displays).await?);
    }
    figure::times("own_displays", "1,000 displays", &times)?;
    let queue: Vec<String> = (0..QUEUED).map(|number| format!("y{number}")).collect();
    for id in &queue {
        add(&session, id, &format!("{id} = 1"))?;
    }
    let mut times = Vec::new();
    for _ in 0..QUEUES {
        times.push(run_all(&session, &queue).await?);
    }
    figure::times("own_queue_51", "51 queued cells", &times)?;
    let id = session.notebook_id().ok_or("a notebook without an id")?;
    session.close().await;
    client.shutdown_notebook(&id).await?;
    Ok(())
}

/// A code cell with this id.
fn add<'id>(session: &NotebookSession, id: &'id str, source: &str) -> Outcome<&'id str> {
    let cell =
        NewCell { id: id.into(), cell_type: "code".into(), source: source.into(), ..NewCell::default() };
    session.edit(|notebook| notebook.insert_cell(Place::End, &cell))?;
    Ok(id)
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

/// The time from the first request until the client has the end of the last of them.
async fn run_all(session: &NotebookSession, cells: &[String]) -> Outcome<Duration> {
    let start = Instant::now();
    let mut last = String::new();
    for cell in cells {
        last = session.execute_cell(cell).await?.execution_id;
    }
    session.wait_for(|it| it.runtime_state.execution(&last)?.status.is_terminal().then_some(())).await?;
    Ok(start.elapsed())
}
