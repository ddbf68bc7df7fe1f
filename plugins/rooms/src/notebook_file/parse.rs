//! Reading a file.

use std::collections::{BTreeSet, HashSet};

use runtimed_protocol::documents::output::Output;
use serde_json::{Map as JsonMap, Value as Json, json};
use uuid::Uuid;

use super::upgrade::upgraded;
use super::{FileCell, Notebook, RESERVED_METADATA};
use crate::outputs::mime::{MediaClass, NewBlob, decode_base64, into_text};
use crate::outputs::{display, error, stream_output};

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Parsed {
    /// The content.
    pub(crate) notebook: Notebook,
    /// Bytes the content names: store them before peers see it.
    pub(crate) blobs: Vec<NewBlob>,
    /// The cells whose ids are not in the file.
    pub(crate) unnamed: BTreeSet<String>,
}

/// A file that cannot be read. It stays as it is. The texts are what clients know.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseError {
    /// No JSON, or not all of it.
    #[error("Invalid notebook JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Bytes that are no UTF-8, from this one on.
    #[error("Invalid notebook JSON: byte {0} is not UTF-8")]
    NotText(usize),
    /// JSON, but no object.
    #[error("Notebook is not a JSON object")]
    NotAnObject,
    /// An object that is no notebook.
    #[error("notebook has no 'cells' key")]
    NoCells,
    /// The cells are no list.
    #[error("'cells' is not an array")]
    CellsNotAnArray,
    /// A format from before there were files of it.
    #[error("notebook format {0} is too old to be read")]
    TooOld(i64),
    /// A format of the future.
    #[error("notebook format {0} is newer than what can be read, which is 4")]
    TooNew(i64),
}

impl ParseError {
    /// What the user can do about it.
    pub(crate) fn next_step(&self) -> &'static str {
        match self {
            Self::Json(error) if error.is_eof() => {
                "the file seems to have been cut off; restore it from a copy, or close it in the program that writes it."
            }
            Self::Json(_) => {
                "repair the file in a text editor (a merge of git may have left its marks), or restore it from a copy."
            }
            Self::NotText(_) => "convert the file to UTF-8 in a text editor and open it again.",
            Self::NotAnObject | Self::NoCells | Self::CellsNotAnArray => {
                "open a file that a notebook program has written, or restore this one from a copy."
            }
            Self::TooOld(_) => "convert a copy with `jupyter nbconvert --to notebook` and open that.",
            Self::TooNew(_) => "update this program, or convert a copy with the program that wrote it.",
        }
    }
}

/// Keys of `metadata.runt` from the time when trust was a signature in the file.
const LEGACY_TRUST: [&str; 2] = ["trust_signature", "trust_timestamp"];

/// Reads a notebook file. None if it is empty: it is to be opened as a new notebook.
///
/// Cells without an id, or with one that an earlier cell has, get an id that follows from
/// `notebook_id` and their index, the same at every reading. `new_id` draws the ids of outputs.
///
/// # Errors
/// One variant for each way of not being a notebook.
pub(crate) fn parse(
    bytes: &[u8],
    notebook_id: Uuid,
    new_id: &mut dyn FnMut() -> String,
) -> Result<Option<Parsed>, ParseError> {
    let current = upgraded(bytes)?;
    let bytes = without_mark(&current);
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    let Json::Object(mut root) = serde_json::from_slice(bytes)? else { return Err(ParseError::NotAnObject) };
    let cells = match root.remove("cells") {
        Some(Json::Array(cells)) => cells,
        Some(_) => return Err(ParseError::CellsNotAnArray),
        None => return Err(ParseError::NoCells),
    };
    let mut parsed = Parsed::default();
    let mut taken = HashSet::new();
    for (index, cell) in cells.into_iter().enumerate() {
        let Json::Object(cell) = cell else { continue };
        let mut cell = self::cell(cell, new_id, &mut parsed.blobs);
        if cell.id.is_empty() || taken.contains(&cell.id) {
            cell.id = legacy_id(notebook_id, index);
            parsed.unnamed.insert(cell.id.clone());
        }
        taken.insert(cell.id.clone());
        parsed.notebook.cells.push(cell);
    }
    parsed.notebook.metadata = metadata(map(root.remove("metadata")));
    Ok(Some(parsed))
}

/// Drops a byte order mark.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

/// The id of a cell that has none in the file. Source: the reference daemon, so both agree.
fn legacy_id(notebook_id: Uuid, index: usize) -> String {
    Uuid::new_v5(&notebook_id, format!("nteract:legacy-nbformat-cell:{index}").as_bytes()).to_string()
}

