//! Whether two cells or outputs look the same in a file.
//!
//! For: leaving the text of what did not change alone, and its blobs unread.
//! Promises: only what a file shows counts: no output ids, display ids, previews or structured
//! tracebacks, and not whether content is in the manifest or in a blob.

use runtimed_protocol::documents::output::{ContentRef, MimeBundle, Output};
use serde_json::Value as Json;

use super::FileCell;
use crate::outputs::mime::{MediaClass, digest};

/// Media type of parsed Markdown, which other daemons put beside the Markdown and no file has.
pub(super) const PARSED_MARKDOWN: &str = "application/vnd.nteract.markdown+json";

/// Whether the cells are written alike.
pub(super) fn same_cell(left: &FileCell, right: &FileCell) -> bool {
    left.id == right.id
        && left.cell_type == right.cell_type
        && left.source == right.source
        && (left.cell_type != "code" || left.execution_count == right.execution_count)
        && left.metadata == right.metadata
        && left.attachments == right.attachments
        && same_outputs(&left.outputs, &right.outputs)
}

/// Whether the lists are written alike.
pub(crate) fn same_outputs(left: &[Output], right: &[Output]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same_output(left, right))
}

/// Whether the outputs are written alike.
pub(super) fn same_output(left: &Output, right: &Output) -> bool {
    match (left, right) {
        (
            Output::Stream { name: left_name, text: left_text, .. },
            Output::Stream { name: right_name, text: right_text, .. },
        ) => left_name == right_name && same_content(left_text, right_text),
        (Output::Display { bundle: left, .. }, Output::Display { bundle: right, .. }) => {
            same_bundle(left, right)
        }
        (
            Output::ExecuteResult { bundle: left, execution_count: left_count, .. },
            Output::ExecuteResult { bundle: right, execution_count: right_count, .. },
        ) => left_count == right_count && same_bundle(left, right),
        (
            Output::Error { ename: left_name, evalue: left_value, traceback: left, .. },
            Output::Error { ename: right_name, evalue: right_value, traceback: right, .. },
        ) => left_name == right_name && left_value == right_value && same_content(left, right),
        _ => false,
    }
}

fn same_bundle(left: &MimeBundle, right: &MimeBundle) -> bool {
    fn shown(bundle: &MimeBundle) -> impl Iterator<Item = (&String, &ContentRef)> {
        bundle.data.iter().filter(|(media_type, _)| *media_type != PARSED_MARKDOWN)
    }
    left.metadata == right.metadata
        && shown(left).count() == shown(right).count()
        && shown(left).zip(shown(right)).all(|((left_type, left), (right_type, right))| {
            left_type == right_type && (same_content(left, right) || same_json(left_type, left, right))
        })
}

fn same_content(left: &ContentRef, right: &ContentRef) -> bool {
    match (left, right) {
        (ContentRef::Inline { inline }, ContentRef::Blob { hash, size })
        | (ContentRef::Blob { hash, size }, ContentRef::Inline { inline }) => {
            inline.len() as u64 == *size && digest(inline.as_bytes()).to_string() == *hash
        }
        _ => left == right,
    }
}

/// The order of keys is the file's affair.
fn same_json(media_type: &str, left: &ContentRef, right: &ContentRef) -> bool {
    let (ContentRef::Inline { inline: left }, ContentRef::Inline { inline: right }) = (left, right) else {
        return false;
    };
    let read = |text: &str| serde_json::from_str::<Json>(text).ok();
    MediaClass::of(media_type) == MediaClass::Json && read(left).is_some_and(|left| Some(left) == read(right))
}
