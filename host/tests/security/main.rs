//! Attacks on the real daemon: what they are refused with, and that everybody else is served as before.
//!
//! docs/SECURITY.md has the whole list, with what other tests show. `cargo xtask test` stages the plugins and says where
//! they are; without them the tests that need them say so and pass.

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

#[allow(dead_code, reason = "shared with the tests of frames, which use the rest of it")]
#[path = "../frames/peer.rs"]
mod peer;

mod http;
mod modes;
mod oversized;
mod paths;
mod plugins;
mod secrets;
mod trust;

use std::process::Command;

use serde_json::json;

use crate::support::Daemon;

/// Nothing is built and no kernel starts.
const NO_ENVIRONMENTS: &str = r#"{ "install_default_data_packages": false, "uv_pool_size": 0,
    "plugins": { "disabled": ["uv", "conda"] } }"#;

/// A daemon with the staged plugins, after `prepare` had a look at its command; none if nothing is staged.
fn start_with(settings: &str, prepare: impl FnOnce(&mut Command)) -> Option<Daemon> {
    if std::env::var_os("RUNTIMED_TEST_DIST").is_none() {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
        return None;
    }
    Some(scripts::start(settings, prepare))
}

/// A daemon with the staged plugins, except those that make environments.
fn start() -> Option<Daemon> {
    start_with(NO_ENVIRONMENTS, |_| {})
}

/// Runs the daemon's command through a shell, behind `first`.
fn behind(command: &mut Command, first: &str) {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{first}; exec \"$@\"")).arg("sh");
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    *command = shell;
}

/// Port of the HTTP server.
fn port(daemon: &Daemon) -> u16 {
    let info = daemon.ask(json!({"type": "get_daemon_info"}));
    u16::try_from(info["blob_port"].as_u64().unwrap()).unwrap()
}

/// Sees that the daemon answers, after `what`.
fn is_well(daemon: &Daemon, what: &str) {
    assert_eq!(daemon.ask(json!({"type": "ping"}))["type"], "pong", "after {what}");
}

/// What it has written about its work.
fn log(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.base().join("runtimed.log")).unwrap()
}

/// Ends a daemon, and sees that it ends well.
fn stop(mut daemon: Daemon) {
    daemon.signal("TERM");
    assert!(daemon.ended().success(), "{}", log(&daemon));
    assert!(!log(&daemon).contains("PANIC"), "{}", log(&daemon));
}
