//! The real daemon with a plugin in its own process that takes it down or never starts: the next life goes on
//! without it, and so does everything else in this one.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "daemon/support.rs"]
mod support;

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, thread};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::Daemon;

/// Id of the plugin.
const BAD: &str = "misbehaving";
/// Pause between two looks at a file that will appear.
const PAUSE: Duration = Duration::from_millis(10);

/// Starts a daemon whose one plugin does `mode`.
fn start(mode: &str) -> Daemon {
    Daemon::start_with(|home, _| {
        install(home, BAD, &library(), &[("env-provider.v1", BAD)]);
        fs::write(plugin(home).join("misbehave"), mode).unwrap();
    })
}

/// Installs a plugin that runs in the daemon and provides capabilities with their names.
fn install(home: &Path, id: &str, library: &Path, provides: &[(&str, &str)]) {
    let folder = home.join("plugins").join(id);
    fs::create_dir_all(&folder).unwrap();
    fs::copy(library, folder.join("lib.so")).unwrap();
    let mut manifest = format!(
        "manifest_version = 1\nid = \"{id}\"\nname = \"\"\nversion = \"1.0.0\"\nabi = {{ major = 1 }}\n\
         [library]\n{}-{} = {{ path = \"lib.so\" }}\n[run]\ncarrier = \"in-process\"\n",
        env::consts::OS,
        env::consts::ARCH,
    );
    for (capability, name) in provides {
        manifest += &format!("[[provides]]\ncapability = \"{capability}\"\nname = \"{name}\"\n");
    }
    fs::write(folder.join("plugin.toml"), manifest).unwrap();
}

fn plugin(home: &Path) -> PathBuf {
    home.join("plugins").join(BAD)
}

/// The library that cargo builds with the tests, beside the test binary.
fn library() -> PathBuf {
    let name = format!("{}runtimed_plugin_misbehaving{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    env::current_exe().unwrap().with_file_name(name)
}

/// The well-behaved one, which has rooms.
fn fixture() -> PathBuf {
    let name = format!("{}plugin_fixture{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let binary = env::current_exe().unwrap();
    binary.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

/// The plugin's row; a ping before and after proves that the daemon answers.
fn row(daemon: &Daemon) -> Value {
    assert_eq!(daemon.ask(json!({"type": "ping"}))["type"], "pong");
    let row = daemon.ask(json!({"type": "list_plugins"}))["plugins"][0].clone();
    assert_eq!(daemon.ask(json!({"type": "ping"}))["type"], "pong");
    row
}

/// Waits until the plugin has begun to do what it was told.
fn wait_for_deed(daemon: &Daemon) {
    while !plugin(daemon.home.path()).join("done").exists() {
        thread::sleep(PAUSE);
    }
}

#[test]
fn whoever_crashes_the_daemon_is_left_out_of_its_next_life_until_rebuilt() {
    for (mode, signal, happened) in [
        ("segfault:new", Signal::SEGV, "the daemon crashed with SIGSEGV in plugin `misbehaving`, on "),
        ("abort:start", Signal::ABORT, "the daemon crashed with SIGABRT in plugin `misbehaving`, on "),
    ] {
        let mut daemon = start(mode);
        assert_eq!(daemon.ended().signal(), Some(signal.as_raw()), "{mode}");
        let mut daemon = daemon.start_again();
        let bad = row(&daemon);
        assert_eq!(bad["status"], "refused", "{mode}: {bad}");
        let reason = bad["reason"].as_str().unwrap();
        assert!(reason.starts_with(happened), "{reason}");
        let rest = " UTC; it was not loaded again; update the plugin, or give it another try: runt plugins enable \
                    misbehaving";
        assert!(reason.ends_with(rest), "{reason}");
        let log = fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
        assert!(log.contains("the last life of the daemon ended with SIG"), "{log}");
        daemon.signal("TERM");
        assert!(daemon.ended().success());
        // An author's next build: other bytes, and it behaves.
        let folder = plugin(daemon.home.path());
        fs::write(folder.join("misbehave"), "").unwrap();
        fs::File::options().append(true).open(folder.join("lib.so")).unwrap().write_all(b"\n").unwrap();
        assert_eq!(row(&daemon.start_again())["status"], "ok", "{mode}");
    }
}

#[test]
fn whoever_exits_and_whoever_overflows_a_stack_of_its_own_is_found_too() {
    for (mode, happened) in [
        ("exit:start", "plugin `misbehaving` ended the daemon by calling exit, on "),
        ("overflow:start", "the daemon crashed with SIGSEGV in plugin `misbehaving`, on "),
    ] {
        let mut daemon = start(mode);
        assert!(!daemon.ended().success(), "{mode}");
        let bad = row(&daemon.start_again());
        assert!(bad["reason"].as_str().unwrap().starts_with(happened), "{mode}: {bad}");
    }
}

#[test]
fn one_kill_accuses_nobody_and_two_in_a_row_do() {
    let mut daemon = start("block:new");
    for _ in 0..2 {
        wait_for_deed(&daemon);
        daemon.signal("KILL");
        assert_eq!(daemon.ended().signal(), Some(Signal::KILL.as_raw()));
        fs::remove_file(plugin(daemon.home.path()).join("done")).unwrap();
        daemon = daemon.start_again();
    }
    let bad = row(&daemon);
    let reason = bad["reason"].as_str().unwrap();
    assert!(
        reason.starts_with(
            "the daemon ended 2 times in a row while plugin `misbehaving` was being loaded, last on "
        ),
        "{reason}"
    );
    assert!(!plugin(daemon.home.path()).join("done").exists(), "it was run");
}

#[test]
fn a_stop_in_the_middle_of_loading_and_a_signal_from_outside_accuse_nobody() {
    let mut daemon = start("block:new");
    for signal in ["TERM", "SEGV", "TERM"] {
        wait_for_deed(&daemon);
        daemon.signal(signal);
        assert_eq!(daemon.ended().success(), signal == "TERM");
        fs::remove_file(plugin(daemon.home.path()).join("done")).unwrap();
        daemon = daemon.start_again();
    }
    wait_for_deed(&daemon);
}

#[test]
fn who_was_forgiven_is_loaded_again_without_a_restart() {
    let mut daemon = start("segfault:start");
    assert!(!daemon.ended().success());
    let daemon = daemon.start_again();
    assert_eq!(row(&daemon)["status"], "refused");
    fs::write(plugin(daemon.home.path()).join("misbehave"), "").unwrap();
    daemon.ask(json!({"type": "set_plugin_enabled", "id": BAD, "enabled": true}));
    let bad = row(&daemon);
    assert_eq!((&bad["status"], &bad["reason"]), (&json!("ok"), &Value::Null), "{bad}");
}

#[test]
fn whoever_never_starts_keeps_no_notebook_waiting() {
    for mode in ["block:new", "hang:start"] {
        let daemon = Daemon::start_with(|home, _| {
            install(home, BAD, &library(), &[("env-provider.v1", BAD)]);
            fs::write(plugin(home).join("misbehave"), mode).unwrap();
            install(home, "fixture", &fixture(), &[("env-provider.v1", "fixture"), ("rooms.v1", "echo")]);
        });
        let mut client = daemon.connect(json!({"channel": "create_notebook", "runtime": "python"}));
        let reply: Value = serde_json::from_slice(&client.receive()).unwrap();
        assert_eq!(reply["notebook_path"], "/a.ipynb", "the fixture answers: {reply}");
        let log = fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
        assert!(!log.contains("within"), "{mode} was waited for: {log}");
    }
}
