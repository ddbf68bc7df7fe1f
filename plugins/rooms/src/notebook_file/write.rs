//! Writing a file.

use std::cell::RefCell;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use runtimed_plugin_api::Digest;
use runtimed_protocol::documents::output::{ContentRef, MimeBundle, Output};
use serde_json::value::RawValue;
use serde_json::{Map as JsonMap, Value as Json, json};

use super::format::Format;
use super::node::{Members, Node, object};
use super::same::{PARSED_MARKDOWN, same_cell, same_output, same_outputs};
use super::template::Template;
use super::{FileCell, Notebook, RESERVED_METADATA};
use crate::outputs::mime::{MediaClass, into_text};

/// The format that is written.
const NBFORMAT: i64 = 4;
/// The least minor format that is written: the first in which cells have ids.
const NBFORMAT_MINOR: i64 = 5;

/// Keys of a cell that are written from the documents. All others are kept.
const CELL_KEYS: [&str; 7] =
    ["attachments", "cell_type", "execution_count", "id", "metadata", "outputs", "source"];

/// A notebook that no file can hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// A client made a cell of a type that nbformat does not have.
    #[error("Failed to build v4 notebook: cell '{id}' has unsupported cell_type '{cell_type}'")]
    UnsupportedCellType {
        /// The cell.
        id: String,
        /// Its type.
        cell_type: String,
    },
}

/// The bytes of a file that holds `notebook`, in the hand of `template`, its last bytes. An unchanged
/// notebook gives those very bytes. `blob` looks up content; an output whose content is missing is
/// written as a message on stderr that says so, unless the template still has its text.
///
/// # Errors
/// `UnsupportedCellType` for a cell that the template does not have, or with another type.
pub(crate) fn write(
    notebook: &Notebook,
    template: Option<&Template<'_>>,
    blob: &dyn Fn(&Digest) -> Option<Bytes>,
) -> Result<Vec<u8>, WriteError> {
    if let Some(template) = template.filter(|template| is_unchanged(notebook, template)) {
        return Ok(template.bytes.to_vec());
    }
    let writer = Writer { template, blob };
    let cells = notebook.cells.iter().map(|cell| writer.cell(cell)).collect::<Result<_, _>>()?;
    let members = vec![
        ("cells".to_owned(), Node::Array(cells)),
        ("metadata".to_owned(), writer.metadata(&notebook.metadata)),
        ("nbformat".to_owned(), writer.at_least("nbformat", NBFORMAT)),
        ("nbformat_minor".to_owned(), writer.at_least("nbformat_minor", NBFORMAT_MINOR)),
    ];
    Ok(match template {
        Some(template) => template.format.print(&Node::object(members, &template.root, |_| true)),
        None => Format::default().print(&Node::object(members, &Members::default(), |_| true)),
    })
}

/// The blobs that [`write()`] will look up.
///
/// # Errors
/// As [`write()`].
pub(crate) fn needed_blobs(
    notebook: &Notebook,
    template: Option<&Template<'_>>,
) -> Result<BTreeSet<Digest>, WriteError> {
    let needed = RefCell::new(BTreeSet::new());
    let record = |digest: &Digest| {
        needed.borrow_mut().insert(*digest);
        // Any bytes do, so that the writer does not stop at the first one that is missing.
        Some(Bytes::new())
    };
    write(notebook, template, &record)?;
    Ok(needed.into_inner())
}

fn is_unchanged(notebook: &Notebook, template: &Template<'_>) -> bool {
    let (new, old) = (&notebook.cells, &template.notebook.cells);
    notebook.metadata == template.notebook.metadata
        && new.len() == old.len()
        && new.iter().zip(old).all(|(new, old)| same_cell(new, old))
}

struct Writer<'w, 'a> {
    template: Option<&'w Template<'a>>,
    blob: &'w dyn Fn(&Digest) -> Option<Bytes>,
}

