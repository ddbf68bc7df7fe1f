//! What every command says, with the daemon up and down, as text and as JSON, beside what is kept in `snapshots`.
//!
//! A command that says something else on purpose: run with `INSTA_UPDATE=always` and read the difference.
//! `cargo xtask test` stages the build they need; without it the tests say so and pass.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

mod commands;
mod paper;
#[allow(dead_code, reason = "shared with the tests of kernels, which use the rest of it")]
#[path = "../kernels/world.rs"]
mod world;
