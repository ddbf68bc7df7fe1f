//! The real daemon with libraries that do something bad while they are being opened, before a plugin is even
//! created: they are tried out in a process of their own, and the daemon never opens them.

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

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs, thread};

use serde_json::{Value, json};
use support::Daemon;

/// Pause between two looks at rows that will change.
const PAUSE: Duration = Duration::from_millis(100);

/// Puts a library into a plugin's folder.
fn install(home: &Path, id: &str, make: impl FnOnce(&Path)) {
    let folder = home.join("plugins").join(id);
    fs::create_dir_all(&folder).unwrap();
    make(&folder.join("lib.so"));
    let manifest = format!(
        "manifest_version = 1\nid = \"{id}\"\nname = \"\"\nversion = \"1.2.3\"\nabi = {{ major = 1 }}\n\
         [library]\n{}-{} = {{ path = \"lib.so\" }}\n\
         [[provides]]\ncapability = \"env-provider.v1\"\nname = \"fixture\"\n\
         [[provides]]\ncapability = \"rooms.v1\"\nname = \"echo\"\n\
         [run]\ncarrier = \"in-process\"\n",
        env::consts::OS,
        env::consts::ARCH,
    );
    fs::write(folder.join("plugin.toml"), manifest).unwrap();
}

/// Compiles a library whose constructor is `body`, with the compiler that links Rust programs, too.
fn constructor(body: &str, library: &Path) {
    let source = library.with_extension("c");
    let text = format!(
        "#include <signal.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
         __attribute__((constructor)) static void first(void) {{ {body} }}\n"
    );
    fs::write(&source, text).unwrap();
    let cc = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).arg(&source).status().unwrap();
    assert!(cc.success());
}

/// The library that cargo builds with the tests, seen from the test binary in `target/<profile>/deps`.
fn fixture() -> PathBuf {
    let name = format!("{}plugin_fixture{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let binary = env::current_exe().unwrap();
    binary.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

#[test]
fn constructors_that_hang_crash_or_exit_hurt_nobody() {
    let mut daemon = Daemon::start_with(|home, _| {
        install(home, "a-hang", |library| constructor("for (;;) pause();", library));
        install(home, "a-crash", |library| constructor("raise(SIGSEGV);", library));
        install(home, "an-exit", |library| constructor("exit(0);", library));
        install(home, "fixture", |library| {
            fs::copy(fixture(), library).unwrap();
        });
    });
    let rows = loop {
        let rows = daemon.ask(json!({"type": "list_plugins"}))["plugins"].clone();
        if rows.as_array().unwrap().iter().all(|row| row["status"] != "not_loaded") {
            break rows;
        }
        thread::sleep(PAUSE);
    };
    let row = |id: &str| rows.as_array().unwrap().iter().find(|row| row["id"] == id).unwrap();
    let expect = |id: &str, how: &str| {
        let told = format!(
            "a process that only opened the library of plugin `{id}` {how}; the daemon did not load it; report it \
             to the plugin's author"
        );
        assert_eq!((&row(id)["status"], &row(id)["reason"]), (&json!("refused"), &Value::from(told)));
    };
    expect("a-hang", "did not get that done within 10 s: a constructor in it hangs");
    expect("a-crash", "was ended by signal 11 (SIGSEGV)");
    expect("an-exit", "exited with code 0");
    // It started; that its `verify` panics when its pool is filled is its own affair.
    assert!(["ok", "poisoned"].iter().any(|status| row("fixture")["status"] == *status), "{rows}");
    daemon.signal("TERM");
    assert!(daemon.ended().success());
}
