//! Runs scripts with the PyPI client, each against a daemon of its own.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use crate::support::Daemon;

/// A daemon with `settings`, the staged plugins and what package managers need to reach their index. It keeps no kernels
/// warm unless `settings` say how many: tests count processes, and share a small machine.
pub(crate) fn start(settings: &str, prepare: impl FnOnce(&mut Command)) -> Daemon {
    Daemon::start_with(|home, command| {
        let config = home.join(".config/nteract");
        fs::create_dir_all(&config).unwrap();
        let mut settings: serde_json::Value = serde_json::from_str(settings).unwrap();
        if settings["kernels"]["warm"].is_null() {
            settings["kernels"]["warm"] = 0.into();
        }
        fs::write(config.join("settings.json"), settings.to_string()).unwrap();
        pass_environment(command);
        prepare(command);
    })
}

/// Lets a daemon know the index, its certificates, and the cache that all tests share.
pub(crate) fn pass_environment(command: &mut Command) {
    let passed = env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        ["SSL_CERT_", "UV_", "PIP_", "RUNTIMED_PLUGIN_PATH"].iter().any(|prefix| name.starts_with(prefix))
            || name.to_ascii_lowercase().ends_with("_proxy")
    });
    command.envs(passed);
}

/// Runs the script `name`, or the function of it that is named behind a blank, against the daemon that `start` makes, has a look at the daemon, and ends it.
pub(crate) fn run(name: &str, start: impl FnOnce() -> Daemon, look: impl FnOnce(&Daemon)) {
    let Some(python) = env::var_os("RUNTIMED_TEST_CLIENT_PYTHON") else {
        eprintln!("skipped: no PyPI client here. `cargo xtask test` installs it (needs the package index).");
        return;
    };
    run_in(&python, name, start, look);
}

/// The same with another Python.
pub(crate) fn run_in(python: &OsStr, name: &str, start: impl FnOnce() -> Daemon, look: impl FnOnce(&Daemon)) {
    let mut daemon = start();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_client");
    let (script, function) = name.split_once(' ').unzip();
    let output = Command::new(python)
        .arg("-B")
        .arg(folder.join(script.unwrap_or(name)))
        .args(function)
        .env("HOME", daemon.home.path())
        .env("RUNTIMED_SOCKET_PATH", &daemon.socket)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{name} ended with {}\n{}{}\n--- daemon\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        end_of(&log(&daemon)),
    );
    look(&daemon);
    daemon.signal("TERM");
    assert!(daemon.ended().success(), "the daemon ends well\n{}", log(&daemon));
    assert!(!log(&daemon).contains("PANIC"), "{}", log(&daemon));
}

fn log(daemon: &Daemon) -> String {
    let log = fs::read_to_string(daemon.base().join("runtimed.log"));
    log.unwrap_or_else(|error| format!("(no log: {error})"))
}

/// The last lines of a log: what is printed of several failed tests must stay readable.
fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
