//! The kernel as clients see it: life cycle, activity, error and description.

use automerge::AutoCommit;

use super::{Result, RuntimeStateDoc, json, put_changed, root_map};

/// Where the kernel is in its life.
///
/// A client that waits for an execution takes `Error` and `Shutdown` as the end of it: enter them only
/// when every execution is terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelState {
    /// No kernel has been asked for.
    NotStarted,
    /// Dependencies wait for approval.
    AwaitingTrust,
    /// The declared environment has not been built, and somebody must say that it may be.
    AwaitingEnvBuild {
        /// A code such as `conda_env_yml_missing`, or empty.
        reason: String,
        /// What would be built, and how to go on.
        details: String,
    },
    /// Working out which environment is needed.
    Resolving,
    /// The environment is being made.
    PreparingEnv,
    /// The process is being started.
    Launching,
    /// The process is there and does not answer yet.
    Connecting,
    /// The kernel answers.
    Running(Activity),
    /// The kernel could not be started, or died.
    Error {
        /// A code such as `missing_ipykernel`, or empty.
        reason: String,
        /// Free text, or empty.
        details: String,
    },
    /// The kernel was stopped.
    Shutdown,
}

/// What a running kernel does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It has not said.
    Unknown,
    /// It waits.
    Idle,
    /// It works.
    Busy,
}

/// What kind of kernel it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelInfo {
    /// `python`, `deno`, or the name of a kernelspec.
    pub name: String,
    /// Its language.
    pub language: String,
    /// Where its environment comes from, such as `uv:prewarmed`.
    pub env_source: String,
    /// `runtime-agent:` and 8 hex digits, or empty.
    pub runtime_agent_id: String,
}

impl KernelState {
    /// The value of `kernel.lifecycle`.
    pub fn lifecycle(&self) -> &'static str {
        match self {
            Self::NotStarted => "NotStarted",
            Self::AwaitingTrust => "AwaitingTrust",
            Self::AwaitingEnvBuild { .. } => "AwaitingEnvBuild",
            Self::Resolving => "Resolving",
            Self::PreparingEnv => "PreparingEnv",
            Self::Launching => "Launching",
            Self::Connecting => "Connecting",
            Self::Running(_) => "Running",
            Self::Error { .. } => "Error",
            Self::Shutdown => "Shutdown",
        }
    }

    /// The value of `kernel.activity`: empty unless running.
    pub fn activity(&self) -> &'static str {
        match self {
            Self::Running(Activity::Unknown) => "Unknown",
            Self::Running(Activity::Idle) => "Idle",
            Self::Running(Activity::Busy) => "Busy",
            _ => "",
        }
    }
}

impl RuntimeStateDoc {
    /// Where the kernel is in its life. What cannot be read counts as not started.
    pub fn kernel_state(&self) -> KernelState {
        let Ok(kernel) = root_map(&self.document, "kernel") else { return KernelState::NotStarted };
        let text = |key| json::get_string(&self.document, &kernel, key).unwrap_or_default();
        match text("lifecycle").as_str() {
            "AwaitingTrust" => KernelState::AwaitingTrust,
            "AwaitingEnvBuild" => {
                KernelState::AwaitingEnvBuild { reason: text("error_reason"), details: text("error_details") }
            }
            "Resolving" => KernelState::Resolving,
            "PreparingEnv" => KernelState::PreparingEnv,
            "Launching" => KernelState::Launching,
            "Connecting" => KernelState::Connecting,
            "Running" => KernelState::Running(match text("activity").as_str() {
                "Idle" => Activity::Idle,
                "Busy" => Activity::Busy,
                _ => Activity::Unknown,
            }),
            "Error" => KernelState::Error { reason: text("error_reason"), details: text("error_details") },
            "Shutdown" => KernelState::Shutdown,
            _ => KernelState::NotStarted,
        }
    }

    /// Shows where the kernel is in its life. Anything but an error or a hold clears the last error.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_kernel_state(&mut self, state: &KernelState) -> Result<()> {
        let (reason, details) = match state {
            KernelState::Error { reason, details } | KernelState::AwaitingEnvBuild { reason, details } => {
                (reason.as_str(), details.as_str())
            }
            _ => ("", ""),
        };
        write(
            &mut self.document,
            &[
                ("lifecycle", state.lifecycle()),
                ("activity", state.activity()),
                ("error_reason", reason),
                ("error_details", details),
            ],
        )
    }

    /// What kind of kernel it is.
    pub fn kernel_info(&self) -> KernelInfo {
        let Ok(kernel) = root_map(&self.document, "kernel") else { return KernelInfo::default() };
        let text = |key| json::get_string(&self.document, &kernel, key).unwrap_or_default();
        KernelInfo {
            name: text("name"),
            language: text("language"),
            env_source: text("env_source"),
            runtime_agent_id: text("runtime_agent_id"),
        }
    }

    /// Shows what kind of kernel it is.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_kernel_info(&mut self, info: &KernelInfo) -> Result<()> {
        write(
            &mut self.document,
            &[
                ("name", &info.name),
                ("language", &info.language),
                ("env_source", &info.env_source),
                ("runtime_agent_id", &info.runtime_agent_id),
            ],
        )
    }
}

fn write(document: &mut AutoCommit, fields: &[(&str, &str)]) -> Result<()> {
    let kernel = root_map(document, "kernel")?;
    fields.iter().try_for_each(|(key, value)| put_changed(document, &kernel, key, *value))
}
