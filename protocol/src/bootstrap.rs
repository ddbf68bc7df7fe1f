//! The daemon's first frame on a notebook connection.
//!
//! For: telling a client what the daemon can do and which notebook it got, or why it got none.
//! Promises: both encodings, typed and bare, carry the same object; clients tell them apart by the first
//! byte.

use serde::{Deserialize, Serialize};

use crate::frame::FrameType;
use crate::lenient::null_is_default;
use crate::preamble::PROTOCOL_VERSION;

/// A bootstrap reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Bootstrap {
    /// Answers `create_notebook` and `open_notebook`, and refuses any handshake.
    NotebookConnectionInfo(NotebookConnectionInfo),
    /// Answers `notebook_sync`.
    ProtocolCapabilities(ProtocolCapabilities),
}

/// What the daemon speaks, and as whom the client acts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProtocolCapabilities {
    /// `v4`.
    pub protocol: String,
    /// 4.
    #[serde(default)]
    pub protocol_version: u32,
    /// `<semver>+<git hash>`; free text to clients.
    #[serde(default)]
    pub daemon_version: String,
    /// Limits for uploads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_blob: Option<PutBlobLimits>,
    /// Announces the `acknowledge_notebook_sync` request; left out by this daemon, no client needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notebook_sync_receipt: Option<bool>,
    /// `<principal>/<operator>`: the Automerge actor the client writes with. Absent on refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_label: Option<String>,
    /// `owner` or `viewer`. Absent on refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_scope: Option<String>,
    /// Identity of the comments document. Absent on refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comments_doc_id: Option<String>,
    /// What the comments belong to: `{kind, room_id}` or `{kind, canonical_path}`. Absent on refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comments_notebook_ref: Option<serde_json::Value>,
}

/// What a PUT_BLOB frame may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBlobLimits {
    /// Version of the upload protocol.
    pub version: u32,
    /// Longest payload of one frame in bytes.
    pub single_frame_max: u64,
    /// Whether uploads in parts are taken.
    pub multipart: bool,
    /// Whether blobs may be marked as not to be kept.
    #[serde(default)]
    pub ephemeral_supported: bool,
}

impl Default for PutBlobLimits {
    /// What this daemon takes: blobs in frames of up to 32 MiB, and larger ones in parts.
    fn default() -> Self {
        let max = FrameType::payload_max(FrameType::PUT_BLOB).unwrap_or_default();
        Self { version: 1, single_frame_max: max as u64, multipart: true, ephemeral_supported: true }
    }
}

impl ProtocolCapabilities {
    /// The capabilities of a daemon of `daemon_version`, without an identity: as they go into a refusal.
    pub fn new(daemon_version: impl Into<String>) -> Self {
        Self {
            protocol: "v4".into(),
            protocol_version: u32::from(PROTOCOL_VERSION),
            daemon_version: daemon_version.into(),
            put_blob: Some(PutBlobLimits::default()),
            notebook_sync_receipt: None,
            actor_label: None,
            connection_scope: None,
            comments_doc_id: None,
            comments_notebook_ref: None,
        }
    }
}

/// Which notebook the client is connected to, or why it is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotebookConnectionInfo {
    /// The capabilities, in the same JSON object.
    #[serde(flatten)]
    pub capabilities: ProtocolCapabilities,
    /// UUID of the room; empty on refusal.
    pub notebook_id: String,
    /// Cells at the time of the reply; 0 while a file is loading.
    pub cell_count: u64,
    /// Whether dependencies wait for approval.
    pub needs_trust_approval: bool,
    /// Why the connection was refused; the daemon closes after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether nothing of this room is kept on disk.
    #[serde(default, deserialize_with = "null_is_default")]
    pub ephemeral: bool,
    /// Canonical path, for a notebook with a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notebook_path: Option<String>,
}

impl NotebookConnectionInfo {
    /// The refusal of a handshake; `capabilities` must be without an identity.
    pub fn refusal(capabilities: ProtocolCapabilities, error: impl Into<String>) -> Self {
        Self {
            capabilities,
            notebook_id: String::new(),
            cell_count: 0,
            needs_trust_approval: false,
            error: Some(error.into()),
            ephemeral: false,
            notebook_path: None,
        }
    }
}

impl Bootstrap {
    /// The body of the length-prefixed frame: type byte 07 and tagged JSON if `typed`, bare JSON if not.
    ///
    /// # Errors
    /// Only if a value in it cannot be JSON.
    pub fn encode(&self, typed: bool) -> Result<Vec<u8>, serde_json::Error> {
        if typed {
            let mut body = vec![FrameType::SESSION_CONTROL];
            serde_json::to_writer(&mut body, self)?;
            return Ok(body);
        }
        match self {
            Self::NotebookConnectionInfo(info) => serde_json::to_vec(info),
            Self::ProtocolCapabilities(capabilities) => serde_json::to_vec(capabilities),
        }
    }

    /// Reads the body of the first frame, in either encoding.
    ///
    /// # Errors
    /// If it is neither.
    pub fn decode(body: &[u8]) -> Result<Self, serde_json::Error> {
        if let [FrameType::SESSION_CONTROL, json @ ..] = body {
            return serde_json::from_slice(json);
        }
        let bare: serde_json::Value = serde_json::from_slice(body)?;
        if bare.get("notebook_id").is_some() {
            return serde_json::from_value(bare).map(Self::NotebookConnectionInfo);
        }
        serde_json::from_value(bare).map(Self::ProtocolCapabilities)
    }

    /// The capabilities in it.
    pub fn capabilities(&self) -> &ProtocolCapabilities {
        match self {
            Self::NotebookConnectionInfo(info) => &info.capabilities,
            Self::ProtocolCapabilities(capabilities) => capabilities,
        }
    }

    /// Why the connection was refused, if it was.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::NotebookConnectionInfo(info) => info.error.as_deref(),
            Self::ProtocolCapabilities(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_say_the_same() {
        let refusal = Bootstrap::NotebookConnectionInfo(NotebookConnectionInfo::refusal(
            ProtocolCapabilities::new("0.1.0"),
            "gone",
        ));
        let typed = refusal.encode(true).unwrap();
        let bare = refusal.encode(false).unwrap();
        assert_eq!((typed[0], bare[0]), (7, b'{'));
        assert_eq!(Bootstrap::decode(&typed).unwrap(), refusal);
        assert_eq!(Bootstrap::decode(&bare).unwrap(), refusal);
        let capabilities = Bootstrap::ProtocolCapabilities(ProtocolCapabilities::new("0.1.0"));
        assert_eq!(Bootstrap::decode(&capabilities.encode(false).unwrap()).unwrap(), capabilities);
        assert_eq!(Bootstrap::decode(&capabilities.encode(true).unwrap()).unwrap(), capabilities);
    }
}
