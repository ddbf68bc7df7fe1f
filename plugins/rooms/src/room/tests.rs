//! The room in action: clients, a kernel, time, and what goes wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use runtimed_plugin_api::{Channel, ErrorCode, PluginError, Release};
use runtimed_protocol::documents::automerge::legacy::{Key, ObjectId, Op, OpId, OpType};
use runtimed_protocol::documents::automerge::sync::{State, SyncDoc as _};
use runtimed_protocol::documents::automerge::{ActorId, Change, ExpandedChange, ReadDoc as _};
use runtimed_protocol::documents::runtime_state::{Activity, KernelState, Status};
use runtimed_protocol::documents::{ContentRef, Document, NotebookDoc, Output};
use runtimed_protocol::frame::FrameType;
use runtimed_protocol::presence::{Presence, PresenceData, PresenceUpdate};
use runtimed_protocol::response::{NotebookResponse as Response, SaveBlocked};
use runtimed_protocol::session_control::InitialLoad;
use serde_json::json;

use self::world::{KEEP_ALIVE, World, seeded};
use super::core::Content;
use super::event::Event;
use super::load::{Loaded, PastExecution};
use super::outside::FileVersion;
use super::save::SaveFailure;
use super::superseded::KEPT;
use crate::notebook_file::Notebook;

mod client;
mod declarations;
mod journal;
mod kernels;
mod outliving;
mod outside;
mod requests;
mod sim;
mod uploads;
mod widgets;
mod world;
mod writers;

const SECOND: Duration = Duration::from_secs(1);

fn text(output: &Output) -> &str {
    match output {
        Output::Stream { text: ContentRef::Inline { inline }, .. } => inline,
        Output::Display { bundle, .. } | Output::ExecuteResult { bundle, .. } => {
            match &bundle.data["text/plain"] {
                ContentRef::Inline { inline } => inline,
                ContentRef::Blob { .. } => "a blob",
            }
        }
        Output::Error { evalue, .. } => evalue,
        other => panic!("no text: {other:?}"),
    }
}

#[test]
fn frames_come_in_the_order_clients_rely_on() {
    let mut world = World::create(1);
    let ana = world.join("ana");
    // Nothing of the client has reached the room yet: all this comes without waiting for it.
    while world.clients[&ana].frame_types.len() < 9 && world.step() {}
    let expected = [0x07, 0x07, 0x00, 0x07, 0x05, 0x07, 0x09, 0x0A];
    let first: Vec<u8> = world.client(ana).frame_types.iter().copied().take(expected.len()).collect();
    assert_eq!(first, expected);
    while !world.client(ana).is_ready() {
        assert!(world.step());
    }
    let client = world.client(ana);
    assert_eq!(client.notebook.cell_count(), 1);
    assert!(client.reports.iter().all(|report| report.initial_load == InitialLoad::NotNeeded));
    // A client that reads this here would launch a kernel itself.
    assert_ne!(client.runtime.kernel_state(), KernelState::NotStarted);
}

#[test]
fn a_cell_runs_and_everybody_sees_the_result() {
    let mut world = World::create(2);
    let (ana, bob) = (world.join("ana"), world.join("bob"));
    world.settle();
    let execution = world.run(ana, "print hi\nvalue 2");
    world.settle();
    for peer in [ana, bob] {
        let client = world.client(peer);
        let it = client.execution(&execution);
        assert_eq!((it.status, it.success, it.execution_count), (Status::Done, Some(true), Some(1)));
        let outputs = client.outputs(&execution);
        assert_eq!(outputs.iter().map(text).collect::<Vec<_>>(), ["hi\n", "2"]);
        assert_eq!(client.runtime.kernel_state(), KernelState::Running(Activity::Idle));
        assert_eq!(client.runtime.queue(), Default::default());
        let cell = it.cell_id.unwrap();
        assert_eq!(client.notebook.execution_id(&cell).as_deref(), Some(execution.as_str()));
    }
    assert_eq!(world.records.len(), 1);
    assert_eq!(world.records[0].status, "done");
}

#[test]
fn a_cell_that_runs_again_and_again_leaves_little_behind() {
    let mut world = World::create(3);
    let ana = world.join("ana");
    world.settle();
    let mut executions = vec![world.run(ana, "value 2")];
    world.settle();
    let cell = world.client(ana).execution(&executions[0]).cell_id.unwrap();
    for _ in 0..3 * KEPT {
        executions.push(world.run_cell(ana, &cell));
        world.settle();
    }
    let client = world.client(ana);
    let left = client.runtime.execution_ids();
    // The cell's own, the one before, and those that went out of sight last.
    assert_eq!(left.len(), KEPT + 2);
    let recent = &executions[executions.len() - left.len()..];
    assert!(recent.iter().all(|id| left.contains(id)), "the newest stay");
    assert_eq!(client.outputs(&executions[executions.len() - 1]).len(), 1);
    assert_eq!(world.records.len(), executions.len(), "every record is kept");
}

#[test]
fn cells_that_run_and_are_deleted_leave_little_behind() {
    let mut world = World::create(42);
    let ana = world.join("ana");
    world.settle();
    for _ in 0..4 * KEPT {
        let execution = world.run(ana, "value 2");
        let client = world.client(ana);
        let cell = client.execution(&execution).cell_id.unwrap();
        client.notebook.delete_cell(&cell).unwrap();
        client.notebook.commit();
        let frame = client.sync_frame(FrameType::NOTEBOOK_SYNC);
        world.send(ana, frame);
        world.settle();
    }
    assert!(world.client(ana).runtime.execution_ids().len() <= 2 * KEPT + 2);
    assert_eq!(world.records.len(), 4 * KEPT);
}

