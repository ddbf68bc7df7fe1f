//! Capability `rooms.v1`: holds open notebooks and their peers.
//!
//! For: the host, which owns sockets and framing and hands every notebook connection to a room.
//! Promises: pushes never block; what flows is bounded by byte credit in both directions.
//! Never: a socket, a frame header or a handshake crosses here; those are the host's.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Capability id of [`Rooms`].
pub const ROOMS: &str = "rooms.v1";

/// Bytes the other side will still take; at zero or below, stop until it asks for more.
pub type Credit = i64;

/// Opens rooms and answers questions about them.
#[async_trait]
pub trait Rooms: Send + Sync + 'static {
    /// Brings a connection into a room, opening or creating it. An error refuses the connection with
    /// its message; nothing was created then.
    async fn attach(&self, join: Join, link: Arc<dyn PeerLink>) -> Result<Attached>;

    /// Answers a question that needs no connection to a room.
    async fn ask(&self, request: RoomRequest) -> Result<RoomReply>;
}

/// The host's side of one connection. Dropping every clone ends nothing; [`PeerLink::close`] does.
pub trait PeerLink: Send + Sync + 'static {
    /// Queues a frame for the client. Never blocks and never refuses: the credit that is left for frames
    /// of this type says when to stop sending them and wait for [`RoomSession::writable`]. Types may differ
    /// in credit, and some overtake others.
    fn send(&self, frame_type: u8, payload: Bytes) -> Credit;

    /// Lets the host deliver `bytes` more to [`RoomSession::receive`].
    fn grant(&self, bytes: u64);

    /// Closes the connection after everything queued has been written.
    fn close(&self);
}

/// The room's side of one connection. Calls for one session come one at a time, in order.
#[async_trait]
pub trait RoomSession: Send + Sync + 'static {
    /// Takes a frame from the client. Never blocks. Returns the credit that is left.
    fn receive(&self, frame_type: u8, payload: Bytes) -> Credit;

    /// The link's egress queue has room again, for frames of every type, after one had run out of credit.
    fn writable(&self);

    /// The connection is gone. Returns once the room has forgotten the peer.
    async fn detach(&self);
}

/// Who wants to join which notebook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// What the handshake asked for.
    pub target: JoinTarget,
    /// Authenticated principal of the connection, such as `local:ana`.
    pub principal: String,
    /// Operator of the connection, already validated: `agent:codex:1a2b3c4d`, `desktop:0011aabb`.
    pub operator: String,
}

/// The three ways into a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "target", rename_all = "snake_case")]
pub enum JoinTarget {
    /// A new untitled notebook, or an untitled one that was kept under `notebook_id`.
    Create(CreateNotebook),
    /// The notebook in a file, which may not exist yet.
    Open {
        /// Path as the client sent it.
        path: PathBuf,
        /// Working directory of the kernel, instead of the file's folder.
        #[serde(default)]
        working_dir: Option<PathBuf>,
    },
    /// A notebook that is open, or kept, already.
    Attach {
        /// UUID, or a path.
        notebook_id: String,
        /// Working directory for an untitled notebook.
        #[serde(default)]
        working_dir: Option<PathBuf>,
        /// JSON text of notebook metadata, used only if the document has none.
        #[serde(default)]
        initial_metadata: Option<String>,
    },
}

/// Details of [`JoinTarget::Create`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateNotebook {
    /// `python`, `deno` or an installed kernel; anything else falls back to the default runtime.
    pub runtime: String,
    /// Working directory of the kernel.
    #[serde(default)]
    pub working_dir: Option<PathBuf>,
    /// UUID to use or restore.
    #[serde(default)]
    pub notebook_id: Option<String>,
    /// Keep nothing on disk.
    #[serde(default)]
    pub ephemeral: bool,
    /// Provider kind whose metadata section is seeded.
    #[serde(default)]
    pub package_manager: Option<String>,
    /// `auto`, `project` or `notebook`.
    #[serde(default)]
    pub environment_mode: Option<String>,
    /// Dependencies to seed, approved by being asked for.
    #[serde(default)]
    pub dependencies: Vec<String>,
}

/// A connection that is in its room.
pub struct Attached {
    /// Facts for the bootstrap reply. The host sends that reply before anything queued on the link.
    pub info: RoomInfo,
    /// Where the connection's frames go.
    pub session: Box<dyn RoomSession>,
}

/// Facts about the room that go into the bootstrap reply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RoomInfo {
    /// UUID of the room.
    pub notebook_id: String,
    /// Cells in the document now; 0 while a file is loading.
    pub cell_count: u64,
    /// Whether dependencies wait for approval.
    pub needs_trust_approval: bool,
    /// Whether nothing of this room is kept on disk.
    pub ephemeral: bool,
    /// Canonical path of the notebook's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notebook_path: Option<PathBuf>,
    /// `<principal>/<operator>`: the Automerge actor the client writes with.
    pub actor_label: String,
    /// `owner`, or `viewer` when the file is read-only.
    pub connection_scope: String,
    /// Identity of the comments document.
    pub comments_doc_id: String,
    /// What the comments belong to.
    pub comments_notebook_ref: serde_json::Value,
}

