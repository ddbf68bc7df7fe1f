//! Who may write what, and in whose name.

use runtimed_protocol::documents::automerge::ActorId;
use runtimed_protocol::documents::runtime_state::{Activity, KernelState};
use runtimed_protocol::documents::{CommentsDoc, CommsDoc, Document as _};
use runtimed_protocol::frame::FrameType;
use runtimed_protocol::response::NotebookResponse as Response;
use serde_json::json;

use super::message;
use super::world::World;
use crate::ids::PeerId;
use crate::room::peers::Scope;

/// Lets a client of `local:ana` write a cell as `actor`.
fn write_as(world: &mut World, peer: PeerId, actor: &str, cell: &str) {
    let client = world.client(peer);
    client.notebook.automerge_mut().set_actor(ActorId::from(actor.as_bytes()));
    let frame = client.add_cell(cell, "value 1");
    world.send(peer, frame);
    world.settle();
}

#[test]
fn nobody_writes_in_the_name_of_somebody_else() {
    let mut world = World::create(70);
    let ana = world.join("ana");
    world.settle();
    let allowed = ["local:ana/another:window", "agent:old:1", "runtimed:metadata:0000beef"];
    for (n, actor) in allowed.into_iter().enumerate() {
        let peer = world.join("other");
        world.settle();
        write_as(&mut world, peer, actor, &format!("cell-{n}"));
        assert!(!world.closed.contains(&peer), "{actor}");
        assert!(world.client(ana).notebook.cell(&format!("cell-{n}")).is_some(), "{actor}");
    }
    for actor in ["local:eve/agent:x", "/", "local:ana2/x", "system/x"] {
        let peer = world.join("eve");
        world.settle();
        write_as(&mut world, peer, actor, "evil");
        assert!(world.closed.contains(&peer), "{actor}");
        assert!(world.client(ana).notebook.cell("evil").is_none(), "{actor}");
    }
    // Whoever only passes on what is known already is no forger.
    let before = world.client(ana).notebook.changes_since(&[]);
    let peer = world.join("bob");
    world.settle();
    let frame = message(&mut world.client(peer).notebook, &before);
    world.send(peer, Some((FrameType::NOTEBOOK_SYNC, frame)));
    world.settle();
    assert!(!world.closed.contains(&peer));
}

#[test]
fn the_same_goes_for_widgets_and_comments() {
    for actor in ["local:ana/agent:x", "local:eve/agent:x"] {
        let mut world = World::create(71);
        let (ana, bob) = (world.join("ana"), world.join("bob"));
        world.settle();
        let mut comms = CommsDoc::new(actor).unwrap();
        comms.automerge_mut().empty_change(Default::default());
        let changes = comms.changes_since(&[]);
        world.send(ana, Some((FrameType::COMMS_SYNC, message(&mut comms, &changes))));
        // The one that is there, and a change in it.
        let document = world.core.documents.comments.automerge_mut();
        let mut comments = document.fork().with_actor(ActorId::from(actor.as_bytes()));
        let heads = comments.get_heads();
        comments.empty_change(Default::default());
        let changes = comments.get_changes(&heads);
        let mut copy = CommentsDoc::new("comments:any", &json!({}), "reader").unwrap();
        *copy.automerge_mut() = comments;
        world.send(bob, Some((FrameType::COMMENTS_SYNC, message(&mut copy, &changes))));
        world.settle();
        let expected = usize::from(actor.contains("eve")) * 2;
        assert_eq!(world.closed.len(), expected, "{actor}");
    }
}

#[test]
fn a_viewer_reads_and_nothing_else() {
    let mut world = World::create(28);
    let (ana, eve) = (world.join("ana"), world.join_as("eve", Scope::Viewer));
    world.settle();
    let frame = world.client(eve).add_cell("evil", "value 1");
    world.send(eve, frame);
    assert_eq!(
        world.ask(eve, json!({"action": "run_all_cells"})),
        Response::error("run_all_cells is not allowed for viewer connections")
    );
    assert!(world.client(ana).notebook.cell("evil").is_none());
    assert!(!world.closed.contains(&eve));
    world.run(ana, "value 1");
    assert_eq!(world.client(eve).runtime.to_json(), world.client(ana).runtime.to_json());
}

#[test]
fn nobody_writes_the_runtime_state() {
    let mut world = World::create(29);
    let ana = world.join("ana");
    world.settle();
    let frame = {
        let client = world.client(ana);
        client.runtime.set_kernel_state(&KernelState::NotStarted).unwrap();
        client.runtime.commit();
        client.sync_frame(FrameType::RUNTIME_STATE_SYNC)
    };
    let frames = world.client(ana).frame_types.len();
    world.send(ana, frame);
    world.settle();
    let answers = world.client(ana).frame_types.len() - frames;
    assert!(answers <= 1, "what was dropped is not asked for again and again: {answers} frames");
    let bob = world.join("bob");
    world.settle();
    assert_eq!(world.client(bob).runtime.kernel_state(), KernelState::Running(Activity::Idle));

    // The writer goes on, and hears everything.
    let execution = world.run(ana, "value 1");
    assert_eq!(world.client(ana).outputs(&execution), world.client(bob).outputs(&execution));
    assert_eq!(world.client(ana).execution(&execution), world.client(bob).execution(&execution));
    let (ours, theirs) = (world.client(ana).runtime.heads(), world.core.documents.runtime.heads());
    assert!(theirs.iter().all(|head| ours.contains(head)), "only what it wrote itself is its own");
}

#[test]
fn nobody_renames_the_comments() {
    let mut world = World::create(38);
    let ana = world.join("ana");
    world.settle();
    let name = world.core.documents.comments.identity();
    // A document with a name of its own.
    let mut comments = CommentsDoc::new("comments:evil", &json!({}), "local:ana/evil").unwrap();
    let changes = comments.changes_since(&[]);
    world.send(ana, Some((FrameType::COMMENTS_SYNC, message(&mut comments, &changes))));
    world.settle();
    assert_eq!(world.core.documents.comments.identity(), name);
    assert!(world.closed.is_empty());
}