#[test]
fn the_end_of_an_execution_is_the_last_thing_it_changes() {
    let mut world = World::create(3);
    let ana = world.join("ana");
    world.settle();
    world.run(ana, "print a\nprint b");
    let frames = world.client(ana).frame_types.len();
    // Idle, the end and the empty queue were one change: a client that waits for silence gets it.
    world.pass(SECOND);
    assert_eq!(world.client(ana).frame_types.len(), frames);
}

#[test]
fn an_execution_may_be_asked_for_before_the_kernel_is_up() {
    let mut world = World::create(4);
    world.hold_jobs = true;
    let ana = world.join("ana");
    world.settle();
    let execution = world.run(ana, "value 1");
    assert_eq!(world.client(ana).execution(&execution).status, Status::Queued);
    world.hold_jobs = false;
    world.settle();
    assert_eq!(world.client(ana).execution(&execution).status, Status::Done);
}

#[test]
fn an_error_cancels_what_waits_behind_it() {
    let mut world = World::create(5);
    world.hold_jobs = true;
    let ana = world.join("ana");
    world.settle();
    let ids = ["value 1", "fail oh", "value 2", "value 3"].map(|source| world.run(ana, source));
    world.hold_jobs = false;
    world.settle();
    let client = world.client(ana);
    let status = ids.each_ref().map(|id| client.execution(id).status);
    assert_eq!(status, [Status::Done, Status::Error, Status::Cancelled, Status::Cancelled]);
    assert!(matches!(&client.outputs(&ids[1])[..], [Output::Error { ename, .. }] if ename == "ValueError"));
    assert_eq!(client.execution(&ids[2]).success, None);
    assert_eq!(world.kernel.as_ref().unwrap().ran, ["value 1", "fail oh"]);
}

#[test]
fn an_interrupt_ends_what_runs_and_what_waits_and_the_kernel_goes_on() {
    let mut world = World::create(6);
    let ana = world.join("ana");
    world.settle();
    let running = world.run(ana, "print a\nloop");
    let waiting = world.run(ana, "value 1");
    assert_eq!(world.client(ana).execution(&running).status, Status::Running);
    assert_eq!(world.ask(ana, json!({"action": "interrupt_execution"})), Response::InterruptSent);
    let client = world.client(ana);
    assert_eq!(client.execution(&running).status, Status::Error);
    assert_eq!(client.execution(&waiting).status, Status::Cancelled);
    // What the kernel said about the interrupt is kept as well.
    assert!(matches!(client.outputs(&running).last(), Some(Output::Error { .. })));
    assert_eq!(client.runtime.kernel_state(), KernelState::Running(Activity::Idle));
    let next = world.run(ana, "value 2");
    assert_eq!(world.client(ana).execution(&next).status, Status::Done);
}

#[test]
fn stopping_overtakes_a_request_that_waits() {
    let mut world = World::create(7);
    let ana = world.join("ana");
    world.settle();
    let nowhere = "00".repeat(32);
    let blocked = json!({"action": "run_all_cells", "required_heads": [nowhere]});
    let blocked = world.request(ana, blocked);
    let behind =
        world.request(ana, json!({"action": "get_history", "pattern": null, "n": 0, "unique": true}));
    assert_eq!(world.ask(ana, json!({"action": "shutdown_kernel"})), Response::KernelShuttingDown);
    assert!(!world.client(ana).answers.contains_key(&blocked));
    assert!(!world.client(ana).answers.contains_key(&behind));
    world.pass(11 * SECOND);
    let timed_out = Response::error("Timed out waiting for required notebook heads");
    assert_eq!(world.answer(ana, &blocked), timed_out);
    assert_eq!(world.answer(ana, &behind), Response::HistoryResult { entries: Vec::new() });
}

#[test]
fn a_request_waits_for_the_edit_it_was_made_after() {
    let mut world = World::create(8);
    let (ana, bob) = (world.join("ana"), world.join("bob"));
    world.settle();
    // The edit is bob's, the request ana's; ana heard of it first.
    let edit = world.client(bob).add_cell("c", "value 7");
    let heads = world.client(bob).heads();
    let request = json!({"action": "execute_cell", "cell_id": "c", "required_heads": heads});
    let id = world.request(ana, request);
    world.settle();
    assert!(!world.client(ana).answers.contains_key(&id));
    world.send(bob, edit);
    world.settle();
    assert!(matches!(world.answer(ana, &id), Response::CellQueued(_)));

    let bad = json!({"action": "run_all_cells", "required_heads": ["zz"]});
    assert_eq!(world.ask(ana, bad), Response::error("Request contained an invalid required notebook head"));
}

#[test]
fn edits_of_two_windows_meet() {
    for seed in seeds(1..=40) {
        let mut world = World::create(seed);
        let peers = [world.join("ana"), world.join("bob")];
        world.settle();
        let cell = world.client(peers[0]).notebook.cell_ids().remove(0);
        for turn in 0..30 {
            let peer = peers[world.random(2)];
            let frame = match world.random(3) {
                0 => world.client(peer).add_cell(&format!("cell-{turn}"), "value 1"),
                _ => world.client(peer).set_source(&cell, &format!("value {turn}")),
            };
            world.send(peer, frame);
            for _ in 0..world.random(4) {
                world.step();
            }
        }
        world.settle();
        let [ana, bob] = peers.map(|peer| world.client(peer).notebook.to_json());
        assert_eq!(ana, bob, "replay with RUNT_SEED={seed}");
    }
}

