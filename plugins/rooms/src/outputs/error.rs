//! Exceptions.
//!
//! For: one shape for plain kernels (`error` messages) and for those that display a traceback.

use runtimed_protocol::documents::output::Output;
use serde_json::{Map as JsonMap, Value as Json, json};

use super::mime::{INLINE_ERROR_BYTES, NewBlob, into_text, text_ref};

/// Media type of a structured traceback, displayed instead of an `error` message.
pub(crate) const TRACEBACK: &str = "application/vnd.nteract.traceback+json";

/// Media type under which the parts of an error are stored.
const JSON: &str = "application/json";

/// The output for `content`: that of an `error` message, or such an output of a notebook file.
pub(crate) fn from_error(
    output_id: String,
    content: &mut JsonMap<String, Json>,
    blobs: &mut Vec<NewBlob>,
) -> Output {
    let traceback = match content.remove("traceback") {
        Some(lines @ Json::Array(_)) => lines,
        Some(Json::String(text)) => lines(&text),
        _ => json!([]),
    };
    error(output_id, content, &traceback, None, blobs)
}

/// The output for a displayed bundle that holds a [`TRACEBACK`]; none for other bundles.
pub(crate) fn from_display(
    output_id: &str,
    data: &JsonMap<String, Json>,
    blobs: &mut Vec<NewBlob>,
) -> Option<Output> {
    let rich = data.get(TRACEBACK)?;
    let mut content = rich.as_object()?.clone();
    let traceback = lines(content.get("text").and_then(Json::as_str).unwrap_or_default());
    Some(error(output_id.to_owned(), &mut content, &traceback, Some(rich), blobs))
}

fn error(
    output_id: String,
    content: &mut JsonMap<String, Json>,
    traceback: &Json,
    rich: Option<&Json>,
    blobs: &mut Vec<NewBlob>,
) -> Output {
    let mut text = |key: &str| content.remove(key).map(into_text).unwrap_or_default();
    let (ename, evalue) = (text("ename"), text("evalue"));
    let mut content = |value: &Json| text_ref(value.to_string(), JSON, INLINE_ERROR_BYTES, blobs);
    let traceback = content(traceback);
    Output::Error { output_id, ename, evalue, traceback, rich: rich.map(content), llm_preview: None }
}

fn lines(text: &str) -> Json {
    text.split('\n').collect()
}