fn cell(
    mut cell: JsonMap<String, Json>,
    new_id: &mut dyn FnMut() -> String,
    blobs: &mut Vec<NewBlob>,
) -> FileCell {
    let text = |value: Option<Json>| match value {
        Some(Json::String(text)) => text,
        _ => String::new(),
    };
    let cell_type = match cell.remove("cell_type") {
        Some(Json::String(cell_type)) => cell_type,
        _ => "code".to_owned(),
    };
    let outputs = match cell.remove("outputs") {
        Some(Json::Array(outputs)) => outputs,
        _ => Vec::new(),
    };
    FileCell {
        id: text(cell.remove("id")),
        cell_type,
        source: cell.remove("source").filter(|source| !source.is_null()).map(into_text).unwrap_or_default(),
        execution_count: cell.get("execution_count").and_then(Json::as_i64),
        metadata: map(cell.remove("metadata")),
        attachments: attachments(map(cell.remove("attachments")), blobs),
        outputs: outputs.into_iter().filter_map(|output| self::output(output, new_id, blobs)).collect(),
    }
}

/// An output; none if nobody knows its type.
fn output(output: Json, new_id: &mut dyn FnMut() -> String, blobs: &mut Vec<NewBlob>) -> Option<Output> {
    let Json::Object(mut output) = output else { return None };
    match output.get("output_type")?.as_str()? {
        "stream" => {
            let name = output.get("name").and_then(Json::as_str).unwrap_or("stdout").to_owned();
            let text = output.remove("text").map(into_text).unwrap_or_default();
            Some(stream_output(new_id(), name, text, blobs))
        }
        "display_data" => {
            Some(Output::Display { output_id: new_id(), bundle: display::bundle(&mut output, blobs) })
        }
        "execute_result" => Some(Output::ExecuteResult {
            output_id: new_id(),
            execution_count: output.get("execution_count").and_then(Json::as_i64),
            bundle: display::bundle(&mut output, blobs),
        }),
        "error" => Some(error::from_error(new_id(), &mut output, blobs)),
        other => {
            tracing::warn!(output_type = other, "an output of unknown type is not shown");
            None
        }
    }
}

fn attachments(attachments: JsonMap<String, Json>, blobs: &mut Vec<NewBlob>) -> JsonMap<String, Json> {
    let mut bundle = |bundle: Json| -> Json {
        let values = map(Some(bundle)).into_iter();
        let attached = values.map(|(media_type, value)| {
            let reference = attachment(&media_type, value, blobs);
            (media_type, reference)
        });
        Json::Object(attached.collect())
    };
    attachments.into_iter().map(|(name, value)| (name, bundle(value))).collect()
}

fn attachment(media_type: &str, value: Json, blobs: &mut Vec<NewBlob>) -> Json {
    let class = MediaClass::of(media_type);
    let text = if class == MediaClass::Json { value.to_string() } else { into_text(value) };
    let decoded = if class == MediaClass::Binary { decode_base64(&text) } else { None };
    let (bytes, encoding) = match decoded {
        Some(bytes) => (bytes, "base64"),
        None if class == MediaClass::Json => (text.into_bytes(), "json"),
        None => (text.into_bytes(), "text"),
    };
    let blob = NewBlob::new(bytes, media_type);
    let reference = json!({"blob_hash": blob.digest, "encoding": encoding});
    blobs.push(blob);
    reference
}

/// The metadata as the documents have it: without their own keys, sections of package managers in `runt`.
fn metadata(mut metadata: JsonMap<String, Json>) -> JsonMap<String, Json> {
    metadata.retain(|key, _| !RESERVED_METADATA.contains(&key.as_str()));
    let legacy: Vec<(&str, Json)> = ["uv", "conda"]
        .into_iter()
        .filter_map(|section| {
            let value = metadata.get(section).filter(|value| value.is_object())?.clone();
            metadata.shift_remove(section);
            Some((section, value))
        })
        .collect();
    if metadata.get("runt").is_none_or(Json::is_object) {
        let mut runt = map(metadata.get("runt").cloned());
        runt.retain(|key, _| !LEGACY_TRUST.contains(&key.as_str()));
        for (section, value) in legacy {
            runt.entry(section).or_insert(value);
        }
        if runt.is_empty() {
            metadata.shift_remove("runt");
        } else {
            metadata.insert("runt".to_owned(), Json::Object(runt));
        }
    }
    metadata
}

fn map(value: Option<Json>) -> JsonMap<String, Json> {
    match value {
        Some(Json::Object(map)) => map,
        _ => JsonMap::new(),
    }
}
