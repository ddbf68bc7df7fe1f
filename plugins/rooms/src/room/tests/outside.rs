//! Another program writes the notebook's file.

use std::collections::BTreeSet;

use runtimed_protocol::documents::output::Output;
use runtimed_protocol::documents::{ContentRef, Document as _};
use runtimed_protocol::response::{NotebookResponse as Response, SaveBlocked};
use serde_json::json;

use super::super::event::Event;
use super::super::outside::{FileVersion, Seen};
use super::super::save::SaveFailure;
use super::world::{World, seeded};
use super::{SECOND, text};
use crate::ids::PeerId;
use crate::notebook_file::Notebook;

/// A room whose file holds the cells `a`, `b` and `c`, and a window that has seen it.
fn opened(seed: u64) -> (World, PeerId) {
    let mut world = World::open(seed, Some("/lab/fit.ipynb"), seeded());
    let ana = world.join("ana");
    world.settle();
    for cell in ["a", "b", "c"] {
        let frame = world.client(ana).add_cell(cell, cell);
        world.send(ana, frame);
    }
    world.pass(20 * SECOND);
    assert_eq!(world.saved.len(), 1);
    (world, ana)
}

/// What was saved last, after another program had its way with it.
fn edited(world: &World, edit: impl FnOnce(&mut Notebook)) -> Box<FileVersion> {
    let mut notebook = world.saved.last().unwrap().notebook.clone();
    edit(&mut notebook);
    Box::new(FileVersion { digest: [99; 32], notebook, unnamed: BTreeSet::new(), template: None })
}

fn source(notebook: &mut Notebook, id: &str, source: &str) {
    notebook.cells.iter_mut().find(|cell| cell.id == id).unwrap().source = source.to_owned();
}

fn touch(world: &mut World, seen: Seen) {
    world.seen.push_back(seen);
    // A program that writes in several steps.
    world.event(Event::FileTouched);
    world.event(Event::FileTouched);
    world.pass(SECOND);
    assert_eq!(world.seen.len(), 0, "the file was looked at once");
}

#[test]
fn edits_of_the_file_and_of_a_window_meet() {
    let (mut world, ana) = opened(50);
    let output = Output::Stream {
        output_id: "o".to_owned(),
        name: "stdout".to_owned(),
        text: ContentRef::inline("outside"),
        llm_preview: None,
    };
    let file = edited(&world, |file| {
        source(file, "a", "A");
        file.cells.retain(|cell| cell.id != "b");
        let c = file.cells.iter_mut().find(|cell| cell.id == "c").unwrap();
        (c.execution_count, c.outputs) = (Some(4), vec![output]);
        file.cells.rotate_right(1);
        file.metadata.insert("theirs".to_owned(), json!(1));
    });
    let frame = world.client(ana).set_source("c", "ours");
    world.send(ana, frame);
    world.settle();
    touch(&mut world, Seen::Changed(file));
    let client = world.client(ana);
    let cells: Vec<(String, String)> = client
        .notebook
        .cells()
        .into_iter()
        .skip_while(|cell| cell.id != "c")
        .map(|cell| (cell.id, cell.source))
        .collect();
    assert_eq!(cells.first().map(|(id, source)| (id.as_str(), source.as_str())), Some(("c", "ours")));
    assert!(cells.contains(&("a".to_owned(), "A".to_owned())));
    assert!(client.notebook.cell("b").is_none());
    let shown = client.notebook.execution_id("c").unwrap();
    assert_eq!(client.execution(&shown).execution_count, Some(4));
    assert_eq!(text(&client.outputs(&shown)[0]), "outside");
    let changes = client.notebook.changes_since(&[]);
    let authors: BTreeSet<&[u8]> = changes.iter().map(|change| change.actor_id().to_bytes()).collect();
    assert!(
        authors.iter().any(|author| author.starts_with(b"runtimed:filesystem:")),
        "the file has a name of its own"
    );
    world.pass(20 * SECOND);
    let saved = &world.saved.last().unwrap();
    assert_eq!((saved.expected, saved.notebook.cells.len()), (Some([99; 32]), 3));
    assert_eq!(saved.notebook.metadata["theirs"], json!(1));
}

#[test]
fn the_same_content_again_is_no_event() {
    let (mut world, ana) = opened(51);
    let heads = world.client(ana).heads();
    touch(&mut world, Seen::Known);
    let same = edited(&world, |_| {});
    touch(&mut world, Seen::Changed(same));
    world.pass(20 * SECOND);
    assert_eq!(
        (world.client(ana).heads(), world.saved.len()),
        (heads, 1),
        "nothing to say and nothing to save"
    );
}

#[test]
fn a_file_in_the_middle_of_being_written_is_waited_for() {
    let (mut world, ana) = opened(52);
    touch(&mut world, Seen::Unreadable("torn".to_owned()));
    assert_eq!(world.client(ana).runtime.file_checkpoint().source_issue_kind, "");
    let file = edited(&world, |file| source(file, "a", "A"));
    touch(&mut world, Seen::Changed(file));
    assert_eq!(world.client(ana).notebook.source("a").as_deref(), Some("A"));
}

#[test]
fn a_file_that_stays_unreadable_is_said_and_not_overwritten() {
    let (mut world, ana) = opened(53);
    world.seen.extend([Seen::Unreadable("torn".to_owned()), Seen::Unreadable("torn".to_owned())]);
    world.event(Event::FileTouched);
    world.pass(3 * SECOND);
    let checkpoint = world.client(ana).runtime.file_checkpoint();
    assert_eq!((&*checkpoint.source_issue_kind, &*checkpoint.source_issue_reason), ("conflict", "torn"));
    let frame = world.client(ana).set_source("a", "kept");
    world.send(ana, frame);
    world.pass(60 * SECOND);
    assert_eq!(world.saved.len(), 1);
    // Once it is whole again, or gone, all is well.
    let file = edited(&world, |file| source(file, "b", "B"));
    touch(&mut world, Seen::Changed(file));
    world.pass(20 * SECOND);
    let saved = world.saved.last().unwrap();
    let texts: Vec<&str> = saved.notebook.cells.iter().map(|cell| cell.source.as_str()).collect();
    assert!(texts.contains(&"kept") && texts.contains(&"B"), "{texts:?}");
    assert_eq!(world.client(ana).runtime.file_checkpoint().source_issue_kind, "");
}

#[test]
fn a_save_that_was_overtaken_merges_first() {
    let (mut world, ana) = opened(54);
    let file = edited(&world, |file| source(file, "a", "theirs"));
    let frame = world.client(ana).set_source("a", "ours");
    world.send(ana, frame);
    world.no_saves.push_back(SaveFailure::ChangedOutside(file));
    let save = json!({"action": "save_notebook", "format_cells": false});
    assert!(matches!(world.ask(ana, save.clone()), Response::NotebookSaved(_)));
    let saved: Vec<&str> =
        world.saved.last().unwrap().notebook.cells.iter().map(|cell| cell.source.as_str()).collect();
    let at = saved.iter().position(|source| *source == "ours").unwrap();
    assert_eq!(saved[at + 1], "theirs", "both are there, side by side: {saved:?}");

    // A program that never stops does not keep a save from being answered.
    let endless: Vec<_> = (0..20).map(|_| edited(&world, |file| source(file, "b", "again"))).collect();
    world.no_saves.extend(endless.into_iter().map(SaveFailure::ChangedOutside));
    assert!(matches!(
        world.ask(ana, save),
        Response::NotebookSaveBlocked { reason: SaveBlocked::SourceConflict { message }, .. } if message.contains("all the time")
    ));
}
