//! Daemons, kernels' keepers, plugins' processes and clients are killed again and again, and nothing is lost.
//!
//! The clients are the unmodified PyPI client, driven by `kill/life.py`, and a [`Bystander`]; the daemon is ours. A few
//! kills here; `cargo xtask torture kill` is for more.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::{env, fs, io};

use crate::bystander::{Bystander, Place};
use crate::support::Daemon;
use crate::{asked, scripts, tally};

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "conda_pool_size": 0, "uv_pool_size": 0, "keep_alive_secs": 60 }"#;
/// Kills in the ordinary tests: as many as take a minute.
const RUNS: u64 = 6;
/// Blobs that are read again after each kill: those of the last few; all are at the end.
const RECENT: usize = 30;

#[test]
fn nothing_that_was_acknowledged_is_lost() {
    let (seed, kills) = asked(RUNS);
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
        .arg(tests.join("torture/kill/life.py"))
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
    let mut bystander = Beside::Idle(Bystander::new(seed));
    for line in BufReader::new(life.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("live", notebook) => bystander = bystander.begin(Place::of(&daemon), notebook),
            ("killed", _) => {
                daemon.ended();
                let mut idle = bystander.rest();
                daemon = daemon.start_again_with(|_, command| scripts::pass_environment(command));
                idle.check(&Place::of(&daemon), idle.blobs.len().saturating_sub(RECENT)..);
                bystander = Beside::Idle(idle);
                writeln!(answers, "{}", daemon.pid()).unwrap();
            }
            ("rest", _) => {
                let mut idle = bystander.rest();
                idle.check(&Place::of(&daemon), idle.blobs.len().saturating_sub(RECENT)..);
                bystander = Beside::Idle(idle);
                writeln!(answers, "rested").unwrap();
            }
            ("done", counts) => {
                let mut idle = bystander.rest();
                idle.check(&Place::of(&daemon), 0..);
                let (changes, blobs) = (idle.changes, idle.blobs.len());
                tally(&format!("seed {seed}: {counts}, {changes} changed settings, {blobs} blobs"));
                bystander = Beside::Idle(idle);
            }
            _ => println!("{line}"),
        }
    }
    let well = life.wait().unwrap().success();
    let log = fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
    if !well || log.contains("PANIC") {
        let evidence = keep(&daemon, seed);
        panic!(
            "seed {seed}: {}\nThe journals, the files and the log are in {}; `before` is how they were at the last kill.\n\
             Again: cargo xtask torture kill --seed {seed} --runs {kills}",
            fs::read_to_string(&errors).unwrap(),
            evidence.display(),
        );
    }
    daemon.signal("TERM");
    assert!(daemon.ended().success());
}

/// The bystander, which acts only while somebody is about to be killed.
enum Beside {
    Idle(Bystander),
    Acting { thread: JoinHandle<Bystander>, stop: Arc<AtomicBool> },
}

impl Beside {
    /// Lets it act until it is stopped or the connection is lost.
    fn begin(self, daemon: Place, notebook: &str) -> Self {
        let (mut bystander, notebook) = (self.rest(), notebook.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match bystander.act_somehow(&daemon, &notebook) {
                    // An answer that it cannot be stored is nothing that a kill of anybody excuses.
                    Err(error) if error.kind() == io::ErrorKind::Other => panic!("{error}"),
                    Err(_) => break,
                    Ok(()) => {}
                }
            }
            bystander
        });
        Self::Acting { thread, stop }
    }

    /// Lets it end what it is at.
    fn rest(self) -> Bystander {
        match self {
            Self::Idle(bystander) => bystander,
            Self::Acting { thread, stop } => {
                stop.store(true, Ordering::Relaxed);
                thread.join().unwrap()
            }
        }
    }
}

/// Copies what tells what happened out of the daemon's home, which goes with the test.
fn keep(daemon: &Daemon, seed: u64) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kills-{seed}"));
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    // All but environments and caches, which are large.
    let kept =
        ["before", "errors.txt", ".config", ".cache/runt/rooms", ".cache/runt/blobs"].map(PathBuf::from);
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
