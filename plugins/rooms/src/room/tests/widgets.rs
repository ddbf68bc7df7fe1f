//! Widgets, as the kernel and several windows move them.

use std::collections::BTreeSet;

use runtimed_protocol::documents::CommsDoc;
use runtimed_protocol::response::NotebookResponse as Response;
use serde_json::{Value as Json, json};

use super::world::World;
use crate::ids::PeerId;
use crate::room::event::Event;

fn with_window(seed: u64) -> (World, PeerId) {
    let mut world = World::create(seed);
    let ana = world.join("ana");
    world.settle();
    (world, ana)
}

fn value(comms: &CommsDoc, comm: &str) -> Json {
    comms.state(comm).unwrap_or_else(|| panic!("no widget {comm}"))["value"].clone()
}

#[test]
fn a_window_that_joins_later_sees_every_widget() {
    let (mut world, ana) = with_window(1);
    world.run(ana, "widget 1\nwidget 2\nwidget 0\nframe 1\nmove 4\nclose 2");
    let bob = world.join("bob");
    world.settle();
    let client = world.client(bob);
    assert_eq!(client.runtime.comm_ids(), ["w0", "w1"]);
    assert_eq!(client.comms.comm_ids(), ["w0", "w1"]);
    let entry = client.runtime.comm("w1").unwrap();
    assert_eq!(
        (entry.target_name.as_str(), entry.model_name.as_str(), entry.seq),
        ("jupyter.widget", "SliderModel", 0)
    );
    assert_eq!(client.runtime.comm("w0").unwrap().seq, 2);
    let state = client.comms.state("w1").unwrap();
    assert_eq!((&state["value"], &state["max"]), (&json!(4), &json!(10)));
    let frame = state["frame"].clone();
    assert_eq!((&frame["size"], &frame["media_type"]), (&json!(1), &json!("application/octet-stream")));
    assert!(
        world.blobs.iter().any(|blob| frame["blob"] == blob.digest.to_string() && &blob.bytes[..] == b"1")
    );
}

#[test]
fn a_widget_that_moves_a_thousand_times_is_a_few_changes() {
    let (mut world, ana) = with_window(2);
    world.run(ana, "widget 1");
    let launch = world.launch();
    let before = world.core.documents.heads();
    for number in 0..1000 {
        world.widget(launch, "", "move", 3 * number + 1);
        world.widget(launch, "", "frame", 3 * number + 1);
    }
    world.settle();
    assert_eq!(value(&world.client(ana).comms, "w1"), 2998);
    let changes =
        runtimed_protocol::documents::Document::changes_since(&mut world.core.documents.comms, &before[2]);
    assert!(changes.len() < 20, "{} changes", changes.len());
    assert_eq!(world.core.documents.heads()[1], before[1], "who is there has not changed");
    let stored: BTreeSet<_> = world.blobs.iter().map(|blob| blob.digest).collect();
    assert!(stored.len() <= changes.len(), "what nobody saw is not stored");
}

#[test]
fn what_a_window_writes_reaches_the_kernel_and_the_other_window_once() {
    for seed in 10..20 {
        let (mut world, ana) = with_window(seed);
        let bob = world.join("bob");
        world.run(ana, "widget 1");
        let edit = world.client(bob).edit_widget("w1", json!({"value": 7, "max": 10}));
        world.send(bob, edit);
        world.settle();
        let kernel = world.kernel.as_ref().unwrap();
        let update = json!({"method": "update", "state": {"value": 7}, "buffer_paths": []});
        assert_eq!(kernel.told, [(json!({"comm_id": "w1", "data": update}), vec![])]);
        assert_eq!(kernel.widgets["w1"], 7);
        assert_eq!(value(&world.client(ana).comms, "w1"), 7);
    }
}

