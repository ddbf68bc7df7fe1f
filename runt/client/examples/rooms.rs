//! What 1,000 open notebooks of 100 cells cost a daemon while nobody does anything in them.
//!
//! For: `cargo xtask bench --only rooms`. Arguments: the socket, a folder for the notebooks, and the daemon's process id. No
//! kernel runs beside it.

#![allow(clippy::print_stdout, reason = "a command-line program")]

#[allow(dead_code, reason = "each example shows figures of its own kind")]
mod figure;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtimed_client::protocol::handshake::OpenNotebook;
use runtimed_client::{Client, NotebookSession};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ROOMS: usize = 1000;
const CELLS: usize = 100;
/// Until what opening has begun is over, and the first search for blobs that nothing needs, a minute after the start: files
/// that are written, journals that are flushed, every document that is walked once.
const REST: Duration = Duration::from_secs(75);
/// How long nothing is done: several of the client's signs of life, which come every 15 s.
const IDLE: Duration = Duration::from_secs(60);
/// Of the kernel's clock, on every Linux there is: `sysconf(_SC_CLK_TCK)`.
const TICKS_PER_SECOND: f64 = 100.0;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(socket), Some(folder), Some(pid)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: rooms SOCKET FOLDER PID".into());
    };
    let client = Client::new(PathBuf::from(socket));
    figure::show("own_rooms_before_pss", "memory before the first room", "MiB", vec![memory(&pid)?])?;
    let mut sessions = Vec::new();
    for number in 0..ROOMS {
        let path = Path::new(&folder).join(format!("room-{number}.ipynb"));
        write(&path)?;
        let open = OpenNotebook { path: path.display().to_string(), ..OpenNotebook::default() };
        let session = NotebookSession::open(&client, open).await?;
        session.wait_for(|it| (it.notebook.cell_count() == CELLS).then_some(())).await?;
        sessions.push(session);
    }
    tokio::time::sleep(REST).await;
    let (start, before) = (Instant::now(), processor(&pid)?);
    tokio::time::sleep(IDLE).await;
    let took = (processor(&pid)? - before) / start.elapsed().as_secs_f64() * 100.0;
    figure::show("own_rooms_pss", "memory of 1,000 open rooms", "MiB", vec![memory(&pid)?])?;
    figure::show(
        "own_rooms_cpu",
        "processor they take while nobody does anything",
        "% of a core",
        vec![took],
    )?;
    for session in sessions {
        session.close().await;
    }
    Ok(())
}

/// A notebook whose kernel nobody has.
fn write(path: &Path) -> Outcome<()> {
    let cells: Vec<_> = (0..CELLS)
        .map(|number| {
            json!({"cell_type": "code", "id": format!("c{number}"), "metadata": {}, "outputs": [],
                "execution_count": null, "source": format!("# cell {number}\nx_{number} = {number}\n")})
        })
        .collect();
    let kernelspec = json!({"name": "nobody-has-it", "display_name": "-", "language": "-"});
    let notebook =
        json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernelspec}, "cells": cells});
    Ok(fs::write(path, notebook.to_string())?)
}

/// The process's share of memory, in MiB.
fn memory(pid: &str) -> Outcome<f64> {
    let facts = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = facts.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// Seconds of processor it has taken.
fn processor(pid: &str) -> Outcome<f64> {
    let facts = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = facts.rsplit_once(')').ok_or("no name")?.1;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
}
