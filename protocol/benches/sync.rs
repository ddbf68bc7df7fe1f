//! What one sync frame costs a server, and whether that grows with the history.
//!
//! `cargo bench -p runtimed-protocol --bench sync`

#![expect(clippy::unwrap_used, reason = "a bench that fails may panic")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use automerge::sync::{Message, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{ObjId, ObjType, ROOT};
use criterion::{Bencher, BenchmarkId, Criterion, criterion_group, criterion_main};
use runtimed_protocol::documents::notebook::{NewCell, Place};
use runtimed_protocol::documents::sync::Incoming;
use runtimed_protocol::documents::{Document, NotebookDoc, SyncPeer, automerge, json};

/// Cells in the notebook. The edits go round all of them, unless what one cell costs that has seen much is the topic:
/// automerge walks the operations of the text that a change touches.
const CELLS: usize = 1_000;

/// A server and a client that agree on a notebook with a history.
struct Pair {
    server: NotebookDoc,
    peer: SyncPeer,
    client: NotebookDoc,
    client_peer: SyncPeer,
    /// The states of both when they are built on automerge alone.
    stock: State,
    client_stock: State,
    /// The texts that are edited, one after the other.
    texts: Vec<ObjId>,
    edits: usize,
}

impl Pair {
    /// After `changes` edits of `edited` cells.
    fn new(changes: usize, edited: usize) -> Self {
        let mut server = NotebookDoc::new("n", "runtimed").unwrap();
        let cells: Vec<NewCell> = (0..CELLS)
            .map(|index| NewCell {
                id: index.to_string(),
                cell_type: "code".to_owned(),
                ..NewCell::default()
            })
            .collect();
        server.insert_cells(Place::End, &cells).unwrap();
        server.commit();
        let mut client = NotebookDoc::load(&server.save(), "local:a/b").unwrap();
        let document = client.automerge_mut();
        let parent = json::get_object(document, &ROOT, "cells", ObjType::Map).unwrap();
        let text = |cell: &NewCell| {
            let cell = json::get_object(document, &parent, cell.id.as_str(), ObjType::Map).unwrap();
            json::get_object(document, &cell, "source", ObjType::Text).unwrap()
        };
        let texts: Vec<ObjId> = cells.iter().take(edited).map(text).collect();
        for edit in 0..changes {
            document.splice_text(&texts[edit % edited], 0, 0, "x").unwrap();
            document.commit();
        }
        server.apply(document.get_changes(&[])).unwrap();
        let agreed = State { shared_heads: server.heads(), ..State::default() };
        let mut pair = Self {
            server,
            peer: SyncPeer::new(),
            client,
            client_peer: SyncPeer::new(),
            stock: agreed.clone(),
            client_stock: agreed,
            texts,
            edits: 0,
        };
        // The first exchanges settle capabilities and shared heads.
        for _ in 0..3 {
            pair.ours();
            pair.stock();
        }
        pair
    }

    /// The client types a character.
    fn edit(&mut self) {
        self.edits += 1;
        let text = &self.texts[self.edits % self.texts.len()];
        self.client.automerge_mut().splice_text(text, 0, 0, "x").unwrap();
        self.client.commit();
    }

    fn ours(&mut self) -> (Duration, Duration) {
        self.edit();
        let frame = self.client_peer.generate(&mut self.client).unwrap();
        let start = Instant::now();
        let incoming = Incoming::decode(&frame).unwrap();
        black_box(self.peer.receive_from(&mut self.server, incoming, "local:a").unwrap());
        let received = start.elapsed();
        let reply = self.peer.generate(&mut self.server);
        let total = start.elapsed();
        if let Some(reply) = reply {
            self.client_peer.receive(&mut self.client, Incoming::decode(&reply).unwrap()).unwrap();
        }
        (received, total - received)
    }

