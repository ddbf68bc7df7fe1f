//! What the daemon has to stand: kills of anything at any moment, files that are damaged, a system that refuses.
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
mod corrupt;
mod faults;
mod kill;
mod load;
mod random;
mod story;

/// What `cargo xtask torture` asks for: a seed, and how many runs instead of `runs`.
fn asked(runs: u64) -> (u64, u64) {
    let asked = |name| std::env::var(name).ok().map(|value| value.parse().unwrap());
    (asked("RUNT_TORTURE_SEED").unwrap_or(1), asked("RUNT_TORTURE_RUNS").unwrap_or(runs))
}

/// Says what was done, and adds it to the file that keeps count if there is one.
fn tally(what: &str) {
    use std::io::Write as _;

    println!("{what}");
    if let Some(file) = std::env::var_os("RUNT_TORTURE_TALLY") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        writeln!(file.unwrap(), "{what}").unwrap();
    }
}
