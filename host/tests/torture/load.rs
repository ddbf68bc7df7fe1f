//! Much at once and for long: everything stays correct, nobody else is made late, and what was taken is given back.
//!
//! Of each case a small one here; `cargo xtask torture load` is for the real size, and for figures. Only what is wrong
//! fails a case: how late somebody was is printed, since it depends on the machine and what else it does.

mod beside;
mod cells;
mod figures;
mod flood;
mod peers;
mod rooms;
mod soak;
mod stalled;
mod storm;

use std::{env, fs};

use crate::support::Daemon;

/// `real` if `cargo xtask torture load` asks, else `small`.
fn size<T>(small: T, real: T) -> T {
    if env::var_os("RUNT_TORTURE_REAL").is_some() { real } else { small }
}

/// False, and says so, where there is no build to test.
fn is_staged() -> bool {
    let staged = env::var_os("RUNTIMED_TEST_DIST").is_some();
    if !staged {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
    }
    staged
}

/// Ends a daemon, which must end well.
fn end(daemon: &mut Daemon) {
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    assert!(!log(daemon).contains("PANIC"), "{}", log(daemon));
}

fn log(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.base().join("runtimed.log")).unwrap_or_default()
}
