//! Two edits of one cell.

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::{json, text};
use crate::notebook_file::{FileCell, same_outputs};

/// The tag of a cell that needs a look, and the key of its metadata that says why.
const CONFLICT: &str = "conflict";

/// Both edits in one; none if they do not go together. What it shows stays if it `is_busy` or ran here.
pub(super) fn merged_cell(
    base: Option<&FileCell>,
    theirs: &FileCell,
    ours: &FileCell,
    is_busy: bool,
) -> Option<FileCell> {
    let nothing = FileCell::default();
    let base = base.unwrap_or(&nothing);
    let (metadata, clash) = json::merged(&base.metadata, &theirs.metadata, &ours.metadata);
    let (attachments, other_clash) = json::merged(&base.attachments, &theirs.attachments, &ours.attachments);
    if clash || other_clash {
        return None;
    }
    let cell_type = match () {
        () if theirs.cell_type == base.cell_type || theirs.cell_type == ours.cell_type => &ours.cell_type,
        () if ours.cell_type == base.cell_type => &theirs.cell_type,
        () => return None,
    };
    // Outputs are made again by running, so those of this room win over those of another program.
    let shows = if !is_busy && same_shown(ours, base) { theirs } else { ours };
    Some(FileCell {
        id: ours.id.clone(),
        cell_type: cell_type.clone(),
        source: text::merged(&base.source, &theirs.source, &ours.source)?,
        execution_count: shows.execution_count,
        metadata,
        attachments,
        outputs: shows.outputs.clone(),
    })
}

/// Whether everything but what the cells show is the same.
pub(super) fn same_content(left: &FileCell, right: &FileCell) -> bool {
    left.cell_type == right.cell_type
        && left.source == right.source
        && left.metadata == right.metadata
        && left.attachments == right.attachments
}

/// Whether the cells show the same.
pub(super) fn same_shown(left: &FileCell, right: &FileCell) -> bool {
    left.execution_count == right.execution_count && same_outputs(&left.outputs, &right.outputs)
}

/// The version of the other program, for a place behind ours. The same version has the same id each time.
pub(super) fn conflict_copy(theirs: &FileCell) -> FileCell {
    let mut hash = Sha256::new();
    for part in [&theirs.id, &theirs.cell_type, &theirs.source] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.update(Json::Object(theirs.metadata.clone()).to_string());
    let id = format!("conflict-{:.16}", hex::encode(hash.finalize()));
    let why =
        format!("Another program changed cell {} to this in the file while it was changed here.", theirs.id);
    marked(FileCell { id, ..theirs.clone() }, &why)
}

/// The cell with a tag, and with a reason in its metadata.
pub(super) fn marked(mut cell: FileCell, why: &str) -> FileCell {
    let tags = cell.metadata.entry("tags").or_insert_with(|| json!([]));
    if let Json::Array(tags) = tags
        && !tags.iter().any(|tag| tag == CONFLICT)
    {
        tags.push(CONFLICT.into());
    }
    cell.metadata.insert(CONFLICT.to_owned(), why.into());
    cell
}
