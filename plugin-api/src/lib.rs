//! Write plugins for runtimed.
//!
//! A plugin is a dynamic library that provides capabilities: ordinary async traits in this crate.
//! Implement [`Plugin`] and one or more capability traits, and export the type with
//! `export_plugin!`. No type of the binary interface appears in a plugin's source.
//!
//! A complete plugin in one file is `plugin-template` in the repository; `docs/PLUGINS.md` leads through it.
//!
//! Map: one file per capability ([`EnvProvider`], [`BlobStore`], [`KernelBackend`], [`Rooms`]), one for
//! what the host offers ([`HostServices`]), one for `plugin.toml` ([`manifest`]), one for names of
//! Python packages ([`pypi`]), one for text that others put beside a notebook ([`read_text`]), one for copies of venvs (`clone_venv`); `adapter` turns the traits into ABI objects and back; `processes` and `adapter::child` are for those who load plugins.

#[cfg(feature = "abi")]
pub mod adapter;
mod blob_store;
#[cfg(feature = "clone-venv")]
mod clone_venv;
mod env_provider;
mod environments;
mod error;
#[cfg(feature = "abi")]
pub mod export;
mod host;
mod jupyter_message;
mod kernel_backend;
pub mod lock_file;
pub mod manifest;
pub mod permissions;
mod plugin;
#[cfg(feature = "host")]
pub mod processes;
pub mod pypi;
#[cfg(feature = "files")]
pub mod replace;
mod rooms;
pub mod search;
pub mod settings_schema;
mod task;
mod text_file;
pub mod trusted_packages;

pub use async_trait::async_trait;
pub use blob_store::*;
pub use bytes::Bytes;
#[cfg(feature = "clone-venv")]
pub use clone_venv::clone_venv;
pub use env_provider::*;
pub use environments::*;
pub use error::*;
pub use host::*;
pub use jupyter_message::*;
pub use kernel_backend::*;
pub use plugin::*;
pub use rooms::*;
pub use task::*;
pub use text_file::*;
