//! What a client asks of its notebook.
//!
//! For: REQUEST frames on a notebook connection.
//! Promises: a request that is JSON but makes no sense still yields its id, so it can be answered.
//! Never: decides whether a request is allowed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::lenient::null_is_default;

/// A request with its envelope, one flat JSON object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestEnvelope {
    /// Echoed in the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Hex hashes of changes the notebook document must contain before the request is looked at. Kept
    /// as text: a hash that is none is answered with an error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_heads: Vec<String>,
    /// The request itself.
    #[serde(flatten)]
    pub request: NotebookRequest,
}

/// Why a REQUEST frame is not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a JSON object; the connection is closed.
    #[error("the request is not a JSON object: {0}")]
    NotJson(String),
    /// An unknown action, or a field that is missing or of the wrong type; answered with an error.
    #[error("{message}")]
    Invalid {
        /// The request's id, if it had one.
        id: Option<String>,
        /// What is wrong with it.
        message: String,
    },
}

impl RequestEnvelope {
    /// Reads the payload of a REQUEST frame.
    ///
    /// # Errors
    /// `NotJson` has no id and no answer; `Invalid` has both.
    pub fn decode(payload: &[u8]) -> Result<Self, RequestError> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default, deserialize_with = "null_is_default")]
            required_heads: Vec<String>,
        }
        let object: Map<String, Value> =
            serde_json::from_slice(payload).map_err(|error| RequestError::NotJson(error.to_string()))?;
        let id = object.get("id").and_then(Value::as_str).map(str::to_owned);
        let object = Value::Object(object);
        let parsed = Head::deserialize(&object)
            .and_then(|head| Ok((head.required_heads, NotebookRequest::deserialize(object)?)));
        match parsed {
            Ok((required_heads, request)) => Ok(Self { id, required_heads, request }),
            Err(error) => {
                Err(RequestError::Invalid { id, message: format!("The request was not understood: {error}") })
            }
        }
    }
}

/// The requests, by `action`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
#[non_exhaustive]
pub enum NotebookRequest {
    /// Queues a cell; its source is the document's.
    ExecuteCell {
        /// Cell.
        cell_id: String,
        /// UUID to use; the daemon makes one if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        execution_id: Option<String>,
    },
    /// Queues a cell unless it changed since the user saw it.
    ExecuteCellGuarded {
        /// Cell.
        cell_id: String,
        /// UUID to use.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        execution_id: Option<String>,
        /// Heads of what the user saw.
        observed_heads: Vec<String>,
    },
    /// Queues every code cell in order.
    RunAllCells {
        /// UUIDs to use, by cell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cell_execution_ids: Option<BTreeMap<String, String>>,
    },
    /// Queues every code cell unless the notebook changed since the user saw it.
    RunAllCellsGuarded {
        /// UUIDs to use, by cell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cell_execution_ids: Option<BTreeMap<String, String>>,
        /// Heads of what the user saw.
        observed_heads: Vec<String>,
    },
    /// Starts a kernel, or waits for the one that is starting.
    LaunchKernel {
        /// `python`, `deno`, an installed kernel, or empty: as the notebook says.
        kernel_type: String,
        /// `auto` and others; unknown ones are tried as they are.
        env_source: String,
        /// The notebook's file as the client knows it.
        #[serde(default)]
        notebook_path: Option<String>,
    },
    /// Interrupts what runs. Overtakes other requests.
    InterruptExecution,
    /// Ends the kernel. Overtakes other requests.
    ShutdownKernel,
    /// Asks the kernel for completions.
    Complete {
        /// Text.
        code: String,
        /// Where, in Unicode code points.
        cursor_pos: u64,
    },
    /// Asks the kernel for its history.
    GetHistory {
        /// Glob; none means the latest.
        #[serde(default)]
        pattern: Option<String>,
        /// Most entries wanted.
        n: i64,
        /// Each source once.
        unique: bool,
    },
    /// Writes the file.
    SaveNotebook {
        /// Format the cells first.
        format_cells: bool,
        /// Absolute path to save as.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// Installs what the notebook declares into the running environment.
    SyncEnvironment {
        /// What the user saw.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guard: Option<Guard>,
    },
    /// Approves what the notebook declares.
    ApproveTrust {
        /// Heads of what the user saw.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        observed_heads: Option<Vec<String>>,
    },
    /// Approves the project around the notebook.
    ApproveProjectEnvironment {
        /// The project file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project_file_path: Option<String>,
    },
    /// Sends a widget message to the kernel.
    SendComm {
        /// The message.
        message: Box<CommMessage>,
    },
    /// Copies a notebook into a new room that keeps nothing on disk.
    CloneAsEphemeral {
        /// UUID of the notebook to copy.
        source_notebook_id: String,
    },
    /// Begins an upload in parts.
    CreateBlobUpload {
        /// Media type of the whole.
        media_type: String,
        /// Bytes of the whole.
        size: u64,
        /// Hash of the whole, 64 hex digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        /// Bytes of a part; 8 MiB if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part_size: Option<u64>,
        /// For information.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        purpose: Option<String>,
    },
    /// Ends an upload in parts.
    CompleteBlobUpload {
        /// Upload.
        upload_id: String,
        /// Every part, in the order of the bytes.
        parts: Vec<UploadedPart>,
    },
    /// Gives up an upload in parts.
    AbortBlobUpload {
        /// Upload.
        upload_id: String,
    },
    /// The saved notebook document.
    GetDocBytes,
    /// Succeeds once `required_heads` are contained.
    AcknowledgeNotebookSync,
    /// Resolves a conflict between a file and what was recovered.
    ReconcileNotebookSource {
        /// Tagged by `type`.
        operation: Value,
    },
    /// Patches a live Bokeh document.
    ApplyBokehSessionPatch {
        /// The patch and what it is for.
        request: Value,
    },
}

impl NotebookRequest {
    /// The wire name.
    pub fn action(&self) -> &'static str {
        match self {
            Self::ExecuteCell { .. } => "execute_cell",
            Self::ExecuteCellGuarded { .. } => "execute_cell_guarded",
            Self::RunAllCells { .. } => "run_all_cells",
            Self::RunAllCellsGuarded { .. } => "run_all_cells_guarded",
            Self::LaunchKernel { .. } => "launch_kernel",
            Self::InterruptExecution => "interrupt_execution",
            Self::ShutdownKernel => "shutdown_kernel",
            Self::Complete { .. } => "complete",
            Self::GetHistory { .. } => "get_history",
            Self::SaveNotebook { .. } => "save_notebook",
            Self::SyncEnvironment { .. } => "sync_environment",
            Self::ApproveTrust { .. } => "approve_trust",
            Self::ApproveProjectEnvironment { .. } => "approve_project_environment",
            Self::SendComm { .. } => "send_comm",
            Self::CloneAsEphemeral { .. } => "clone_as_ephemeral",
            Self::CreateBlobUpload { .. } => "create_blob_upload",
            Self::CompleteBlobUpload { .. } => "complete_blob_upload",
            Self::AbortBlobUpload { .. } => "abort_blob_upload",
            Self::GetDocBytes => "get_doc_bytes",
            Self::AcknowledgeNotebookSync => "acknowledge_notebook_sync",
            Self::ReconcileNotebookSource { .. } => "reconcile_notebook_source",
            Self::ApplyBokehSessionPatch { .. } => "apply_bokeh_session_patch",
        }
    }
}