impl<'a> Writer<'_, 'a> {
    fn metadata(&self, metadata: &JsonMap<String, Json>) -> Node<'a> {
        let Some((template, old)) =
            self.template.and_then(|template| Some((template, template.root.get("metadata")?)))
        else {
            return Node::sorted(Json::Object(metadata.clone()));
        };
        if *metadata == template.notebook.metadata {
            return Node::Raw(old);
        }
        let old = Members::of(old);
        let merge = |(key, value): (&String, &Json)| (key.clone(), Node::merge(value.clone(), old.get(key)));
        Node::object(metadata.iter().map(merge).collect(), &old, |key| RESERVED_METADATA.contains(&key))
    }

    fn at_least(&self, key: &str, least: i64) -> Node<'a> {
        let old = self.template.and_then(|template| template.root.get(key));
        let number = old.and_then(|old| serde_json::from_str::<i64>(old.get()).ok()).unwrap_or(least);
        Node::merge(json!(number.max(least)), old)
    }

    fn cell(&self, cell: &FileCell) -> Result<Node<'a>, WriteError> {
        let before = self.template.and_then(|template| template.cell(&cell.id));
        let (before, members) = match before {
            Some((before, raw)) => {
                let members = Members::of(raw);
                // A cell without an id of its own gets it as soon as anything is written.
                let id = members.get("id").and_then(|id| serde_json::from_str::<String>(id.get()).ok());
                if id.as_ref() == Some(&cell.id) && same_cell(cell, before) {
                    return Ok(Node::Raw(raw));
                }
                (Some(before), members)
            }
            None => (None, Members::default()),
        };
        let is_known = matches!(cell.cell_type.as_str(), "code" | "markdown" | "raw");
        if !is_known && before.is_none_or(|before| before.cell_type != cell.cell_type) {
            return Err(WriteError::UnsupportedCellType {
                id: cell.id.clone(),
                cell_type: cell.cell_type.clone(),
            });
        }
        let is_code = cell.cell_type == "code";
        let merge = |key: &str, value: Json| (key.to_owned(), Node::merge(value, members.get(key)));
        let mut new = vec![
            merge("cell_type", cell.cell_type.as_str().into()),
            merge("id", cell.id.as_str().into()),
            merge("metadata", Json::Object(cell.metadata.clone())),
            ("source".to_owned(), text_node(&cell.source, members.get("source"))),
        ];
        if is_code {
            new.push(merge("execution_count", cell.execution_count.into()));
            let old = members.get("outputs").zip(before);
            new.push(("outputs".to_owned(), self.outputs(&cell.outputs, old)));
        }
        if !cell.attachments.is_empty() {
            let old = members.get("attachments");
            let node =
                match old.filter(|_| before.is_some_and(|before| before.attachments == cell.attachments)) {
                    Some(old) => Node::Raw(old),
                    None => Node::merge(self.attachments(&cell.attachments), old),
                };
            new.push(("attachments".to_owned(), node));
        }
        // Nobody knows what belongs to a type that nobody knows.
        Ok(Node::object(new, &members, |key| !is_known || !CELL_KEYS.contains(&key)))
    }

    fn outputs(&self, outputs: &[Output], old: Option<(&'a RawValue, &FileCell)>) -> Node<'a> {
        let Some((raw, before)) = old else {
            return Node::Array(outputs.iter().map(|output| self.output(output, None)).collect());
        };
        if same_outputs(outputs, &before.outputs) {
            return Node::Raw(raw);
        }
        let raw: Vec<&'a RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
        // Unless the file has outputs of unknown type, text and content go side by side.
        let old = |index: usize| {
            let raw = raw.get(index).filter(|_| raw.len() == before.outputs.len())?;
            Some((*raw, before.outputs.get(index)?))
        };
        Node::Array(
            outputs.iter().enumerate().map(|(index, output)| self.output(output, old(index))).collect(),
        )
    }

    fn output(&self, output: &Output, old: Option<(&'a RawValue, &Output)>) -> Node<'a> {
        match old {
            Some((raw, before)) if same_output(output, before) => Node::Raw(raw),
            _ => {
                let raw = old.map(|(raw, _)| raw);
                let output = self.nbformat(output).unwrap_or_else(|gone| {
                    let text = format!(
                        "[This output could not be saved: its {} content ({}) is missing from the blob store.]\n",
                        gone.media_type, gone.hash
                    );
                    object([("name", "stderr".into()), ("output_type", "stream".into()), ("text", lines(&text))])
                });
                Node::merge(Json::Object(output), raw)
            }
        }
    }

    fn nbformat<'o>(&self, output: &'o Output) -> Result<JsonMap<String, Json>, Gone<'o>> {
        Ok(match output {
            Output::Stream { name, text, .. } => object([
                ("name", name.as_str().into()),
                ("output_type", "stream".into()),
                ("text", lines(&self.text("text/plain", text)?)),
            ]),
            Output::Display { bundle, .. } => object([
                ("data", self.data(bundle)?),
                ("metadata", Json::Object(bundle.metadata.clone())),
                ("output_type", "display_data".into()),
            ]),
            Output::ExecuteResult { bundle, execution_count, .. } => object([
                ("data", self.data(bundle)?),
                ("execution_count", (*execution_count).into()),
                ("metadata", Json::Object(bundle.metadata.clone())),
                ("output_type", "execute_result".into()),
            ]),
            Output::Error { ename, evalue, traceback, .. } => object([
                ("ename", ename.as_str().into()),
                ("evalue", evalue.as_str().into()),
                ("output_type", "error".into()),
                (
                    "traceback",
                    serde_json::from_str(&self.text("traceback", traceback)?).unwrap_or_else(|_| json!([])),
                ),
            ]),
        })
    }

    fn data<'o>(&self, bundle: &'o MimeBundle) -> Result<Json, Gone<'o>> {
        let shown = bundle.data.iter().filter(|(media_type, _)| *media_type != PARSED_MARKDOWN);
        let values = shown.map(|(media_type, content)| {
            let value = match (MediaClass::of(media_type), content) {
                // Base64 that cannot be decoded is kept as it came.
                (MediaClass::Binary, ContentRef::Inline { inline }) => inline.as_str().into(),
                (MediaClass::Binary, ContentRef::Blob { hash, .. }) => {
                    STANDARD.encode(self.bytes(media_type, hash)?).into()
                }
                (MediaClass::Text, _) => lines(&self.text(media_type, content)?),
                (MediaClass::Json, _) => {
                    let text = self.text(media_type, content)?;
                    serde_json::from_str(&text).unwrap_or_else(|_| lines(&text))
                }
            };
            Ok((media_type.clone(), value))
        });
        values.collect::<Result<_, _>>().map(Json::Object)
    }

    fn text<'o>(&self, media_type: &'o str, content: &'o ContentRef) -> Result<String, Gone<'o>> {
        match content {
            ContentRef::Inline { inline } => Ok(inline.clone()),
            ContentRef::Blob { hash, .. } => {
                Ok(String::from_utf8_lossy(&self.bytes(media_type, hash)?).into_owned())
            }
        }
    }

    fn bytes<'o>(&self, media_type: &'o str, hash: &'o str) -> Result<Bytes, Gone<'o>> {
        let digest = hash.parse().ok();
        digest.and_then(|digest| (self.blob)(&digest)).ok_or(Gone { media_type, hash })
    }

    /// Attachments whose content is missing are left out; there is no way to say so in their place.
    fn attachments(&self, attachments: &JsonMap<String, Json>) -> Json {
        let value = |reference: &Json| -> Option<Json> {
            let bytes = self.bytes("", reference.get("blob_hash")?.as_str()?).ok()?;
            Some(match reference.get("encoding")?.as_str()? {
                "text" => String::from_utf8_lossy(&bytes).into(),
                "json" => serde_json::from_slice(&bytes).ok()?,
                _ => STANDARD.encode(bytes).into(),
            })
        };
        let bundle = |bundle: &Json| -> Option<Json> {
            let values = bundle.as_object()?.iter();
            Some(
                values
                    .filter_map(|(media_type, reference)| Some((media_type.clone(), value(reference)?)))
                    .collect(),
            )
        };
        attachments.iter().filter_map(|(name, value)| Some((name.clone(), bundle(value)?))).collect()
    }
}

/// Content that is not in the blob store.
struct Gone<'o> {
    media_type: &'o str,
    hash: &'o str,
}

/// Text in the form `old` has: its very text, a string, or a list of lines.
fn text_node<'a>(text: &str, old: Option<&'a RawValue>) -> Node<'a> {
    let Some(raw) = old else { return Node::Value(lines(text)) };
    match serde_json::from_str(raw.get()) {
        Ok(old @ (Json::String(_) | Json::Array(_))) => {
            let was_string = old.is_string();
            match into_text(old) == text {
                true => Node::Raw(raw),
                false if was_string => Node::Value(text.into()),
                false => Node::merge(lines(text), Some(raw)),
            }
        }
        _ => Node::Value(lines(text)),
    }
}

/// Text as a list of lines, each with its line end.
fn lines(text: &str) -> Json {
    text.split_inclusive('\n').collect()
}
