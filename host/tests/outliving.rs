//! A cell that prints on while its daemon is killed, restarted or replaced by another version.
//!
//! Whoever watches with our client sees it go on; the unmodified PyPI client joins afterwards and sees the same. One
//! life each here, of seconds; `cargo xtask outlive` is for more and longer ones.

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

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use futures_util::{StreamExt as _, stream};
use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::documents::runtime_state::Status;
use runtimed_client::protocol::handshake::OpenNotebook;
use runtimed_client::{Client, NotebookSession};
use support::Daemon;

const SETTINGS: &str =
    r#"{ "install_default_data_packages": false, "uv_pool_size": 1, "keep_alive_secs": 60 }"#;
/// Longest wait for another daemon, in seconds; only a test that fails takes so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// Numbers a second.
const RATE: u64 = 100;
/// Daemons at a time: their kernels sleep most of the time.
const AT_ONCE: usize = 5;

/// How the daemon goes.
#[derive(Debug, Clone, Copy)]
enum End {
    Killed,
    /// By `runt daemon restart`.
    Restarted,
    /// Its follower is this program, of another version.
    Upgraded,
}

/// What happens when.
#[derive(Debug)]
struct Life {
    end: End,
    /// Length of the cell in seconds.
    seconds: u64,
    /// How many numbers are seen before the daemon goes.
    after: u64,
    /// How long there is no daemon.
    gone: Duration,
}

