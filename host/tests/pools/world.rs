//! A daemon with pools, and notebooks in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::documents::runtime_state::{Execution, Status};
use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::{Client, Documents, NotebookSession};
use serde_json::{Value, json};

use crate::scripts;
use crate::support::Daemon;

/// A pool of small environments.
pub(crate) fn settings(size: usize) -> Value {
    json!({ "install_default_data_packages": false, "uv_pool_size": size, "keep_alive_secs": 60 })
}

/// A daemon with these settings, after `prepare` had a look at its command; none without a staged build.
pub(crate) fn start(settings: &Value, prepare: impl FnOnce(&mut Command)) -> Option<Daemon> {
    if env::var_os("RUNTIMED_TEST_DIST").is_none() {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one (needs the package index).");
        return None;
    }
    Some(scripts::start(&settings.to_string(), prepare))
}

/// Changes the daemon's settings, as an editor would.
pub(crate) fn change_settings(daemon: &Daemon, change: impl FnOnce(&mut Value)) {
    let file = daemon.home.path().join(".config/nteract/settings.json");
    let mut settings = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut settings);
    let new = file.with_extension("new");
    fs::write(&new, settings.to_string()).unwrap();
    fs::rename(new, file).unwrap();
}

/// The uv pool once it is as wanted.
pub(crate) fn until(daemon: &Daemon, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let pool = daemon.ask(json!({ "type": "status" }))["state"]["uv"].clone();
        if wanted(&pool) {
            return pool;
        }
        pause();
    }
}

/// Waits until the pool is full, everything in it a copy of one template that is as fast as it gets, and what came
/// before is deleted.
pub(crate) fn settled(daemon: &Daemon, size: u64) {
    until(daemon, |pool| {
        let template = templates(daemon).into_iter().any(|(_, template)| template["optimized"] == true);
        let pooled = pooled(daemon).into_iter().filter(|prefix| !prefix.join("lease.json").exists());
        let copied: Vec<_> =
            pooled.map(|prefix| read(&prefix.join("environment.json"))["optimized"] == true).collect();
        let full = pool["available"] == size && pool["warming"] == 0;
        let copies = copied.len() as u64 == size && copied.into_iter().all(|copied| copied);
        template && full && copies && folders(daemon, ".trash-").is_empty()
    });
}

/// Environments of the uv pool, finished or not, taken or not.
pub(crate) fn pooled(daemon: &Daemon) -> Vec<PathBuf> {
    folders(daemon, "runtimed-uv-")
}

/// Templates of the uv pool and their records.
pub(crate) fn templates(daemon: &Daemon) -> Vec<(PathBuf, Value)> {
    let folders = folders(daemon, "template-uv-").into_iter().filter(|path| path.is_dir());
    folders.map(|path| (path.clone(), read(&path.with_extension("json")))).collect()
}

fn folders(daemon: &Daemon, start: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(daemon.base().join("envs")).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
    named.map(|entry| entry.path()).collect()
}

fn read(file: &Path) -> Value {
    fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// What the daemon has written about its work.
pub(crate) fn log(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.base().join("runtimed.log")).unwrap_or_default()
}

/// Between two looks at something that tells nobody when it changes.
pub(crate) fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(10));
}

/// A new notebook.
pub(crate) async fn notebook(daemon: &Daemon) -> NotebookSession {
    let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
    let session = NotebookSession::create(&Client::new(&daemon.socket), create).await.unwrap();
    session.ready().await.unwrap();
    session
}

/// Runs a cell to its end.
pub(crate) async fn run(session: &NotebookSession, cell: &str, source: &str) -> (Execution, String) {
    let (id, cell_type, source) = (cell.to_owned(), "code".to_owned(), source.to_owned());
    let new = NewCell { id, cell_type, source, ..NewCell::default() };
    session.edit(|notebook| notebook.insert_cell(Place::End, &new)).unwrap();
    let queued = session.execute_cell(cell).await;
    let id = queued.unwrap_or_else(|error| panic!("{error}: {}", kernel(session))).execution_id;
    let ended = |it: &Documents| it.runtime_state.execution(&id).filter(|it| it.status.is_terminal());
    let execution = session.wait_for(ended).await.unwrap();
    (execution, format!("{:?}", session.read(|it| it.runtime_state.outputs(&id))))
}

/// How its kernel is.
fn kernel(session: &NotebookSession) -> String {
    session.read(|it| format!("{:?}", it.runtime_state.kernel_state()))
}

/// Runs a cell and returns its value.
pub(crate) async fn value(session: &NotebookSession, cell: &str, source: &str) -> String {
    let (execution, outputs) = run(session, cell, source).await;
    assert_eq!(execution.status, Status::Done, "{outputs} {}", kernel(session));
    let text = session.read(|it| {
        let outputs = it.runtime_state.outputs(&execution.execution_id);
        outputs[0].manifest["data"]["text/plain"]["inline"].as_str().map(str::to_owned)
    });
    text.unwrap().trim_matches('\'').to_owned()
}

/// Where the notebook's interpreter is, as it says itself.
pub(crate) async fn prefix(session: &NotebookSession) -> PathBuf {
    value(session, "prefix", "import sys; sys.prefix").await.into()
}

/// Ends the daemon and its kernels.
pub(crate) fn stop(mut daemon: Daemon) {
    daemon.ask(json!({ "type": "shutdown" }));
    assert!(daemon.ended().success());
    assert!(!log(&daemon).contains("PANIC"), "{}", log(&daemon));
}
