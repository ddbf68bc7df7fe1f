//! Our half of the protocol against automerge's own.

use std::collections::VecDeque;

use automerge::sync::{Message, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ChangeHash, ObjType, ROOT, ReadDoc};
use proptest::prelude::*;

use super::{Incoming, SyncError, SyncPeer};
use crate::documents::notebook::{NewCell, Place};
use crate::documents::{Document, NotebookDoc, RuntimeStateDoc, genesis, json};

/// A client as it is in the wild: automerge and nothing else.
struct Client {
    document: AutoCommit,
    state: State,
    to_server: VecDeque<Vec<u8>>,
    to_client: VecDeque<Vec<u8>>,
    peer: SyncPeer,
}

impl Client {
    fn new(name: &str, genesis: &mut AutoCommit) -> Self {
        let actor = ActorId::from(format!("local:{name}/agent:test").as_bytes());
        Self {
            document: genesis.fork().with_actor(actor),
            state: State::new(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            peer: SyncPeer::new(),
        }
    }

    fn edit(&mut self, seed: u8) {
        let cells = json::get_object(&self.document, &ROOT, "cells", ObjType::Map).unwrap();
        let key = format!("c{}", seed % 4);
        match json::get_object(&self.document, &cells, key.as_str(), ObjType::Text) {
            Some(text) if !seed.is_multiple_of(7) => {
                let at = usize::from(seed) % (self.document.length(&text) + 1);
                self.document.splice_text(&text, at, 0, "ab").unwrap();
            }
            _ => drop(self.document.put_object(&cells, key, ObjType::Text).unwrap()),
        }
        if seed.is_multiple_of(3) {
            self.document.commit();
        }
        if seed.is_multiple_of(11) {
            self.document.empty_change(Default::default());
        }
    }

    fn speak(&mut self) {
        let message = self.document.sync().generate_sync_message(&mut self.state);
        self.to_server.extend(message.map(Message::encode));
    }

    fn listen(&mut self) -> bool {
        let Some(message) = self.to_client.pop_front() else { return false };
        let message = Message::decode(&message).unwrap();
        self.document.sync().receive_sync_message(&mut self.state, message).unwrap();
        true
    }

    fn reconnect(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.state = State::new();
        self.peer = SyncPeer::new();
    }
}

/// The server takes one message. What automerge would have done to document and state must be the same.
fn serve(server: &mut NotebookDoc, client: &mut Client) -> bool {
    let Some(bytes) = client.to_server.pop_front() else { return false };
    let mut stock = server.automerge_mut().clone();
    let mut stock_state = client.peer.state.clone();
    stock.sync().receive_sync_message(&mut stock_state, Message::decode(&bytes).unwrap()).unwrap();

    let before = server.heads();
    let received = client.peer.receive(server, Incoming::decode(&bytes).unwrap()).unwrap();
    assert_eq!(client.peer.state, stock_state);
    assert_eq!(server.heads(), stock.get_heads());
    assert_eq!(received.changed, before != server.heads());
    true
}

fn speak(server: &mut NotebookDoc, client: &mut Client) {
    client.to_client.extend(client.peer.generate(server));
}

#[derive(Debug, Clone)]
enum Step {
    Edit(usize, u8),
    ServerEdit(u8),
    ClientSpeaks(usize),
    ClientListens(usize),
    ServerSpeaks(usize),
    ServerListens(usize),
    Reconnect(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0usize..4;
    let step = prop_oneof![
        4 => (who.clone(), any::<u8>()).prop_map(|(who, seed)| Step::Edit(who, seed)),
        2 => any::<u8>().prop_map(Step::ServerEdit),
        3 => who.clone().prop_map(Step::ClientSpeaks),
        3 => who.clone().prop_map(Step::ClientListens),
        3 => who.clone().prop_map(Step::ServerSpeaks),
        3 => who.clone().prop_map(Step::ServerListens),
        1 => who.prop_map(Step::Reconnect),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn networks_converge_and_the_state_is_automerges_own(count in 1usize..4, steps in steps()) {
        let mut genesis = genesis::notebook("x").unwrap();
        let mut server = NotebookDoc::new("room", "runtimed").unwrap();
        let mut clients: Vec<Client> =
            (0..count).map(|index| Client::new(&index.to_string(), &mut genesis)).collect();
        for step in steps {
            match step {
                Step::ServerEdit(seed) => {
                    let cell = NewCell { id: format!("s{}", seed % 3), ..NewCell::default() };
                    server.insert_cell(Place::End, &cell).unwrap();
                }
                Step::Edit(who, seed) => clients[who % count].edit(seed),
                Step::ClientSpeaks(who) => clients[who % count].speak(),
                Step::ClientListens(who) => drop(clients[who % count].listen()),
                Step::ServerSpeaks(who) => speak(&mut server, &mut clients[who % count]),
                Step::ServerListens(who) => drop(serve(&mut server, &mut clients[who % count])),
                Step::Reconnect(who) => clients[who % count].reconnect(),
            }
        }
        let mut rounds = 0;
        loop {
            let mut busy = false;
            for client in &mut clients {
                client.speak();
                while serve(&mut server, client) {
                    busy = true;
                }
                speak(&mut server, client);
                while client.listen() {
                    busy = true;
                }
            }
            if !busy {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 50, "the network never falls silent");
        }
        for client in &mut clients {
            prop_assert_eq!(client.document.get_heads(), server.heads());
            prop_assert!(client.peer.is_caught_up(&mut server));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(Incoming::decode(&bytes));
        let with_header = [&[0x42, 0, 0, 0, 1][..], &bytes].concat();
        drop(Incoming::decode(&with_header));
    }
}

/// A server and a client that have nothing more to say to each other.
fn settled() -> (NotebookDoc, Client) {
    let mut server = NotebookDoc::new("room", "runtimed").unwrap();
    let mut client = Client::new("ana", &mut genesis::notebook("x").unwrap());
    settle(&mut server, &mut client);
    (server, client)
}

fn settle(server: &mut NotebookDoc, client: &mut Client) {
    loop {
        speak(server, client);
        client.listen();
        client.speak();
        if !serve(server, client) && client.to_client.is_empty() {
            return;
        }
    }
}

#[test]
fn the_peer_knows_when_the_client_has_everything() {
    let mut server = NotebookDoc::new("room", "runtimed").unwrap();
    let mut client = Client::new("ana", &mut genesis::notebook("x").unwrap());
    assert!(!client.peer.is_caught_up(&mut server));
    settle(&mut server, &mut client);
    assert!(client.peer.is_caught_up(&mut server));
    server.set_ephemeral(true).unwrap();
    assert!(!client.peer.is_caught_up(&mut server));
}

#[test]
fn a_damaged_change_is_refused_and_nothing_changes() {
    let (mut server, mut client) = settled();
    client.edit(7);
    client.speak();
    let frame = client.to_server.pop_front().unwrap();
    let before = server.heads();
    for index in 0..frame.len() {
        let mut damaged = frame.clone();
        damaged[index] ^= 0x10;
        // Damage outside the changes may still make a message; inside it must not make a change.
        if let Ok(incoming) = Incoming::decode(&damaged) {
            let known: Vec<ChangeHash> =
                Incoming::decode(&frame).unwrap().changes.iter().map(|c| c.hash()).collect();
            assert!(incoming.changes().iter().all(|change| known.contains(&change.hash())), "byte {index}");
        }
        assert!(matches!(Incoming::decode(&frame[..index]), Err(SyncError::Undecodable(_))) || index > 0);
    }
    assert_eq!(server.heads(), before);
}

#[test]
fn nobody_signs_for_another_principal() {
    let (mut server, mut client) = settled();
    client.document.set_actor(ActorId::from(&b"local:bob/agent:test"[..]));
    client.edit(1);
    client.speak();
    let frame = client.to_server.pop_front().unwrap();
    let before = server.heads();
    let refused = client.peer.receive_from(&mut server, Incoming::decode(&frame).unwrap(), "local:ana");
    assert!(matches!(refused, Err(SyncError::Forbidden { actor, .. }) if actor == "local:bob/agent:test"));
    assert_eq!(server.heads(), before);
    client.peer.receive_from(&mut server, Incoming::decode(&frame).unwrap(), "local:bob").unwrap();
    assert_ne!(server.heads(), before);
}

#[test]
fn nobody_signs_with_a_label_that_goes_on_and_on() {
    for (length, allowed) in [(1024, true), (1025, false)] {
        let (mut server, mut client) = settled();
        let label = format!("local:ana/{}", "x".repeat(length - 10));
        client.document.set_actor(ActorId::from(label.as_bytes()));
        client.edit(1);
        client.speak();
        let frame = client.to_server.pop_front().unwrap();
        let received = client.peer.receive_from(&mut server, Incoming::decode(&frame).unwrap(), "local:ana");
        assert_eq!(received.is_ok(), allowed);
        assert!(received.map_or_else(|error| error.to_string().len(), |_| 0) < 300, "a line for the log");
    }
}

#[test]
fn labels_without_a_principal_and_changes_we_have_pass() {
    let (mut server, mut client) = settled();
    client.document.set_actor(ActorId::from(&b"agent:old:1"[..]));
    client.edit(1);
    client.speak();
    let frame = client.to_server.pop_front().unwrap();
    let received =
        client.peer.receive_from(&mut server, Incoming::decode(&frame).unwrap(), "local:ana").unwrap();
    assert_eq!(received.changes.len(), 1);
    // The same again, from a peer that is somebody else: all known, nothing to object to.
    let mut other = SyncPeer::new();
    let received = other.receive_from(&mut server, Incoming::decode(&frame).unwrap(), "local:eve").unwrap();
    assert!(received.changes.is_empty() && !received.changed);
}

#[test]
fn a_forbidden_write_is_dropped_and_does_not_go_round_in_circles() {
    let mut server = RuntimeStateDoc::new("runtimed:state").unwrap();
    let mut client = genesis::runtime_state("local:ana/agent:test").unwrap();
    let (mut peer, mut state) = (SyncPeer::new(), State::new());
    let mut frames = 0;
    // Both speak whenever they have something to say, until both are silent.
    let mut talk = |server: &mut RuntimeStateDoc, client: &mut AutoCommit| {
        let mut stripped = 0;
        loop {
            let down = peer.generate(server);
            let up_first = down.is_none();
            if let Some(frame) = down {
                frames += 1;
                client.sync().receive_sync_message(&mut state, Message::decode(&frame).unwrap()).unwrap();
            }
            match client.sync().generate_sync_message(&mut state) {
                Some(message) => {
                    frames += 1;
                    let incoming = Incoming::decode(&message.encode()).unwrap();
                    stripped += peer.receive_stripped(server, incoming).unwrap().stripped;
                }
                None if up_first => break,
                None => {}
            }
            assert!(frames < 60, "the two never fall silent");
        }
        stripped
    };
    assert_eq!(talk(&mut server, &mut client), 0);
    let before = server.heads();
    for round in 0..3 {
        client.put(ROOT, "path", format!("/forged/{round}")).unwrap();
        assert_eq!(talk(&mut server, &mut client), 1, "round {round}");
        assert_eq!(server.heads(), before, "the write was dropped");
    }
    // The server's own writes still arrive.
    server.set_last_saved(Some("2026-01-01T00:00:00Z")).unwrap();
    talk(&mut server, &mut client);
    assert_eq!(json::get_string(&client, &ROOT, "last_saved").as_deref(), Some("2026-01-01T00:00:00Z"));
}

/// What a client lacks is found by a filter, which takes one change of a hundred for one that the client has.
#[test]
fn a_client_has_everything_when_it_is_said_to() {
    let mut left_out = 0;
    for number in 0..2000 {
        let mut server = NotebookDoc::new(&format!("n{number}"), "runtimed").unwrap();
        let cell = NewCell { id: "c".into(), cell_type: "code".into(), ..NewCell::default() };
        server.insert_cell(Place::End, &cell).unwrap();
        server.commit();
        let mut client = NotebookDoc::genesis("local:ana/agent:test").unwrap();
        let (mut to_client, mut to_server) = (SyncPeer::new(), SyncPeer::new());
        let mut rounds = 0;
        while !to_client.is_caught_up(&mut server) {
            rounds += 1;
            if let Some(up) = to_server.generate(&mut client) {
                to_client.receive(&mut server, Incoming::decode(&up).unwrap()).unwrap();
            }
            if let Some(down) = to_client.generate(&mut server) {
                to_server.follow(&mut client, &down).unwrap();
            }
        }
        assert_eq!(client.heads(), server.heads(), "notebook {number}");
        left_out += usize::from(rounds > 1);
    }
    assert!(left_out > 0, "the filter never erred, so this shows nothing");
}

/// A client of ours that gets the whole document, with what it has itself.
#[test]
fn a_whole_document_takes_the_place_of_less_and_of_nothing_else() {
    let cells: Vec<_> = (0..20)
        .map(|number| NewCell { id: format!("c{number}"), cell_type: "code".into(), ..NewCell::default() })
        .collect();
    for edits_before in [false, true] {
        let mut server = NotebookDoc::new("n", "runtimed").unwrap();
        server.insert_cells(Place::End, &cells).unwrap();
        let mut client = NotebookDoc::genesis("local:ana/agent:test").unwrap();
        if edits_before {
            client.insert_cell(Place::End, &NewCell { id: "mine".into(), ..NewCell::default() }).unwrap();
        }
        let (mut to_client, mut to_server) = (SyncPeer::new(), SyncPeer::new());
        let mut whole = 0;
        loop {
            let up = to_server.generate(&mut client);
            let down = to_client.generate(&mut server);
            if up.is_none() && down.is_none() {
                break;
            }
            if let Some(up) = up {
                to_client.receive(&mut server, Incoming::decode(&up).unwrap()).unwrap();
            }
            if let Some(down) = down {
                whole += usize::from(super::Whole::decode(&down).unwrap().is_ok());
                let mut stock = client.automerge_mut().clone();
                let mut stock_state = to_server.state.clone();
                stock.sync().receive_sync_message(&mut stock_state, Message::decode(&down).unwrap()).unwrap();
                to_server.follow(&mut client, &down).unwrap();
                assert_eq!(to_server.state, stock_state);
                assert_eq!(client.heads(), stock.get_heads());
            }
        }
        assert_eq!(whole, 1);
        assert_eq!(client.heads(), server.heads());
        assert_eq!(client.cell_count(), 20 + usize::from(edits_before));
        client.set_source("c3", "written afterwards").unwrap();
        let mut theirs = client.automerge_mut().clone();
        assert!(
            theirs
                .get_changes(&server.heads())
                .iter()
                .all(|change| { change.actor_id().to_bytes() == b"local:ana/agent:test" })
        );
    }
}

#[test]
fn a_bloom_filter_that_cannot_be_asked_is_refused() {
    let message = |filter: &[u8]| {
        // Type, no heads, nothing needed, one `have` without heads, its filter, no changes.
        let mut message = vec![0x42, 0, 0, 1, 0, u8::try_from(filter.len()).unwrap()];
        message.extend(filter);
        message.push(0);
        Incoming::decode(&message)
    };
    assert!(message(&[]).is_ok());
    assert!(message(&[1, 10, 7, 0xff, 0xff]).is_ok());
    for (what, filter) in
        [("no bits", &[1, 0, 7][..]), ("4,294,967,295 probes", &[1, 8, 0xff, 0xff, 0xff, 0xff, 0x0f, 1])]
    {
        assert!(matches!(message(filter), Err(SyncError::Undecodable(_))), "{what}");
    }
}
