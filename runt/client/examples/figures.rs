//! What the daemon costs when the client costs little: this crate's own, against a daemon that listens on the given socket.
//!
//! For: `cargo xtask bench --only own`. Arguments: the socket, and a folder for notebooks. No kernel runs beside it.

#![allow(clippy::print_stdout, reason = "a command-line program")]

mod figure;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::handshake::OpenNotebook;
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::{Client, NotebookSession};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Cells that 100,000 changes are spread over: the cost of an edit grows with what was typed into its own cell.
const CELLS: usize = 1000;
/// Times each thing is done.
const TIMES: usize = 200;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(socket), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: figures SOCKET FOLDER".into());
    };
    // As a task among others, which is where an application has its sessions.
    tokio::spawn(measure(socket, folder)).await?
}

async fn measure(socket: PathBuf, folder: PathBuf) -> Outcome<()> {
    let client = Client::new(socket);
    for cells in [100, 1000, 5000] {
        let mut times = Vec::new();
        for time in 0..5 {
            // A file that the daemon has never seen.
            let path = folder.join(format!("open-{cells}-{time}.ipynb"));
            write(&path, cells)?;
            let start = Instant::now();
            let session = open(&client, &path).await?;
            session.wait_for(|it| (it.notebook.cell_count() == cells).then_some(())).await?;
            times.push(start.elapsed());
            close(&client, session).await?;
        }
        let what = format!("open {cells} cells until the client has them");
        figure::times(&format!("own_open_{cells}"), &what, &times)?;
    }

    let path = folder.join("edits.ipynb");
    write(&path, CELLS)?;
    let (writer, reader) = (open(&client, &path).await?, open(&client, &path).await?);
    let cell = NewCell { id: "fresh".into(), cell_type: "code".into(), ..NewCell::default() };
    writer.edit(|notebook| notebook.insert_cell(Place::End, &cell))?;
    let early = edits(&writer, &reader, "fresh").await?;
    figure::times("own_edit", "an edit until another window has it, from change 10 on", &early)?;
    let start = Instant::now();
    let many = 100_000;
    for number in 0..many {
        let id = format!("c{}", number % CELLS);
        writer.edit(|notebook| notebook.set_source(&id, &format!("x = {number}")))?;
        // At the speed of the daemon, so that each is a message of its own.
        if number % 10 == 0 {
            writer.request(NotebookRequest::AcknowledgeNotebookSync).await?;
        }
    }
    println!("{many} changes took {:.1} s", start.elapsed().as_secs_f64());
    let cell = NewCell { id: "late".into(), cell_type: "code".into(), ..NewCell::default() };
    writer.edit(|notebook| notebook.insert_cell(Place::End, &cell))?;
    writer.request(NotebookRequest::AcknowledgeNotebookSync).await?;
    reader.wait_for(|it| it.notebook.source("late").map(drop)).await?;
    let late = edits(&writer, &reader, "late").await?;
    figure::times("own_edit_late", "the same, from change 100,000 on", &late)?;
    reader.close().await;
    close(&client, writer).await
}

/// The times from an edit to its arrival.
async fn edits(writer: &NotebookSession, reader: &NotebookSession, cell: &str) -> Outcome<Vec<Duration>> {
    let mut times = Vec::new();
    for number in 0..TIMES {
        let text = format!("y = {number}");
        let start = Instant::now();
        writer.edit(|notebook| notebook.set_source(cell, &text))?;
        reader.wait_for(|it| (it.notebook.source(cell).as_ref() == Some(&text)).then_some(())).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// A notebook whose kernel nobody has.
fn write(path: &Path, cells: usize) -> Outcome<()> {
    let source = [
        "import numpy as np\n",
        "values = np.linspace(0, 1, 1000)\n",
        "print(values.mean(), values.std())\n",
    ];
    let cells: Vec<_> = (0..cells)
        .map(|number| {
            json!({"cell_type": "code", "id": format!("c{number}"), "metadata": {}, "outputs": [],
                "execution_count": null, "source": source})
        })
        .collect();
    let kernelspec = json!({"name": "nobody-has-it", "display_name": "-", "language": "-"});
    let notebook =
        json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernelspec}, "cells": cells});
    Ok(std::fs::write(path, notebook.to_string())?)
}

async fn open(client: &Client, path: &Path) -> Outcome<NotebookSession> {
    let open = OpenNotebook { path: path.display().to_string(), ..OpenNotebook::default() };
    let session = NotebookSession::open(client, open).await?;
    session.ready().await?;
    Ok(session)
}

/// Closes a notebook for everybody.
async fn close(client: &Client, session: NotebookSession) -> Outcome<()> {
    let id = session.notebook_id().ok_or("a notebook without an id")?;
    session.close().await;
    client.shutdown_notebook(&id).await?;
    Ok(())
}
