//! Laws of merging, for notebooks nobody would think of.

use std::collections::BTreeSet;

use proptest::prelude::*;
use runtimed_protocol::documents::output::{ContentRef, Output};
use serde_json::json;

use super::*;

fn cell(id: &str, source: &str) -> FileCell {
    FileCell {
        id: id.to_owned(),
        cell_type: "code".to_owned(),
        source: source.to_owned(),
        ..FileCell::default()
    }
}

fn notebook(cells: &[(&str, &str)]) -> Notebook {
    Notebook { cells: cells.iter().map(|(id, source)| cell(id, source)).collect(), ..Notebook::default() }
}

fn idle(base: &Notebook, theirs: &Notebook, ours: &Notebook) -> Merged {
    merge(base, theirs, ours, &|_| false)
}

fn shape(notebook: &Notebook) -> Vec<(&str, &str)> {
    notebook.cells.iter().map(|cell| (cell.id.as_str(), cell.source.as_str())).collect()
}

#[test]
fn edits_of_both_sides_meet() {
    let base = notebook(&[("a", "1\n2\n3"), ("b", "x"), ("c", "y")]);
    let theirs = notebook(&[("a", "0\n2\n3"), ("t", "new"), ("b", "x")]);
    let ours = notebook(&[("a", "1\n2\n4"), ("b", "x"), ("c", "y"), ("o", "own")]);
    let merged = idle(&base, &theirs, &ours);
    assert_eq!(shape(&merged.notebook), [("a", "0\n2\n4"), ("t", "new"), ("b", "x"), ("o", "own")]);
    assert_eq!(merged.conflicts, [""; 0]);
}

#[test]
fn a_conflict_keeps_both_side_by_side() {
    let (base, theirs) = (notebook(&[("a", "1"), ("b", "")]), notebook(&[("a", "2"), ("b", "")]));
    let merged = idle(&base, &theirs, &notebook(&[("a", "3"), ("b", "")]));
    let [ours, copy, _] = &merged.notebook.cells[..] else { panic!("{merged:?}") };
    assert_eq!((ours, copy.source.as_str()), (&cell("a", "3"), "2"));
    assert_eq!(copy.metadata["tags"], json!(["conflict"]));
    assert!(copy.metadata["conflict"].as_str().is_some_and(|why| why.contains("cell a")));
    assert_eq!(merged.conflicts, ["a"]);
    let again = idle(&base, &theirs, &merged.notebook);
    assert_eq!(again.notebook, merged.notebook, "once is enough");
}

#[test]
fn what_one_side_deleted_and_the_other_changed_stays() {
    let base = notebook(&[("a", "1"), ("b", "2")]);
    let merged = idle(&base, &notebook(&[("b", "2!")]), &notebook(&[("a", "1!")]));
    assert_eq!(shape(&merged.notebook), [("b", "2!"), ("a", "1!")]);
    assert!(merged.notebook.cells.iter().all(|cell| cell.metadata["tags"] == json!(["conflict"])));
    let untouched = idle(&base, &notebook(&[("b", "2")]), &notebook(&[("a", "1")]));
    assert_eq!(shape(&untouched.notebook), []);
    let busy = merge(&base, &notebook(&[]), &base, &|id| id == "a");
    assert_eq!(shape(&busy.notebook), [("a", "1")], "a cell that runs is not taken away");
}

#[test]
fn outputs_come_from_outside_unless_the_cell_ran_here() {
    let shows = |text: &str| {
        let output = Output::Stream {
            output_id: text.to_owned(),
            name: "stdout".to_owned(),
            text: ContentRef::inline(text),
            llm_preview: None,
        };
        Notebook { cells: vec![FileCell { outputs: vec![output], ..cell("a", "1") }], ..Notebook::default() }
    };
    assert_eq!(idle(&shows("0"), &shows("1"), &shows("0")).notebook, shows("1"));
    assert_eq!(idle(&shows("0"), &shows("1"), &shows("2")).notebook, shows("2"));
    assert_eq!(merge(&shows("0"), &shows("1"), &shows("0"), &|_| true).notebook, shows("0"));
}

#[test]
fn cells_are_recognized_without_their_ids() {
    let base = notebook(&[("a", "import numpy"), ("b", "plot(x, y)"), ("c", "1"), ("d", "done")]);
    let theirs = notebook(&[("0", "first"), ("1", "import numpy"), ("2", "plot(x, z)"), ("d", "done")]);
    let names = names(&base, &theirs, &BTreeSet::new());
    let expected = [("1", "a"), ("2", "b")].map(|(file, notebook)| (file.to_owned(), notebook.to_owned()));
    assert_eq!(names, expected.into());
}

#[test]
fn a_name_that_follows_from_the_place_is_no_name() {
    // The program knows no ids: "0" and "1" say which cell is first and second, by now.
    let base = notebook(&[("0", "first"), ("1", "second"), ("2", "third")]);
    let theirs = notebook(&[("0", "second"), ("1", "third"), ("2", "something else")]);
    let unnamed = ["0", "1", "2"].map(str::to_owned).into();
    let names = names(&base, &theirs, &unnamed);
    let expected = [("0", "1"), ("1", "2"), ("2", "2-1")];
    assert_eq!(names, expected.map(|(file, notebook)| (file.to_owned(), notebook.to_owned())).into());
}