impl Life {
    fn random(end: End, seconds: u64) -> Self {
        let random = |below: u64| RandomState::new().build_hasher().finish() % below;
        let gone = Duration::from_millis(random(seconds * 350));
        Self { end, seconds, after: random(seconds * RATE * 9 / 10), gone }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_prints_every_number_once_whatever_becomes_of_the_daemon() {
    let asked = |name: &str| env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    if ["RUNTIMED_TEST_CLIENT_PYTHON", "RUNTIMED_TEST_DIST"].iter().any(|name| env::var_os(name).is_none()) {
        eprintln!("skipped: no PyPI client here. `cargo xtask test` installs it (needs the package index).");
        return;
    }
    let ends: &[End] = match env::var_os("RUNT_OUTLIVE_UPGRADE") {
        Some(_) => &[End::Killed, End::Restarted, End::Upgraded],
        None => &[End::Killed, End::Restarted],
    };
    let runs = asked("RUNT_OUTLIVE_RUNS").map_or(ends.len(), |runs| usize::try_from(runs).unwrap());
    let seconds = asked("RUNT_OUTLIVE_SECS").unwrap_or(3);
    let lives = ends.iter().cycle().take(runs).map(|end| Life::random(*end, seconds));
    let mut lives = stream::iter(lives).map(|life| tokio::spawn(live(life))).buffer_unordered(AT_ONCE);
    while let Some(life) = lives.next().await {
        println!("{}", life.unwrap());
    }
}

async fn live(life: Life) -> String {
    let mut daemon = scripts::start(SETTINGS, |_| {});
    let file = daemon.home.path().canonicalize().unwrap().join("work/file.ipynb");
    let client = Client::new(&daemon.socket).patient(PATIENCE);
    let open = OpenNotebook { path: file.display().to_string(), ..OpenNotebook::default() };
    let session = NotebookSession::open(&client, open).await.unwrap();
    session.ready().await.unwrap();
    let numbers = life.seconds * RATE;
    add(&session, "begin", "import os, time\nx = object()");
    add(&session, "pid", "id(x), os.getpid()");
    add(&session, "counts", &format!("for i in range({numbers}):\n    print(i)\n    time.sleep(1 / {RATE})"));
    session.execute_cell("begin").await.unwrap();
    let who = value(&session, "pid").await;
    let counts = session.execute_cell("counts").await.unwrap().execution_id;
    let text = || {
        let outputs = session.read(|it| it.runtime_state.outputs(&counts));
        let texts = outputs.iter().map(|it| it.manifest["text"]["inline"].as_str().unwrap_or_default());
        texts.collect::<String>()
    };
    let mut changes = session.changes();
    while (text().lines().count() as u64) < life.after {
        changes.next().await.unwrap();
    }

    let before = client.ping().await.unwrap().daemon_version;
    let restarted = matches!(life.end, End::Restarted).then(|| Restarted::of(&daemon));
    if restarted.is_none() {
        daemon.signal(if matches!(life.end, End::Killed) { "KILL" } else { "TERM" });
    }
    daemon.ended();
    if restarted.is_none() {
        tokio::time::sleep(life.gone).await;
        daemon = daemon.start_again_with(|_, command| {
            if let (End::Upgraded, Some(program)) = (life.end, env::var_os("RUNT_OUTLIVE_UPGRADE")) {
                let mut newer = Command::new(program);
                newer.args(command.get_args()).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
                newer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
                *command = newer;
            }
            scripts::pass_environment(command);
        });
    }
    let after = client.ping().await.unwrap().daemon_version;
    assert_eq!(before != after, matches!(life.end, End::Upgraded), "{before:?} {after:?}");

    // The session that was there all the time.
    let done = session
        .wait_for(|it| it.runtime_state.execution(&counts).filter(|it| it.status.is_terminal()))
        .await
        .unwrap();
    assert_eq!((done.status, done.execution_count), (Status::Done, Some(3)), "{life:?}");
    let expected: String = (0..numbers).map(|number| format!("{number}\n")).collect();
    assert!(text() == expected, "{life:?}: every number once, in order\n{}", text());
    assert_eq!(value(&session, "pid").await, who, "{life:?}: the same process with the same variables");
    // One that comes now.
    let python = env::var_os("RUNTIMED_TEST_CLIENT_PYTHON").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_client/outlived.py");
    let joined = Command::new(python)
        .arg("-B")
        .arg(script)
        .args([session.notebook_id().unwrap(), numbers.to_string(), who.clone()])
        .env("HOME", daemon.home.path())
        .env("RUNTIMED_SOCKET_PATH", &daemon.socket)
        .output();
    let joined = joined.unwrap();
    assert!(joined.status.success(), "{life:?}\n{}", String::from_utf8_lossy(&joined.stderr));
    let log = daemon.base().join("runtimed.log");
    match restarted {
        Some(restarted) => restarted.stop(&daemon),
        None => {
            daemon.signal("TERM");
            assert!(daemon.ended().success());
        }
    }
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("PANIC"), "{log}");
    format!("{life:?}: all there, process and variables {who}")
}

/// Runs a cell and returns its value.
async fn value(session: &NotebookSession, cell: &str) -> String {
    let id = session.execute_cell(cell).await.unwrap().execution_id;
    let ended = |it: &runtimed_client::Documents| {
        it.runtime_state.execution(&id).filter(|it| it.status.is_terminal())
    };
    assert_eq!(session.wait_for(ended).await.unwrap().status, Status::Done);
    let outputs = session.read(|it| it.runtime_state.outputs(&id));
    outputs[0].manifest["data"]["text/plain"]["inline"].as_str().unwrap().to_owned()
}

fn add(session: &NotebookSession, id: &str, source: &str) {
    let (id, cell_type, source) = (id.to_owned(), "code".to_owned(), source.to_owned());
    let cell = NewCell { id, cell_type, source, ..NewCell::default() };
    session.edit(|notebook| notebook.insert_cell(Place::End, &cell)).unwrap();
}

/// A daemon that `runt daemon restart` started. Ended when dropped.
struct Restarted {
    pid: String,
}

impl Restarted {
    fn of(daemon: &Daemon) -> Self {
        let dist = PathBuf::from(env::var_os("RUNTIMED_TEST_DIST").unwrap());
        let mut runt = Command::new(dist.join("bin/runt"));
        let like = support::command(daemon.home.path());
        runt.args(["daemon", "restart", "--json"]).env_clear();
        runt.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        scripts::pass_environment(&mut runt);
        let done = runt.env("RUNTIMED_SOCKET_PATH", &daemon.socket).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let restarted = Self { pid: said["pid"].to_string() };
        assert_eq!(said["kernels_not_back"], serde_json::json!([]), "{said}");
        restarted
    }

    fn stop(self, daemon: &Daemon) {
        daemon.ask(serde_json::json!({"type": "shutdown"}));
        // Nobody's child any more.
        while fs::read_to_string(format!("/proc/{}/stat", self.pid)).is_ok_and(|stat| !stat.contains(") Z "))
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        Command::new("kill").args(["-KILL", &self.pid]).stderr(Stdio::null()).status().ok();
    }
}