#[test]
fn a_slow_window_is_not_waited_for_and_catches_up_with_one_message() {
    let mut world = World::create(9);
    let (ana, bob) = (world.join("ana"), world.join("bob"));
    world.settle();
    world.slow.insert(bob);
    for number in 0..20 {
        let execution = world.run(ana, &format!("value {number}"));
        assert_eq!(world.client(ana).execution(&execution).status, Status::Done);
    }
    let before = world.client(bob).frame_types.len();
    world.catch_up(bob);
    world.settle();
    let since = world.client(bob).frame_types[before..].to_vec();
    for stream in [FrameType::NOTEBOOK_SYNC, FrameType::RUNTIME_STATE_SYNC] {
        // The one that was on its way, one for everything since, and one that says that it arrived.
        assert!(since.iter().filter(|&&frame| frame == stream).count() <= 3, "{since:?}");
    }
    let ana = world.client(ana).runtime.to_json();
    assert_eq!(world.client(bob).runtime.to_json(), ana);
}

#[test]
fn a_window_that_cannot_take_outputs_gets_edits_and_answers_all_the_same() {
    let mut world = World::create(43);
    let (ana, bob) = (world.join("ana"), world.join("bob"));
    world.settle();
    world.behind.insert(bob);
    let states = |world: &mut World| {
        let frames = world.client(bob).frame_types.iter();
        frames.filter(|frame_type| !FrameType::is_urgent(**frame_type)).count()
    };
    let before = states(&mut world);
    for number in 0..20 {
        let execution = world.run(ana, &format!("value {number}"));
        assert_eq!(world.client(ana).execution(&execution).status, Status::Done);
        // What was typed, and that it ran.
        let seen = world.client(ana).notebook.to_json();
        assert_eq!(world.client(bob).notebook.to_json(), seen);
    }
    let running = world.run(ana, "loop");
    assert_eq!(world.ask(bob, json!({"action": "interrupt_execution"})), Response::InterruptSent);
    assert_eq!(world.client(ana).execution(&running).status, Status::Error);
    assert_eq!(states(&mut world), before);

    world.catch_up(bob);
    world.settle();
    // The message that was on its way, and one for everything since.
    assert_eq!(states(&mut world), before + 2, "{:?}", world.client(bob).frame_types);
    let ana = world.client(ana).runtime.to_json();
    assert_eq!(world.client(bob).runtime.to_json(), ana);
}

#[test]
fn a_window_that_missed_where_others_were_gets_a_snapshot() {
    let mut world = World::create(44);
    let (ana, bob) = (world.join("ana"), world.join("bob"));
    world.settle();
    world.slow.insert(bob);
    for line in 0..100 {
        let data = PresenceData::Cursor { cell_id: "a".to_owned(), line, column: 0 };
        let update =
            PresenceUpdate { peer_id: "local".to_owned(), peer_label: None, actor_label: None, data };
        let payload = Presence::Update(update).encode().unwrap();
        world.send(ana, Some((FrameType::PRESENCE, payload.into())));
        world.settle();
    }
    let before = world.client(bob).presence.len();
    world.catch_up(bob);
    world.settle();
    let since = &world.client(bob).presence[before..];
    let [Presence::Update(_), Presence::Snapshot { peers, .. }] = since else { panic!("{since:?}") };
    let cursor = PresenceData::Cursor { cell_id: "a".to_owned(), line: 99, column: 0 };
    assert!(peers.iter().any(|peer| peer.channels == [cursor.clone()]), "{peers:?}");
}

#[test]
fn restart_answers_before_the_kernel_is_seen_to_be_idle() {
    let mut world = World::create(10);
    let ana = world.join("ana");
    world.settle();
    let before = world.run(ana, "value 1");
    assert_eq!(world.ask(ana, json!({"action": "shutdown_kernel"})), Response::KernelShuttingDown);
    assert_eq!(world.client(ana).runtime.kernel_state(), KernelState::Shutdown);
    let refused = json!({"action": "execute_cell", "cell_id": world.client(ana).notebook.cell_ids()[0]});
    assert_eq!(world.ask(ana, refused), Response::NoKernel);

    let launch =
        json!({"action": "launch_kernel", "kernel_type": "", "env_source": "auto:uv", "notebook_path": null});
    let id = world.request(ana, launch);
    while !world.client(ana).answers.contains_key(&id) {
        assert!(world.step());
    }
    let Response::KernelLaunched(facts) = world.answer(ana, &id) else { panic!("not launched") };
    assert_eq!((facts.kernel_type.as_str(), facts.env_source.as_str()), ("python", "uv:prewarmed"));
    assert!(!matches!(world.client(ana).runtime.kernel_state(), KernelState::Running(_)));
    world.settle();
    assert_eq!(world.client(ana).runtime.kernel_state(), KernelState::Running(Activity::Idle));
    assert_eq!((world.kernels_started, world.acquired), (2, 1), "the environment is kept");
    let after = world.run(ana, "value 2");
    assert_eq!(world.client(ana).execution(&after).execution_count, Some(1));
    assert_eq!(world.client(ana).execution(&before).status, Status::Done);
}

#[test]
fn a_launch_request_joins_the_launch_in_progress() {
    let mut world = World::create(11);
    world.hold_jobs = true;
    let ana = world.join("ana");
    let launch = json!({"action": "launch_kernel", "kernel_type": "python", "env_source": "auto", "notebook_path": null});
    let id = world.request(ana, launch);
    world.settle();
    world.hold_jobs = false;
    world.settle();
    assert!(matches!(world.answer(ana, &id), Response::KernelAlreadyRunning(_)));
    assert_eq!(world.kernels_started, 1);
}

