//! First-time mistakes: the message when each is met, and that `runt daemon doctor` names it.
//!
//! Those about owners and permissions run as another user where the tests run as root, or they would prove nothing.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::world::{Said, World};

/// Nobody in particular, and not root.
const NOBODY: u32 = 65534;
/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Has the pools keep nothing ready, but `uv` environments of the uv pool: whether they can be built depends on the
/// network of this machine.
fn set_pools(world: &World, uv: u32) {
    let settings = json!({ "install_default_data_packages": false, "kernels": { "warm": 0 }, "uv_pool_size": uv,
        "conda_pool_size": 0, "pixi_pool_size": 0 });
    std::fs::write(world.home().join(".config/nteract/settings.json"), settings.to_string()).unwrap();
}

/// What the doctor says.
fn doctor(mut command: Command) -> Value {
    Said::of(command.args(["daemon", "doctor", "--json"]).output().unwrap()).json()
}

/// Its first sentence. What to do about it is said as well.
#[track_caller]
fn named(command: Command, diagnosis: &str) -> Value {
    let report = doctor(command);
    let said = report["diagnosis"].as_str().unwrap();
    assert!(said.contains(diagnosis), "{report:#}");
    assert!(!report["problems"][0]["to_do"].as_str().unwrap().is_empty());
    report
}

/// The message of a command that fails.
#[track_caller]
fn met(mut command: Command, arguments: &[&str], words: &[&str]) {
    let said = Said::of(command.args(arguments).output().unwrap());
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    for word in words {
        assert!(said.err.contains(word), "{}", said.err);
    }
}

fn runt(world: &World, variables: &[(&str, &Path)]) -> Command {
    let mut command = world.command("runt");
    command.env("XDG_RUNTIME_DIR", world.home()).envs(variables.iter().copied());
    command
}

