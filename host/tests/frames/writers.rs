//! Clients that write what they may not.

use runtimed_protocol::documents::notebook::{NewCell, Place};
use runtimed_protocol::documents::runtime_state::KernelState;
use runtimed_protocol::documents::{Document, NotebookDoc, RuntimeStateDoc};
use runtimed_protocol::frame::FrameType;
use serde_json::json;

use crate::peer::{Peer, Replica};

#[test]
fn what_a_client_writes_into_the_runtime_state_is_dropped_and_it_hears_on() {
    let Some(daemon) = crate::start() else { return };
    let file = daemon.home.path().canonicalize().unwrap().join("a.ipynb");
    let mut ana = Peer::create(&daemon);
    let actor = ana.info["actor_label"].as_str().unwrap().to_owned();
    let mut runtime = Replica::new(RuntimeStateDoc::new(&actor).unwrap(), FrameType::RUNTIME_STATE_SYNC);
    runtime.until(&mut ana, |runtime| runtime.to_json()["runtime_state_doc_id"] != json!(""));
    for _ in 0..3 {
        runtime.document.set_kernel_state(&KernelState::Shutdown).unwrap();
        runtime.document.set_path(Some("/evil")).unwrap();
        runtime.document.commit();
        runtime.speak(&mut ana);
        runtime.document.set_path(Some("/more/evil")).unwrap();
        runtime.document.commit();
        runtime.speak(&mut ana);
    }
    // A save changes the path, which the writer has changed as well: whoever it joins sees the daemon's.
    let id = ana.info["notebook_id"].clone();
    let mut bob = Peer::connect(&daemon, json!({"channel": "notebook_sync", "notebook_id": id}));
    let saved = bob.ask(json!({"action": "save_notebook", "format_cells": false, "path": file}));
    assert_eq!(saved["result"], "notebook_saved", "{saved}");
    let has = |runtime: &RuntimeStateDoc, text: &str| {
        let json = runtime.to_json();
        json["last_saved"] != json!(null) && json["path"] == json!(text)
    };
    let mut late =
        Replica::new(RuntimeStateDoc::new("local:tester/late").unwrap(), FrameType::RUNTIME_STATE_SYNC);
    let mut carl = Peer::connect(&daemon, json!({"channel": "notebook_sync", "notebook_id": id}));
    late.until(&mut carl, |runtime| has(runtime, file.to_str().unwrap()));

    // The writer hears of the save too, in few messages: nobody went round in circles.
    let messages = runtime.until(&mut ana, |runtime| runtime.to_json()["last_saved"] != json!(null));
    assert!(messages < 20, "{messages} messages");
    assert_eq!(
        ana.ask(json!({"action": "acknowledge_notebook_sync"}))["result"],
        "notebook_sync_acknowledged"
    );
    crate::stop(daemon);
}

#[test]
fn a_change_in_the_name_of_another_user_ends_the_connection() {
    let Some(daemon) = crate::start() else { return };
    let ana = Peer::create(&daemon);
    let id = ana.info["notebook_id"].clone();
    for (actor, allowed) in
        [("local:tester/agent:other", true), ("agent:old:1", true), ("local:somebody/agent:x", false)]
    {
        let mut peer = Peer::connect(&daemon, json!({"channel": "notebook_sync", "notebook_id": id}));
        let mut notebook = Replica::new(NotebookDoc::genesis(actor).unwrap(), FrameType::NOTEBOOK_SYNC);
        notebook.until(&mut peer, |notebook| notebook.cell_count() > 0);
        let cell = NewCell { id: actor.to_owned(), cell_type: "code".to_owned(), ..NewCell::default() };
        notebook.document.insert_cell(Place::End, &cell).unwrap();
        notebook.document.commit();
        notebook.speak(&mut peer);
        // What the daemon says it has is a Bloom filter's guess, so a change may be sent only when it asks for it.
        let delivered = loop {
            if notebook.sync.their_heads() == Some(&notebook.document.heads()) {
                break true;
            }
            let Some(frame) = peer.next() else { break false };
            notebook.hear(&mut peer, &frame);
        };
        assert_eq!(delivered, allowed, "{actor}");
        let state = daemon.ask(json!({"type": "inspect_notebook", "notebook_id": id}));
        let there = state["cells"].as_array().unwrap().iter().any(|cell| cell["id"] == actor);
        assert_eq!(there, allowed, "{actor}");
    }
    let log = std::fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
    assert!(
        log.contains("the principal `local:tester` is not authorized to write as `local:somebody/agent:x`")
    );
    crate::stop(daemon);
}
