//! What the daemon has to stand: kills of anything at any moment.
//!
//! A little of each here; `cargo xtask torture` is for more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a step that fails is a failed test"
)]

#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "../daemon/support.rs"]
mod support;

#[allow(dead_code, reason = "shared with the tests of the PyPI client, which run scripts")]
#[path = "../real_client/scripts.rs"]
mod scripts;

mod bystander;
mod kill;
mod random;
