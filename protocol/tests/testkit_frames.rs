//! The frames that the conformance kit sends to rooms are those that a client sends.
//!
//! For: `plugin-api/testkit`, which tests rooms without knowing this crate; it keeps the frames as files. After a
//! change of the protocol, `RUNTIMED_WRITE_FRAMES=1 cargo test -p runtimed-protocol --test testkit_frames` writes
//! them anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use runtimed_protocol::documents::automerge::sync::{Message, State, SyncDoc as _};
use runtimed_protocol::documents::notebook::{NewCell, Place};
use runtimed_protocol::documents::{Document, NotebookDoc};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-api/testkit/src/suites/rooms/frames")
}

fn next(document: &mut NotebookDoc, state: &mut State) -> Option<Vec<u8>> {
    Some(document.automerge_mut().sync().generate_sync_message(state)?.encode())
}

/// What the client called `name` says: its first message, and one for each of two cells that it adds.
fn frames(name: &str) -> [Vec<u8>; 3] {
    let mut client = NotebookDoc::genesis(&format!("local:testkit/kit:{name}")).unwrap();
    let mut server = NotebookDoc::genesis("daemon").unwrap();
    let (mut ours, mut theirs) = (State::new(), State::new());
    let hello = next(&mut client, &mut ours).unwrap();
    let mut to_server = Some(hello.clone());
    loop {
        if let Some(message) = to_server.take() {
            let message = Message::decode(&message).unwrap();
            server.automerge_mut().sync().receive_sync_message(&mut theirs, message).unwrap();
        }
        let Some(message) = next(&mut server, &mut theirs) else { break };
        let message = Message::decode(&message).unwrap();
        client.automerge_mut().sync().receive_sync_message(&mut ours, message).unwrap();
        to_server = next(&mut client, &mut ours);
    }
    let mut added = |number: &str| {
        let cell = NewCell {
            id: format!("{name}-{number}"),
            cell_type: "markdown".to_owned(),
            source: format!("written by {name}, {number}"),
            ..NewCell::default()
        };
        client.insert_cell(Place::End, &cell).unwrap();
        client.commit().unwrap();
        next(&mut client, &mut ours).unwrap()
    };
    let first = added("first");
    let second = added("second");
    [hello, first, second]
}

#[test]
fn the_kits_frames_are_those_of_a_client() {
    for name in ["a", "b"] {
        for (kind, frame) in ["hello", "first", "second"].into_iter().zip(frames(name)) {
            let file = folder().join(format!("{name}-{kind}.bin"));
            if std::env::var_os("RUNTIMED_WRITE_FRAMES").is_some() {
                fs::create_dir_all(folder()).unwrap();
                fs::write(&file, &frame).unwrap();
            }
            assert_eq!(fs::read(&file).unwrap(), frame, "{}", file.display());
        }
    }
}