/// A question to the rooms as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RoomRequest {
    /// Every resident room, within 2 s: one that does not answer in time is [`RoomSummary::silent`].
    List,
    /// Content of one notebook, open or kept.
    Inspect {
        /// UUID, or the absolute path of its file.
        notebook_id: String,
    },
    /// A bounded view of one notebook, once it is loaded.
    Project {
        /// UUID.
        notebook_id: String,
    },
    /// Ends the kernel and closes the room.
    Shutdown {
        /// UUID or absolute path.
        notebook_id: String,
    },
    /// The record of an execution, also after its room is gone.
    ExecutionResult {
        /// Execution id.
        execution_id: String,
    },
    /// Prefixes of environments that rooms use.
    ActiveEnvironments,
    /// Whether what is kept on disk of every notebook, open or not, can be read again. With `repair`, what
    /// is damaged is brought in order: nothing is deleted.
    Verify {
        /// Whether to bring in order what is damaged.
        #[serde(default)]
        repair: bool,
    },
    /// Writes a notebook that is kept, or was damaged, to a new file.
    Recover {
        /// UUID, or absolute path of what [`RoomReply::Verified`] names as a journal.
        notebook: String,
        /// Absolute path of a file that is not there yet.
        output: PathBuf,
    },
    /// Lets go of pooled environments that no notebook uses: the pools were emptied.
    Flush,
    /// Makes every room durable and ends its kernel; the daemon is about to exit.
    Close,
    /// Makes every room durable and lets go of its kernel, which the next daemon finds again; this one is about to
    /// exit. Answered like [`RoomRequest::Close`].
    Detach,
}

/// The answer to a [`RoomRequest`], variant by variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RoomReply {
    /// One entry a room.
    List {
        /// All of them, in no particular order.
        rooms: Vec<RoomSummary>,
    },
    /// Content of one notebook, in the wire's `notebook_state` shape without `type` and `notebook_id`.
    Inspect {
        /// `cells`, `outputs_by_cell`, `source`, `kernel_info`.
        state: serde_json::Value,
    },
    /// The view, as the wire's `projection`.
    Projection {
        /// `cells`, `dependencies`, `runtime` and more.
        projection: serde_json::Value,
    },
    /// There is no view, as the wire's `failure`.
    NoProjection {
        /// Tagged by `kind`: `room_not_found`, `initial_load_failed`.
        failure: serde_json::Value,
    },
    /// Whether the room was there.
    Shutdown {
        /// False for an unknown notebook.
        found: bool,
    },
    /// The record.
    ExecutionResult {
        /// As `execution.md` of the protocol documentation describes it.
        record: serde_json::Value,
    },
    /// Prefixes.
    ActiveEnvironments {
        /// Absolute paths.
        paths: Vec<PathBuf>,
    },
    /// What is kept.
    Verified {
        /// One row for each journal, in no particular order.
        journals: Vec<JournalRow>,
    },
    /// The file was written.
    Recovered {
        /// Cells in it.
        cells: u64,
        /// Outputs in it whose content is not there any more; the file says so in their place.
        missing_blobs: u64,
    },
    /// Done.
    Closed,
    /// Done.
    Flushed,
}

/// One resident room, as `list_rooms` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RoomSummary {
    /// UUID.
    pub notebook_id: String,
    /// Connections now.
    pub active_peers: u64,
    /// Whether anybody ever connected.
    pub had_peers: bool,
    /// Whether a kernel is attached.
    pub has_kernel: bool,
    /// `python`, `deno`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_type: Option<String>,
    /// Label of its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_source: Option<String>,
    /// `idle`, `busy`, `starting`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_status: Option<String>,
    /// Whether nothing is kept on disk.
    pub ephemeral: bool,
    /// File, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notebook_path: Option<PathBuf>,
    /// `active` (peers), `idle` (kernel only) or `inactive`.
    pub state: String,
    /// Process id of its kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_pid: Option<u32>,
    /// Why there is no kernel though there should be one, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_error: Option<String>,
    /// Why edits are in memory only, and would be lost if the daemon ended now: what the system says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_risk: Option<String>,
    /// Whether it did not answer in time, so that nothing but its id and its file is known. It may have edits that
    /// are in memory only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
}

/// What is kept of one notebook beside its file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JournalRow {
    /// UUID; empty if the journal does not even say that.
    pub notebook_id: String,
    /// Its file, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notebook_path: Option<PathBuf>,
    /// Where it is kept.
    pub journal: PathBuf,
    /// When something was written there last, RFC 3339.
    pub written: String,
    /// Whether the notebook is in memory.
    pub open: bool,
    /// `sound`, `torn` (its end is missing), `damaged` (more than that), `unreadable`, `newer` (of a later
    /// daemon), `quarantined` (was damaged), or `aside` (its file is gone, or another notebook's by now).
    pub state: String,
    /// Cells that can be recovered.
    pub cells: u64,
    /// Whether it holds something that the notebook's file lacks.
    pub unsaved: bool,
    /// `same` as when it was last read or written, `changed`, `missing`, or `none`.
    pub file: String,
    /// Blobs that outputs name and that are missing or damaged.
    pub missing_blobs: u64,
    /// What was done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<String>,
}
