//! What `runt` does with kernels, as a user drives it: the real binaries, real kernels, a home of its own for each test.
//!
//! `cargo xtask test` prepares kernels and says where they are; without them the tests say so and pass.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and one that is skipped says so"
)]

mod console;
mod jupyter;
mod ps;
mod restart;
mod run;
mod world;
