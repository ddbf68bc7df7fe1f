//! What the program tells of its work: one JSON document a line, on standard output.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Failure;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// How far it is.
    Progress {
        /// The phase, such as `solving`.
        phase: String,
        /// The phase's own fields.
        fields: Map<String, Value>,
    },
    /// The last line of work that succeeded.
    Done(Done),
    /// The last line of work that did not.
    Failed(Failure),
}

/// What came out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Version of the environment's Python.
    pub python_version: Option<String>,
    /// How many packages were put in place, replaced ones included.
    pub installed: usize,
}