    fn stock(&mut self) -> (Duration, Duration) {
        self.edit();
        let client = self.client.automerge_mut();
        let frame = client.sync().generate_sync_message(&mut self.client_stock).unwrap().encode();
        let start = Instant::now();
        let message = Message::decode(&frame).unwrap();
        let server = self.server.automerge_mut();
        server.sync().receive_sync_message(&mut self.stock, message).unwrap();
        let received = start.elapsed();
        let reply = server.sync().generate_sync_message(&mut self.stock).map(Message::encode);
        let total = start.elapsed();
        if let Some(reply) = reply {
            let message = Message::decode(&reply).unwrap();
            client.sync().receive_sync_message(&mut self.client_stock, message).unwrap();
        }
        (received, total - received)
    }

    /// The client types, the server puts what is new into its journal.
    fn journal(&mut self) -> Duration {
        let before = self.server.heads();
        self.ours();
        let start = Instant::now();
        let changes = black_box(self.server.automerge_mut().save_after(&before));
        let took = start.elapsed();
        assert!(!changes.is_empty());
        took
    }

    /// The server writes; the frame for the client.
    fn broadcast(&mut self) -> Duration {
        self.edits += 1;
        self.server.set_execution_id("0", &self.edits.to_string()).unwrap();
        self.server.commit();
        let start = Instant::now();
        let frame = self.peer.generate(&mut self.server);
        let took = start.elapsed();
        if let Some(frame) = frame {
            self.client_peer.receive(&mut self.client, Incoming::decode(&frame).unwrap()).unwrap();
        }
        if let Some(reply) = self.client_peer.generate(&mut self.client) {
            self.peer.receive(&mut self.server, Incoming::decode(&reply).unwrap()).unwrap();
        }
        took
    }
}

/// One exchange; how long the measured part of it took.
type Step = fn(&mut Pair) -> Duration;

/// Measures `step`, starting over before the history has grown by a tenth or by 1,000 changes.
fn measure(bench: &mut Bencher<'_>, changes: usize, edited: usize, step: Step) {
    let mut pair: Option<Pair> = None;
    bench.iter_custom(|count| {
        let mut spent = Duration::ZERO;
        for _ in 0..count {
            let fresh = pair.take().filter(|pair| pair.edits < 1_000.max(changes / 10));
            spent += step(pair.insert(fresh.unwrap_or_else(|| Pair::new(changes, edited))));
        }
        spent
    });
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    group.sample_size(10);
    let receive: Step = |pair| pair.ours().0;
    for changes in [100, 100_000] {
        let steps: [(&str, Step); 6] = [
            ("receive", receive),
            ("reply", |pair| pair.ours().1),
            ("broadcast", Pair::broadcast),
            ("journal", Pair::journal),
            ("receive, automerge alone", |pair| pair.stock().0),
            ("reply, automerge alone", |pair| pair.stock().1),
        ];
        for (name, step) in steps {
            let id = BenchmarkId::new(name, changes);
            group.bench_function(id, |bench| measure(bench, changes, CELLS, step));
        }
    }
    for changes in [100, 10_000] {
        let id = BenchmarkId::new("receive, all edits in one cell", changes);
        group.bench_function(id, |bench| measure(bench, changes, 1, receive));
    }
    group.finish();
}

fn load(criterion: &mut Criterion) {
    let cells: Vec<NewCell> = (0..5_000)
        .map(|index| NewCell {
            id: format!("cell-{index}"),
            cell_type: "code".to_owned(),
            source: format!("x = {index}\nprint(x)\nfor i in range(x):\n    print(i)\n"),
            ..NewCell::default()
        })
        .collect();
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10);
    group.bench_function("author 5,000 cells", |bench| {
        bench.iter(|| {
            let mut notebook = NotebookDoc::new("n", "runtimed").unwrap();
            notebook.insert_cells(Place::End, &cells).unwrap();
            notebook.commit();
            notebook
        });
    });
    let mut notebook = NotebookDoc::new("n", "runtimed").unwrap();
    notebook.insert_cells(Place::End, &cells).unwrap();
    group.bench_function("save 5,000 cells", |bench| bench.iter(|| notebook.save()));
    group.bench_function("read 5,000 cells", |bench| bench.iter(|| notebook.cells()));
    group.finish();
}

criterion_group!(benches, load, frames);
criterion_main!(benches);