#[test]
fn kernel_and_windows_move_at_once_and_all_agree() {
    for seed in 100..130 {
        let (mut world, ana) = with_window(seed);
        let bob = world.join("bob");
        world.run(ana, "widget 1");
        let launch = world.launch();
        for round in 0..20 {
            for peer in [ana, bob] {
                let edit = world.client(peer).edit_widget("w1", json!({"value": 1000 + round}));
                world.send(peer, edit);
                let steps = world.random(4);
                (0..steps).all(|_| world.step());
            }
            world.widget(launch, "", "move", 3 * round + 1);
        }
        world.settle();
        let model = world.kernel.as_ref().unwrap().widgets["w1"].clone();
        assert_eq!(value(&world.core.documents.comms, "w1"), model, "seed {seed}");
        assert_eq!(value(&world.client(ana).comms, "w1"), model, "seed {seed}");
        assert_eq!(value(&world.client(bob).comms, "w1"), model, "seed {seed}");
    }
}

#[test]
fn a_fast_window_has_one_message_in_a_busy_kernel() {
    let (mut world, ana) = with_window(3);
    world.run(ana, "widget 1\nloop");
    for number in 1..50 {
        let edit = world.client(ana).edit_widget("w1", json!({"value": number}));
        world.send(ana, edit);
        world.settle();
    }
    assert!(world.kernel.as_ref().unwrap().told.is_empty());
    world.kernel_ends_its_loop();
    world.settle();
    let kernel = world.kernel.as_ref().unwrap();
    let values: Vec<&Json> =
        kernel.told.iter().map(|(content, _)| &content["data"]["state"]["value"]).collect();
    assert_eq!(values, [&json!(1), &json!(49)]);
    assert_eq!(value(&world.core.documents.comms, "w1"), 49);
}

#[test]
fn buffers_and_large_values_go_back_as_they_came() {
    let (mut world, ana) = with_window(4);
    world.run(ana, "widget 1\nframe 7");
    let frame = world.client(ana).comms.state("w1").unwrap()["frame"].clone();
    let edit = world.client(ana).edit_widget("w1", json!({"thumbnail": [1, frame.clone()]}));
    world.send(ana, edit);
    world.settle();
    let (content, buffers) = world.kernel.as_ref().unwrap().told[0].clone();
    assert_eq!(content["data"]["state"], json!({"thumbnail": [1, null]}));
    assert_eq!(content["data"]["buffer_paths"], json!([["thumbnail", 1]]));
    assert_eq!(buffers, ["7"]);
    // A cell that is run after an edit finds it done, though its bytes have to be read.
    let edit = world.client(ana).edit_widget("w1", json!({"thumbnail": frame}));
    world.send(ana, edit);
    world.run(ana, "print 1");
    let kernel = world.kernel.as_ref().unwrap();
    assert_eq!((kernel.told.len(), kernel.told_at.last()), (2, Some(&1)));
    // One that is not there is not sent, and holds nothing up.
    let lost = json!({"blob": "0".repeat(64), "size": 1, "media_type": "application/octet-stream"});
    for state in [json!({"thumbnail": lost}), json!({"value": 3})] {
        let edit = world.client(ana).edit_widget("w1", state);
        world.send(ana, edit);
    }
    world.settle();
    assert_eq!(world.kernel.as_ref().unwrap().widgets["w1"], 3);
}

#[test]
fn messages_that_are_no_state_go_both_ways_with_buffers() {
    let (mut world, ana) = with_window(5);
    let bob = world.join("bob");
    world.run(ana, "widget 1\nframe 1\ncall 4");
    for peer in [ana, bob] {
        let content = json!({"comm_id": "w1", "target_name": "", "data": {"method": "custom", "content": 4}});
        let expected =
            json!({"event": "comm", "msg_type": "comm_msg", "content": content, "buffers": [[52]]});
        assert_eq!(world.client(peer).broadcasts, [expected]);
    }
    let blob = world.blobs[0].digest.to_string();
    let message = |blob: &str| {
        json!({"action": "send_comm", "message": {
            "header": {"msg_type": "comm_msg", "msg_id": "m".to_owned() + blob},
            "content": {"comm_id": "w1", "data": {"method": "custom", "content": {}}},
            "buffers": [[1, 2], [3]],
            "buffer_refs": [{"index": 1, "blob": blob, "size": 1}],
        }})
    };
    assert_eq!(world.ask(ana, message(&blob)), Response::Ok);
    let told = world.kernel.as_ref().unwrap().told.last().unwrap().1.clone();
    assert_eq!(told, [&[1u8, 2][..], b"1", &[3]]);
    for blob in ["nonsense".to_owned(), "0".repeat(64)] {
        assert!(matches!(world.ask(ana, message(&blob)), Response::Error { .. }));
    }
    assert_eq!(world.kernel.as_ref().unwrap().told.len(), 1);
}

