//! Files of nbformat 2 and 3.
//!
//! For: opening them as what they mean in format 4.
//! Promises: says what nbformat's own conversion says, except that it leaves no `orig_nbformat` behind, which
//! the format keeps out of files; what it does not know stays.
//! Never: touches a file of format 4.

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Map as JsonMap, Value as Json};

use super::format::Format;
use super::node::{Members, Node};
use super::parse::{ParseError, without_mark};
use crate::outputs::mime::into_text;

/// The short names of media types in outputs of old files.
const ALIASES: [(&str, &str); 8] = [
    ("text", "text/plain"),
    ("html", "text/html"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpeg", "image/jpeg"),
    ("latex", "text/latex"),
    ("json", "application/json"),
    ("javascript", "application/javascript"),
];

/// The text of a file in the format that is written; an older one is printed anew in the file's own hand.
///
/// # Errors
/// The text is no JSON object, or of a format that is not known.
pub(crate) fn upgraded(bytes: &[u8]) -> Result<Cow<'_, [u8]>, ParseError> {
    let json = without_mark(bytes);
    if json.trim_ascii().is_empty() {
        return Ok(Cow::Borrowed(bytes));
    }
    let text = str::from_utf8(bytes).map_err(|error| ParseError::NotText(error.valid_up_to()))?;
    let value: &RawValue = serde_json::from_slice(json)?;
    if !value.get().starts_with('{') {
        return Err(ParseError::NotAnObject);
    }
    let root = Members::of(value);
    let format = root.get("nbformat").and_then(|format| serde_json::from_str::<i64>(format.get()).ok());
    match format {
        Some(format @ ..=1) => Err(ParseError::TooOld(format)),
        Some(format @ 5..) => Err(ParseError::TooNew(format)),
        Some(format @ (2 | 3)) if root.get("cells").is_none() && root.get("worksheets").is_some() => {
            let mut root = serde_json::from_slice(json)?;
            if format == 2 {
                end_lines(&mut root);
            }
            let Json::Object(root) = root else { return Err(ParseError::NotAnObject) };
            let root = notebook(root);
            Ok(Cow::Owned(Format::of(text).print(&Node::Value(Json::Object(root)))))
        }
        _ => Ok(Cow::Borrowed(bytes)),
    }
}

/// In format 2 the lines of a text had no ends. No other lists of texts were in it but tracebacks.
fn end_lines(value: &mut Json) {
    match value {
        Json::Object(members) => {
            members.iter_mut().filter(|(key, _)| *key != "traceback").for_each(|(_, value)| end_lines(value));
        }
        Json::Array(items) if !items.is_empty() && items.iter().all(Json::is_string) => {
            let lines: Vec<&str> = items.iter().filter_map(Json::as_str).collect();
            *value = lines.join("\n").split_inclusive('\n').collect();
        }
        Json::Array(items) => items.iter_mut().for_each(end_lines),
        _ => {}
    }
}

fn notebook(root: JsonMap<String, Json>) -> JsonMap<String, Json> {
    let member = |(key, mut value): (String, Json)| {
        Some(match key.as_str() {
            "nbformat" => (key, 4.into()),
            "nbformat_minor" => (key, 5.into()),
            "orig_nbformat" | "orig_nbformat_minor" => return None,
            "worksheets" => ("cells".to_owned(), cells(value)),
            "metadata" => {
                if let Json::Object(metadata) = &mut value {
                    metadata.retain(|key, _| !matches!(key.as_str(), "name" | "signature"));
                }
                (key, value)
            }
            _ => (key, value),
        })
    };
    root.into_iter().filter_map(member).collect()
}

/// Worksheets follow one another; nobody ever had two.
fn cells(worksheets: Json) -> Json {
    let Json::Array(worksheets) = worksheets else { return Json::Array(Vec::new()) };
    let cells = worksheets.into_iter().flat_map(|mut sheet| match sheet.get_mut("cells").map(Json::take) {
        Some(Json::Array(cells)) => cells,
        _ => Vec::new(),
    });
    cells
        .map(|cell| if let Json::Object(cell) = cell { Json::Object(self::cell(cell)) } else { cell })
        .collect()
}

fn cell(cell: JsonMap<String, Json>) -> JsonMap<String, Json> {
    match cell.get("cell_type").and_then(Json::as_str) {
        Some("code") => code_cell(cell),
        Some("heading") => heading(cell),
        Some("html") => {
            renamed(cell, |key| key, |key, value| if key == "cell_type" { "markdown".into() } else { value })
        }
        _ => cell,
    }
}

