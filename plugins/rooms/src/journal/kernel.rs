//! What a journal says of the room's kernel.
//!
//! For: the next daemon, which goes on with a kernel that outlived this one.
//! Promises: plain data; what was heard of the kernel is in the record of the changes it caused.

use std::collections::BTreeSet;

use runtimed_plugin_api::{EnvNeed, Lease, Sequence};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::room::deno::DenoConfig;

/// The room's kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptKernel {
    /// What its backend knows it by.
    pub(crate) kernel: Uuid,
    /// `python`, `deno`, ...
    pub(crate) kind: String,
    /// What it was told, if it is Deno.
    #[serde(default, skip_serializing_if = "DenoConfig::is_default")]
    pub(crate) deno: DenoConfig,
    /// What it runs in, and what that was acquired for; none for kinds that bring their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<(EnvNeed, Lease)>,
}

/// How much of what a kernel said is in the documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// Everything up to this message.
    pub(crate) sequence: Sequence,
    /// What the kernel was working on then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) executing: Option<Executing>,
    /// What clients wrote into widgets, and the kernel had not begun to take then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) edited: Vec<Edited>,
}

/// An edit of a widget's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edited {
    /// Id of the message that tells the kernel.
    pub(crate) request: String,
    /// The widget.
    pub(crate) comm: String,
    /// What of its state was written. The values are in the document.
    pub(crate) keys: BTreeSet<String>,
}

/// An execution in the kernel, and what was heard of it that the documents do not show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Executing {
    /// Id of the execution, and of its request.
    pub(crate) execution: String,
    /// An error output or an error reply was seen.
    #[serde(default)]
    pub(crate) failed: bool,
    /// The user stopped it: it is shown as ended, and the kernel is not done with it yet.
    #[serde(default)]
    pub(crate) interrupted: bool,
    /// The kernel's `idle` for it was seen.
    #[serde(default)]
    pub(crate) idle: bool,
    /// The kernel's `execute_reply` for it was seen.
    #[serde(default)]
    pub(crate) replied: bool,
    /// Its next output clears the others.
    #[serde(default)]
    pub(crate) clears: bool,
}
