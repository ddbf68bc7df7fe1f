//! Turns capability traits into ABI objects and back.
//!
//! For: the in-process carrier. One file per contract holds both directions: `Served` offers one of our
//! trait objects to the other side, a `Remote…` type makes the other side's object one of our trait objects.
//! Promises: a panic becomes an error and is reported, whichever side it happens on; an asynchronous
//! body runs where its side's bodies run; dropping the future on one side cancels the body on the other.
//! Never: seen by authors; everything they need is the traits and `export_plugin!`.

mod blob_store;
#[cfg(feature = "host")]
pub mod child;
mod convert;
mod env_provider;
mod environments;
mod host;
mod kernel_backend;
mod library;
mod log;
mod panic;
mod plugin;
mod progress;
mod rooms;
mod served;
mod side;

pub(crate) use host::RemoteHost;
pub use library::{Library, Panicked};
pub(crate) use log::bridge;
pub(crate) use panic::install_hook;
pub(crate) use plugin::serve_plugin;
pub use runtimed_plugin_abi::{ABI_MAJOR, ABI_MINOR, LibraryFacts, PANIC_UNWIND, Refusal, SYMBOL, crash};
pub(crate) use side::Side;
