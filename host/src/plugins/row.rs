//! One line of `runt plugins list`.

use std::path::PathBuf;

use serde::Serialize;

use super::search::Source;

/// What is known about one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Id, or the folder's name if the manifest does not say.
    pub id: String,
    /// Name for users; empty without a manifest.
    pub name: String,
    /// Version; empty without a manifest.
    pub version: String,
    /// ABI it was built for, `1.0`; empty without a manifest.
    pub abi: String,
    /// How it is run, `in-process` or `child`; empty without a manifest.
    pub carrier: String,
    /// Capabilities with their kinds, such as `env-provider.v1:uv`.
    pub capabilities: Vec<String>,
    /// Where it was found.
    pub source: Source,
    /// Its folder.
    pub folder: PathBuf,
    /// How it is.
    pub status: Status,
    /// Why, in one sentence; empty when all is well.
    pub reason: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
    /// File with everything there is to know, for the plugin's author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<PathBuf>,
}

/// How a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Started and at work.
    Ok,
    /// Not needed so far.
    NotLoaded,
    /// Switched off in the settings.
    Disabled,
    /// Another one with the same id comes first in the search order.
    Shadowed,
    /// A check said no; nothing of it was run, or nothing but its constructors.
    Refused,
    /// It was loaded and could not be created or started.
    Failed,
    /// It runs, but a call into it panicked.
    Poisoned,
    /// Stopped with the daemon.
    Stopped,
}

/// Why a plugin is not at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: Status,
    pub(super) reason: String,
    pub(super) remedy: String,
    /// Long text for a file.
    pub(super) report: Option<String>,
}

impl Problem {
    pub(super) fn refused(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Refused, reason: reason.into(), remedy: remedy.into(), report: None }
    }

    pub(super) fn failed(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Failed, ..Self::refused(reason, remedy) }
    }
}
