//! What becomes of an open notebook whose file another program has changed.
//!
//! For: bringing two sets of changes together, cell by cell, given what both began with.
//! Promises: what only one side changed is as that side has it; what both changed is merged line by line, or
//! both versions are there, side by side; a cell that one side deleted and the other changed stays.
//! Never: reads a file or writes a document.

mod align;
mod cell;
mod json;
mod order;
mod plan;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;

use self::cell::{conflict_copy, marked, merged_cell, same_content};
use crate::notebook_file::{FileCell, Notebook};

pub(crate) use self::align::{Names, names};
pub(crate) use self::plan::{Edit, plan};

/// Both sides in one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Merged {
    /// The result.
    pub(crate) notebook: Notebook,
    /// Ids of the cells, and `metadata` for the notebook's, that both sides changed in ways that do not go
    /// together.
    pub(crate) conflicts: Vec<String>,
}

/// Brings `ours`, the open notebook, and `theirs`, the file, together; both began as `base`. What a cell
/// that `is_busy` shows is left to its kernel.
///
/// The ids of `theirs` are those of `base` for the same cells; see [`names`].
pub(crate) fn merge(
    base: &Notebook,
    theirs: &Notebook,
    ours: &Notebook,
    is_busy: &dyn Fn(&str) -> bool,
) -> Merged {
    let (in_base, in_theirs, in_ours) = (by_id(base), by_id(theirs), by_id(ours));
    let mut conflicts = Vec::new();
    // Shape: id -> the cell, and the other version of it.
    let mut cells: HashMap<&str, Vec<FileCell>> = HashMap::new();
    for our in &ours.cells {
        let id = our.id.as_str();
        let busy = is_busy(id);
        let result = match (in_base.get(id), in_theirs.get(id)) {
            (before, Some(their)) => match merged_cell(before.copied(), their, our, busy) {
                Some(merged) => vec![merged],
                None => {
                    conflicts.push(id.to_owned());
                    let copy = conflict_copy(their);
                    let is_there = in_ours.contains_key(copy.id.as_str());
                    std::iter::once(our.clone()).chain((!is_there).then_some(copy)).collect()
                }
            },
            (Some(before), None) if same_content(our, before) && !busy => continue,
            (Some(_), None) => {
                conflicts.push(id.to_owned());
                vec![marked(
                    our.clone(),
                    "Another program deleted this cell in the file while it was changed here.",
                )]
            }
            (None, None) => vec![our.clone()],
        };
        cells.insert(id, result);
    }
    for their in &theirs.cells {
        let id = their.id.as_str();
        match in_base.get(id) {
            _ if in_ours.contains_key(id) => {}
            Some(before) if same_content(their, before) => {}
            Some(_) => {
                conflicts.push(id.to_owned());
                let why = "This cell was deleted here while another program changed it in the file.";
                cells.insert(id, vec![marked(their.clone(), why)]);
            }
            None => drop(cells.insert(id, vec![their.clone()])),
        }
    }
    let order = order::merged(&ids(base), &ids(theirs), &ids(ours), &|id| cells.contains_key(id));
    let cells = order.into_iter().filter_map(|id| cells.remove(id)).flatten().collect();
    let (metadata, clash) = json::merged(&base.metadata, &theirs.metadata, &ours.metadata);
    conflicts.extend(clash.then(|| "metadata".to_owned()));
    Merged { notebook: Notebook { cells, metadata }, conflicts }
}

fn by_id(notebook: &Notebook) -> HashMap<&str, &FileCell> {
    notebook.cells.iter().map(|cell| (cell.id.as_str(), cell)).collect()
}

fn ids(notebook: &Notebook) -> Vec<&str> {
    notebook.cells.iter().map(|cell| cell.id.as_str()).collect()
}
