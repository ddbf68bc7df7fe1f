//! The real daemon with plugin folders that lack something or hold something broken: it starts, says what
//! is wrong in one sentence each, and serves whatever can be served.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "daemon/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::Daemon;

/// Folder of the staged plugins, if there is one.
fn staged() -> Option<PathBuf> {
    let dist = env::var_os("RUNTIMED_TEST_DIST").map(|dist| PathBuf::from(dist).join("lib/runt/plugins"));
    let folder = dist.or_else(|| env::var_os("RUNTIMED_PLUGIN_PATH").map(PathBuf::from))?;
    ["blobs", "jupyter", "rooms", "uv"].iter().all(|id| folder.join(id).is_dir()).then_some(folder)
}

/// Starts a daemon whose plugin folder is what `install` puts there, and whose pools stay empty.
fn start(install: impl FnOnce(&Path)) -> Daemon {
    Daemon::start_with(|home, command| {
        install(&home.join("plugins"));
        command.args(["--uv-pool-size", "0"]);
    })
}

/// The rows by id; a ping before and after proves that the daemon answers.
fn rows(daemon: &Daemon) -> BTreeMap<String, Value> {
    assert_eq!(daemon.ask(json!({"type": "ping"}))["type"], "pong");
    let reply = daemon.ask(json!({"type": "list_plugins"}));
    assert_eq!(daemon.ask(json!({"type": "ping"}))["type"], "pong");
    let rows = reply["plugins"].as_array().unwrap().iter();
    rows.map(|row| (row["id"].as_str().unwrap().to_owned(), row.clone())).collect()
}

/// What a client reads that wants a new notebook and cannot have one.
fn refused_notebook(daemon: &Daemon) -> String {
    let mut client = daemon.connect(json!({"channel": "create_notebook", "runtime": "python"}));
    let reply: Value = serde_json::from_slice(&client.receive()).unwrap();
    assert!(client.rest().is_empty());
    reply["error"].as_str().unwrap().to_owned()
}

#[test]
fn without_rooms_the_rest_works_and_what_is_missing_is_named() {
    let Some(staged) = staged() else {
        eprintln!("skipped: no staged plugins. `cargo xtask test` stages them.");
        return;
    };
    let daemon = start(|plugins| {
        for id in ["blobs", "jupyter", "uv"] {
            symlink(staged.join(id), plugins.join(id)).unwrap();
        }
    });
    let rows = rows(&daemon);
    assert_eq!(rows.keys().collect::<Vec<_>>(), ["blobs", "jupyter", "uv"]);
    for (id, row) in &rows {
        let carrier = if id == "uv" { "child" } else { "in-process" };
        assert_eq!((&row["carrier"], &row["abi"]), (&json!(carrier), &json!("1.0")), "{row}");
        assert!(row["version"].is_string() && row["path"].as_str().unwrap().ends_with(id.as_str()), "{row}");
        // An environment provider may still wait for its first use.
        assert!(row["status"] == "ok" || (id == "uv" && row["status"] == "not_loaded"), "{row}");
    }
    let error = refused_notebook(&daemon);
    assert!(error.contains("The `rooms` plugin is not running"), "{error}");
    assert_eq!(daemon.ask(json!({"type": "list_rooms"}))["rooms"], json!([]));

    // The command line, if it is staged, says what that means.
    let Some(runt) = env::var_os("RUNTIMED_TEST_DIST").map(|dist| PathBuf::from(dist).join("bin/runt"))
    else {
        return;
    };
    let output = Command::new(runt)
        .args(["daemon", "status", "--json"])
        .env("HOME", daemon.home.path())
        .env("RUNTIMED_SOCKET_PATH", &daemon.socket)
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["running"], true);
    assert!(status["missing"][0].as_str().unwrap().contains("rooms.v1"), "{status}");
}

#[test]
fn broken_libraries_are_rows_with_a_reason() {
    let whole = fs::read(fixture()).unwrap();
    let daemon = start(|plugins| {
        install(plugins, "truncated", &whole[..whole.len() / 2]);
        install(plugins, "text", "this is no library\n".repeat(100).as_bytes());
        install(plugins, "fixture", &of_another_major(&whole));
        let future = plugins.join("future");
        fs::create_dir(&future).unwrap();
        fs::write(future.join("plugin.toml"), "manifest_version = 7\n").unwrap();
    });
    let rows = rows(&daemon);
    let reason = |id: &str| {
        let row = &rows[id];
        assert_eq!(row["status"], "refused", "{row}");
        let reason = row["reason"].as_str().unwrap();
        assert!(!reason.contains('\n') && reason.len() < 400, "{reason}");
        reason.to_owned()
    };
    assert!(reason("truncated").contains("truncated/lib.so` is not a usable library"));
    assert!(reason("text").contains("text/lib.so` is not a usable library"));
    assert!(reason("fixture").contains("built for ABI 2.0, this daemon speaks 1.0"));
    assert!(reason("future").contains("manifest_version is 7"));
    assert_eq!(rows.len(), 4);
    assert!(refused_notebook(&daemon).contains("`rooms`"));
}

#[test]
fn a_stop_does_not_wait_for_a_plugin_that_hangs_at_its_start() {
    let mut daemon = start(|plugins| {
        install(plugins, "fixture", &fs::read(fixture()).unwrap());
        fs::write(plugins.join("fixture/hang"), "").unwrap();
    });
    let mut waiting = daemon.connect(json!({"channel": "pool"}));
    waiting.send(json!({"type": "list_plugins"}).to_string().as_bytes());
    assert_eq!(daemon.ask(json!({"type": "ping"}))["type"], "pong");
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    let reply = String::from_utf8(waiting.rest()).unwrap();
    assert!(reply.contains("The daemon is stopping."), "{reply}");
    let log = fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
    assert!(!log.contains("was cut off"), "{log}");
}

/// The library that cargo builds with the tests, seen from the test binary in `target/<profile>/deps`.
fn fixture() -> PathBuf {
    let name = format!("{}plugin_fixture{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let binary = env::current_exe().unwrap();
    binary.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

/// A plugin whose manifest is right about everything, the hash included.
fn install(plugins: &Path, id: &str, library: &[u8]) {
    let folder = plugins.join(id);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("lib.so"), library).unwrap();
    let manifest = format!(
        "manifest_version = 1\nid = \"{id}\"\nname = \"Fixture\"\nversion = \"1.2.3\"\nabi = {{ major = 1 }}\n\
         [library]\n{}-{} = {{ path = \"lib.so\", sha256 = \"{}\" }}\n\
         [[provides]]\ncapability = \"env-provider.v1\"\nname = \"fixture\"\n\
         [[provides]]\ncapability = \"rooms.v1\"\nname = \"echo\"\n",
        env::consts::OS,
        env::consts::ARCH,
        hex::encode(Sha256::digest(library)),
    );
    fs::write(folder.join("plugin.toml"), manifest).unwrap();
}

/// The library with 2 as the major version in its descriptor: a magic, the descriptor's size, the version.
fn of_another_major(library: &[u8]) -> Vec<u8> {
    let mut library = library.to_vec();
    let is_descriptor = |bytes: &[u8]| bytes.starts_with(b"runtplug") && bytes[9..14] == [0, 0, 0, 1, 0];
    let at = library.windows(14).position(is_descriptor).expect("the fixture has a descriptor");
    library[at + 12] = 2;
    library
}
