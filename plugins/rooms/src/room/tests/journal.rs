//! A room whose daemon dies, and one whose disk is full.

use runtimed_protocol::documents::runtime_state::{KernelState, Queue, Status};
use runtimed_protocol::documents::{Document as _, Output};
use runtimed_protocol::response::NotebookResponse as Response;
use serde_json::json;

use super::world::{KEEP_ALIVE, World};
use super::{SECOND, seeds, text};
use crate::ids::PeerId;
use crate::room::event::Event;
use crate::room::sleep::AWAKE;

#[test]
fn a_room_is_brought_back_with_every_edit_output_and_count() {
    let mut world = World::create(1);
    let ana = world.join("ana");
    world.settle();
    let execution = world.run(ana, "print hello\nvalue 7");
    let frame = world.client(ana).add_cell("typed last", "x = 1");
    world.send(ana, frame);
    world.settle();
    assert_eq!(world.journaled(), world.core.documents.heads());
    let before = (world.core.documents.notebook.heads(), world.core.documents.notebook.to_json());

    let mut world = world.reopen();
    assert_eq!(before, (world.core.documents.notebook.heads(), world.core.documents.notebook.to_json()));
    let ana = world.join("ana");
    world.settle();
    let client = world.client(ana);
    assert!(client.is_ready());
    assert_eq!(client.notebook.to_json(), before.1);
    let ended = client.execution(&execution);
    assert_eq!((ended.status, ended.execution_count), (Status::Done, Some(1)));
    let outputs: Vec<_> = client.outputs(&execution).iter().map(|output| text(output).to_owned()).collect();
    assert_eq!(outputs, ["hello\n", "7"]);

    // A new kernel, and the queue goes on counting.
    let again = world.run(ana, "print again");
    let client = world.client(ana);
    assert_eq!(client.execution(&again).seq, Some(1));
    assert_eq!(text(&client.outputs(&again)[0]), "again\n");
    let third = world.reopen();
    assert_eq!(third.core.documents.runtime.outputs(&again).len(), 1);
}

#[test]
fn what_ran_when_the_daemon_died_says_so_and_what_waited_is_cancelled() {
    let mut world = World::create(2);
    let ana = world.join("ana");
    world.settle();
    let running = world.run(ana, "print first\nloop");
    let waiting = world.run(ana, "print second");
    let recorded = world.records.len();

    let mut world = world.reopen();
    let bob = world.join("bob");
    world.settle();
    let runtime = &world.client(bob).runtime;
    let ended = [&running, &waiting].map(|id| runtime.execution(id).unwrap());
    assert_eq!(ended.each_ref().map(|it| it.status), [Status::Error, Status::Cancelled]);
    assert_eq!((ended[0].success, ended[1].success), (Some(false), None));
    assert_eq!(runtime.queue(), Queue::default());
    let outputs = world.client(bob).outputs(&running);
    assert_eq!(text(&outputs[0]), "first\n");
    let Output::Error { ename, evalue, .. } = &outputs[1] else { panic!("{outputs:?}") };
    assert!(ename == "DaemonEnded" && evalue.contains("while this cell ran"), "{evalue}");
    assert_eq!(world.records.len(), 2, "the records on disk say it too; there were {recorded} before");
    world.run(bob, "value 1");
}

/// Records are written behind everything else: clients may know of an end whose record was never written.
#[test]
fn an_execution_that_ended_right_before_the_daemon_has_a_record() {
    let mut world = World::create(3);
    let ana = world.join("ana");
    world.settle();
    let ended = world.run(ana, "print hello");
    assert_eq!(world.client(ana).execution(&ended).status, Status::Done);
    let record = world.records.pop().unwrap();

    let mut world = world.reopen();
    world.settle();
    assert_eq!(world.records, [record]);
}

#[test]
fn nobody_hears_of_anything_that_is_not_in_the_journal() {
    for seed in seeds(0..=7) {
        let mut world = World::create(seed);
        let peers: Vec<PeerId> = ["ana", "bob"].map(|name| world.join(name)).into();
        for round in 0..12 {
            let peer = peers[world.random(2)];
            let frame = match world.random(4) {
                0 => {
                    let cell = format!("cell {seed} {round}");
                    world.client(peer).add_cell(&cell, "print x")
                }
                1 => {
                    world.request(peer, json!({"action": "run_all_cells"}));
                    None
                }
                2 => {
                    let cells = world.client(peer).notebook.cell_ids();
                    let cell = cells.first().cloned();
                    cell.and_then(|cell| world.client(peer).set_source(&cell, &format!("value {round}")))
                }
                _ => None,
            };
            world.send(peer, frame);
            for _ in 0..world.random(40) {
                world.step();
                assert_eq!(world.journaled(), world.core.documents.heads(), "seed {seed}");
            }
        }
        let known: Vec<_> = peers.iter().flat_map(|peer| world.client(*peer).runtime.heads()).collect();
        let mut world = world.reopen();
        assert!(world.core.documents.runtime.contains(&known), "seed {seed}: a client knows more");
        assert_eq!(world.journaled(), world.core.documents.heads(), "seed {seed}");
    }
}