#[test]
fn a_restart_that_is_stopped_is_answered_and_nothing_comes_up_in_a_room_that_closes() {
    let mut world = World::create(37);
    let (ana, bob) = (world.join("ana"), world.join("bob"));
    world.settle();
    let launch = json!({"action": "launch_kernel", "kernel_type": "python", "env_source": "auto", "notebook_path": null});
    let cancelled = Response::error("Kernel launch was cancelled by shutdown");
    world.hold_jobs = true;
    world.request(ana, json!({"action": "shutdown_kernel"}));
    world.settle();
    let id = world.request(ana, launch.clone());
    world.settle();
    let stop = world.request(bob, json!({"action": "shutdown_kernel"}));
    world.settle();
    assert_eq!(world.answer(ana, &id), cancelled);
    world.hold_jobs = false;
    world.settle();
    assert_eq!(world.answer(bob, &stop), Response::KernelShuttingDown);
    assert_eq!((world.kernels_started, world.client(ana).runtime.kernel_state()), (1, KernelState::Shutdown));

    // The daemon stops in the middle of a restart.
    assert!(matches!(world.ask(ana, launch.clone()), Response::KernelLaunched(_)));
    world.hold_jobs = true;
    world.request(ana, json!({"action": "shutdown_kernel"}));
    let id = world.request(ana, launch.clone());
    world.settle();
    world.event(Event::Closing);
    world.hold_jobs = false;
    world.settle();
    assert_eq!(world.answer(ana, &id), cancelled);
    assert!(matches!(world.ask(ana, launch.clone()), Response::Error { .. }));
    assert!(world.core.is_at_rest());
    assert_eq!((world.kernels_started, world.released.len()), (2, 1));

    // It was only asked to come to rest: whoever is here goes on.
    world.core.stay_open();
    assert!(matches!(world.ask(ana, launch), Response::KernelLaunched(_)));
}

#[test]
fn a_launch_that_is_stopped_is_answered_and_gives_its_environment_back() {
    let mut world = World::create(12);
    world.hold_jobs = true;
    let ana = world.join("ana");
    let launch = json!({"action": "launch_kernel", "kernel_type": "python", "env_source": "auto", "notebook_path": null});
    let id = world.request(ana, launch);
    world.settle();
    // Ana's own requests wait for the launch.
    let bob = world.join("bob");
    world.settle();
    let execution = world.run(bob, "value 1");
    assert_eq!(world.ask(ana, json!({"action": "shutdown_kernel"})), Response::KernelShuttingDown);
    assert_eq!(world.answer(ana, &id), Response::error("Kernel launch was cancelled by shutdown"));
    world.hold_jobs = false;
    world.settle();
    assert_eq!(world.released, [Release::Keep]);
    assert_eq!(world.client(ana).execution(&execution).status, Status::Cancelled);
    assert_eq!(world.kernels_started, 0);
}

#[test]
fn an_environment_that_cannot_be_had_is_said_and_nobody_waits_for_it() {
    let mut world = World::create(13);
    world.no_environment = Some(PluginError::unavailable("no network").help("Go online."));
    world.hold_jobs = true;
    let ana = world.join("ana");
    world.settle();
    let execution = world.run(ana, "value 1");
    world.hold_jobs = false;
    world.settle();
    let client = world.client(ana);
    assert_eq!(client.execution(&execution).status, Status::Cancelled);
    let expected = KernelState::Error {
        reason: "environment_prepare_failed".to_owned(),
        details: "no network\nGo online.".to_owned(),
    };
    assert_eq!(client.runtime.kernel_state(), expected);
    let launch = json!({"action": "launch_kernel", "kernel_type": "python", "env_source": "auto", "notebook_path": null});
    assert!(matches!(world.ask(ana, launch), Response::KernelLaunched(_)));
}

#[test]
fn after_a_kernel_that_did_not_start_the_next_gets_another_environment() {
    let mut world = World::create(41);
    world.no_kernel = Some(PluginError::internal("No module named ipykernel"));
    let ana = world.join("ana");
    world.settle();
    assert_eq!(world.client(ana).runtime.kernel_state(), KernelState::Running(Activity::Idle));
    assert_eq!((world.acquired, &world.released[..]), (2, &[Release::Delete][..]));
}

#[test]
fn a_kernel_that_does_not_start_in_a_new_environment_either_says_both() {
    let mut world = World::create(45);
    world.hold_jobs = true;
    let ana = world.join("ana");
    world.settle();
    world.no_kernel = Some(PluginError::internal("No module named ipykernel"));
    world.hold_jobs = false;
    while world.no_kernel.is_some() {
        assert!(world.step());
    }
    world.no_kernel = Some(PluginError::internal("still not"));
    world.settle();
    let kernel = world.client(ana).runtime.kernel_state();
    let KernelState::Error { details, .. } = kernel else { panic!("{kernel:?}") };
    assert!(
        details.starts_with("No module named ipykernel\n") && details.contains("made anew once"),
        "{details}"
    );
    assert_eq!(world.released, [Release::Delete, Release::Delete]);
    let launch =
        json!({"action": "launch_kernel", "kernel_type": "", "env_source": "", "notebook_path": null});
    assert!(matches!(world.ask(ana, launch), Response::KernelLaunched(_)));
}

#[test]
fn untrusted_dependencies_wait_for_approval() {
    let mut world = World::create(14);
    world.no_environment = Some(PluginError::new(ErrorCode::Denied, "not trusted"));
    let ana = world.join("ana");
    world.settle();
    assert_eq!(world.client(ana).runtime.kernel_state(), KernelState::AwaitingTrust);
    assert_eq!(world.ask(ana, json!({"action": "approve_trust"})), Response::Ok);
    assert_eq!(world.client(ana).runtime.kernel_state(), KernelState::Running(Activity::Idle));
}

