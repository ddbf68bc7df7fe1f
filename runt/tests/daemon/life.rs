//! Start, status, stop, and daemons that are in the way.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::world::{World, is_running};

fn signal(pid: u64, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn the_life_of_a_daemon_in_commands() {
    let Some(world) = World::new() else { return };
    let status = world.runt(&["daemon", "status"]).good();
    assert!(status.out.contains("\nDaemon running:     no\n"), "{}", status.out);
    assert!(status.out.contains("\nSocket:             ~/.cache/runt/runtimed.sock\n"), "{}", status.out);
    assert!(status.out.contains("'runt daemon start'"), "{}", status.out);
    for (command, text) in [
        ("ping", "Daemon not running: Failed to connect to daemon: "),
        ("flush", "Error: Failed to flush pool: Failed to connect to daemon: "),
        ("shutdown", "Error: Failed to shutdown daemon: Failed to connect to daemon: "),
    ] {
        let said = world.runt(&["daemon", command]);
        assert_eq!((said.code, said.out.as_str()), (1, ""));
        assert!(said.err.starts_with(text) && said.err.contains("'runt daemon start'"), "{}", said.err);
    }
    let down = world.runt(&["status", "--json"]).json();
    assert_eq!((&down["running"], &down["daemon_info"]), (&json!(false), &Value::Null));

    let started = world.runt(&["daemon", "start"]).good();
    let up = world.runt(&["daemon", "status", "--json"]).json();
    let pid = up["daemon_info"]["pid"].as_u64().unwrap();
    assert_eq!(
        started.out,
        format!(
            "Starting runtimed in the background. ('runt daemon install' makes it a service that is started at \
             login.)\nDaemon started (pid {pid}).\n"
        )
    );
    let again = world.runt(&["daemon", "start", "--json"]).json();
    assert_eq!((&again["started"], &again["pid"]), (&json!(false), &json!(pid)));
    for key in ["channel", "socket_path", "installed", "running", "dev_mode", "protocol_version"] {
        assert!(!up[key].is_null(), "{key}");
    }
    for key in ["daemon_version", "pool_stats", "paths", "env", "blob_url", "runtime_metrics"] {
        assert!(!up[key].is_null(), "{key}");
    }
    assert_eq!(up["runtime_metrics"]["type"], "runtime_metrics");
    assert_eq!(up["daemon_info"]["endpoint"], up["socket_path"]);
    assert_eq!(up["worktree_hash"], Value::Null);
    let shown = world.runt(&["status"]).good().out;
    assert!(shown.contains(&format!("\nPID:                {pid}\n")), "{shown}");
    assert!(shown.contains("\nUptime:             0h 0m\n") && shown.contains("\nPool:\n"), "{shown}");
    assert_eq!(world.runt(&["daemon", "ping"]).good().out, "pong\n");
    assert_eq!(world.runt(&["daemon", "flush"]).good().out, "Pool flushed — environments will be rebuilt\n");

    let stopped = world.runt(&["daemon", "stop"]).good();
    assert_eq!(
        stopped.out,
        "Stopping runtimed service...\nAttempting graceful shutdown via socket...\nDaemon stopped gracefully.\n"
    );
    assert!(!is_running(pid));
    let again = world.runt(&["daemon", "stop"]).good();
    assert!(again.out.ends_with("No daemon info found, assuming daemon is stopped.\n"), "{}", again.out);
}

#[test]
fn a_daemon_that_hangs_is_ended_by_force() {
    let Some(world) = World::new() else { return };
    let pid = world.runt(&["daemon", "start", "--json"]).json()["pid"].as_u64().unwrap();
    signal(pid, "STOP");
    let said = world.runt(&["daemon", "stop", "--force"]).good();
    assert!(said.out.contains("\nDaemon stopped via signal.\n"), "{}", said.out);
    assert!(!is_running(pid));
    assert_eq!(world.runt(&["daemon", "start", "--json"]).json()["started"], true);
}

#[test]
fn a_daemon_on_another_socket_is_named_and_can_be_stopped() {
    let Some(world) = World::new() else { return };
    let elsewhere = world.home().join("elsewhere.sock");
    let mut start = world.command("runt");
    let started =
        start.args(["daemon", "start", "--json"]).env("RUNTIMED_SOCKET_PATH", &elsewhere).output().unwrap();
    let pid = serde_json::from_slice::<Value>(&started.stdout).unwrap()["pid"].as_u64().unwrap();
    let refused = world.runt(&["daemon", "start"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.starts_with(&format!("Error: Failed to start daemon: process {pid} holds the lock ")),
        "{}",
        refused.err
    );
    let stopped = world.runt(&["daemon", "stop"]).good();
    assert!(stopped.out.ends_with("the next daemon has them again.\n"), "{}", stopped.out);
    assert!(!is_running(pid));
}

#[test]
fn a_refusal_is_shown_and_nothing_is_killed() {
    let Some(world) = World::new() else { return };
    // Other daemons of the same protocol refuse. Its process is one that can be seen to live.
    let mut process = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    let info = json!({"type": "daemon_info", "protocol_version": 4, "daemon_version": "2.8.2", "pid": process.id(),
        "started_at": "2026-11-22T13:16:51Z"});
    let refusal = json!({"type": "error", "message": "clean shutdown blocked: a notebook cannot be saved"});
    let socket = world.home().join("refuses.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let daemon = std::thread::spawn(move || {
        for reply in [info, refusal] {
            let (mut stream, _) = listener.accept().unwrap();
            // Preamble, then two frames with their lengths before them.
            stream.read_exact(&mut [0; 5]).unwrap();
            for _ in 0..2 {
                let mut length = [0; 4];
                stream.read_exact(&mut length).unwrap();
                stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize]).unwrap();
            }
            let reply = reply.to_string();
            stream.write_all(&u32::try_from(reply.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    let said = world.command("runt").args(["daemon", "stop"]).env("RUNTIMED_SOCKET_PATH", &socket).output();
    let said = said.unwrap();
    let err = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(
        err.contains("clean shutdown blocked: a notebook cannot be saved\nNothing was stopped."),
        "{err}"
    );
    assert!(err.contains("runt daemon stop --force"), "{err}");
    assert!(process.try_wait().unwrap().is_none());
    process.kill().unwrap();
    process.wait().unwrap();
    daemon.join().unwrap();
}

#[test]
fn a_work_tree_has_a_daemon_of_its_own() {
    let Some(world) = World::new() else { return };
    let runt = |arguments: &[&str]| {
        let output = world.command("runt").args(arguments).env("RUNTIMED_DEV", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    runt(&["daemon", "start"]);
    let status: Value = serde_json::from_str(&runt(&["daemon", "status", "--json"])).unwrap();
    assert_eq!((&status["running"], &status["dev_mode"]), (&json!(true), &json!(true)));
    assert_eq!(status["worktree_hash"].as_str().unwrap().len(), 12);
    assert!(runt(&["daemon", "status"]).contains("\nMode:               development\n"));
    assert_eq!(world.runt(&["daemon", "status", "--json"]).json()["running"], false);
    runt(&["daemon", "stop"]);
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let Some(world) = World::new() else { return };
    let socket = world.home().join("a".repeat(200));
    let said = world.command("runt").args(["daemon", "start"]).env("RUNTIMED_SOCKET_PATH", &socket).output();
    let said = said.unwrap();
    let err = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(err.contains("bytes, and a socket's has at most"), "{err}");
    assert!(err.contains("'runt daemon doctor'"), "{err}");
}
