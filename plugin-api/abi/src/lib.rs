//! The frozen binary contract between runtimed and its plugins.
//!
//! For: letting a host and a plugin that were built apart call each other: other compiler, other day,
//! other minor version. Authors never see it; `runtimed-plugin-api` wraps every type of it.
//! Promises: control data crosses as JSON text, hot data as moved [`Bytes`], everything slow as an
//! [`FfiFuture`] whose drop is the cancellation. The package version is the ABI version: a minor appends
//! trait methods with default bodies or module fields and changes nothing else.
//! Never: an enum with data of our own, a tokio type, a waker assumption, a thread-local, unloading.
//!
//! This crate alone holds `unsafe`: the bytes' owner pointer, the descriptor, the loader and what watches it.

#![expect(
    non_local_definitions,
    reason = "sabi_trait 0.11 writes its impls inside a const block; nothing of ours does"
)]

mod blob_store;
mod bytes;
mod code;
pub mod crash;
mod descriptor;
mod entry;
mod env_provider;
mod environments;
mod error;
mod host;
mod kernel_backend;
mod library;
mod plugin;
mod rooms;

pub use abi_stable::sabi_trait::TD_Opaque;
pub use abi_stable::std_types::{RNone, ROption, RResult, RSome, RStr, RString, RVec};
pub use async_ffi::FfiFuture;
pub use blob_store::*;
pub use bytes::Bytes;
pub use descriptor::{ABI_MAJOR, ABI_MINOR, Descriptor, OWNS_RUNTIME, PANIC_UNWIND, SYMBOL};
pub use entry::{Entry, LibHeader, PluginModule, PluginModuleRef, header};
pub use env_provider::*;
pub use environments::*;
pub use error::Failure;
pub use host::*;
pub use kernel_backend::*;
pub use library::{Library, LibraryFacts, Refusal};
pub use plugin::*;
pub use rooms::*;

/// How a fallible call ends.
pub type Outcome<T = RString> = RResult<T, Failure>;

/// The only asynchronous shape: a future that may be polled from any runtime and is cancelled by being
/// dropped. Its text is JSON unless a method says otherwise.
pub type Reply<T = RString> = FfiFuture<Outcome<T>>;
