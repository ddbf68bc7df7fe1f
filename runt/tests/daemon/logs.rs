//! `runt daemon logs`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

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
