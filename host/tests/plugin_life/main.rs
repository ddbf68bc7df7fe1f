//! Plugins that come, change, go, rest and die while the daemon runs: the registry with real libraries in real
//! processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

mod processes;
mod reload;
mod support;
