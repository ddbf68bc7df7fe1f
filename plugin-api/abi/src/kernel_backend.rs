//! `kernel-backend.v1` as it crosses. Documents and their meaning: `runtimed-plugin-api::KernelBackend`.
#![allow(missing_docs, reason = "sabi_trait adds public items that cannot be documented")]

use abi_stable::sabi_trait;
use abi_stable::std_types::{RBox, RString};

use crate::{Bytes, Outcome, Reply};

/// Starts kernels and finds them again.
#[sabi_trait]
pub trait KernelBackend: Send + Sync + 'static {
    /// To a list of `KernelKind`.
    fn kinds(&self) -> Reply;
    /// `LaunchSpec` to a kernel.
    fn launch(&self, spec: RString, events: KernelEventsObject) -> Reply<KernelObject>;
    /// To a list of `KernelRecord`.
    fn running(&self) -> Reply;
    /// Plain kernel id and the last sequence number seen to a kernel.
    fn attach(&self, kernel: RString, after: u64, events: KernelEventsObject) -> Reply<KernelObject>;
    /// Plain kernel id and `LaunchSpec` to a kernel.
    #[sabi(last_prefix_field)]
    fn adopt(&self, warm: RString, spec: RString, events: KernelEventsObject) -> Reply<KernelObject>;
}

/// A [`KernelBackend`] of the other side.
pub type KernelBackendObject = KernelBackend_TO<RBox<()>>;

/// A running kernel.
#[sabi_trait]
pub trait Kernel: Send + Sync + 'static {
    /// `KernelInfo`.
    fn info(&self) -> RString;
    /// Sends a message. Never blocks.
    fn send(&self, channel: u8, message: Bytes) -> Outcome<()>;
    /// Messages up to here are durable elsewhere. Never blocks.
    fn acknowledge(&self, up_to: u64);
    /// To null.
    fn interrupt(&self) -> Reply;
    /// To `ExitReport`.
    #[sabi(last_prefix_field)]
    fn shutdown(&self, grace_ms: u64) -> Reply;
}

/// A [`Kernel`] of the other side.
pub type KernelObject = Kernel_TO<RBox<()>>;

/// What a kernel tells its room.
#[sabi_trait]
pub trait KernelEvents: Send + Sync + 'static {
    /// A message. Never blocks.
    fn message(&self, sequence: u64, channel: u8, message: Bytes);
    /// `ExitReport`.
    #[sabi(last_prefix_field)]
    fn exited(&self, report: RString);
}

/// A [`KernelEvents`] of the other side.
pub type KernelEventsObject = KernelEvents_TO<RBox<()>>;
