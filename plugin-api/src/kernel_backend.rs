//! Capability `kernel-backend.v1`: runs kernels.
//!
//! For: rooms, to which a kernel is a two-way pipe of Jupyter messages with a life cycle.
//! Promises: messages arrive numbered from 1 without a gap, each until it is acknowledged; a kernel may
//! outlive the daemon, and is found again by [`KernelBackend::running`].
//! Never: knows cells, documents or notebooks beyond the labels in [`LaunchSpec`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{LaunchCommand, PluginError, Result};

/// Capability id of [`KernelBackend`].
pub const KERNEL_BACKEND: &str = "kernel-backend.v1";

/// Number of a kernel message, from 1, without gaps within the life of a kernel.
pub type Sequence = u64;

/// Starts kernels and finds those that outlived a daemon.
#[async_trait]
pub trait KernelBackend: Send + Sync + 'static {
    /// Every kind of kernel this backend can start.
    async fn kinds(&self) -> Result<Vec<KernelKind>>;

    /// Starts a kernel and returns once it has answered `kernel_info` and its IOPub is known to flow.
    /// Dropping the future kills the half-started kernel.
    async fn launch(&self, spec: LaunchSpec, events: Arc<dyn KernelEvents>) -> Result<Box<dyn Kernel>>;

    /// Kernels that were found alive at start.
    async fn running(&self) -> Result<Vec<KernelRecord>> {
        Ok(Vec::new())
    }

    /// Takes over a running kernel; messages after `after` are delivered again.
    async fn attach(
        &self,
        kernel: &str,
        after: Sequence,
        events: Arc<dyn KernelEvents>,
    ) -> Result<Box<dyn Kernel>> {
        let _ = (after, events);
        Err(PluginError::not_found(format!("kernel {kernel} is not running")))
    }

    /// Makes a warm, idle kernel the one that `spec` asks for.
    async fn adopt(
        &self,
        warm: &str,
        spec: LaunchSpec,
        events: Arc<dyn KernelEvents>,
    ) -> Result<Box<dyn Kernel>> {
        let _ = (spec, events);
        Err(PluginError::not_found(format!("kernel {warm} is not warm")))
    }
}

/// A running kernel. Dropping it detaches: backends whose kernels outlive the daemon leave it running. Until something
/// was sent or acknowledged, if only message 0, a backend may take it that the launch never arrived, and end the kernel
/// when it is dropped: whoever can find it again says so when it can.
#[async_trait]
pub trait Kernel: Send + Sync + 'static {
    /// Who it is. Constant.
    fn info(&self) -> KernelInfo;

    /// Sends a message (see [`encode`](crate::JupyterMessage::encode)) without waiting. A repeated `msg_id` is
    /// dropped.
    fn send(&self, channel: Channel, message: Bytes) -> Result<()>;

    /// Messages up to here have had their effect made durable and need not be kept.
    fn acknowledge(&self, up_to: Sequence);

    /// Asks the kernel to stop what it is doing, the way its kernelspec says.
    async fn interrupt(&self) -> Result<()>;

    /// Ends the kernel: politely, and after `grace` with its whole process group by force. Messages that have not
    /// arrived yet need not arrive any more.
    async fn shutdown(&self, grace: Duration) -> Result<ExitReport>;
}

/// What a kernel tells its room. Calls come in order from one thread at a time and must not block. A backend may hold
/// back what comes next until the messages handed over were dropped, so that a flood waits where it takes no memory.
pub trait KernelEvents: Send + Sync + 'static {
    /// A message from the kernel (see [`encode`](crate::JupyterMessage::encode)), its signature already
    /// checked.
    fn message(&self, sequence: Sequence, channel: Channel, message: Bytes);

    /// The kernel's process is gone. Nothing follows.
    fn exited(&self, report: ExitReport);
}

/// A Jupyter channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Channel {
    /// Requests and their replies.
    Shell = 0,
    /// Broadcasts: status, streams, results.
    Iopub = 1,
    /// Prompts for input.
    Stdin = 2,
    /// Interrupt, shutdown, debug.
    Control = 3,
}

impl Channel {
    /// The channel with this ABI number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Shell),
            1 => Some(Self::Iopub),
            2 => Some(Self::Stdin),
            3 => Some(Self::Control),
            _ => None,
        }
    }
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// UUID of the kernel, chosen by the room.
    pub kernel: String,
    /// `python`, `deno` or the name of an installed kernelspec.
    pub kind: String,
    /// Id of the room it will serve.
    pub room: String,
    /// The notebook's file, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notebook_path: Option<PathBuf>,
    /// Interpreter and variables, from the environment's provider. Empty for kinds that bring their own.
    #[serde(default)]
    pub command: LaunchCommand,
    /// Working directory of the kernel.
    pub cwd: PathBuf,
    /// What the notebook says about kernels of this kind: for `deno`, `permissions`, `import_map`, `config` and
    /// `flexible_npm_imports` of its metadata.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub options: serde_json::Map<String, serde_json::Value>,
}

/// A kind of kernel a backend can start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelKind {
    /// What [`LaunchSpec::kind`] says.
    pub name: String,
    /// Programming language.
    pub language: String,
    /// Name for users.
    pub display_name: String,
}

/// Facts about a running kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelInfo {
    /// UUID from [`LaunchSpec::kernel`].
    pub kernel: String,
    /// Process id of the kernel itself.
    pub pid: Option<u32>,
    /// Content of the kernel's `kernel_info_reply`.
    #[serde(default)]
    pub reply: serde_json::Value,
}

/// A kernel found again after a restart of the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelRecord {
    /// How it was started.
    pub spec: LaunchSpec,
    /// Process id of the kernel.
    pub pid: Option<u32>,
    /// The lease on its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
}

/// How a kernel ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// Exit code, when it exited by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Signal number, when one ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the system reported that it ran out of memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// Whether we asked it to end.
    #[serde(default)]
    pub requested: bool,
    /// Whether it had to be ended because it lived on without the sockets it is reached by.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreachable: bool,
    /// Last lines of its stderr, at most 50.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr_tail: String,
}
