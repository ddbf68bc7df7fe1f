//! The `.ipynb` file.
//!
//! For: reading a file into what the documents hold, and writing that back.
//! Promises: an unchanged notebook is written byte for byte as it was; a change touches the lines it is
//! about: key order, indent, line ends and keys nobody knows stay (law 5); what is written is valid nbformat
//! 4.5, whichever of 2 to 4 was read.
//! Never: reads or writes a file or a blob; bytes come in and go out.

mod format;
mod node;
mod parse;
mod same;
mod template;
#[cfg(test)]
mod tests;
mod upgrade;
mod write;

use std::collections::BTreeMap;

use runtimed_protocol::documents::output::Output;
use serde_json::{Map as JsonMap, Value as Json};

pub(crate) use self::parse::{ParseError, Parsed, parse};
pub(crate) use self::same::same_outputs;
pub(crate) use self::template::Template;
pub(crate) use self::upgrade::upgraded;
pub(crate) use self::write::{WriteError, needed_blobs, write};

/// A notebook as its documents hold it, as far as a file can show it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Notebook {
    /// In order.
    pub(crate) cells: Vec<FileCell>,
    /// Metadata without the documents' own keys.
    pub(crate) metadata: JsonMap<String, Json>,
}

impl Notebook {
    /// Calls cells by other names. Shape: id now -> new id.
    pub(crate) fn rename(&mut self, names: &BTreeMap<String, String>) {
        for cell in &mut self.cells {
            if let Some(name) = names.get(&cell.id) {
                cell.id.clone_from(name);
            }
        }
    }
}

/// A cell of a [`Notebook`].
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FileCell {
    /// Not empty; no other cell has it.
    pub(crate) id: String,
    /// `code`, `markdown`, `raw`, or what the file or a client says.
    pub(crate) cell_type: String,
    /// The text.
    pub(crate) source: String,
    /// Count of the execution that made the outputs.
    pub(crate) execution_count: Option<i64>,
    /// Metadata of the cell.
    pub(crate) metadata: JsonMap<String, Json>,
    /// Shape: name -> media type -> `{blob_hash, encoding}`.
    pub(crate) attachments: JsonMap<String, Json>,
    /// In order.
    pub(crate) outputs: Vec<Output>,
}

/// Keys of the notebook's metadata that are the documents' own: neither read from a file nor written.
const RESERVED_METADATA: [&str; 3] = ["runtime", "ephemeral", "notebook_metadata"];
