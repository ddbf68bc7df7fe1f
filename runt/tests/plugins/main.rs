//! `runt plugins` as a user drives it: the real binaries, a home of its own for each test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod add;
mod archives;
mod doctor;
mod new;
mod refusals;
mod switch;
mod world;
