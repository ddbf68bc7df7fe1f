//! What reading a notebook's file gives the room.

use runtimed_protocol::documents::{NotebookDoc, Output};

use super::outside::FileVersion;

/// A notebook that was read from its file. Authored once, off the room's task.
pub(crate) struct Loaded {
    /// The cells and the metadata.
    pub(crate) notebook: NotebookDoc,
    /// What the cells had produced.
    pub(crate) executions: Vec<PastExecution>,
    /// What was in the file.
    pub(crate) file: FileVersion,
}

/// The outputs of a cell, as the execution that may have made them.
pub(crate) struct PastExecution {
    /// UUID the cell points to.
    pub(crate) id: String,
    /// The kernel's count.
    pub(crate) count: Option<i64>,
    /// In order.
    pub(crate) outputs: Vec<Output>,
}
