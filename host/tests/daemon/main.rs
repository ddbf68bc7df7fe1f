//! The real daemon, without any plugin, on a socket of its own in a home of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

mod garbage;
mod http;
mod life;
mod pool;
mod settings;
mod support;
