//! From one state of a notebook to another.
//!
//! Promises: carried out in order, the edits lead from the one to the other; what is the same is not
//! touched, and as few cells as possible move.

use std::collections::{HashMap, HashSet};

use runtimed_protocol::documents::output::Output;
use serde_json::{Map as JsonMap, Value as Json};

use super::cell::same_shown;
use super::{by_id, ids, order};
use crate::notebook_file::{FileCell, Notebook};

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Edit {
    /// Remove a cell.
    Delete { id: String },
    /// Add a cell behind another; without one at the start.
    Insert { after: Option<String>, cell: Box<FileCell> },
    /// Put a cell behind another; without one at the start.
    Move { id: String, after: Option<String> },
    /// Change the text.
    Source { id: String, source: String },
    /// Change the type.
    CellType { id: String, cell_type: String },
    /// Change the metadata of a cell.
    CellMetadata { id: String, metadata: JsonMap<String, Json> },
    /// Change the attachments.
    Attachments { id: String, attachments: JsonMap<String, Json> },
    /// Show other outputs.
    Outputs { id: String, count: Option<i64>, outputs: Vec<Output> },
    /// Change the metadata of the notebook.
    Metadata(JsonMap<String, Json>),
}

/// The steps from `now` to `wanted`.
pub(crate) fn plan(now: &Notebook, wanted: &Notebook) -> Vec<Edit> {
    let before: HashMap<&str, &FileCell> = by_id(now);
    let wanted_ids = ids(wanted);
    let there: HashSet<&str> = wanted_ids.iter().copied().collect();
    let gone = now.cells.iter().filter(|cell| !there.contains(cell.id.as_str()));
    let mut edits: Vec<Edit> = gone.map(|cell| Edit::Delete { id: cell.id.clone() }).collect();
    let staying = order::staying(&ids(now), &wanted_ids);
    let mut last: Option<&str> = None;
    for cell in &wanted.cells {
        let after = last.replace(&cell.id).map(str::to_owned);
        let id = || cell.id.clone();
        let Some(before) = before.get(cell.id.as_str()) else {
            edits.push(Edit::Insert { after, cell: Box::new(cell.clone()) });
            continue;
        };
        if !staying.contains(cell.id.as_str()) {
            edits.push(Edit::Move { id: id(), after });
        }
        if before.cell_type != cell.cell_type {
            edits.push(Edit::CellType { id: id(), cell_type: cell.cell_type.clone() });
        }
        if before.source != cell.source {
            edits.push(Edit::Source { id: id(), source: cell.source.clone() });
        }
        if before.metadata != cell.metadata {
            edits.push(Edit::CellMetadata { id: id(), metadata: cell.metadata.clone() });
        }
        if before.attachments != cell.attachments {
            edits.push(Edit::Attachments { id: id(), attachments: cell.attachments.clone() });
        }
        if !same_shown(before, cell) {
            let (count, outputs) = (cell.execution_count, cell.outputs.clone());
            edits.push(Edit::Outputs { id: id(), count, outputs });
        }
    }
    if now.metadata != wanted.metadata {
        edits.push(Edit::Metadata(wanted.metadata.clone()));
    }
    edits
}