#[test]
fn a_kernel_that_dies_ends_its_executions() {
    let mut world = World::create(15);
    let ana = world.join("ana");
    world.settle();
    let running = world.run(ana, "loop");
    let waiting = world.run(ana, "value 1");
    world.kill_kernel();
    world.settle();
    let client = world.client(ana);
    assert_eq!(client.execution(&running).status, Status::Error);
    assert_eq!(client.execution(&waiting).status, Status::Cancelled);
    assert!(
        matches!(client.runtime.kernel_state(), KernelState::Error { details, .. } if details.contains("signal 9"))
    );
}

#[test]
fn the_kernel_stays_for_a_while_after_the_last_window_closed() {
    let mut world = World::create(16);
    let ana = world.join("ana");
    world.settle();
    world.leave(ana);
    world.pass(KEEP_ALIVE - SECOND);
    let ana = world.join("ana");
    world.pass(2 * KEEP_ALIVE);
    assert!(world.kernel.is_some(), "somebody came back in time");

    // A kernel that works is not ended.
    world.run(ana, "loop");
    world.leave(ana);
    world.pass(2 * KEEP_ALIVE);
    assert!(world.kernel.is_some(), "it works");
    let ana = world.join("ana");
    world.ask(ana, json!({"action": "interrupt_execution"}));
    world.leave(ana);
    world.pass(KEEP_ALIVE + SECOND);
    assert!(world.kernel.is_none());
    assert_eq!(world.released, [Release::Delete]);
    assert_eq!(world.core.summary().state, "inactive");
}

#[test]
fn a_file_saves_itself_after_a_pause() {
    let mut world = World::open(17, Some("/lab/fit.ipynb"), seeded());
    let ana = world.join("ana");
    world.settle();
    let frame = world.client(ana).add_cell("c", "value 1");
    world.send(ana, frame);
    world.pass(SECOND);
    assert!(world.saved.is_empty());
    world.pass(2 * SECOND);
    assert_eq!(world.saved.len(), 1);
    assert_eq!(world.saved[0].notebook.cells[1].source, "value 1");
    assert_eq!(world.client(ana).runtime.file_checkpoint().save_sequence, Some(1));
    world.pass(60 * SECOND);
    assert_eq!(world.saved.len(), 1, "what is saved is not saved again");
    assert!(matches!(
        world.ask(ana, json!({"action": "save_notebook", "format_cells": false})),
        Response::NotebookAlreadyCurrent(saved) if saved.save_sequence == 1
    ));
}

#[test]
fn an_untitled_notebook_gets_a_file_by_being_saved() {
    let mut world = World::create(18);
    let ana = world.join("ana");
    world.settle();
    let save = |path: Option<&str>| json!({"action": "save_notebook", "format_cells": false, "path": path});
    assert!(matches!(
        world.ask(ana, save(None)),
        Response::NotebookSaveBlocked { reason: SaveBlocked::Io { message }, .. }
            if message == "Cannot save untitled notebook without a target path. Please provide an explicit save path."
    ));
    assert!(matches!(
        world.ask(ana, save(Some("a.ipynb"))),
        Response::NotebookSaveBlocked { reason: SaveBlocked::Io { message }, .. }
            if message == "Relative paths are not supported for save: 'a.ipynb'. Please provide an absolute path."
    ));
    let Response::NotebookSaved(saved) = world.ask(ana, save(Some("/lab/a.ipynb"))) else {
        panic!("not saved")
    };
    assert_eq!(saved.path, "/lab/a.ipynb");
    assert_eq!(world.client(ana).runtime.path().as_deref(), Some("/lab/a.ipynb"));
    assert_eq!(saved.exported_heads, world.client(ana).heads());
}

#[test]
fn a_save_without_changes_looks_at_the_file_all_the_same() {
    let mut world = World::open(35, Some("/lab/fit.ipynb"), seeded());
    let ana = world.join("ana");
    world.settle();
    let save = json!({"action": "save_notebook", "format_cells": false});
    assert!(matches!(world.ask(ana, save.clone()), Response::NotebookSaved(_)));
    world.no_saves.push_back(SaveFailure::Unreadable("changed".to_owned()));
    assert!(matches!(
        world.ask(ana, save.clone()),
        Response::NotebookSaveBlocked { reason: SaveBlocked::SourceConflict { .. }, .. }
    ));
    assert!(matches!(
        world.ask(ana, save),
        Response::NotebookAlreadyCurrent(saved) | Response::NotebookSaved(saved) if saved.save_sequence == 3
    ));
}

