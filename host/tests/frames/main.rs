//! What a client can say on a notebook connection, frame by frame, to the real daemon with its plugins.
//!
//! `cargo xtask test` stages the plugins and says where they are; without them the tests say so and pass.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
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

mod peer;
mod requests;
mod slow;
mod uploads;
mod widgets;
mod writers;

use support::Daemon;

/// A daemon with the staged plugins and no environments; none if nothing is staged.
fn start() -> Option<Daemon> {
    start_with(r#"{ "install_default_data_packages": false, "uv_pool_size": 0 }"#)
}

/// The same with other settings.
fn start_with(settings: &str) -> Option<Daemon> {
    if std::env::var_os("RUNTIMED_TEST_DIST").is_none() {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
        return None;
    }
    Some(scripts::start(settings, |_| {}))
}

/// Ends a daemon, and sees that it ends well.
fn stop(mut daemon: Daemon) {
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    let log = std::fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
    assert!(!log.contains("PANIC"), "{log}");
}
