//! `runtimed plugins-check`: good plugins pass on both carriers, and whatever is wrong with one is said in a sentence.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

mod bad;
mod good;
mod support;