/// A notebook like any other: ids of a few, texts of a few lines.
fn any_notebook() -> impl Strategy<Value = Notebook> {
    let tags = proptest::collection::vec("[x-z]", 0..3);
    let any_cell = ("[a-g]", "([pqr\n]{0,7})", tags).prop_map(|(id, source, tags)| {
        let mut cell = cell(&id, &source);
        if !tags.is_empty() {
            cell.metadata.insert("tags".to_owned(), json!(tags));
        }
        cell
    });
    let metadata = proptest::collection::btree_map("[m-o]", 0..3i64, 0..3);
    (proptest::collection::vec(any_cell, 0..7), metadata).prop_map(|(mut cells, metadata)| {
        let mut seen = BTreeSet::new();
        cells.retain(|cell| seen.insert(cell.id.clone()));
        Notebook { cells, metadata: metadata.into_iter().map(|(key, value)| (key, json!(value))).collect() }
    })
}

fn carry_out(notebook: &Notebook, edits: Vec<Edit>) -> Notebook {
    let mut notebook = notebook.clone();
    for edit in edits {
        let cells = &mut notebook.cells;
        let behind = |cells: &[FileCell], after: &Option<String>| match after {
            Some(after) => cells.iter().position(|cell| cell.id == *after).expect("it is there") + 1,
            None => 0,
        };
        fn find<'a>(cells: &'a mut [FileCell], id: &str) -> &'a mut FileCell {
            cells.iter_mut().find(|cell| cell.id == id).expect("it is there")
        }
        match edit {
            Edit::Delete { id } => cells.retain(|cell| cell.id != id),
            Edit::Insert { after, cell } => cells.insert(behind(cells, &after), *cell),
            Edit::Move { id, after } => {
                let cell = find(cells, &id).clone();
                cells.retain(|other| other.id != id);
                cells.insert(behind(cells, &after), cell);
            }
            Edit::Source { id, source } => find(cells, &id).source = source,
            Edit::CellType { id, cell_type } => find(cells, &id).cell_type = cell_type,
            Edit::CellMetadata { id, metadata } => find(cells, &id).metadata = metadata,
            Edit::Attachments { id, attachments } => find(cells, &id).attachments = attachments,
            Edit::Outputs { id, count, outputs } => {
                let cell = find(cells, &id);
                (cell.execution_count, cell.outputs) = (count, outputs);
            }
            Edit::Metadata(metadata) => notebook.metadata = metadata,
        }
    }
    notebook
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_one_side_left_alone_is_as_the_other_has_it(base in any_notebook(), side in any_notebook()) {
        let theirs = idle(&base, &side, &base);
        prop_assert_eq!((&theirs.notebook, theirs.conflicts.len()), (&side, 0));
        let ours = idle(&base, &base, &side);
        prop_assert_eq!((&ours.notebook, ours.conflicts.len()), (&side, 0));
        prop_assert_eq!(&idle(&base, &side, &side).notebook, &side);
    }

    #[test]
    fn what_either_side_wrote_is_there(base in any_notebook(), theirs in any_notebook(), ours in any_notebook()) {
        let merged = idle(&base, &theirs, &ours).notebook;
        let lines = |notebook: &Notebook| -> BTreeSet<String> {
            notebook.cells.iter().flat_map(|cell| cell.source.split('\n')).map(str::to_owned).collect()
        };
        let (before, after) = (by_id(&base), lines(&merged));
        for side in [&theirs, &ours] {
            for cell in &side.cells {
                let old: BTreeSet<&str> = before.get(cell.id.as_str()).into_iter().flat_map(|cell| cell.source.split('\n')).collect();
                for line in cell.source.split('\n').filter(|line| !line.is_empty() && !old.contains(line)) {
                    prop_assert!(after.contains(line), "{line:?} of {} is gone: {:?}", cell.id, shape(&merged));
                }
            }
        }
        let ids: BTreeSet<&str> = merged.cells.iter().map(|cell| cell.id.as_str()).collect();
        prop_assert_eq!(ids.len(), merged.cells.len(), "ids are unique");
    }

    #[test]
    fn the_same_file_again_changes_nothing(base in any_notebook(), theirs in any_notebook(), ours in any_notebook()) {
        let merged = idle(&base, &theirs, &ours).notebook;
        prop_assert_eq!(&idle(&theirs, &theirs, &merged).notebook, &merged);
    }

    #[test]
    fn a_plan_leads_where_it_should(now in any_notebook(), wanted in any_notebook()) {
        prop_assert_eq!(carry_out(&now, plan(&now, &wanted)), wanted.clone());
        prop_assert_eq!(plan(&wanted, &wanted), []);
    }

    #[test]
    fn other_names_do_not_meet(base in any_notebook(), theirs in any_notebook(), unnamed in proptest::collection::btree_set("[a-g]", 0..7)) {
        let names = names(&base, &theirs, &unnamed);
        let renamed: BTreeSet<&str> = theirs.cells.iter().map(|cell| names.get(&cell.id).unwrap_or(&cell.id).as_str()).collect();
        prop_assert_eq!(renamed.len(), theirs.cells.len());
    }
}
