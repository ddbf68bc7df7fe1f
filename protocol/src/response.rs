//! What a notebook answers.
//!
//! For: RESPONSE frames on a notebook connection, exactly one for each request and upload.
//! Promises: the envelope's id is the request's, word for word.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A response with its envelope, one flat JSON object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseEnvelope {
    /// The request's id, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The response itself.
    #[serde(flatten)]
    pub response: NotebookResponse,
}

/// The responses, by `result`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
#[non_exhaustive]
pub enum NotebookResponse {
    /// Done.
    Ok,
    /// Failed.
    Error {
        /// For the user.
        error: String,
    },
    /// There is no kernel to do it.
    NoKernel,
    /// What the user saw is not what is there.
    GuardRejected {
        /// For the user.
        reason: String,
    },
    /// A kernel was started.
    KernelLaunched(KernelFacts),
    /// One ran already.
    KernelAlreadyRunning(KernelFacts),
    /// The kernel is gone.
    KernelShuttingDown,
    /// The interrupt was passed on.
    InterruptSent,
    /// A cell is queued.
    CellQueued(QueuedCell),
    /// Cells are queued.
    AllCellsQueued {
        /// In document order.
        queued: Vec<QueuedCell>,
    },
    /// The execution id that came with the request cannot be used.
    ExecutionIdRejected {
        /// As it came.
        execution_id: String,
        /// Why.
        reason: ExecutionIdReason,
    },
    /// Completions.
    CompletionResult {
        /// Candidates.
        items: Vec<CompletionItem>,
        /// Start of what they replace, in code points.
        cursor_start: u64,
        /// End of what they replace.
        cursor_end: u64,
    },
    /// History.
    HistoryResult {
        /// Oldest first.
        entries: Vec<HistoryEntry>,
    },
    /// The file was written.
    NotebookSaved(SavedNotebook),
    /// The file had it all already.
    NotebookAlreadyCurrent(SavedNotebook),
    /// The file was not written.
    NotebookSaveBlocked {
        /// Target.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// The attempt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        save_sequence: Option<u64>,
        /// Why.
        reason: SaveBlocked,
    },
    /// A copy was made.
    NotebookCloned {
        /// UUID of the copy.
        notebook_id: String,
        /// Its working directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        working_dir: Option<String>,
    },
    /// The environment has what the notebook declares.
    SyncEnvironmentComplete {
        /// What was installed.
        synced_packages: Vec<String>,
    },
    /// The environment could not be changed.
    SyncEnvironmentFailed {
        /// For the user.
        error: String,
        /// Whether a restart of the kernel would do it.
        needs_restart: bool,
    },
    /// The saved notebook document.
    DocBytes {
        /// As an array of byte values.
        bytes: Vec<u8>,
    },
    /// `required_heads` are contained.
    NotebookSyncAcknowledged {
        /// Those heads.
        heads: Vec<String>,
    },
    /// A blob is stored.
    BlobStored {
        /// SHA-256 in hex.
        hash: String,
        /// Bytes.
        size: u64,
        /// Media type.
        media_type: String,
    },
    /// An upload in parts may begin.
    BlobUploadCreated {
        /// Names it from now on.
        upload_id: String,
        /// Bytes of a part.
        part_size: u64,
        /// RFC 3339, UTC.
        expires_at: String,
    },
    /// A part is staged.
    BlobPartStored {
        /// Upload.
        upload_id: String,
        /// Part.
        part_number: u32,
        /// Its hash.
        sha256: String,
    },
    /// An upload was given up.
    BlobUploadAborted {
        /// Upload.
        upload_id: String,
    },
    /// An upload failed.
    BlobUploadError {
        /// Why.
        reason: BlobUploadFailure,
    },
    /// There is nothing to reconcile, or it cannot be done.
    NotebookSourceReconciliationBlocked {
        /// As asked for.
        operation: String,
        /// Tagged by `type`.
        reason: Value,
    },
    /// The fate of a Bokeh patch.
    BokehSessionPatch {
        /// Tagged by `status`.
        reply: Value,
    },
}

impl NotebookResponse {
    /// A failed request.
    pub fn error(error: impl Into<String>) -> Self {
        Self::Error { error: error.into() }
    }
}

/// A kernel and what it runs in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// `python`, `deno`.
    pub kernel_type: String,
    /// Label of the environment, such as `uv:prewarmed`.
    pub env_source: String,
    /// How it was launched; every key is optional.
    pub launched_config: Value,
}

/// A cell in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedCell {
    /// Cell.
    pub cell_id: String,
    /// Its execution.
    pub execution_id: String,
}

/// Why an execution id cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionIdReason {
    /// Not a UUID.
    Malformed,
    /// Used before.
    AlreadyExists,
    /// Used twice in this request.
    DuplicateInRequest,
}

/// A completion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletionItem {
    /// Text.
    pub label: String,
    /// `function`, `module`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// `kernel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// An entry of a kernel's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Session number.
    pub session: i64,
    /// Line number.
    pub line: i64,
    /// Source.
    pub source: String,
}

/// What a save wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedNotebook {
    /// The file.
    pub path: String,
    /// Heads of the notebook document that were written.
    pub exported_heads: Vec<String>,
    /// Number of the attempt in this room.
    pub save_sequence: u64,
}

/// Why a file was not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SaveBlocked {
    /// Another room owns the target.
    PathAlreadyOpen {
        /// That room.
        uuid: String,
        /// The target.
        path: String,
    },
    /// No usable target, or writing failed.
    Io {
        /// For the user.
        message: String,
    },
    /// The counter of attempts ran out.
    SequenceExhausted,
    /// A newer save won.
    Superseded {
        /// That one's number.
        latest_sequence: u64,
    },
    /// The file and what was recovered went apart.
    SourceConflict {
        /// For the user.
        message: String,
    },
    /// The file cannot be used.
    SourceDegraded {
        /// For the user.
        message: String,
    },
}

/// Why an upload failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BlobUploadFailure {
    /// The body has another length than the header says.
    SizeMismatch,
    /// The body has another hash than the header says.
    HashMismatch,
    /// Larger than allowed.
    OverCap,
    /// One upload at a time.
    TooManyInFlight,
    /// The header makes no sense.
    InvalidHeader,
    /// No such upload, or it is finished.
    UnknownUpload,
    /// A part is larger than its upload allows.
    PartSizeMismatch,
    /// A part has another hash than its header says.
    PartHashMismatch,
    /// Another part has this number.
    DuplicatePartConflict,
    /// The list of parts is not what was uploaded.
    ManifestMismatch,
    /// The whole has another hash than announced.
    FinalHashMismatch,
    /// More than this connection may stage.
    OverPeerBudget,
    /// It took too long.
    SessionExpired,
    /// This connection may not upload.
    Forbidden,
    /// It could not be stored.
    Io {
        /// For the user.
        message: String,
    },
}
