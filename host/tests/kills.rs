//! A daemon that is killed again and again while two clients edit, run and save, and loses nothing.
//!
//! The clients are the unmodified PyPI client, driven by `kills/life.py`; the daemon is ours. A few kills
//! here; `cargo xtask kills` is for more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "daemon/support.rs"]
mod support;

#[allow(dead_code, reason = "shared with the tests of the PyPI client, which run scripts")]
#[path = "real_client/scripts.rs"]
mod scripts;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use support::Daemon;

const SETTINGS: &str =
    r#"{ "install_default_data_packages": false, "uv_pool_size": 0, "keep_alive_secs": 60 }"#;

#[test]
fn nothing_that_was_acknowledged_is_lost() {
    let asked = |name: &str| env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    // As many as take 20 s.
    let (seed, kills) = (asked("RUNT_KILLS_SEED").unwrap_or(1), asked("RUNT_KILLS_RUNS").unwrap_or(4));
    let tools = ["RUNTIMED_TEST_CLIENT_PYTHON", "RUNTIMED_TEST_DIST"].map(env::var_os);
    let [Some(python), Some(_)] = tools else {
        eprintln!("skipped: no PyPI client here. `cargo xtask test` installs it (needs the package index).");
        return;
    };
    let mut daemon = scripts::start(SETTINGS, |_| {});
    let errors = daemon.home.path().join("errors.txt");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut life = Command::new(python)
        .arg("-B")
        .arg(tests.join("kills/life.py"))
        .args([seed, kills].map(|number| number.to_string()))
        .env("PYTHONPATH", tests.join("real_client"))
        .env("HOME", daemon.home.path())
        .env("RUNTIMED_SOCKET_PATH", &daemon.socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    let mut answers = life.stdin.take().unwrap();
    writeln!(answers, "{}", daemon.pid()).unwrap();
    for line in BufReader::new(life.stdout.take().unwrap()).lines() {
        match line.unwrap().as_str() {
            "killed" => {
                daemon.ended();
                daemon = daemon.start_again_with(|_, command| scripts::pass_environment(command));
                writeln!(answers, "{}", daemon.pid()).unwrap();
            }
            line => println!("{line}"),
        }
    }
    let well = life.wait().unwrap().success();
    let log = fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
    if !well || log.contains("PANIC") {
        let evidence = keep(&daemon, seed);
        panic!(
            "seed {seed}: {}\nThe journals, the files and the log are in {}; `before` is how they were at the last kill.\n\
             Again: cargo xtask kills --seed {seed} --runs {kills}",
            fs::read_to_string(&errors).unwrap(),
            evidence.display(),
        );
    }
    daemon.signal("TERM");
    assert!(daemon.ended().success());
}

/// Copies what tells what happened out of the daemon's home, which goes with the test.
fn keep(daemon: &Daemon, seed: u64) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kills-{seed}"));
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    // All but environments and caches, which are large.
    let kept = ["before", "errors.txt", ".cache/runt/rooms", ".cache/runt/blobs"].map(PathBuf::from);
    let home =
        fs::read_dir(daemon.home.path()).unwrap().map(|entry| PathBuf::from(entry.unwrap().file_name()));
    let notebooks = home.filter(|name| name.to_string_lossy().starts_with("tmp"));
    let base = fs::read_dir(daemon.base()).unwrap().map(|entry| entry.unwrap().file_name());
    let logs = base
        .filter(|name| name.to_string_lossy().contains(".log"))
        .map(|name| Path::new(".cache/runt").join(name));
    for path in kept.into_iter().chain(notebooks).chain(logs) {
        Command::new("cp").arg("-r").arg(daemon.home.path().join(path)).arg(&folder).status().unwrap();
    }
    folder
}