#[test]
fn edits_in_conflict_with_the_file_are_saved_beside_it_before_the_room_ends() {
    let mut world = World::open(36, Some("/lab/fit.ipynb"), seeded());
    let ana = world.join("ana");
    world.settle();
    world.no_saves.push_back(SaveFailure::Unreadable("changed".to_owned()));
    let frame = world.client(ana).add_cell("c", "value 1");
    world.send(ana, frame);
    world.settle();
    world.event(Event::Closing);
    world.settle();
    let paths: Vec<_> = world.saved.iter().map(|plan| plan.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/lab/fit.ipynb", "/lab/fit.unsaved-00000000.ipynb"]);
    assert_eq!(world.saved[1].notebook.cells.len(), 2);
    assert!(world.core.is_at_rest());
}

#[test]
fn a_file_that_somebody_else_changed_is_left_alone() {
    let mut world = World::open(19, Some("/lab/fit.ipynb"), seeded());
    let ana = world.join("ana");
    world.settle();
    world.no_saves.push_back(SaveFailure::Unreadable("changed".to_owned()));
    let frame = world.client(ana).add_cell("c", "value 1");
    world.send(ana, frame);
    world.pass(60 * SECOND);
    assert_eq!(world.saved.len(), 1, "nothing is tried again by itself");
    assert_eq!(world.client(ana).runtime.file_checkpoint().source_issue_kind, "conflict");
}

#[test]
fn while_a_cell_runs_its_file_shows_what_it_showed_before() {
    let mut world = World::open(20, Some("/lab/fit.ipynb"), seeded());
    let ana = world.join("ana");
    world.settle();
    let cell = world.client(ana).notebook.cell_ids().remove(0);
    let execute = json!({"action": "execute_cell", "cell_id": cell});
    for source in ["value 1", "loop"] {
        let frame = world.client(ana).set_source(&cell, source);
        world.send(ana, frame);
        world.ask(ana, execute.clone());
    }
    world.pass(11 * SECOND);
    let file = world.saved.last().unwrap();
    assert_eq!(file.notebook.cells[0].source, "loop");
    assert_eq!(text(&file.notebook.cells[0].outputs[0]), "1");
}

#[test]
fn a_display_is_updated_wherever_it_is() {
    let mut world = World::create(21);
    let ana = world.join("ana");
    world.settle();
    let shown = world.run(ana, "display d one");
    let both = world.run(ana, "update d two\ndisplay d two\nupdate d three");
    let client = world.client(ana);
    assert_eq!(text(&client.outputs(&shown)[0]), "three");
    assert_eq!(text(&client.outputs(&both)[0]), "three");
}

#[test]
fn of_many_updates_of_a_display_the_last_is_shown() {
    let mut world = World::create(40);
    let ana = world.join("ana");
    world.settle();
    let shown = world.run(ana, "display d one\ndisplay e one");
    let written = |world: &World| world.core.documents.runtime.automerge().stats().num_ops;
    let before = written(&world);
    let launch = world.launch();
    for number in 0..1000 {
        let id = if number % 2 == 0 { "d" } else { "e" };
        let update = json!({
            "data": {"text/plain": number.to_string()}, "metadata": {}, "transient": {"display_id": id},
        });
        world.say(launch, Channel::Iopub, "", "update_display_data", &update);
    }
    world.settle();
    let outputs = world.client(ana).outputs(&shown);
    assert_eq!(outputs.iter().map(text).collect::<Vec<_>>(), ["998", "999"]);
    assert!(written(&world) - before < 500, "each burst is written once");
}

#[test]
fn the_more_outputs_there_are_the_rarer_they_are_published() {
    let mut world = World::create(41);
    let ana = world.join("ana");
    world.settle();
    let running = world.run(ana, "loop");
    let launch = world.launch();
    let mut published = 0;
    for number in 0..3000 {
        let heads = world.core.documents.runtime.heads();
        let shown = json!({"data": {"text/plain": number.to_string()}, "metadata": {}});
        world.say(launch, Channel::Iopub, &running, "display_data", &shown);
        world.pass(Duration::from_millis(1));
        published += u32::from(number >= 1000 && world.core.documents.runtime.heads() != heads);
    }
    assert!((5..20).contains(&published), "{published} instead of forty");
    world.kernel_ends_its_loop();
    world.settle();
    assert_eq!(world.client(ana).outputs(&running).len(), 3000);
}

#[test]
fn a_picture_is_stored_before_anybody_hears_of_it() {
    let mut world = World::create(22);
    let ana = world.join("ana");
    world.settle();
    world.hold_jobs = true;
    let execution = world.run(ana, "print a\npicture");
    assert_eq!(world.blobs.len(), 1);
    let client = world.client(ana);
    assert_eq!(client.execution(&execution).status, Status::Running);
    assert!(client.outputs(&execution).iter().all(|output| output.blobs().is_empty()));
    world.hold_jobs = false;
    world.settle();
    let client = world.client(ana);
    assert_eq!(client.execution(&execution).status, Status::Done);
    assert_eq!(client.outputs(&execution)[1].blobs().len(), 1);
}

#[test]
fn a_thread_that_goes_on_printing_is_heard() {
    let mut world = World::create(23);
    let ana = world.join("ana");
    world.settle();
    let first = world.run(ana, "print a");
    world.run(ana, "value 1");
    let late = json!({"name": "stdout", "text": "late\n"});
    world.say(world.launch(), Channel::Iopub, &first, "stream", &late);
    world.say(world.launch(), Channel::Iopub, "somebody else's", "stream", &late);
    world.settle();
    let outputs = world.client(ana).outputs(&first);
    assert_eq!(outputs.iter().map(text).collect::<String>(), "a\nlate\n");
}

#[test]
fn run_all_runs_code_cells_in_order() {
    let mut world = World::create(24);
    let ana = world.join("ana");
    world.settle();
    for (id, source) in [("a", "value 1"), ("b", "value 2")] {
        let frame = world.client(ana).add_cell(id, source);
        world.send(ana, frame);
    }
    let frame = {
        let client = world.client(ana);
        client.notebook.set_cell_type("a", "markdown").unwrap();
        client.notebook.commit();
        client.sync_frame(FrameType::NOTEBOOK_SYNC)
    };
    world.send(ana, frame);
    let twice = "00000000-0000-4000-8000-000000000001";
    let ids = json!({"b": twice});
    let Response::AllCellsQueued { queued } =
        world.ask(ana, json!({"action": "run_all_cells", "cell_execution_ids": ids}))
    else {
        panic!("not queued")
    };
    assert_eq!(queued.iter().map(|it| it.cell_id.as_str()).skip(1).collect::<Vec<_>>(), ["b"]);
    assert_eq!(queued[1].execution_id, twice);
    assert_eq!(world.kernel.as_ref().unwrap().ran, ["", "value 2"]);
    for (id, reason) in [("zz", "malformed"), (twice, "already_exists")] {
        let answer = world.ask(ana, json!({"action": "execute_cell", "cell_id": "none", "execution_id": id}));
        let answer = serde_json::to_value(answer).unwrap();
        assert_eq!(answer, json!({"result": "execution_id_rejected", "execution_id": id, "reason": reason}));
    }
    assert_eq!(
        world.ask(ana, json!({"action": "execute_cell", "cell_id": "a"})),
        Response::error("Cannot execute non-code cell: a (type: markdown)")
    );
    assert_eq!(
        world.ask(ana, json!({"action": "execute_cell", "cell_id": "none"})),
        Response::error("Cell not found in document: none")
    );
}

#[test]
fn a_running_cell_is_not_queued_again() {
    let mut world = World::create(25);
    let ana = world.join("ana");
    world.settle();
    let running = world.run(ana, "loop");
    let cell = world.client(ana).execution(&running).cell_id.unwrap();
    let again = world.ask(ana, json!({"action": "execute_cell", "cell_id": cell}));
    assert!(matches!(again, Response::CellQueued(queued) if queued.execution_id == running));
    // Nobody waits for a completion from a busy kernel.
    let complete = json!({"action": "complete", "code": "x.bit", "cursor_pos": 5});
    assert!(matches!(world.ask(ana, complete), Response::CompletionResult { items, .. } if items.is_empty()));
    world.ask(ana, json!({"action": "interrupt_execution"}));
    let complete = json!({"action": "complete", "code": "x.bit", "cursor_pos": 5});
    assert!(matches!(world.ask(ana, complete), Response::CompletionResult { items, .. } if items.len() == 1));
}

#[test]
fn a_file_is_streamed_in_and_its_requests_wait() {
    let mut world = World::open(26, Some("/lab/fit.ipynb"), Content::File);
    let ana = world.join("ana");
    let id = world.request(ana, json!({"action": "run_all_cells"}));
    world.settle();
    let client = world.client(ana);
    assert!(!client.is_ready());
    assert!(client.reports.iter().all(|report| report.initial_load == InitialLoad::Streaming));
    assert!(!client.frame_types.contains(&FrameType::NOTEBOOK_SYNC));
    assert!(!client.answers.contains_key(&id));
    let frame = world.client(ana).add_cell("early", "value 2").unwrap();
    let (before, bytes) = (world.granted[&ana], frame.1.len());
    world.send(ana, Some(frame));
    world.settle();
    assert_eq!(world.granted[&ana], before, "what waits costs credit");
    assert_eq!(world.core.projection("now"), None, "there is nothing to look at yet");

    world.event(Event::Loaded(Ok(Box::new(loaded()))));
    world.settle();
    assert!(world.granted[&ana] >= before + bytes);
    let client = world.client(ana);
    assert!(client.is_ready(), "{:?}", client.status);
    assert_eq!(client.status.initial_load, InitialLoad::Ready);
    assert!(matches!(client.answers[&id], Response::AllCellsQueued { .. }));
    assert_eq!(text(&client.outputs("e1")[0]), "old\n");
    let view = world.core.projection("now").unwrap().unwrap();
    assert_eq!(view["notebook_heads"], json!(world.client(ana).heads()));
    assert_eq!(view["captured_at"], json!("now"));
    // What was only read is not written.
    assert!(world.saved.is_empty());

    let bob = world.join("bob");
    world.settle();
    assert!(world.client(bob).is_ready());
    assert!(world.client(bob).reports.iter().all(|report| report.initial_load == InitialLoad::NotNeeded));
}

#[test]
fn a_file_that_cannot_be_read_says_why_before_it_closes() {
    let mut world = World::open(27, Some("/lab/fit.ipynb"), Content::File);
    let ana = world.join("ana");
    world.event(Event::Loaded(Err("Notebook is not a JSON object".to_owned())));
    world.settle();
    let reason = "Notebook is not a JSON object".to_owned();
    assert_eq!(world.client(ana).status.initial_load, InitialLoad::Failed { reason: reason.clone() });
    let failure = json!({"kind": "initial_load_failed", "generation": 1, "reason": reason});
    assert_eq!(world.core.projection("now"), Some(Err(failure)));
    // It ends by itself, but not before the client had time to read.
    assert!(!world.dissolved);
    let launch =
        json!({"action": "launch_kernel", "kernel_type": "", "env_source": "", "notebook_path": null});
    assert_eq!(world.ask(ana, launch), Response::error("Notebook is not a JSON object"));
    world.pass(2 * SECOND);
    assert!(world.dissolved);
}

#[test]
fn nonsense_is_answered_or_dropped_and_only_a_bad_document_closes() {
    let mut world = World::create(30);
    let ana = world.join("ana");
    world.settle();
    for (frame_type, payload) in [
        (FrameType::REQUEST, &b"{\"id\":\"x\",\"action\":\"dance\"}"[..]),
        (FrameType::REQUEST, b"not json"),
        (FrameType::PRESENCE, b"not cbor"),
        (FrameType::COMMENTS_SYNC, b"not automerge"),
        (FrameType::PUT_BLOB, b"\0"),
        (FrameType::RESPONSE, b"{}"),
        (0x7f, b"unknown"),
    ] {
        world.send(ana, Some((frame_type, bytes::Bytes::copy_from_slice(payload))));
    }
    world.settle();
    assert!(matches!(world.answer(ana, "x"), Response::Error { .. }));
    assert_eq!(world.client(ana).anonymous.len(), 2);
    assert!(world.closed.is_empty());
    world.send(ana, Some((FrameType::NOTEBOOK_SYNC, bytes::Bytes::from_static(b"not automerge"))));
    world.settle();
    assert!(world.closed.contains(&ana));
}

#[test]
fn a_change_that_automerge_panics_over_costs_its_sender_the_connection_and_nothing_else() {
    let mut world = World::create(39);
    let (ana, eve) = (world.join("ana"), world.join("eve"));
    world.settle();
    let before = world.client(ana).notebook.to_json();
    let client = world.client(eve);
    let actor = ActorId::from(b"local:ana/evil".as_slice());
    let change = ExpandedChange {
        operations: vec![Op {
            action: OpType::Put("x".into()),
            obj: ObjectId::Id(OpId(999, actor.clone())),
            key: Key::Map("k".into()),
            pred: Vec::new().into(),
            insert: false,
        }],
        actor_id: actor,
        hash: None,
        seq: 1,
        start_op: 1000.try_into().unwrap(),
        time: 0,
        message: None,
        deps: client.notebook.heads(),
        extra_bytes: Vec::new(),
        author: None,
    };
    let frame = message(&mut client.notebook, &[Change::from(change)]);
    world.send(eve, Some((FrameType::NOTEBOOK_SYNC, frame)));
    world.settle();
    assert!(world.closed.contains(&eve) && !world.closed.contains(&ana));
    assert_eq!(world.client(ana).notebook.to_json(), before);
    let execution = world.run(ana, "value 1");
    assert_eq!(world.client(ana).execution(&execution).status, Status::Done);
    let late = world.join("bob");
    world.settle();
    assert_eq!(world.client(late).notebook.to_json(), world.client(ana).notebook.to_json());
}

/// A client's message that brings `changes`, wanted or not.
fn message(document: &mut impl Document, changes: &[Change]) -> bytes::Bytes {
    let mut message = document.automerge_mut().sync().generate_sync_message(&mut State::new()).unwrap();
    message.changes = changes.iter().map(|change| change.raw_bytes().to_vec()).collect::<Vec<_>>().into();
    message.encode().into()
}

#[test]
fn every_accepted_execution_ends_exactly_once_whatever_happens() {
    for seed in seeds(1..=50) {
        let mut world = World::create(seed);
        let mut peers = vec![world.join("ana"), world.join("bob")];
        let mut requests = Vec::new();
        for turn in 0..40 {
            let peer = peers[world.random(peers.len())];
            match world.random(12) {
                0..=5 => {
                    let sources = ["value 1", "print a\nprint b", "fail oh", "loop", "picture"];
                    let source = sources[world.random(sources.len())];
                    let cell = format!("cell-{turn}");
                    let frame = world.client(peer).add_cell(&cell, source);
                    world.send(peer, frame);
                    let heads = world.client(peer).heads();
                    let execute = json!({"action": "execute_cell", "cell_id": cell, "required_heads": heads});
                    requests.push((peer, world.request(peer, execute)));
                }
                6 => drop(world.request(peer, json!({"action": "interrupt_execution"}))),
                7 => drop(world.request(peer, json!({"action": "shutdown_kernel"}))),
                8 | 9 => {
                    let launch = json!({"action": "launch_kernel", "kernel_type": "", "env_source": ""});
                    requests.push((peer, world.request(peer, launch)));
                }
                10 if world.kernel.is_some() => world.kill_kernel(),
                _ => {
                    world.leave(peers.remove(0));
                    peers.push(world.join("carl"));
                }
            }
            for _ in 0..world.random(30) {
                world.step();
            }
            world.now = world.now + Duration::from_millis(7);
        }
        world.settle();
        let peer = peers[0];
        world.ask(peer, json!({"action": "interrupt_execution"}));
        world.pass(12 * SECOND);
        let client = world.client(peer);
        for id in client.runtime.execution_ids() {
            let status = client.execution(&id).status;
            assert!(status.is_terminal(), "{id} is {status:?}; replay with RUNT_SEED={seed}");
        }
        assert_eq!(client.runtime.queue(), Default::default(), "replay with RUNT_SEED={seed}");
        let mut recorded: Vec<_> = world.records.iter().map(|record| record.execution_id.clone()).collect();
        let all = recorded.len();
        recorded.sort();
        recorded.dedup();
        assert_eq!(recorded.len(), all, "one end each; replay with RUNT_SEED={seed}");
        for (peer, id) in requests {
            let answered = world.clients.get(&peer).is_none_or(|client| client.answers.contains_key(&id));
            assert!(answered, "{id} has no answer; replay with RUNT_SEED={seed}");
        }
    }
}

/// The seeds to try, or the one in `RUNT_SEED`.
fn seeds(all: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    match std::env::var("RUNT_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => all.collect(),
    }
}

fn loaded() -> Loaded {
    use runtimed_protocol::documents::notebook::{NewCell, Place};

    let mut notebook = NotebookDoc::new("26", "runtimed:0badcafe").unwrap();
    let cell = NewCell {
        id: "c1".to_owned(),
        cell_type: "code".to_owned(),
        source: "value 1".to_owned(),
        execution_id: Some("e1".to_owned()),
        ..NewCell::default()
    };
    notebook.insert_cell(Place::End, &cell).unwrap();
    notebook.commit();
    let output = Output::Stream {
        output_id: "o1".to_owned(),
        name: "stdout".to_owned(),
        text: ContentRef::inline("old\n"),
        llm_preview: None,
    };
    let past = PastExecution { id: "e1".to_owned(), count: Some(3), outputs: vec![output] };
    let file = FileVersion {
        digest: [0; 32],
        notebook: Notebook::default(),
        unnamed: BTreeSet::new(),
        template: None,
    };
    Loaded { notebook, executions: vec![past], file }
}
