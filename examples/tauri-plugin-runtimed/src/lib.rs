//! Notebooks of the runtime daemon in the windows of a Tauri application.
//!
//! For: an application to start from; `docs/TAURI.md` tells how. [`bridge`] does the work and knows nothing of Tauri;
//! [`init`] makes commands of it.

pub mod bridge;

#[cfg(feature = "tauri")]
mod commands;
#[cfg(feature = "tauri")]
pub use commands::init;
