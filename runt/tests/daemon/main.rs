//! `runt daemon` with the real daemon, in a home of its own.
//!
//! `cargo xtask test` stages the build they need; without it the tests say so and pass.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

mod doctor;
mod life;
mod logs;
#[cfg(target_os = "linux")]
mod others;
#[cfg(target_os = "linux")]
mod refusal;
#[cfg(target_os = "linux")]
mod service;
#[allow(dead_code, reason = "shared with the tests of kernels, which use the rest of it")]
#[path = "../kernels/world.rs"]
mod world;
