//! What the host offers, as it crosses. Documents: `runtimed-plugin-api::HostServices`.
#![allow(missing_docs, reason = "sabi_trait adds public items that cannot be documented")]

use abi_stable::sabi_trait;
use abi_stable::std_types::{RBox, ROption, RStr, RString};

use crate::{BlobStoreObject, EnvironmentsObject, KernelBackendObject, Reply};

/// Services of the host.
#[sabi_trait]
pub trait HostServices: Send + Sync + 'static {
    /// Whether anybody listens; levels 1 error to 5 trace.
    fn log_enabled(&self, level: u8, target: RStr<'_>) -> bool;
    /// A log line; `fields` is a JSON object.
    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields: RStr<'_>);
    /// A call into the plugin panicked and was caught: the plugin is poisoned.
    fn panicked(&self, message: RStr<'_>, location: RStr<'_>);
    /// `Directories`.
    fn directories(&self) -> RString;
    /// `SettingsView`.
    fn settings(&self) -> RString;
    /// To `SettingsView`, once it is newer than `revision`.
    fn settings_changed(&self, revision: u64) -> Reply;
    /// The blob store.
    fn blob_store(&self) -> ROption<BlobStoreObject>;
    /// The backend for a kind, or any for an empty kind.
    fn kernel_backend(&self, kind: RStr<'_>) -> ROption<KernelBackendObject>;
    /// The environment service.
    fn environments(&self) -> ROption<EnvironmentsObject>;
    /// `ProcessSpec` to `ProcessExit`.
    fn run_process(&self, spec: RString, lines: ProcessLinesObject) -> Reply;
    /// To null, once the daemon begins to stop.
    #[sabi(last_prefix_field)]
    fn shutting_down(&self) -> Reply;
}

/// The [`HostServices`] of the other side.
pub type HostServicesObject = HostServices_TO<RBox<()>>;

/// Receives a process's output.
#[sabi_trait]
pub trait ProcessLines: Send + Sync + 'static {
    /// One line of stdout or stderr.
    #[sabi(last_prefix_field)]
    fn line(&self, stderr: bool, line: RStr<'_>);
}

/// A [`ProcessLines`] of the other side.
pub type ProcessLinesObject = ProcessLines_TO<RBox<()>>;

/// Receives progress.
#[sabi_trait]
pub trait ProgressSink: Send + Sync + 'static {
    /// `Progress`.
    #[sabi(last_prefix_field)]
    fn progress(&self, progress: RString);
}

/// A [`ProgressSink`] of the other side.
pub type ProgressSinkObject = ProgressSink_TO<RBox<()>>;
