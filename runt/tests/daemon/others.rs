//! Another user of the machine.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use crate::doctor::{as_nobody, is_root};
use crate::world::{Said, World};

#[test]
fn a_user_who_gets_at_the_socket_is_not_served() {
    let Some(world) = World::new() else { return };
    if !is_root() {
        return;
    }
    world.runt(&["daemon", "start"]).good();
    let ping = || {
        let mut ping = world.command("runt");
        ping.args(["daemon", "ping"])
            .env("RUNTIMED_SOCKET_PATH", world.home().join(".cache/runt/runtimed.sock"));
        Said::of(as_nobody(&ping).output().unwrap())
    };
    let kept_out = ping();
    assert!(kept_out.code == 1 && kept_out.err.contains("Permission denied"), "{}", kept_out.err);
    // As if somebody had opened every door.
    for (place, mode) in
        [("", 0o755), (".cache", 0o755), (".cache/runt", 0o755), (".cache/runt/runtimed.sock", 0o666)]
    {
        set_permissions(world.home().join(place), Permissions::from_mode(mode)).unwrap();
    }
    // Closed before its first words are sent, or after.
    let refused = ping();
    assert!(refused.code == 1 && !refused.err.contains("Permission denied"), "{}", refused.err);
    assert!(world.runt(&["daemon", "logs"]).good().out.contains("refused a connection of user 65534"));
    assert_eq!(world.runt(&["daemon", "ping"]).good().out, "pong\n");
}