#[test]
fn a_full_disk_is_shown_and_made_up_for() {
    let mut world = World::open(3, Some("/a.ipynb"), super::seeded());
    let ana = world.join("ana");
    world.settle();
    world.no_journal = true;
    assert_eq!(world.core.summary().at_risk, None);
    let execution = world.run(ana, "print kept in memory");
    assert_eq!(world.core.summary().at_risk.as_deref(), Some("disk full"));
    world.pass(SECOND * 5);
    assert_eq!(world.core.summary().at_risk, None, "the file has it");
    let checkpoint = world.client(ana).runtime.file_checkpoint();
    assert_eq!(checkpoint.source_issue_kind, "degraded");
    assert!(checkpoint.source_issue_reason.contains("disk full"), "{}", checkpoint.source_issue_reason);
    assert!(!world.saved.is_empty(), "the file is saved all the same");
    assert_ne!(world.journaled(), world.core.documents.heads());

    world.no_journal = false;
    world.pass(SECOND * 60);
    assert_eq!(world.journaled(), world.core.documents.heads());
    let checkpoint = world.client(ana).runtime.file_checkpoint();
    assert_eq!((checkpoint.source_issue_kind.as_str(), checkpoint.source_issue_reason.as_str()), ("", ""));
    let world = world.reopen();
    assert_eq!(world.core.documents.runtime.outputs(&execution).len(), 1);
}

/// All of the notebook is appended again each time, so a disk that takes bytes but never keeps them must not be asked often.
#[test]
fn a_disk_that_refuses_every_flush_is_asked_ever_less_often() {
    let mut world = World::create(4);
    let ana = world.join("ana");
    world.settle();
    let mut seconds = Vec::new();
    for _ in 0..7 {
        world.event(Event::JournalFailed { reason: "disk broken".to_owned(), lost: true });
        assert_eq!(world.core.summary().at_risk.as_deref(), Some("disk broken"));
        let written = world.journal.len();
        seconds.push((1..100).find(|_| {
            world.pass(SECOND);
            world.journal.len() > written
        }));
        assert_eq!(world.core.summary().at_risk, None, "the end of the daemon would lose nothing");
        assert_eq!(world.client(ana).runtime.file_checkpoint().source_issue_kind, "degraded");
    }
    assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30].map(Some));

    let (frame, written) =
        (world.client(ana).add_cell("while it waits for a flush", "x = 1"), world.journal.len());
    world.send(ana, frame);
    world.settle();
    assert!(world.journal.len() > written, "what is new is appended at once");
    world.event(Event::Flushed);
    world.settle();
    assert_eq!(world.client(ana).runtime.file_checkpoint().source_issue_kind, "");
    assert_eq!(world.journaled(), world.core.documents.heads());
    world.event(Event::JournalFailed { reason: "disk broken".to_owned(), lost: true });
    let written = world.journal.len();
    world.pass(SECOND);
    assert!(world.journal.len() > written, "it was well in between");
}

#[test]
fn a_kernel_is_left_to_the_next_daemon_as_soon_as_that_would_know_it() {
    for (lost, written) in [(false, true), (true, true), (true, false)] {
        let mut world = World::create(4);
        let ana = world.join("ana");
        world.settle();
        let execution = world.run(ana, "x = 1");
        world.settle();
        assert_eq!(world.client(ana).runtime.execution(&execution).unwrap().status, Status::Done);
        world.event(Event::JournalFailed { reason: "disk broken".to_owned(), lost });
        if written {
            world.pass(SECOND);
        }
        world.event(Event::Detaching);
        assert_eq!(world.core.detached(), written, "lost: {lost}");
    }
}

#[test]
fn a_file_that_was_saved_is_not_saved_again_and_one_that_was_not_is() {
    let mut world = World::open(4, Some("/a.ipynb"), super::seeded());
    let ana = world.join("ana");
    world.settle();
    let frame = world.client(ana).add_cell("c", "x = 1");
    world.send(ana, frame);
    world.pass(SECOND * 3);
    let saved = world.saved.len();
    assert!(saved > 0);

    let mut world = world.reopen();
    world.pass(SECOND * 20);
    assert_eq!(world.saved.len(), 0, "the file holds it");
    let written = world.file("/a.ipynb").digest;
    let ana = world.join("ana");
    world.settle();
    let frame = world.client(ana).set_source("c", "x = 2");
    world.send(ana, frame);
    world.settle();

    let mut world = world.reopen();
    world.pass(SECOND * 3);
    let plan = world.saved.last().unwrap();
    assert_eq!(plan.expected, Some(written), "the file must be the one that was written");
    assert!(plan.notebook.cells.iter().any(|cell| cell.source == "x = 2"));
    let bob = world.join("bob");
    world.settle();
    let answer = world.ask(bob, json!({"action": "save_notebook", "format_cells": false}));
    let Response::NotebookAlreadyCurrent(saved) = answer else { panic!("{answer:?}") };
    assert_eq!(saved.path, "/a.ipynb");
}

