//! Many notebooks are open at a time, each with a window: everybody's edit arrives, and all are given back.

use runtimed_client::Client;
use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::{NotebookSession, Result};

use super::beside::Beside;
use super::figures::Figures;
use super::{end, is_staged, size};
use crate::{scripts, tally};

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "conda_pool_size": 0, "uv_pool_size": 0, "keep_alive_secs": 600 }"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_notebooks_are_open() {
    if !is_staged() {
        return;
    }
    runtimed_host::limits::raise_open_files();
    let mut daemon = scripts::start(SETTINGS, |_| {});
    let client = Client::new(&daemon.socket);
    let idle = Beside::idle(&daemon, None);
    let before = Figures::at_rest(&daemon);
    let beside = Beside::begin(&daemon, None);
    let mut rooms = Vec::new();
    for number in 0..size(40, 1000) {
        rooms.push(open(&client, number).await.unwrap());
    }
    let opened = Figures::of(&daemon);
    beside.end().compare(&idle, &format!("rooms: while {} are opened", rooms.len()));

    let beside = Beside::begin(&daemon, None);
    for round in 0..size(2, 5) {
        for room in &rooms {
            room.edit(|notebook| notebook.set_source("only", &format!("round = {round}"))).unwrap();
        }
        for room in &rooms {
            room.request(NotebookRequest::AcknowledgeNotebookSync).await.unwrap();
        }
    }
    beside.end().compare(&idle, &format!("rooms: while {} are edited", rooms.len()));
    let last = format!("round = {}", size(2, 5) - 1);
    for room in rooms {
        let id = room.notebook_id().unwrap();
        room.close().await;
        let kept = client.inspect_notebook(&id).await.unwrap();
        assert_eq!(kept["cells"][0]["source"], last);
        assert!(client.shutdown_notebook(&id).await.unwrap());
    }
    let is_back = |it: &Figures| it.descriptors <= before.descriptors && it.threads <= before.threads;
    let after = Figures::settled(&daemon, is_back);
    tally(&format!("rooms: before {before}; open {opened}; after {after}"));
    assert!(is_back(&after), "descriptors and threads are back: {before}, then {after}");
    end(&mut daemon);
}

/// A notebook with a cell; its kernel nobody has.
async fn open(client: &Client, number: usize) -> Result<NotebookSession> {
    let create = CreateNotebook { runtime: "nobody-has-it".into(), ..CreateNotebook::default() };
    let session = NotebookSession::create(client, create).await?;
    session.ready().await?;
    let source = format!("number = {number}");
    let cell = NewCell { id: "only".into(), cell_type: "code".into(), source, ..NewCell::default() };
    session.edit(|notebook| {
        notebook.delete_all_cells()?;
        notebook.insert_cell(Place::End, &cell)
    })?;
    session.request(NotebookRequest::AcknowledgeNotebookSync).await?;
    Ok(session)
}
