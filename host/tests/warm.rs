//! A kernel that is up before anybody wants it: a new notebook gets it, and nothing else ever sees it.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "daemon/support.rs"]
mod support;

#[allow(dead_code, reason = "shared with the tests of the PyPI client, which run scripts")]
#[path = "real_client/scripts.rs"]
mod scripts;

#[path = "warm/alike.rs"]
mod alike;

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use runtimed_client::protocol::documents::notebook::{DependencyKind, NewCell, Place};
use runtimed_client::protocol::documents::runtime_state::{KernelState, Status};
use runtimed_client::protocol::handshake::OpenNotebook;
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::protocol::response::NotebookResponse;
use runtimed_client::{Client, NotebookSession};
use serde_json::json;
use support::Daemon;

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "uv_pool_size": 1, "keep_alive_secs": 60,
    "kernels": { "warm": 1 } }"#;
/// Longest wait for another daemon; only a test that fails takes so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a fresh kernel can tell about itself.
const FRESH: &str =
    "import os; '|'.join(map(str, [os.getpid(), os.getcwd(), (len(In), Out, sorted(globals()))]))";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_notebook_gets_the_kernel_that_waits_and_keeps_it_when_the_daemon_is_killed() {
    let Some(daemon) = start() else { return };
    let (first, _) = open(&daemon, "first").await;
    let first = fresh(&first).await;
    let warm = warm(&daemon, 1);
    let (session, path) = open(&daemon, "another folder/second").await;
    let [pid, cwd, rest] = fresh(&session).await;
    assert_eq!(pid, warm.to_string());
    assert_eq!(Path::new(&cwd), path.parent().unwrap());
    assert_eq!(rest, first[2], "as clean as one that was launched");

    // Nothing but the first flush may have happened since, and another one is warm soon.
    add(&session, "x", "x = object(); id(x), os.getpid()");
    let x = value(&session, "x").await;
    let next = self::warm(&daemon, 2);
    let mut daemon = daemon;
    daemon.signal("KILL");
    daemon.ended();
    until_gone(next);
    let daemon = daemon.start_again_with(|_, command| scripts::pass_environment(command));
    add(&session, "again", "id(x), os.getpid()");
    assert_eq!(value(&session, "again").await, x);

    // What it runs in is still its own: packages go there.
    let cowsay = ["cowsay".to_owned()];
    session.edit(|notebook| notebook.set_dependencies("uv", DependencyKind::Packages, &cowsay)).unwrap();
    let approved = session.request(NotebookRequest::ApproveTrust { observed_heads: None }).await.unwrap();
    assert_eq!(approved, NotebookResponse::Ok);
    let synced = session.request(NotebookRequest::SyncEnvironment { guard: None }).await.unwrap();
    assert_eq!(synced, NotebookResponse::SyncEnvironmentComplete { synced_packages: cowsay.to_vec() });
    add(&session, "cow", "import cowsay; cowsay.__name__, os.getpid()");
    assert_eq!(value(&session, "cow").await, format!("('cowsay', {pid})"));
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_at_once_leaves_its_notebook_the_kernel_it_just_got() {
    let Some(mut daemon) = start() else { return };
    open(&daemon, "first").await.0.ready().await.unwrap();
    let warm = warm(&daemon, 1);
    let (session, _) = open(&daemon, "second").await;
    let runs = |it: &runtimed_client::Documents| {
        matches!(it.runtime_state.kernel_state(), KernelState::Running(_)).then_some(())
    };
    session.wait_for(runs).await.unwrap();
    // Whatever of it is flushed.
    daemon.signal("KILL");
    daemon.ended();
    let daemon = daemon.start_again_with(|_, command| scripts::pass_environment(command));
    add(&session, "pid", "import os; os.getpid()");
    assert_eq!(value(&session, "pid").await, warm.to_string());
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_nobody_got_ends_with_the_daemon_or_when_it_is_of_no_use() {
    let Some(mut daemon) = start() else { return };
    open(&daemon, "first").await.0.ready().await.unwrap();
    let before = warm(&daemon, 1);
    let file = daemon.home.path().join(".config/nteract/settings.json");
    let set = |kernels: u8| {
        let mut settings: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        settings["kernels"]["warm"] = kernels.into();
        fs::write(&file, settings.to_string()).unwrap();
    };
    set(0);
    until_gone(before);
    set(1);
    let flushed = warm(&daemon, 2);
    assert_eq!(daemon.ask(json!({ "type": "flush_pool" }))["type"], "flushed");
    until_gone(flushed);
    let last = warm(&daemon, 3);
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    assert!(!is_running(last), "it is gone before the daemon is");
}

fn start() -> Option<Daemon> {
    if env::var_os("RUNTIMED_TEST_DIST").is_none() {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one (needs the package index).");
        return None;
    }
    Some(scripts::start(SETTINGS, |_| {}))
}

/// Opens a new notebook below the daemon's home.
async fn open(daemon: &Daemon, name: &str) -> (NotebookSession, std::path::PathBuf) {
    let file = daemon.home.path().canonicalize().unwrap().join(format!("work/{name}.ipynb"));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let client = Client::new(&daemon.socket).patient(PATIENCE);
    let open = OpenNotebook { path: file.display().to_string(), ..OpenNotebook::default() };
    let session = NotebookSession::open(&client, open).await.unwrap();
    session.ready().await.unwrap();
    (session, file)
}

/// Process id, folder and what else there is to see in the first cell of a notebook.
async fn fresh(session: &NotebookSession) -> [String; 3] {
    add(session, "fresh", FRESH);
    let value = value(session, "fresh").await;
    let mut parts = value.trim_matches(['\'', '"']).splitn(3, '|').map(str::to_owned);
    [(); 3].map(|()| parts.next().unwrap())
}

/// Runs a cell and returns its value.
async fn value(session: &NotebookSession, cell: &str) -> String {
    let id = session.execute_cell(cell).await.unwrap().execution_id;
    let ended = |it: &runtimed_client::Documents| {
        it.runtime_state.execution(&id).filter(|it| it.status.is_terminal())
    };
    let execution = session.wait_for(ended).await.unwrap();
    let outputs = session.read(|it| it.runtime_state.outputs(&id));
    assert_eq!(execution.status, Status::Done, "{outputs:?}");
    outputs[0].manifest["data"]["text/plain"]["inline"].as_str().unwrap().to_owned()
}

fn add(session: &NotebookSession, id: &str, source: &str) {
    let (id, cell_type, source) = (id.to_owned(), "code".to_owned(), source.to_owned());
    let cell = NewCell { id, cell_type, source, ..NewCell::default() };
    session.edit(|notebook| notebook.insert_cell(Place::End, &cell)).unwrap();
}

/// The process id of the `number`th kernel that the daemon's log calls warm, once it does.
fn warm(daemon: &Daemon, number: usize) -> u32 {
    loop {
        let log = fs::read_to_string(daemon.base().join("runtimed.log")).unwrap_or_default();
        let mut warm = log.lines().filter(|line| line.contains("a kernel is warm"));
        if let Some(line) = warm.nth(number - 1) {
            let pid = line.split_once("pid=").unwrap().1;
            return pid.split(|it: char| !it.is_ascii_digit()).next().unwrap().parse().unwrap();
        }
        // Nothing tells when a log grows.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a process has ended. The system tells nobody but its parent.
fn until_gone(pid: u32) {
    while is_running(pid) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn stop(mut daemon: Daemon) {
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    let log = fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
    assert!(!log.contains("PANIC"), "{log}");
}
