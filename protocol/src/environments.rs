//! What environments take on disk, as the pool channel tells it.
//!
//! For: `runt env`. Ours; other daemons close on these questions.

use serde::{Deserialize, Serialize};

/// Every environment, and what all of them take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentList {
    /// Largest first.
    pub environments: Vec<EnvironmentRow>,
    /// How many did not fit into the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<u64>,
    /// Bytes on disk, what several share counted once.
    pub bytes: u64,
    /// Bytes that they may take before unused ones are deleted.
    pub budget_bytes: u64,
    /// Bytes of the disk they are on.
    pub disk_bytes: u64,
    /// Bytes of it that are free for this user.
    pub free_bytes: u64,
}

/// One environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentRow {
    /// Its folder.
    pub path: String,
    /// Provider kind; empty if nobody knows.
    pub kind: String,
    /// `pool` (ready to be taken), `template` (what the pool copies), `room` (taken), `cache` (built for what notebooks
    /// declare), `notebook` (kept for one notebook), `building`, or `leftover`.
    pub owner: String,
    /// Who has taken it: id of a room, or `client`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_by: Option<String>,
    /// Whether a room or a process uses it now.
    pub in_use: bool,
    /// When it was used last, RFC 3339, UTC.
    pub last_used: String,
    /// Bytes on disk, what others share included.
    pub bytes: u64,
    /// Bytes that deleting it frees.
    pub own_bytes: u64,
    /// What was asked for.
    #[serde(default)]
    pub packages: Vec<String>,
}

/// What was deleted, or would be, and what was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentsCleaned {
    /// Whether nothing was deleted.
    pub dry_run: bool,
    /// Deleted ones.
    pub removed: Vec<EnvironmentVerdict>,
    /// The others.
    pub kept: Vec<EnvironmentVerdict>,
    /// Bytes that deleting frees, at least: what only deleted ones share comes on top.
    pub freed_bytes: u64,
}

/// What becomes of one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentVerdict {
    /// Its folder.
    pub path: String,
    /// Why, a few words.
    pub reason: String,
}
