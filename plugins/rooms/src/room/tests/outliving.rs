//! A room whose daemon dies while its kernel goes on.

use runtimed_protocol::documents::Document as _;
use runtimed_protocol::documents::runtime_state::{Activity, KernelState, Status};
use serde_json::json;

use super::world::{KEEP_ALIVE, World};
use super::{SECOND, text};
use crate::ids::PeerId;

fn outputs(world: &mut World, peer: PeerId, execution: &str) -> Vec<String> {
    world.client(peer).outputs(execution).iter().map(|output| text(output).to_owned()).collect()
}

#[test]
fn what_runs_goes_on_and_what_waits_comes_after_it() {
    let mut world = World::create(1);
    let ana = world.join("ana");
    world.settle();
    let running = world.run(ana, "print first\nloop");
    let waiting = world.run(ana, "print second");

    let mut world = world.outlived();
    let bob = world.join("bob");
    world.settle();
    assert_eq!(world.core.documents.runtime.kernel_state(), KernelState::Running(Activity::Busy));
    assert_eq!(world.client(bob).execution(&running).status, Status::Running);
    assert_eq!(world.client(bob).execution(&waiting).status, Status::Queued);
    // A thread of the first cell prints what the new daemon is the first to hear.
    let launch = world.launch();
    world.say(
        launch,
        runtimed_plugin_api::Channel::Iopub,
        &running,
        "stream",
        &json!({"name": "stdout", "text": "more\n"}),
    );
    world.settle();
    assert_eq!(outputs(&mut world, bob, &running), ["first\nmore\n"]);

    world.kernel_ends_its_loop();
    world.settle();
    assert_eq!(world.client(bob).execution(&running).status, Status::Done);
    assert_eq!(outputs(&mut world, bob, &running), ["first\nmore\n"]);
    assert_eq!(outputs(&mut world, bob, &waiting), ["second\n"]);
    assert_eq!((world.kernels_started, world.acquired), (0, 0));
}

#[test]
fn what_the_kernel_said_while_nobody_listened_is_there_once() {
    let mut world = World::create(2);
    let ana = world.join("ana");
    world.settle();
    // Everything is said, and none of it heard.
    let cell = "print 1\nprint 2\nvalue 3";
    let frame = world.client(ana).add_cell("c", cell);
    world.send(ana, frame);
    let heads = world.client(ana).heads();
    world.request(ana, json!({"action": "execute_cell", "cell_id": "c", "required_heads": heads}));
    while world.kernel.as_ref().is_none_or(|kernel| kernel.ran.is_empty()) {
        assert!(world.step());
    }
    let execution = world.core.documents.notebook.execution_id("c").unwrap();

    let mut world = world.outlived();
    let bob = world.join("bob");
    world.settle();
    assert_eq!(outputs(&mut world, bob, &execution), ["1\n2\n", "3"]);
    assert_eq!(world.client(bob).execution(&execution).status, Status::Done);
    // Nothing is left to be said again, and the kernel knows.
    let heads = world.core.documents.heads();
    let mut world = world.outlived();
    world.settle();
    assert!(world.core.documents.runtime.contains(&heads[1]));
    assert_eq!(world.core.documents.runtime.outputs(&execution).len(), 2);
    assert_eq!(world.core.documents.runtime.kernel_state(), KernelState::Running(Activity::Idle));
}

#[test]
fn a_cell_that_began_while_another_still_printed_goes_on() {
    let mut world = World::create(3);
    let ana = world.join("ana");
    world.settle();
    let first = world.run(ana, "print 1");
    let launch = world.launch();
    let printed = json!({"name": "stdout", "text": "late\n"});
    world.say(launch, runtimed_plugin_api::Channel::Iopub, &first, "stream", &printed);
    // Heard, and not shown yet.
    assert!(world.step());
    let frame = world.client(ana).add_cell("c", "loop");
    world.send(ana, frame);
    let heads = world.client(ana).heads();
    world.request(ana, json!({"action": "execute_cell", "cell_id": "c", "required_heads": heads}));
    while world.kernel.as_ref().is_none_or(|kernel| kernel.ran.len() < 2) {
        assert!(world.step());
    }
    let second = world.core.documents.notebook.execution_id("c").unwrap();
    assert_eq!(world.core.documents.runtime.outputs(&first).len(), 1, "not shown yet");

    let mut world = world.outlived();
    let bob = world.join("bob");
    world.settle();
    assert_eq!(outputs(&mut world, bob, &first).concat(), "1\nlate\n");
    assert_eq!(world.client(bob).execution(&second).status, Status::Running);
}

#[test]
fn an_interrupt_that_was_asked_for_is_repeated() {
    let mut world = World::create(4);
    let ana = world.join("ana");
    world.settle();
    let running = world.run(ana, "loop");
    // The daemon dies between the record and the signal.
    world.request(ana, json!({"action": "interrupt_execution"}));
    while world.core.documents.runtime.execution(&running).unwrap().status == Status::Running {
        world.effects_left = Some(1);
        assert!(world.step());
    }
    let mut world = world.outlived();
    let bob = world.join("bob");
    world.settle();
    let after = world.run(bob, "print after");
    assert_eq!(outputs(&mut world, bob, &after), ["after\n"]);
}

#[test]
fn a_kernel_stays_as_long_as_after_the_last_client_and_longer_while_it_works() {
    let mut world = World::create(5);
    let ana = world.join("ana");
    world.settle();
    world.run(ana, "loop");
    let mut world = world.outlived();
    world.pass(KEEP_ALIVE * 3);
    assert!(world.kernel.is_some(), "it works");
    world.kernel_ends_its_loop();
    world.pass(KEEP_ALIVE * 2 + SECOND);
    assert!(world.kernel.is_none(), "nobody came");
}

#[test]
fn a_kernel_that_died_meanwhile_says_so_in_the_notebook() {
    let mut world = World::create(6);
    let ana = world.join("ana");
    world.settle();
    let running = world.run(ana, "print 1\nloop");
    let mut world = world.outlived();
    world.kill_kernel();
    let bob = world.join("bob");
    world.settle();
    assert_eq!(world.client(bob).execution(&running).status, Status::Error);
    let outputs = outputs(&mut world, bob, &running);
    assert_eq!(outputs.len(), 2);
    assert!(outputs[0] == "1\n" && outputs[1].contains("signal 9 (SIGKILL"), "{outputs:?}");
    assert!(matches!(
        world.client(bob).runtime.kernel_state(),
        KernelState::Error { .. } | KernelState::Running(_)
    ));
}
