//! Pools of real environments, from outside: notebooks that come all at once, no network, and everything that can go wrong.
//!
//! `cargo xtask test` stages the build they need; without it the tests say so and pass.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "../daemon/support.rs"]
mod support;

#[allow(dead_code, reason = "shared with the tests of the PyPI client, which run scripts")]
#[path = "../real_client/scripts.rs"]
mod scripts;

mod burst;
mod disk;
mod faults;
mod offline;
mod world;
