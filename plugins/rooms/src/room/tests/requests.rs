//! Requests that concern the notebook as a whole, and runs that are refused.

use runtimed_protocol::documents::{Document as _, NotebookDoc};
use runtimed_protocol::response::NotebookResponse as Response;
use serde_json::{Value as Json, json};

use super::world::World;
use crate::ids::PeerId;
use crate::room::core::Content;
use crate::room::peers::Scope;
use crate::room::save::SaveFailure;

fn rejected(reason: &str) -> Response {
    Response::GuardRejected { reason: reason.to_owned() }
}

/// A client in a notebook with one cell that was not run.
fn world(seed: u64) -> (World, PeerId) {
    let mut world = World::create(seed);
    let ana = world.join("ana");
    world.settle();
    let frame = world.client(ana).add_cell("cell", "value 1");
    world.send(ana, frame);
    world.settle();
    (world, ana)
}

fn edit(world: &mut World, peer: PeerId, cell: &str, source: &str) {
    let frame = world.client(peer).set_source(cell, source);
    world.send(peer, frame);
    world.settle();
}

#[test]
fn a_run_is_refused_when_the_user_saw_something_else() {
    const NOT_READY: &str = "Notebook state was not ready. Review before running again.";
    const UNKNOWN: &str = "Notebook state was not recognized. Review before running again.";
    let (mut world, ana) = world(60);
    let one = |heads: &[String]| json!({"action": "execute_cell_guarded", "cell_id": "cell", "observed_heads": heads});
    let all = |heads: &[String]| json!({"action": "run_all_cells_guarded", "observed_heads": heads});
    let stranger = "ab".repeat(32);
    for (heads, reason) in
        [(&[][..], NOT_READY), (&["nonsense".to_owned()], NOT_READY), (&[stranger], UNKNOWN)]
    {
        assert_eq!(world.ask(ana, one(heads)), rejected(reason));
        assert_eq!(world.ask(ana, all(heads)), rejected(reason));
    }
    let seen = world.client(ana).heads();
    edit(&mut world, ana, "cell", "value 2");
    let changed = rejected("Cell changed or already ran. Review before running again.");
    assert_eq!(world.ask(ana, one(&seen)), changed);
    let changed_all = "Notebook changed before Run All could start. Review before running again.";
    assert_eq!(world.ask(ana, all(&seen)), rejected(changed_all));

    // What another cell says does not matter to one cell, and does to all of them.
    let seen = world.client(ana).heads();
    let frame = world.client(ana).add_cell("other", "value 3");
    world.send(ana, frame);
    world.settle();
    assert_eq!(world.ask(ana, all(&seen)), rejected(changed_all));
    assert!(matches!(world.ask(ana, one(&seen)), Response::CellQueued(_)));
    // It has run since.
    assert_eq!(world.ask(ana, one(&seen)), changed);
    let seen = world.client(ana).heads();
    assert!(matches!(world.ask(ana, all(&seen)), Response::AllCellsQueued { .. }));
}

#[test]
fn an_approval_is_refused_when_the_user_saw_other_dependencies() {
    let (mut world, ana) = world(61);
    let seen = world.client(ana).heads();
    let approve = json!({"action": "approve_trust", "observed_heads": seen});
    let sync = json!({"action": "sync_environment", "guard": {"observed_heads": seen}});
    edit(&mut world, ana, "cell", "value 2");
    assert_eq!(world.ask(ana, approve.clone()), Response::Ok, "a cell is no dependency");
    let frame = {
        let client = world.client(ana);
        let kind = runtimed_protocol::documents::notebook::DependencyKind::Packages;
        client.notebook.set_dependencies("uv", kind, &["numpy".to_owned()]).unwrap();
        client.notebook.commit();
        client.sync_frame(runtimed_protocol::frame::FrameType::NOTEBOOK_SYNC)
    };
    world.send(ana, frame);
    world.settle();
    let changed = "Dependencies changed while the trust dialog was open. Review before";
    assert_eq!(world.ask(ana, approve), rejected(&format!("{changed} approving.")));
    assert_eq!(world.ask(ana, sync), rejected(&format!("{changed} syncing.")));
    let unknown = json!({"action": "approve_trust", "observed_heads": ["ab".repeat(32)]});
    assert_eq!(world.ask(ana, unknown), rejected(&format!("{changed} approving.")));
}

