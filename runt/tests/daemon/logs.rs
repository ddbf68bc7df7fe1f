//! `runt daemon logs`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::World;

#[test]
fn the_log_is_followed_across_a_restart() {
    let Some(world) = World::new() else { return };
    let missing = world.runt(&["daemon", "logs"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.starts_with("Log file not found: "), "{}", missing.err);

    let first = world.runt(&["daemon", "start", "--json"]).json()["pid"].to_string();
    let mut following = world.command("runt");
    following.args(["daemon", "logs", "--follow", "-n", "500"]).stdout(Stdio::piped());
    let mut following = following.spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(&format!("runtimed starting: pid={first},"))));
    world.runt(&["daemon", "restart"]).good();
    assert!(lines.any(|line| line.ends_with("[STARTUP] Daemon exited: Ok (graceful shutdown)")));
    assert!(lines.any(|line| line.contains("[STARTUP] runtimed starting: pid=")));
    assert!(lines.any(|line| line.contains("[STARTUP] listening on ")));
    let end = Command::new("kill").args(["-INT", &following.id().to_string()]).status().unwrap();
    assert!(end.success() && following.wait().unwrap().success());

    // As many lines as were asked for, from before the restart if need be.
    let last = world.runt(&["daemon", "logs", "-n", "4"]).good().out;
    assert_eq!(last.lines().count(), 4, "{last}");
    assert!(last.contains("Daemon exited") || last.contains("stopping") || last.contains("WARN"), "{last}");
    assert_eq!(world.runt(&["logs", "-n", "0"]).good().out, "");
}

/// Longest wait for anything; only a test that fails takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `done`; only a test that fails takes long.
fn until(done: impl Fn() -> bool, what: &str) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
    }
}

/// How often the log speaks of a connection that made no sense, after one more.
fn complaints(world: &World) -> usize {
    let mut stream = UnixStream::connect(world.home().join(".cache/runt/runtimed.sock")).unwrap();
    stream.write_all(b"no preamble at all").unwrap();
    // Closed, or reset because it did not read to the end.
    let _ = stream.read_to_end(&mut Vec::new());
    let log = std::fs::read_to_string(world.home().join(".cache/runt/runtimed.log")).unwrap();
    log.matches("closed a connection: ").count()
}

#[test]
fn the_log_follows_its_setting() {
    let Some(world) = World::new() else { return };
    world.runt(&["daemon", "start"]).good();
    assert_eq!(complaints(&world), 0, "that is for debugging");
    world.runt(&["config", "set", "log.level", "debug"]).good();
    until(|| complaints(&world) > 0, "the log says more");
    world.runt(&["config", "unset", "log.level"]).good();
    until(|| complaints(&world) == complaints(&world), "the log says less");

    // What somebody said for this life of the daemon stays.
    world.runt(&["daemon", "stop"]).good();
    world.runt(&["config", "set", "log.level", "debug"]).good();
    let start = world.command("runt").args(["daemon", "start"]).env("RUST_LOG", "error").output();
    assert!(start.unwrap().status.success());
    assert_eq!(complaints(&world), 0);
    let refused = world.runt(&["config", "set", "log.level", "loud"]);
    assert!(refused.err.contains("Must be one of: error, warn, info, debug, trace"), "{}", refused.err);
}