#[test]
fn widgets_end_with_their_kernel() {
    let (mut world, ana) = with_window(6);
    world.run(ana, "widget 1");
    let launch = world.launch();
    // Heard, and not shown when the kernel dies.
    world.widget(launch, "", "move", 4);
    world.widget(launch, "", "widget", 2);
    assert!(world.step());
    world.kill_kernel();
    world.settle();
    assert!(world.client(ana).comms.comm_ids().is_empty() && world.client(ana).runtime.comm_ids().is_empty());
    world.ask(ana, json!({"action": "launch_kernel", "kernel_type": "", "env_source": ""}));
    world.run(ana, "widget 1");
    assert_eq!(world.client(ana).runtime.comm("w1").unwrap().seq, 0);
    assert_eq!(value(&world.client(ana).comms, "w1"), 0);
}

#[test]
fn widgets_outlive_the_daemon_with_their_kernel() {
    for seed in 300..330 {
        let (mut world, ana) = with_window(seed);
        world.run(ana, "widget 1\nwidget 2");
        let launch = world.launch();
        world.widget(launch, "", "move", 4);
        world.widget(launch, "", "move", 5);
        let edit = world.client(ana).edit_widget("w1", json!({"value": 70}));
        world.send(ana, edit);
        let steps = world.random(8);
        world.effects_left = Some(world.random(6));
        (0..steps).all(|_| world.step());
        let mut world = world.outlived();
        let bob = world.join("bob");
        let edit = world.client(bob).edit_widget("w2", json!({"max": 20}));
        world.send(bob, edit);
        world.settle();
        let kernel = world.kernel.as_ref().unwrap();
        for comm in ["w1", "w2"] {
            let comms = &world.core.documents.comms;
            assert_eq!(value(comms, comm), kernel.widgets[comm], "{comm}, seed {seed}");
        }
        assert!(kernel.told.len() <= 1 + 1, "nothing is taken twice");
        let widget = world.run(bob, "widget 0");
        world.settle();
        assert_eq!(world.client(bob).runtime.comm("w0").unwrap().seq, 2, "{widget}");
    }
}

#[test]
fn an_edit_that_the_daemon_died_over_reaches_the_kernel() {
    let (mut world, ana) = with_window(9);
    world.run(ana, "widget 1");
    let edit = world.client(ana).edit_widget("w1", json!({"value": 70}));
    world.send(ana, edit);
    // The daemon dies between the record and the message.
    while value(&world.core.documents.comms, "w1") != 70 {
        world.effects_left = Some(1);
        assert!(world.step());
    }
    assert!(world.kernel.as_ref().unwrap().told.is_empty());
    let mut world = world.outlived();
    world.settle();
    assert_eq!(world.kernel.as_ref().unwrap().widgets["w1"], 70);
    // Once is enough.
    let mut world = world.outlived();
    world.settle();
    assert_eq!(world.kernel.as_ref().unwrap().told.len(), 1);
}