/// What the user saw when asking.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Heads of the notebook document.
    pub observed_heads: Vec<String>,
}

/// A part that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadedPart {
    /// Number given with the part.
    pub part_number: u32,
    /// Its hash.
    pub sha256: String,
    /// Its bytes.
    pub size: u64,
}

/// A Jupyter message for a widget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommMessage {
    /// Jupyter header.
    pub header: Map<String, Value>,
    /// Header of the message it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_header: Option<Value>,
    /// Jupyter metadata.
    #[serde(default, deserialize_with = "null_is_default")]
    pub metadata: Map<String, Value>,
    /// `comm_id`, `data` and more.
    pub content: Map<String, Value>,
    /// Binary buffers, as arrays of byte values.
    #[serde(default, deserialize_with = "null_is_default")]
    pub buffers: Vec<Vec<u8>>,
    /// Buffers that are in the blob store.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub buffer_refs: Vec<BufferRef>,
    /// Jupyter channel.
    #[serde(default = "shell")]
    pub channel: String,
}

/// The channel of a comm message that names none.
fn shell() -> String {
    "shell".into()
}

/// A buffer in the blob store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferRef {
    /// Where among the buffers it goes.
    pub index: u64,
    /// SHA-256 in hex.
    pub blob: String,
    /// Bytes.
    pub size: u64,
    /// Media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_makes_no_sense_keeps_its_id() {
        for bad in [
            r#"{"id":"a","action":"bogus"}"#,
            r#"{"id":"a","action":"execute_cell"}"#,
            r#"{"id":"a","action":"execute_cell","cell_id":1}"#,
            r#"{"id":"a","required_heads":1,"action":"run_all_cells"}"#,
            r#"{"id":"a"}"#,
        ] {
            match RequestEnvelope::decode(bad.as_bytes()) {
                Err(RequestError::Invalid { id, .. }) => assert_eq!(id.as_deref(), Some("a"), "{bad}"),
                other => panic!("{bad}: {other:?}"),
            }
        }
        for bad in ["", "[]", "{", "\"x\""] {
            assert!(
                matches!(RequestEnvelope::decode(bad.as_bytes()), Err(RequestError::NotJson(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn absent_and_null_mean_the_same() {
        let request = RequestEnvelope::decode(
            br#"{"action":"save_notebook","format_cells":false,"path":null,"id":null,"required_heads":null}"#,
        )
        .unwrap();
        assert_eq!(request.id, None);
        assert_eq!(request.request, NotebookRequest::SaveNotebook { format_cells: false, path: None });
    }

    #[test]
    fn action_is_the_wire_name() {
        let all = [
            NotebookRequest::InterruptExecution,
            NotebookRequest::GetDocBytes,
            NotebookRequest::AcknowledgeNotebookSync,
            NotebookRequest::RunAllCellsGuarded { cell_execution_ids: None, observed_heads: vec![] },
        ];
        for request in all {
            assert_eq!(serde_json::to_value(&request).unwrap()["action"], request.action());
        }
    }
}
