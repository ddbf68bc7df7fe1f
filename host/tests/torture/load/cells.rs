//! A notebook of thousands of cells is opened, edited, run and saved like any other.

use std::fs;
use std::time::Instant;

use runtimed_client::protocol::documents::notebook::Place;
use runtimed_client::protocol::request::NotebookRequest;
use serde_json::{Value, json};

use super::beside::Beside;
use super::figures::Figures;
use super::{end, is_staged, size};
use crate::story::Story;
use crate::{scripts, tally};

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "conda_pool_size": 0, "uv_pool_size": 1, "keep_alive_secs": 600 }"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_notebook_of_ten_thousand_cells_is_a_notebook() {
    if !is_staged() {
        return;
    }
    let count = size(1000, 10_000);
    let mut daemon = scripts::start(SETTINGS, |_| {});
    let file = daemon.home.path().canonicalize().unwrap().join("long.ipynb");
    let cells: Vec<_> = (0..count)
        .map(|number| {
            json!({"cell_type": "code", "id": format!("c{number}"), "metadata": {}, "outputs": [],
                "execution_count": null, "source": [format!("print('cell {number}')")]})
        })
        .collect();
    let notebook = json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells});
    fs::write(&file, notebook.to_string()).unwrap();
    let idle = Beside::idle(&daemon, None);
    let beside = Beside::begin(&daemon, None);
    let mut took = Vec::new();
    let mut start = Instant::now();
    let mut lap = |what: &str| {
        took.push(format!("{what} {:.1} s", start.elapsed().as_secs_f64()));
        start = Instant::now();
    };
    let story = Story::open(&daemon, &file).await.unwrap();
    assert_eq!(story.session.read(|it| it.notebook.cell_count()), count);
    lap("opened");
    let middle = format!("c{}", count / 2);
    story
        .session
        .edit(|notebook| {
            notebook.move_cell("c1", Place::End)?;
            notebook.delete_cell("c2")?;
            notebook.set_source(&middle, "print('edited')")
        })
        .unwrap();
    story.session.request(NotebookRequest::AcknowledgeNotebookSync).await.unwrap();
    lap("edited");
    let last = format!("c{}", count - 1);
    for cell in ["c0", &middle, &last] {
        let (execution, well) = story.run(cell).await.unwrap();
        assert!(well && !story.outputs(&execution).is_empty(), "{cell}");
    }
    lap("three run, with the start of the kernel");
    story.save().await.unwrap();
    lap("saved");
    beside.end().compare(&idle, &format!("cells: a notebook of {count}"));
    tally(&format!("cells: {count} {}; {}", took.join(", "), Figures::of(&daemon)));

    let saved: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let saved = saved["cells"].as_array().unwrap();
    assert_eq!(saved.len(), count - 1);
    assert_eq!(saved.last().unwrap()["id"], "c1");
    let edited = saved.iter().find(|cell| cell["id"] == *middle).unwrap();
    assert_eq!(edited["outputs"][0]["text"], json!(["edited\n"]));
    assert!(edited["source"].to_string().contains("edited"));
    drop(story);
    end(&mut daemon);
}
