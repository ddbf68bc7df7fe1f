//! How a daemon begins and ends.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{Daemon, command};

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn only_the_user_can_reach_it() {
    let daemon = Daemon::start();
    assert_eq!(daemon.socket, daemon.base().join("runtimed.sock"));
    assert!(std::fs::symlink_metadata(&daemon.socket).unwrap().file_type().is_socket());
    assert_eq!((mode(&daemon.socket), mode(&daemon.base())), (0o600, 0o700));
    // Plugins have been looked for once this is answered, and got their folder for sockets before.
    daemon.ask(json!({"type": "list_plugins"}));
    let runtime = daemon.home.path().join("run/runt");
    let keyed = std::fs::read_dir(&runtime).unwrap().next().unwrap().unwrap().path();
    assert_eq!((mode(&runtime), mode(&keyed)), (0o700, 0o700));
    assert_eq!(keyed.file_name().unwrap().len(), 8);
}

#[test]
fn every_polite_way_to_stop_it_leaves_no_socket() {
    for signal in ["TERM", "INT"] {
        let mut daemon = Daemon::start();
        let waiting = daemon.connect(json!({"channel": "pool"}));
        daemon.signal(signal);
        assert!(daemon.ended().success(), "{signal}");
        assert!(!daemon.socket.exists() && daemon.base().join("daemon.lock").exists());
        assert!(waiting.rest().is_empty());
        let log = std::fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
        assert!(log.contains("[STARTUP] runtimed starting: pid="), "{log}");
        assert!(log.ends_with("[STARTUP] Daemon exited: Ok (graceful shutdown)\n"), "{log}");
    }
    let mut daemon = Daemon::start();
    assert_eq!(daemon.ask(json!({"type": "shutdown"})), json!({"type": "shutting_down"}));
    assert!(daemon.ended().success());
    assert!(!daemon.socket.exists());
}

#[test]
fn a_second_daemon_leaves_the_first_alone_and_says_so() {
    let daemon = Daemon::start();
    let log = std::fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
    let elsewhere = daemon.home.path().join("other.sock");
    let output = command(daemon.home.path()).arg("--socket").arg(&elsewhere).output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = format!(
        "Another process holds the daemon lock at {}; exiting cleanly (socket readiness is not yet known)\n",
        daemon.base().join("daemon.lock").display()
    );
    assert_eq!(said, expected);
    assert!(!elsewhere.exists());
    assert!(!daemon.base().join("runtimed.log.1").exists());
    assert!(std::fs::read_to_string(daemon.base().join("runtimed.log")).unwrap().starts_with(&log));
    assert_eq!(daemon.ask(json!({"type": "ping"}))["type"], "pong");
}

#[test]
fn a_killed_daemon_is_followed_by_another_on_the_same_socket() {
    let mut first = Daemon::start();
    first.signal("KILL");
    assert!(!first.ended().success());
    assert!(first.socket.exists());
    let socket = first.socket.clone();
    let second = first.start_again();
    assert_eq!(second.socket, socket);
    assert_eq!(second.ask(json!({"type": "ping"}))["type"], "pong");
    assert!(second.base().join("runtimed.log.1").exists());
}

#[test]
fn a_file_in_the_sockets_place_is_kept_and_named() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("precious");
    std::fs::write(&path, "content").unwrap();
    let output = command(home.path()).arg("--socket").arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not a socket"));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "content");
}

#[test]
fn a_place_that_cannot_be_used_is_named_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "content").unwrap();
    let output = command(home.path()).env("XDG_CACHE_HOME", home.path().join("file")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("Error: could not make `") && lines[0].contains("file/runt"), "{said}");
    assert_eq!(lines[1], "Notebooks, settings and environments are as they were.");
    assert!(lines.len() == 3 && lines[2].ends_with("then start the daemon again."), "{said}");
}

#[test]
fn the_daemons_folder_is_private_wherever_the_socket_is() {
    let daemon = Daemon::start_with(|home, command| {
        command.arg("--socket").arg(home.join("elsewhere.sock"));
    });
    assert_eq!((mode(&daemon.socket), mode(&daemon.base())), (0o600, 0o700));
}

#[test]
fn the_version_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_runtimed")).arg("--version").output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        concat!("runtimed ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn as_many_files_as_allowed_can_be_open() {
    let daemon = Daemon::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let fields: Vec<_> = files.split_whitespace().collect();
    assert_eq!(fields[3], fields[4], "{files}");
}

#[test]
fn a_hang_up_ends_no_daemon_without_a_terminal() {
    let mut daemon = Daemon::start();
    daemon.signal("HUP");
    let log = daemon.base().join("runtimed.log");
    while !std::fs::read_to_string(&log).unwrap().contains("SIGHUP: nothing to do") {
        assert_eq!(daemon.ask(json!({"type": "ping"}))["type"], "pong");
    }
    daemon.signal("TERM");
    assert!(daemon.ended().success());
}