fn code_cell(cell: JsonMap<String, Json>) -> JsonMap<String, Json> {
    let mut collapsed = None;
    let mut code = JsonMap::new();
    for (key, value) in cell {
        match key.as_str() {
            "language" => {}
            "collapsed" => collapsed = Some(value),
            "input" => drop(code.insert("source".to_owned(), value)),
            "prompt_number" => drop(code.insert("execution_count".to_owned(), value)),
            "outputs" => drop(code.insert(key, outputs(value))),
            _ => drop(code.insert(key, value)),
        }
    }
    if let Some(collapsed) = collapsed
        && let Json::Object(metadata) = code.entry("metadata").or_insert_with(|| Json::Object(JsonMap::new()))
    {
        metadata.insert("collapsed".to_owned(), collapsed);
    }
    code
}

fn heading(mut cell: JsonMap<String, Json>) -> JsonMap<String, Json> {
    let level = cell.shift_remove("level").and_then(|level| level.as_u64()).unwrap_or(1);
    // Longer than six is no heading; whatever a file says, it is not gigabytes of hashes.
    let hashes = "#".repeat(level.min(16) as usize);
    renamed(
        cell,
        |key| key,
        |key, value| match key {
            "cell_type" => "markdown".into(),
            "source" => {
                let text = into_text(value);
                format!("{hashes} {}", text.lines().collect::<Vec<_>>().join(" ")).into()
            }
            _ => value,
        },
    )
}

fn outputs(outputs: Json) -> Json {
    let Json::Array(outputs) = outputs else { return outputs };
    outputs
        .into_iter()
        .map(
            |output| {
                if let Json::Object(output) = output { Json::Object(self::output(output)) } else { output }
            },
        )
        .collect()
}

fn output(output: JsonMap<String, Json>) -> JsonMap<String, Json> {
    let retyped =
        |kind: &'static str| move |key: &str, value| if key == "output_type" { kind.into() } else { value };
    match output.get("output_type").and_then(Json::as_str) {
        Some("pyout") => bundle(output, "execute_result"),
        Some("display_data") => bundle(output, "display_data"),
        Some("pyerr") => renamed(output, |key| key, retyped("error")),
        Some("stream") => {
            let mut output = renamed(
                output,
                |key| if key == "stream" { "name".to_owned() } else { key },
                retyped("stream"),
            );
            output.entry("name").or_insert_with(|| "stdout".into());
            output
        }
        _ => output,
    }
}

/// The media types move into `data`, under their full names.
fn bundle(output: JsonMap<String, Json>, kind: &'static str) -> JsonMap<String, Json> {
    let (mut bundle, mut data) = (JsonMap::new(), JsonMap::new());
    let is_result = kind == "execute_result";
    bundle.insert("data".to_owned(), Json::Null);
    for (key, value) in output {
        match key.as_str() {
            "output_type" => drop(bundle.insert(key, kind.into())),
            "prompt_number" if is_result => drop(bundle.insert("execution_count".to_owned(), value)),
            "metadata" => {
                let value = match value {
                    Json::Object(metadata) => Json::Object(renamed(metadata, full_name, |_, value| value)),
                    other => other,
                };
                bundle.insert(key, value);
            }
            _ => {
                let media_type = full_name(key);
                let value = if media_type == "application/json" { structured(value) } else { value };
                data.insert(media_type, value);
            }
        }
    }
    bundle.insert("data".to_owned(), Json::Object(data));
    bundle.entry("metadata").or_insert_with(|| Json::Object(JsonMap::new()));
    if is_result {
        bundle.entry("execution_count").or_insert(Json::Null);
    }
    bundle
}

/// JSON was text once.
fn structured(value: Json) -> Json {
    let text = match &value {
        Json::String(text) => text.clone(),
        Json::Array(lines) if lines.iter().all(Json::is_string) => into_text(value.clone()),
        _ => return value,
    };
    serde_json::from_str(&text).unwrap_or(value)
}

fn full_name(key: String) -> String {
    ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, media_type)| (*media_type).to_owned())
}

/// The members of `map` in their order, with new names and values.
fn renamed(
    map: JsonMap<String, Json>,
    name: impl Fn(String) -> String,
    value: impl Fn(&str, Json) -> Json,
) -> JsonMap<String, Json> {
    map.into_iter().map(|(key, old)| (name(key.clone()), value(&key, old))).collect()
}