/// The same command by way of `program`.
fn through(program: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(program[0]);
    outer.args(&program[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.current_dir("/").stdin(std::process::Stdio::null());
    outer
}

/// The same command as another user.
pub(crate) fn as_nobody(command: &Command) -> Command {
    through(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"], command)
}

pub(crate) fn is_root() -> bool {
    let root = cfg!(target_os = "linux") && rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: being another user, and mounting, need root.");
    }
    root
}

#[test]
fn the_daemon_is_down() {
    let Some(world) = World::new() else { return };
    set_pools(&world, 0);
    let words = ["Failed to list notebooks: Failed to connect to daemon: ", "Try 'runt daemon status'"];
    met(runt(&world, &[]), &["notebooks"], &words);
    let report = named(runt(&world, &[]), "Daemon service not installed. No daemon is running.");
    assert!(report["problems"][0]["to_do"].as_str().unwrap().contains("'runt daemon start'"));
    assert_eq!(report["daemon_running"]["status"], "not_running");
    let shown = world.runt(&["daemon", "doctor"]).good().out;
    assert!(
        shown.contains("runtimed Health Check") && shown.contains("\nDiagnosis: Daemon service"),
        "{shown}"
    );
    assert!(shown.ends_with("Run 'runt daemon doctor --fix' to attempt automatic repair.\n"), "{shown}");

    let mended = Said::of(runt(&world, &[]).args(["daemon", "doctor", "--fix"]).output().unwrap()).good().out;
    assert!(mended.contains("\nDiagnosis: Daemon is healthy and running.\n"), "{mended}");
    assert!(mended.contains("\nActions taken:\n  Started the daemon in the background (pid "), "{mended}");
    assert_eq!(doctor(runt(&world, &[]))["problems"], json!([]));
}

#[test]
fn a_path_is_wrong() {
    let Some(world) = World::new() else { return };
    let socket = world.home().join("no such folder/runtimed.sock");
    let wrong = [("RUNTIMED_SOCKET_PATH", socket.as_path())];
    met(runt(&world, &wrong), &["daemon", "ping"], &["Daemon not running: ", "'runt daemon doctor'"]);
    named(
        runt(&world, &wrong),
        "RUNTIMED_SOCKET_PATH names ~/no such folder/runtimed.sock, whose folder does not",
    );
    let file = world.home().join("a file");
    std::fs::write(&file, "precious").unwrap();
    let wrong = [("RUNTIMED_SOCKET_PATH", file.as_path())];
    met(runt(&world, &wrong), &["daemon", "start"], &["is not a socket"]);
    named(runt(&world, &wrong), "~/a file is in the place of the socket, and is none.");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn there_is_no_uv_and_no_network() {
    let Some(world) = World::new() else { return };
    set_pools(&world, 1);
    let bare = world.home().join("bare");
    std::fs::create_dir(&bare).unwrap();
    let mut start = runt(&world, &[("PATH", &bare)]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        start.env(name, NOWHERE);
    }
    start.env_remove("NO_PROXY").env_remove("no_proxy");
    Said::of(start.args(["daemon", "start"]).output().unwrap()).good();
    while world.runt(&["status", "--json"]).json()["pool_stats"]["uv"]["error"].is_null() {}
    let shown = world.runt(&["status"]).good().out;
    assert!(shown.contains("failing: ") && shown.contains("next try in "), "{shown}");
    let report = named(runt(&world, &[]), "Environments of the pool uv cannot be built: ");
    assert!(report["diagnosis"].as_str().unwrap().contains("uv"), "{report:#}");
}

#[test]
fn the_socket_belongs_to_another_user() {
    let Some(world) = World::new() else { return };
    if !is_root() {
        return;
    }
    // In a folder that everybody may enter, as that of a careless user, or of root.
    let folder =
        tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let socket = folder.path().join("runtimed.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).unwrap();
    chown(world.home(), Some(NOBODY), Some(NOBODY)).unwrap();
    let theirs = || runt(&world, &[("RUNTIMED_SOCKET_PATH", &socket)]);
    met(as_nobody(&theirs()), &["daemon", "ping"], &["Permission denied", "'runt daemon doctor'"]);
    named(
        as_nobody(&theirs()),
        "belongs to user 0, and a daemon serves its own user only; you are user 65534.",
    );
}

#[test]
fn a_lock_and_a_socket_are_stale() {
    let Some(world) = World::new() else { return };
    set_pools(&world, 0);
    let pid = world.runt(&["daemon", "start", "--json"]).json()["pid"].to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    while doctor(runt(&world, &[]))["daemon_state"]["status"] == "ok" {}
    met(runt(&world, &[]), &["daemon", "ping"], &["Failed to connect to daemon: ", "'runt daemon start'"]);
    let report = named(runt(&world, &[]), "Daemon state is stale (process crashed)");
    assert_eq!(
        (&report["socket_file"]["status"], &report["lock_file"]["status"]),
        (&json!("stale"), &json!("ok"))
    );
    let mended =
        Said::of(runt(&world, &[]).args(["daemon", "doctor", "--fix", "--json"]).output().unwrap()).json();
    assert!(mended["actions_taken"][0].as_str().unwrap().starts_with("Removed the stale socket "));
    assert_eq!(mended["diagnosis"], "Daemon is healthy and running.");
}

#[test]
fn the_disk_is_full_or_read_only() {
    let Some(world) = World::new() else { return };
    if !is_root() {
        return;
    }
    let disk = world.home().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let on = |mount: &str| {
        let script = format!("{mount}; exec \"$@\"");
        through(&["unshare", "-m", "sh", "-c", &script, "sh"], &runt(&world, &[("XDG_CACHE_HOME", &disk)]))
    };
    let full = "mount -t tmpfs -o nr_inodes=1 none \"$XDG_CACHE_HOME\"";
    met(on(full), &["daemon", "start"], &["Failed to start daemon: ", "The disk of ~/disk/runt is full."]);
    named(on(full), "The disk of ~/disk/runt is full.");
    let little = "mount -t tmpfs -o size=8m none \"$XDG_CACHE_HOME\"";
    named(on(little), "Only 8 MB are free on the disk of ~/disk/runt.");
    let read_only = "mount -t tmpfs -o ro none \"$XDG_CACHE_HOME\"";
    let words = ["Failed to start daemon: ", "its file system is read-only"];
    met(on(read_only), &["daemon", "start"], &words);
    named(on(read_only), "its file system is read-only");
}

#[test]
fn there_is_no_runtime_folder() {
    let Some(world) = World::new() else { return };
    let missing = world.home().join("gone");
    let report = named(runt(&world, &[("XDG_RUNTIME_DIR", &missing)]), "Daemon service not installed.");
    let also = report["problems"][1]["what"].as_str().unwrap();
    assert!(also.starts_with("XDG_RUNTIME_DIR names ") && also.contains("which does not exist"), "{also}");
    let mut unset = world.command("runt");
    unset.env_remove("XDG_RUNTIME_DIR");
    let report = doctor(unset);
    assert_eq!(report["runtime_folder"]["detail"], "used because XDG_RUNTIME_DIR is not set");
}

#[test]
fn the_path_of_the_socket_is_very_long() {
    let Some(world) = World::new() else { return };
    let socket: PathBuf = world.home().join("a".repeat(120));
    let long = [("RUNTIMED_SOCKET_PATH", socket.as_path())];
    met(runt(&world, &long), &["daemon", "start"], &["bytes, and a socket's has at most "]);
    named(runt(&world, &long), "bytes, and a socket's has at most ");
}

#[test]
fn the_home_cannot_be_written() {
    let Some(world) = World::new() else { return };
    if !is_root() {
        return;
    }
    std::fs::set_permissions(world.home(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(world.home().join(".config"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let words = ["Failed to start daemon: ", "~/.cache/runt cannot be written by you", "belongs to user 0"];
    met(as_nobody(&runt(&world, &[])), &["daemon", "start"], &words);
    let said = named(as_nobody(&runt(&world, &[])), "~/.cache/runt cannot be written by you");
    assert_eq!(said["base_folder"]["status"], "error");
}

#[test]
fn there_is_a_second_daemon() {
    let Some(world) = World::new() else { return };
    set_pools(&world, 0);
    let pid = world.runt(&["daemon", "start", "--json"]).json()["pid"].to_string();
    let second = world.command("runtimed").arg("run").output().unwrap();
    assert!(second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).starts_with("Another process holds the daemon lock at "));
    let report = doctor(runt(&world, &[]));
    assert_eq!(report["diagnosis"], "Daemon is healthy and running.");
    assert_eq!(report["lock_file"]["detail"], format!("held by process {pid}"));
    // Looked for elsewhere, it is not there, and a second one cannot be started.
    let socket = world.home().join("elsewhere.sock");
    let elsewhere = [("RUNTIMED_SOCKET_PATH", socket.as_path())];
    met(runt(&world, &elsewhere), &["daemon", "start"], &[&format!("process {pid} holds the lock ")]);
    named(runt(&world, &elsewhere), &format!("Process {pid} is a daemon of yours and does not listen at "));
}
