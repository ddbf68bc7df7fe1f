//! `runt verify` and `runt recover`: what is kept of notebooks beside their files.
//!
//! Promises: exit code 1 when something kept cannot be brought back whole; a file that is there is not
//! overwritten.
//! Never: reads a journal; the daemon does.

use std::path::Path;
use std::process::ExitCode;

use runtimed_client::protocol::pool::KeptNotebook;
use runtimed_client::{Client, ClientError};
use serde_json::json;

use crate::cli::RecoverOptions;
use crate::patience::waiting;
use crate::terminal;

/// What the user sees meanwhile.
const READING: &str = "Reading what is kept";

/// Has the daemon check everything, and shows what it found.
pub(crate) async fn verify(repair: bool, json: bool) -> anyhow::Result<ExitCode> {
    let found = waiting(READING, Client::discover().verify_notebooks(repair)).await.map_err(explain)?;
    let faulty = found.notebooks.iter().filter(|notebook| !is_fine(notebook)).count();
    if json {
        terminal::print_json(&found)?;
    } else if found.notebooks.is_empty() {
        anstream::println!("Nothing is kept of any notebook.");
    } else {
        let header = ["NOTEBOOK", "PATH", "CELLS", "JOURNAL", "FILE", "NOTE"];
        anstream::println!("{}", terminal::table(&header, found.notebooks.iter().map(verified)));
        match faulty {
            0 => anstream::println!("All of it can be brought back."),
            1 => anstream::println!("1 of them cannot be brought back whole."),
            more => anstream::println!("{more} of them cannot be brought back whole."),
        }
        if faulty > 0 && !repair {
            anstream::eprintln!("`runt verify --repair` brings in order what it can, and deletes nothing.");
        }
    }
    left_out(found.truncated);
    Ok(if faulty == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lists what there is, or writes one notebook to a file.
pub(crate) async fn recover(options: RecoverOptions) -> anyhow::Result<ExitCode> {
    let client = Client::discover();
    let (Some(notebook), Some(output)) = (options.notebook, options.output) else {
        let found = waiting(READING, client.verify_notebooks(false)).await.map_err(explain)?;
        let kept = found.notebooks.iter().filter(|notebook| notebook.cells > 0);
        if options.json {
            terminal::print_json(&kept.collect::<Vec<_>>())?;
        } else if found.notebooks.iter().all(|notebook| notebook.cells == 0) {
            anstream::println!("There is nothing to recover.");
        } else {
            let header = ["ID", "PATH", "CELLS", "CHANGED", "NOTE"];
            anstream::println!("{}", terminal::table(&header, kept.map(recoverable)));
        }
        left_out(found.truncated);
        return Ok(ExitCode::SUCCESS);
    };
    let output = std::path::absolute(output)?;
    let text = output.to_string_lossy();
    let (cells, missing) =
        waiting(READING, client.recover_notebook(&notebook, &text)).await.map_err(explain)?;
    if options.json {
        terminal::print_json(&json!({"path": text, "cells": cells, "missing_blobs": missing}))?;
    } else {
        let plural = if cells == 1 { "" } else { "s" };
        say!("Wrote {cells} cell{plural} to {}", terminal::tilde(&output));
        if missing > 0 {
            anstream::eprintln!(
                "The content of {missing} outputs is not there any more; the file says where."
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn verified(notebook: &KeptNotebook) -> Vec<String> {
    vec![
        id(notebook),
        path(notebook),
        notebook.cells.to_string(),
        notebook.state.clone(),
        notebook.file.clone(),
        note(notebook),
    ]
}

fn recoverable(notebook: &KeptNotebook) -> Vec<String> {
    let id = match notebook.state.as_str() {
        // There may be several of one notebook.
        "quarantined" | "aside" => notebook.journal.clone(),
        _ => id(notebook),
    };
    let written = notebook.written.split('.').next().unwrap_or_default().replace('T', " ");
    vec![id, path(notebook), notebook.cells.to_string(), written, note(notebook)]
}

fn id(notebook: &KeptNotebook) -> String {
    match notebook.notebook_id.as_str() {
        "" => notebook.journal.clone(),
        id => id.to_owned(),
    }
}

fn path(notebook: &KeptNotebook) -> String {
    let path = notebook.notebook_path.as_deref().map(|path| terminal::tilde(Path::new(path)));
    path.unwrap_or_else(|| "(untitled)".to_owned())
}

fn note(notebook: &KeptNotebook) -> String {
    let mut notes = Vec::new();
    match notebook.state.as_str() {
        "torn" => notes.push("its end is missing".to_owned()),
        "damaged" => notes.push("damaged; the beginning can be read".to_owned()),
        "unreadable" => notes.push("cannot be read".to_owned()),
        "newer" => notes.push("written by a newer version of runtimed".to_owned()),
        "quarantined" => notes.push("damaged, set aside".to_owned()),
        "aside" => notes.push("its file is gone, or another notebook's".to_owned()),
        _ => {}
    }
    if notebook.missing_blobs > 0 {
        notes.push(format!("{} outputs have lost their content", notebook.missing_blobs));
    }
    if notebook.unsaved {
        notes.push("not all of it is in a file".to_owned());
    }
    if notebook.open {
        notes.push("open".to_owned());
    }
    notes.extend(notebook.repaired.as_ref().map(|what| format!("repaired: {what}")));
    notes.join("; ")
}

/// What is set aside was told when it was.
fn is_fine(notebook: &KeptNotebook) -> bool {
    notebook.is_safe() || matches!(notebook.state.as_str(), "quarantined" | "aside")
}

fn left_out(truncated: Option<u64>) {
    if let Some(left_out) = truncated {
        anstream::eprintln!("{left_out} more, the oldest ones without a fault, are not shown.");
    }
}

fn explain(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Daemon(message) => anyhow::anyhow!(message),
        error => anyhow::anyhow!(
            "{error}\nWhat is kept is read by the daemon. Is it running? Try `runt daemon start`; its start brings \
             everything back that can be."
        ),
    }
}