#[test]
fn widget_messages_without_sense_are_dropped() {
    let (mut world, ana) = with_window(7);
    world.run(ana, "widget 1");
    let launch = world.launch();
    let iopub = runtimed_plugin_api::Channel::Iopub;
    for content in [
        json!([]),
        json!({"comm_id": 3}),
        json!({"comm_id": "w1", "data": null}),
        json!({"comm_id": "w1", "data": {"method": "update", "state": []}}),
        json!({"comm_id": "none", "data": {"method": "update", "state": {"value": 3}}}),
        json!({"comm_id": "w1", "data": {"method": "update", "state": {}, "buffer_paths": [["a", 3]]}}),
    ] {
        world.say(launch, iopub, "", "comm_msg", &content);
    }
    world.say(launch, iopub, "", "comm_open", &json!({"comm_id": "other", "target_name": "mine", "data": 3}));
    world.say(launch, iopub, "", "comm_close", &json!({"comm_id": "none"}));
    world.settle();
    let client = world.client(ana);
    assert_eq!(client.comms.comm_ids(), ["other", "w1"]);
    assert_eq!(value(&client.comms, "w1"), 0);
    assert!(client.comms.state("other").unwrap().is_empty());
    world.event(Event::BlobsRead { job: crate::ids::JobId(9), blobs: Default::default() });
}

#[test]
fn an_output_widget_shows_what_is_printed_while_it_listens() {
    let (mut world, ana) = with_window(8);
    let cell = world.run(ana, "print before\nloop");
    let launch = world.launch();
    let iopub = runtimed_plugin_api::Channel::Iopub;
    let say = |world: &mut World, parent: &str, msg_type: &str, content: Json| {
        world.say(launch, iopub, parent, msg_type, &content);
    };
    let update =
        |comm: &str, state: Json| json!({"comm_id": comm, "data": {"method": "update", "state": state}});
    let print = |text: &str| json!({"name": "stdout", "text": text});
    for comm in ["o1", "o2"] {
        let (module, name) = ("@jupyter-widgets/output", "OutputModel");
        let state = json!({"_model_module": module, "_model_name": name, "msg_id": "", "outputs": []});
        let open = json!({"comm_id": comm, "target_name": "jupyter.widget", "data": {"state": state}});
        say(&mut world, &cell, "comm_open", open);
        say(&mut world, &cell, "comm_msg", update(comm, json!({"msg_id": cell})));
        say(&mut world, &cell, "stream", print(comm));
    }
    let display =
        |text: &str| json!({"data": {"text/plain": text}, "metadata": {}, "transient": {"display_id": "d"}});
    say(&mut world, &cell, "display_data", display("old"));
    world.settle();
    say(&mut world, &cell, "comm_msg", update("o2", json!({"msg_id": ""})));
    say(&mut world, &cell, "stream", print(" more"));
    say(&mut world, &cell, "update_display_data", display("new"));
    world.settle();

    let shown = |comms: &CommsDoc, comm: &str| {
        let state = comms.state(comm).unwrap();
        let text = |it: &Json| it.pointer("/text/inline").or(it.pointer("/data/text~1plain/inline")).cloned();
        let outputs = state["outputs"].as_array().unwrap().iter().map(text);
        outputs.map(|text| text.unwrap().as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let client = world.client(ana);
    assert_eq!(shown(&client.comms, "o1"), ["o1 more"]);
    assert_eq!(shown(&client.comms, "o2"), ["o2", "new"]);
    assert_eq!(super::text(&client.outputs(&cell)[0]), "before\n");
    assert_eq!(client.outputs(&cell).len(), 1);
    let entry = client.runtime.comm("o1").unwrap();
    assert_eq!((entry.capture_msg_id, entry.outputs.len()), (cell.clone(), 1));
    assert_eq!(client.runtime.comm("o2").unwrap().capture_msg_id, "");

    // It listens on when the daemon is another.
    let mut world = world.outlived();
    let bob = world.join("bob");
    world.say(launch, iopub, &cell, "stream", &print(" and more"));
    world.settle();
    assert_eq!(shown(&world.client(bob).comms, "o1"), ["o1 more and more"]);
    world.say(launch, iopub, &cell, "clear_output", &json!({"wait": false}));
    let given = json!([{"output_type": "stream", "name": "stdout", "text": "given"}]);
    world.say(launch, iopub, "", "comm_msg", &update("o2", json!({"outputs": given})));
    world.settle();
    assert!(shown(&world.client(bob).comms, "o1").is_empty());
    assert_eq!(shown(&world.client(bob).comms, "o2"), ["given"]);
    assert_eq!(world.client(bob).outputs(&cell).len(), 1);
}
