//! The last bytes of a file, as the model of the next.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;
use uuid::Uuid;

use super::format::Format;
use super::node::Members;
use super::parse::{ParseError, parse, without_mark};
use super::{FileCell, Notebook};

/// A notebook file taken apart.
pub(crate) struct Template<'a> {
    /// All of the file.
    pub(super) bytes: &'a [u8],
    pub(super) format: Format,
    /// The members of the notebook.
    pub(super) root: Members<'a>,
    /// What the file says.
    pub(super) notebook: Notebook,
    /// Text of the cells of `notebook`, in their order.
    cells: Vec<&'a RawValue>,
    /// Shape: cell id -> index.
    by_id: HashMap<String, usize>,
}

impl<'a> Template<'a> {
    /// Takes a file apart: its `bytes`, and what [`super::upgraded`] makes of them. `notebook_id` as in
    /// [`parse`]. None for an empty file.
    ///
    /// # Errors
    /// As [`parse`].
    pub(crate) fn read(
        bytes: &'a [u8],
        upgraded: &'a [u8],
        notebook_id: Uuid,
    ) -> Result<Option<Self>, ParseError> {
        let Some(parsed) = parse(upgraded, notebook_id, &mut String::new)? else { return Ok(None) };
        let text = str::from_utf8(upgraded).unwrap_or_default();
        let root: Members<'a> = serde_json::from_slice(without_mark(upgraded))?;
        let cells: Vec<&'a RawValue> = match root.get("cells") {
            Some(cells) => serde_json::from_str(cells.get())?,
            None => Vec::new(),
        };
        let notebook = parsed.notebook;
        let by_id = notebook.cells.iter().enumerate().map(|(index, cell)| (cell.id.clone(), index)).collect();
        Ok(Some(Self {
            bytes,
            format: Format::of(text),
            root,
            notebook,
            cells: cells.into_iter().filter(|cell| cell.get().starts_with('{')).collect(),
            by_id,
        }))
    }

    /// Calls cells by other names. Shape: id in the file -> id of the cell.
    pub(crate) fn rename(&mut self, names: &BTreeMap<String, String>) {
        self.notebook.rename(names);
        let cells = self.notebook.cells.iter().enumerate();
        self.by_id = cells.map(|(index, cell)| (cell.id.clone(), index)).collect();
    }

    /// The cell with this id: its content and its text.
    pub(super) fn cell(&self, id: &str) -> Option<(&FileCell, &'a RawValue)> {
        let index = *self.by_id.get(id)?;
        Some((self.notebook.cells.get(index)?, self.cells.get(index)?))
    }
}
