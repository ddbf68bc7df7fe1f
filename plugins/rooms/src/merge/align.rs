//! Which cell of a file is which cell of the notebook.
//!
//! For: programs that know no cell ids, or give new ones to all cells whenever they write.
//! Promises: a cell whose id is in both is the same cell; among the others, those with the same text are,
//! in order, and then those between them that are much alike; no two cells get one name.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::notebook_file::{FileCell, Notebook};

/// Two cells are one that was edited if at least this part of their words is common. Source: git takes
/// files for renamed from a half on.
const ALIKE: f64 = 0.5;

/// Other names for cells. Shape: id in the file -> id in the notebook.
pub(crate) type Names = BTreeMap<String, String>;

/// What the cells of `theirs` are to be called so that those of `base` keep their ids. `unnamed` are the
/// cells of `theirs` whose ids are not in the file.
pub(crate) fn names(base: &Notebook, theirs: &Notebook, unnamed: &BTreeSet<String>) -> Names {
    let known: HashSet<&str> = base.cells.iter().map(|cell| cell.id.as_str()).collect();
    let is_named = |cell: &&FileCell| known.contains(cell.id.as_str()) && !unnamed.contains(&cell.id);
    let named: HashSet<&str> = theirs.cells.iter().filter(is_named).map(|cell| cell.id.as_str()).collect();
    let before: Vec<&FileCell> = base.cells.iter().filter(|cell| !named.contains(cell.id.as_str())).collect();
    let after: Vec<&FileCell> =
        theirs.cells.iter().filter(|cell| !named.contains(cell.id.as_str())).collect();

    let mut names = Names::new();
    let mut is = |after: &FileCell, before: &FileCell| names.insert(after.id.clone(), before.id.clone());
    let texts = |cells: &[&FileCell]| -> Vec<(String, String)> {
        cells.iter().map(|cell| (cell.cell_type.clone(), cell.source.clone())).collect()
    };
    for op in capture_diff_slices(Algorithm::Myers, &texts(&before), &texts(&after)) {
        let (Some(old), Some(new)) = (before.get(op.old_range()), after.get(op.new_range())) else {
            continue;
        };
        if matches!(op, DiffOp::Equal { .. }) {
            old.iter().zip(new).for_each(|(before, after)| drop(is(after, before)));
            continue;
        }
        let mut old = old.iter();
        for after in new {
            let mut rest = old.clone();
            if let Some(before) = rest.find(|before| are_alike(before, after)) {
                is(after, before);
                old = rest;
            }
        }
    }
    // A name from the file's order that by now is another cell's.
    let mut taken: HashSet<String> = theirs.cells.iter().map(|cell| cell.id.clone()).collect();
    taken.extend(base.cells.iter().map(|cell| cell.id.clone()));
    for cell in after {
        if known.contains(cell.id.as_str()) && !names.contains_key(&cell.id) {
            let fresh = (1..).map(|count| format!("{}-{count}", cell.id)).find(|id| !taken.contains(id));
            if let Some(fresh) = fresh {
                taken.insert(fresh.clone());
                names.insert(cell.id.clone(), fresh);
            }
        }
    }
    names.retain(|file, notebook| file != notebook);
    names
}

fn are_alike(left: &FileCell, right: &FileCell) -> bool {
    let words = |cell: &'_ FileCell| -> Vec<String> {
        cell.source.split_inclusive(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect()
    };
    let (left_words, right_words) = (words(left), words(right));
    let equal: usize = capture_diff_slices(Algorithm::Myers, &left_words, &right_words)
        .iter()
        .filter_map(|op| if let DiffOp::Equal { len, .. } = op { Some(*len) } else { None })
        .sum();
    let all = (left_words.len() + right_words.len()).max(1);
    left.cell_type == right.cell_type && 2.0 * equal as f64 / all as f64 >= ALIKE
}