#[test]
fn a_copy_has_the_cells_and_nothing_that_came_of_them() {
    let (mut world, ana) = world(62);
    let execution = world.run_cell(ana, "cell");
    assert_eq!(world.client(ana).outputs(&execution).len(), 1);
    let clone = |source: &str| json!({"action": "clone_as_ephemeral", "source_notebook_id": source});
    assert_eq!(world.ask(ana, clone("zz")), Response::error("Invalid source_notebook_id: zz"));
    let source = "00000000-0000-4000-8000-000000000001";
    let Response::NotebookCloned { working_dir: None, .. } = world.ask(ana, clone(source)) else {
        panic!("not copied");
    };
    let (of, copied) = world.copies.pop().unwrap();
    assert_eq!(of.to_string(), source);

    let mut copy = World::open(63, None, Content::Copy(Box::new(copied)));
    let bob = copy.join("bob");
    copy.settle();
    let (there, here) = (&copy.client(bob).notebook, &world.client(ana).notebook);
    let sources = |notebook: &NotebookDoc| -> Vec<_> {
        notebook
            .cells()
            .into_iter()
            .map(|cell| (cell.id, cell.cell_type, cell.source, cell.metadata))
            .collect()
    };
    assert_eq!(sources(there), sources(here));
    let clean = |cell: &runtimed_protocol::documents::notebook::Cell| {
        cell.execution_id.is_none() && cell.execution_count.is_none()
    };
    assert!(there.cells().iter().all(clean));
    assert_eq!(there.metadata()["kernelspec"], here.metadata()["kernelspec"]);
    assert_ne!(there.metadata()["runt"]["env_id"], here.metadata()["runt"]["env_id"]);
    assert_eq!(copy.client(bob).runtime.to_json()["executions"], json!({}));
    // It runs like any other.
    let execution = copy.run_cell(bob, "cell");
    assert_eq!(copy.client(bob).outputs(&execution).len(), 1);
}

#[test]
fn what_a_healthy_local_room_has_nothing_of_is_said_in_the_protocols_words() {
    let (mut world, ana) = world(64);
    assert_eq!(
        world.ask(ana, json!({"action": "approve_project_environment"})),
        Response::error("No notebook path or working directory for project environment approval")
    );
    for operation in ["keep_recovered_and_overwrite_source", "archive_recovery_and_reload_source"] {
        let request = json!({"action": "reconcile_notebook_source", "operation": {"type": operation}});
        let blocked = Response::NotebookSourceReconciliationBlocked {
            operation: operation.to_owned(),
            reason: json!({"type": "not_required", "message": "room source is not degraded"}),
        };
        assert_eq!(world.ask(ana, request), blocked);
    }
    let patch = json!({"session_id": "s", "transaction_id": "t", "base_revision": 1, "patch": []});
    let reply = json!({
        "status": "error", "session_id": "s", "transaction_id": "t", "error": "unknown Bokeh session",
    });
    let request = json!({"action": "apply_bokeh_session_patch", "request": patch});
    assert_eq!(world.ask(ana, request), Response::BokehSessionPatch { reply });
}

#[test]
fn the_document_is_handed_out_and_what_it_contains_is_acknowledged() {
    let (mut world, ana) = world(65);
    let eve = world.join_as("eve", Scope::Viewer);
    world.settle();
    let Response::DocBytes { bytes } = world.ask(eve, json!({"action": "get_doc_bytes"})) else {
        panic!("a viewer may read");
    };
    let mut read = NotebookDoc::load(&bytes, "reader").unwrap();
    assert_eq!(read.heads(), world.client(ana).notebook.heads());

    let heads = world.client(ana).heads();
    let acknowledge = |heads: &Json| json!({"action": "acknowledge_notebook_sync", "required_heads": heads});
    let acknowledged = |heads| Response::NotebookSyncAcknowledged { heads };
    assert_eq!(world.ask(ana, acknowledge(&json!([]))), acknowledged(Vec::new()));
    assert_eq!(world.ask(ana, acknowledge(&json!(heads))), acknowledged(heads));
    let invalid = Response::error("Request contained an invalid required notebook head");
    assert_eq!(world.ask(ana, acknowledge(&json!(["zz"]))), invalid);
    let id = world.request(ana, acknowledge(&json!(["ab".repeat(32)])));
    world.pass(std::time::Duration::from_secs(10));
    assert_eq!(world.answer(ana, &id), Response::error("Timed out waiting for required notebook heads"));
}

#[test]
fn every_save_is_answered_though_some_cannot_begin() {
    let (mut world, ana) = world(66);
    let others = [world.join("bob"), world.join("carl"), world.join("dora")];
    world.settle();
    world.hold_jobs = true;
    world.no_saves.push_back(SaveFailure::Io("the disk is full".to_owned()));
    let mut asked = vec![(
        ana,
        world.request(ana, json!({"action": "save_notebook", "path": "/b.ipynb", "format_cells": false})),
    )];
    for peer in others {
        asked.push((peer, world.request(peer, json!({"action": "save_notebook", "format_cells": false}))));
    }
    world.settle();
    world.hold_jobs = false;
    world.settle();
    // The notebook has no file, so those without a name are refused.
    for (peer, id) in asked {
        assert!(matches!(world.answer(peer, &id), Response::NotebookSaveBlocked { .. }));
    }
}
