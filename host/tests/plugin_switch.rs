//! The real daemon: plugins are switched off and on, added and looked for again through its socket, and their
//! processes do not outlive it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "daemon/support.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, thread};

use serde_json::{Value, json};
use support::Daemon;

/// Pause between two looks at something that will change.
const PAUSE: Duration = Duration::from_millis(10);

/// Installs the fixture as a provider of environments with a process of its own.
fn install(plugins: &Path) {
    let folder = plugins.join("fixture");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("no-rooms"), "").unwrap();
    fs::copy(library(), folder.join("lib.so")).unwrap();
    let manifest = format!(
        "manifest_version = 1\nid = \"fixture\"\nname = \"Fixture\"\nversion = \"1.2.3\"\nabi = {{ major = 1 }}\n\
         [library]\n{}-{} = {{ path = \"lib.so\" }}\n\
         [[provides]]\ncapability = \"env-provider.v1\"\nname = \"fixture\"\n",
        env::consts::OS,
        env::consts::ARCH,
    );
    fs::write(folder.join("plugin.toml"), manifest).unwrap();
}

/// The library that cargo builds with the tests, seen from the test binary in `target/<profile>/deps`.
fn library() -> PathBuf {
    let name = format!("{}plugin_fixture{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let binary = env::current_exe().unwrap();
    binary.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

/// The row of the fixture in a list of plugins.
fn row(list: &Value) -> Option<&Value> {
    list["plugins"].as_array().unwrap().iter().find(|row| row["id"] == "fixture")
}

/// Asks again and again until the answer is as wanted.
fn until(daemon: &Daemon, question: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let answer = daemon.ask(json!({"type": question}));
        if wanted(&answer) {
            return answer;
        }
        thread::sleep(PAUSE);
    }
}

fn settings(daemon: &Daemon) -> Value {
    let file = daemon.home.path().join(".config/nteract/settings.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

#[test]
fn a_plugin_is_added_switched_off_and_on_without_a_restart() {
    let mut daemon = Daemon::start();
    let unknown = daemon.ask(json!({"type": "set_plugin_enabled", "id": "fixture", "enabled": false}));
    let message = unknown["message"].as_str().unwrap();
    assert!(
        message.contains("no plugin `fixture`. Nothing was changed.")
            && message.contains("runt plugins list")
    );

    install(&daemon.home.path().join("plugins"));
    let list = daemon.ask(json!({"type": "reload_plugins"}));
    let found = row(&list).unwrap();
    assert_eq!((&found["status"], &found["carrier"]), (&json!("ok"), &json!("child")), "{found}");
    let status = until(&daemon, "status", |status| status["state"].get("fixture").is_some());
    assert_eq!(status["state"]["fixture"]["pool_size"], 1, "{status}");

    let list = daemon.ask(json!({"type": "set_plugin_enabled", "id": "fixture", "enabled": false}));
    assert_eq!(row(&list).unwrap()["status"], "disabled", "{list}");
    until(&daemon, "status", |status| status["state"].get("fixture").is_none());
    let list = daemon.ask(json!({"type": "set_plugin_enabled", "id": "fixture", "enabled": true}));
    assert_eq!(row(&list).unwrap()["status"], "ok", "{list}");
    daemon.ask(json!({"type": "set_plugin_enabled", "id": "fixture", "enabled": false}));
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    assert_eq!(settings(&daemon)["plugins"]["disabled"], json!(["fixture"]));
}

#[test]
fn no_process_of_a_plugin_outlives_the_daemon_however_it_ends() {
    for signal in ["TERM", "KILL"] {
        let mut daemon = Daemon::start_with(|home, _| {
            install(&home.join("plugins"));
            // Its pool builds for ever, so its process is needed for ever.
            fs::write(home.join("plugins/fixture/hold"), "").unwrap();
        });
        let list =
            until(&daemon, "list_plugins", |list| row(list).is_some_and(|row| row["process"].is_u64()));
        let process = row(&list).unwrap()["process"].as_i64().unwrap();
        let process = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
        daemon.signal(signal);
        daemon.ended();
        while rustix::process::test_kill_process(process).is_ok() {
            // Killed with the daemon it is nobody's child, and whoever collects it may take a moment.
            let zombie = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
            if zombie.is_ok_and(|stat| stat.contains(") Z ")) {
                break;
            }
            thread::sleep(PAUSE);
        }
    }
}