#[test]
fn a_notebook_that_got_a_file_comes_back_with_it() {
    let mut world = World::create(5);
    let ana = world.join("ana");
    world.settle();
    world.ask(ana, json!({"action": "save_notebook", "format_cells": false, "path": "/b.ipynb"}));
    let world = world.reopen();
    assert_eq!(
        world.core.summary().notebook_path.as_deref().and_then(|path| path.to_str()),
        Some("/b.ipynb")
    );
    assert!(matches!(world.core.documents.runtime.kernel_state(), KernelState::NotStarted));
}

#[test]
fn a_room_of_no_use_leaves_memory_and_comes_back() {
    let mut world = World::open(6, Some("/a.ipynb"), super::seeded());
    let ana = world.join("ana");
    world.settle();
    let execution = world.run(ana, "value 1");
    world.pass(AWAKE * 2);
    assert!(!world.dissolved, "somebody is here");
    world.leave(ana);
    world.pass(KEEP_ALIVE + AWAKE - SECOND);
    assert!(world.kernel.is_none() && !world.dissolved, "the time begins when the kernel has ended");
    world.pass(SECOND * 2);
    assert!(world.dissolved);

    let mut world = world.reopen();
    world.settle();
    assert!(world.core.deadline().is_some_and(|at| at > world.now), "it sleeps again if nobody comes");
    let bob = world.join("bob");
    world.settle();
    assert_eq!(text(&world.client(bob).outputs(&execution)[0]), "1");
    world.pass(AWAKE * 2);
    assert!(!world.dissolved);
}

#[test]
fn a_room_that_nothing_is_kept_of_is_gone_when_it_leaves_memory() {
    let mut world = World::ephemeral(8, super::seeded());
    let empty = world.journal.clone();
    let ana = world.join("ana");
    world.settle();
    world.run(ana, "value 1");
    world.pass(AWAKE * 2);
    assert!(!world.dissolved, "somebody is here");
    world.leave(ana);
    world.pass(KEEP_ALIVE + AWAKE - SECOND);
    assert!(world.kernel.is_none() && !world.dissolved, "somebody may come back");
    world.pass(SECOND * 2);
    assert!(world.dissolved && world.journal == empty);

    let mut world = World::ephemeral(9, super::seeded());
    world.pass(AWAKE + SECOND);
    assert!(world.dissolved, "whoever opened it never came");
}

#[test]
fn a_room_with_something_to_lose_stays_in_memory() {
    let mut world = World::open(7, Some("/a.ipynb"), super::seeded());
    let ana = world.join("ana");
    world.settle();
    let frame = world.client(ana).add_cell("c", "typed");
    world.no_journal = true;
    world.send(ana, frame);
    world.settle();
    world.leave(ana);
    world.pass(AWAKE * 3);
    assert!(!world.dissolved, "its journal lacks something");
    world.no_journal = false;
    world.pass(AWAKE * 2);
    assert!(world.dissolved);
}

/// A daemon that dies between putting a new file in place and saying so finds a file that it does not know by
/// its own last word, and edits that were made since.
#[test]
fn a_file_that_was_written_right_before_the_daemon_died_is_its_own_work() {
    let mut world = World::open(12, Some("/a.ipynb"), super::seeded());
    let ana = world.join("ana");
    world.settle();
    world.run(ana, "value 1");
    world.pass(SECOND * 20);
    let known = world.core.saving.digest();
    let frame = world.client(ana).add_cell("c", "x = 1");
    world.send(ana, frame);
    world.settle();
    world.request(ana, json!({"action": "save_notebook", "format_cells": false, "path": null}));
    while world.file("/a.ipynb").digest == known.unwrap() {
        assert!(world.step());
    }
    assert_eq!(world.core.saving.digest(), known, "it was not told yet");

    let world = world.reopen();
    assert_eq!(world.core.saving.digest(), Some(world.file("/a.ipynb").digest));
    assert_eq!(world.core.saving.known().unwrap().notebook, world.file("/a.ipynb").notebook);
    // The journal knows as well from then on.
    let world = world.reopen();
    assert_eq!(world.core.saving.digest(), Some(world.file("/a.ipynb").digest));
}
