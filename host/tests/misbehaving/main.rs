//! A plugin that does everything a plugin must not do, in the real daemon with real kernels.
//!
//! Promises: whatever it does, notebooks go on, the other pools are untouched, `list_plugins` names it, the
//! daemon's memory stays bounded, nothing is left behind, and it works again when it behaves again.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

mod child;
#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "../daemon/support.rs"]
mod daemon;
mod fatal;
mod in_process;
mod lies;
mod processes;
mod real_client;
mod scenarios;
mod world;
