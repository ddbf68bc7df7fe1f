//! A daemon that is killed while clients edit and execute, and the one that comes after it.
//!
//! `cargo xtask test` prepares kernels and says where they are; without them the tests say so and pass.

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

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::documents::runtime_state::{Execution, Status};
use runtimed_client::protocol::documents::{Document as _, Output};
use runtimed_client::protocol::handshake::{CreateNotebook, OpenNotebook};
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::{Client, Documents, NotebookSession};
use serde_json::{Value, json};
use support::Daemon;

const SETTINGS: &str =
    r#"{ "install_default_data_packages": false, "uv_pool_size": 1, "keep_alive_secs": 60 }"#;

/// A notebook as somebody sees it.
#[derive(Debug, PartialEq)]
struct Seen {
    notebook_id: String,
    content: Value,
    /// Hashes of all changes of the notebook.
    changes: BTreeSet<String>,
}

fn start() -> Option<Daemon> {
    start_with(|_| {})
}

/// The same, after `prepare` had a look at its command.
fn start_with(prepare: impl FnOnce(&mut Command)) -> Option<Daemon> {
    if env::var_os("RUNTIMED_TEST_DIST").is_none() {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
        return None;
    }
    Some(scripts::start(SETTINGS, prepare))
}

/// Kills the daemon and its kernels, and starts another in its place.
fn kill(daemon: Daemon) -> Daemon {
    kill_and(daemon, Daemon::end_kernels)
}

/// The same, with something done in between.
fn kill_and(mut daemon: Daemon, between: impl FnOnce(&Daemon)) -> Daemon {
    daemon.signal("KILL");
    daemon.ended();
    between(&daemon);
    daemon.start_again_with(|_, command| scripts::pass_environment(command))
}

/// Stops the daemon the way a service manager does, and starts another in its place.
fn restart(mut daemon: Daemon) -> Daemon {
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    daemon.start_again_with(|_, command| scripts::pass_environment(command))
}

fn stop(mut daemon: Daemon) {
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    let log = fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
    assert!(!log.contains("PANIC"), "{log}");
}

async fn open(client: &Client, path: &Path) -> NotebookSession {
    let open = OpenNotebook { path: path.display().to_string(), ..OpenNotebook::default() };
    let session = NotebookSession::open(client, open).await.unwrap();
    session.ready().await.unwrap();
    session
}

async fn join(client: &Client, id: &str) -> NotebookSession {
    let session = NotebookSession::join(client, id).await.unwrap();
    session.ready().await.unwrap();
    session
}

fn add(session: &NotebookSession, id: &str, source: &str) {
    let cell = NewCell {
        id: id.to_owned(),
        cell_type: "code".to_owned(),
        source: source.to_owned(),
        ..NewCell::default()
    };
    session.edit(|notebook| notebook.insert_cell(Place::End, &cell)).unwrap();
}

async fn run(session: &NotebookSession, cell: &str) -> String {
    session.execute_cell(cell).await.unwrap().execution_id
}

/// Waits until an execution is where `wanted` says.
async fn until(session: &NotebookSession, id: &str, wanted: impl Fn(&Execution) -> bool) -> Execution {
    session.wait_for(|it| it.runtime_state.execution(id).filter(|it| wanted(it))).await.unwrap()
}

fn outputs(session: &NotebookSession, id: &str) -> Vec<Value> {
    session.read(|it| it.runtime_state.outputs(id).into_iter().map(|output| output.manifest).collect())
}

fn see(session: &NotebookSession) -> Seen {
    session.read(|documents| Seen {
        notebook_id: documents.notebook.notebook_id().unwrap(),
        content: documents.notebook.to_json(),
        changes: documents
            .notebook
            .automerge()
            .clone()
            .get_changes(&[])
            .iter()
            .map(|change| change.hash().to_string())
            .collect(),
    })
}

/// Waits until the daemon has what was edited here.
async fn acknowledged(session: &NotebookSession) {
    session.request(NotebookRequest::AcknowledgeNotebookSync).await.unwrap();
}

/// Exit code and output of `runt` beside this daemon.
fn runt(daemon: &Daemon, arguments: &[&str]) -> (i32, String, String) {
    let dist = PathBuf::from(env::var_os("RUNTIMED_TEST_DIST").unwrap());
    let mut command = Command::new(dist.join("bin/runt"));
    command.args(arguments).env("HOME", daemon.home.path()).env("RUNTIMED_SOCKET_PATH", &daemon.socket);
    let done = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

fn journal_of(daemon: &Daemon, untitled: &str) -> PathBuf {
    daemon.base().join(format!("rooms/{untitled}.journal"))
}

fn journals(daemon: &Daemon) -> Vec<PathBuf> {
    fs::read_dir(daemon.base().join("rooms")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_edit_output_and_count_outlives_the_daemon() {
    let Some(daemon) = start() else { return };
    let client = Client::new(&daemon.socket);
    let file = daemon.home.path().canonicalize().unwrap().join("work/file.ipynb");

    let untitled = NotebookSession::create(
        &client,
        CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() },
    );
    let untitled = untitled.await.unwrap();
    untitled.ready().await.unwrap();
    add(&untitled, "a", "print('hello')\n6 * 7");
    let done = run(&untitled, "a").await;
    assert_eq!(until(&untitled, &done, |it| it.status.is_terminal()).await.status, Status::Done);
    add(&untitled, "typed", "never_run = 1");
    acknowledged(&untitled).await;

    let titled = open(&client, &file).await;
    add(&titled, "saved", "print('begun', flush=True)\nimport time; time.sleep(600)");
    titled.request(NotebookRequest::SaveNotebook { format_cells: false, path: None }).await.unwrap();
    add(&titled, "waits", "1");
    let (running, waiting) = (run(&titled, "saved").await, run(&titled, "waits").await);
    titled.wait_for(|it| (!it.runtime_state.outputs(&running).is_empty()).then_some(())).await.unwrap();
    add(&titled, "unsaved", "x = 1");
    acknowledged(&titled).await;

    let before = [see(&untitled), see(&titled)];
    let shown = outputs(&untitled, &done);
    assert_eq!(shown.len(), 2);
    let daemon = kill(daemon);
    let client = Client::new(&daemon.socket);
    assert_eq!(client.list_rooms().await.unwrap().rooms, []);

    let untitled = join(&client, &before[0].notebook_id).await;
    assert_eq!(see(&untitled), before[0], "the same changes, none of them made anew");
    assert_eq!(outputs(&untitled, &done), shown);
    let ended = untitled.read(|it| it.runtime_state.execution(&done)).unwrap();
    assert_eq!((ended.status, ended.execution_count, ended.success), (Status::Done, Some(1), Some(true)));

    let titled = open(&client, &file).await;
    assert_eq!(see(&titled), before[1], "by its file, too");
    let by_id = join(&client, &before[1].notebook_id).await;
    assert_eq!(see(&by_id), before[1]);
    let ended =
        titled.read(|it| [&running, &waiting].map(|id| it.runtime_state.execution(id).unwrap().status));
    assert_eq!(ended, [Status::Error, Status::Cancelled]);
    let shown = outputs(&titled, &running);
    assert_eq!(shown[0]["text"]["inline"], "begun\n");
    let Some(Output::Error { ename, .. }) = Output::from_json(&shown[1]) else { panic!("{shown:?}") };
    assert_eq!(ename, "DaemonEnded");

    // What had not reached the file does so by itself.
    let mut changes = titled.changes();
    loop {
        let saved = fs::read_to_string(&file).unwrap();
        if saved.contains("x = 1") && saved.contains("DaemonEnded") {
            break;
        }
        changes.next().await.unwrap();
    }

    // Life goes on: the next execution has the next number, and the next daemon has it as well.
    let again = run(&untitled, "a").await;
    assert_eq!(until(&untitled, &again, |it| it.status.is_terminal()).await.seq, Some(1));
    let before = see(&untitled);
    let daemon = kill(daemon);
    let untitled = join(&Client::new(&daemon.socket), &before.notebook_id).await;
    assert_eq!(see(&untitled), before);
    assert_eq!(outputs(&untitled, &again).len(), 2);
    assert_eq!(journals(&daemon).len(), 2, "a journal for each notebook");
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_goes_on_while_there_is_no_daemon() {
    let Some(daemon) = start() else { return };
    let file = daemon.home.path().canonicalize().unwrap().join("work/file.ipynb");
    let session = open(&Client::new(&daemon.socket), &file).await;
    let code = "import os, time\nx = os.getpid()\nfor i in range(200):\n    print(i, flush=True)\n    time.sleep(0.02)";
    add(&session, "counts", code);
    add(&session, "waits", "x == os.getpid()");
    let (counts, waits) = (run(&session, "counts").await, run(&session, "waits").await);
    let text = |session: &NotebookSession| {
        let first = outputs(session, &counts).into_iter().next();
        first.and_then(|output| Some(output["text"]["inline"].as_str()?.to_owned())).unwrap_or_default()
    };
    let mut changes = session.changes();
    while text(&session).lines().count() < 20 {
        changes.next().await.unwrap();
    }
    let id = see(&session).notebook_id;
    // One daemon dies over it, and one is restarted.
    let daemon = kill_and(daemon, |_| {});
    let session = join(&Client::new(&daemon.socket), &id).await;
    let status = |id: &str| session.read(|it| it.runtime_state.execution(id).unwrap().status);
    assert_eq!([status(&counts), status(&waits)], [Status::Running, Status::Queued]);
    let before = text(&session).lines().count();
    let mut changes = session.changes();
    while text(&session).lines().count() <= before {
        changes.next().await.unwrap();
    }
    let daemon = restart(daemon);
    let session = open(&Client::new(&daemon.socket), &file).await;
    let done = until(&session, &counts, |it| it.status.is_terminal()).await;
    assert_eq!((done.status, done.execution_count), (Status::Done, Some(1)));
    let all: Vec<_> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(text(&session).lines().collect::<Vec<_>>(), all, "every number once, in order");
    assert_eq!(outputs(&session, &counts).len(), 1);
    let done = until(&session, &waits, |it| it.status.is_terminal()).await;
    assert_eq!((done.status, done.execution_count), (Status::Done, Some(2)));
    assert_eq!(outputs(&session, &waits)[0]["data"]["text/plain"]["inline"], "True");
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn kernels_end_with_a_daemon_that_is_asked_to_stop() {
    let Some(mut daemon) = start() else { return };
    let file = daemon.home.path().canonicalize().unwrap().join("work/file.ipynb");
    let client = Client::new(&daemon.socket);
    let session = open(&client, &file).await;
    add(&session, "pid", "import os; os.getpid()");
    let pid = run(&session, "pid").await;
    until(&session, &pid, |it| it.status.is_terminal()).await;
    let pid = outputs(&session, &pid)[0]["data"]["text/plain"]["inline"].as_str().unwrap().to_owned();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    client.shutdown().await.unwrap();
    assert!(daemon.ended().success());
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the kernel has ended before its daemon");
    assert!(fs::read_to_string(&file).unwrap().contains("os.getpid()"));
}

/// The journal holds edits that the file lacks, and by the next start another program has changed the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_changed_while_no_daemon_ran_is_merged() {
    let Some(daemon) = start() else { return };
    let file = daemon.home.path().canonicalize().unwrap().join("work/file.ipynb");
    let session = open(&Client::new(&daemon.socket), &file).await;
    for (id, source) in [("a", "1\n2\n3"), ("b", "b")] {
        add(&session, id, source);
    }
    session.request(NotebookRequest::SaveNotebook { format_cells: false, path: None }).await.unwrap();
    session.edit(|notebook| notebook.set_source("a", "1\n2\nhere")).unwrap();
    acknowledged(&session).await;
    let before = see(&session);
    let daemon = kill(daemon);

    let saved = fs::read_to_string(&file).unwrap();
    assert!(saved.contains("\"1\\n\"") && !saved.contains("here"), "{saved}");
    fs::write(&file, saved.replace("\"1\\n\"", "\"there\\n\"").replace("\"b\"\n", "\"B\"\n")).unwrap();
    let session = open(&Client::new(&daemon.socket), &file).await;
    let sources = ["a", "b"].map(|id| session.read(|it| it.notebook.source(id)).unwrap());
    assert_eq!(sources, ["there\n2\nhere", "B"], "there before anybody sees it");
    let after = see(&session);
    assert_eq!(after.notebook_id, before.notebook_id);
    assert!(before.changes.iter().all(|change| after.changes.contains(change)), "nothing is made anew");
    session.request(NotebookRequest::SaveNotebook { format_cells: false, path: None }).await.unwrap();
    let merged = fs::read_to_string(&file).unwrap();
    assert!(merged.contains("there") && merged.contains("here") && merged.contains("\"B\""), "{merged}");

    // A formatter changes nothing but the looks, and all ids.
    let mut formatted: Value = serde_json::from_str(&merged).unwrap();
    for (index, cell) in formatted["cells"].as_array_mut().unwrap().iter_mut().enumerate() {
        cell["id"] = format!("new-{index}").into();
    }
    let daemon = kill(daemon);
    fs::write(&file, formatted.to_string()).unwrap();
    let before = see(&session).content["cells"].clone();
    let session = open(&Client::new(&daemon.socket), &file).await;
    assert_eq!(see(&session).content["cells"], before, "the same cells under the same ids");
    let daemon = kill(daemon);
    let session = open(&Client::new(&daemon.socket), &file).await;
    assert_eq!(see(&session).content["cells"], before, "and so at the next start");
    assert_eq!(fs::read_to_string(&file).unwrap(), formatted.to_string(), "with nothing to save");
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notebook_saved_under_another_name_is_found_by_that_name() {
    let Some(daemon) = start() else { return };
    let client = Client::new(&daemon.socket);
    let folder = daemon.home.path().canonicalize().unwrap();
    let session = open(&client, &folder.join("a.ipynb")).await;
    add(&session, "c", "x = 1");
    let path = Some(folder.join("b.ipynb").display().to_string());
    session.request(NotebookRequest::SaveNotebook { format_cells: false, path }).await.unwrap();
    add(&session, "d", "typed after the save");
    acknowledged(&session).await;
    let before = see(&session);

    let daemon = kill(daemon);
    let client = Client::new(&daemon.socket);
    let session = open(&client, &folder.join("b.ipynb")).await;
    assert_eq!(see(&session), before);
    let former = open(&client, &folder.join("a.ipynb")).await;
    assert_ne!(see(&former).notebook_id, before.notebook_id, "the former name belongs to nobody");

    // Killed before the journal had its new name: whoever comes first by the id mends that.
    let daemon = kill_and(daemon, |daemon| {
        daemon.end_kernels();
        let is_its = |path: &PathBuf| path.to_string_lossy().contains(&before.notebook_id);
        let named = journals(daemon).into_iter().find(is_its).unwrap();
        fs::rename(named, journal_of(daemon, &before.notebook_id)).unwrap();
    });
    let client = Client::new(&daemon.socket);
    assert_eq!(see(&join(&client, &before.notebook_id).await), before);
    let daemon = kill(daemon);
    let session = open(&Client::new(&daemon.socket), &folder.join("b.ipynb")).await;
    assert_eq!(see(&session), before);
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_cut_off_or_set_aside_and_told() {
    let Some(daemon) = start() else { return };
    let client = Client::new(&daemon.socket);
    let create = || CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
    let mut ids = Vec::new();
    for name in ["torn", "corrupt", "headless", "newer"] {
        let session = NotebookSession::create(&client, create()).await.unwrap();
        session.ready().await.unwrap();
        for number in 0..3 {
            add(&session, &format!("{name} {number}"), name);
            acknowledged(&session).await;
        }
        ids.push(see(&session).notebook_id);
    }
    let mut daemon = daemon;
    daemon.signal("KILL");
    daemon.ended();
    daemon.end_kernels();
    let journal = |id: &str| journal_of(&daemon, id);
    let damage = |id: &str, damage: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(journal(id)).unwrap();
        damage(&mut bytes);
        fs::write(journal(id), &bytes).unwrap();
        bytes
    };
    damage(&ids[0], &|bytes| bytes.extend(b"half a record"));
    let corrupt = damage(&ids[1], &|bytes| {
        // In the last record that holds the last cell, with others behind it.
        let place = bytes.windows(9).rposition(|it| it == b"corrupt 2").unwrap();
        bytes[place] ^= 1;
        let (first, second) = (bytes.clone(), fs::read(journal(&ids[0])).unwrap());
        *bytes = [&first[..], &second[32..second.len() - 13]].concat();
    });
    damage(&ids[2], &|bytes| bytes[3] ^= 1);
    let newer = damage(&ids[3], &|bytes| {
        bytes[8] = 9;
        let sum = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&sum.to_le_bytes());
    });

    let daemon = daemon.start_again_with(|_, command| scripts::pass_environment(command));
    let client = Client::new(&daemon.socket);
    let found = client.verify_notebooks(false).await.unwrap();
    let found = ids.iter().map(|id| found.notebooks.iter().find(|it| it.notebook_id == *id).unwrap());
    let found: Vec<_> = found.map(|it| (it.state.as_str(), it.cells, it.is_safe())).collect();
    let expected = [("torn", 4, false), ("damaged", 3, false), ("unreadable", 0, false), ("newer", 0, false)];
    assert_eq!(found, expected);
    assert_eq!(fs::read(journal_of(&daemon, &ids[1])).unwrap(), corrupt, "looking changes nothing");
    let cells = |session: &NotebookSession| session.read(|it| it.notebook.cell_count());
    assert_eq!(cells(&join(&client, &ids[0]).await), 4);

    let session = join(&client, &ids[1]).await;
    assert_eq!(cells(&session), 3, "what was whole before the damage");
    let told = session.read(|it| it.runtime_state.file_checkpoint());
    assert_eq!(told.source_issue_kind, "degraded");
    let aside = told.source_issue_reason.split('`').nth(1).unwrap().to_owned();
    assert!(aside.contains("/rooms/quarantine/"), "{aside}");
    assert_eq!(fs::read(aside).unwrap(), corrupt, "all of it is there");

    let refusal = NotebookSession::join(&client, ids[2].clone()).await.err().unwrap().to_string();
    assert!(refusal.contains("/rooms/quarantine/") && refusal.contains("Kept: the journal"), "{refusal}");
    let refusal = NotebookSession::join(&client, ids[3].clone()).await.err().unwrap().to_string();
    assert!(refusal.contains("newer version of runtimed (format 9)"), "{refusal}");
    assert_eq!(fs::read(journal_of(&daemon, &ids[3])).unwrap(), newer, "left as it is");
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_can_be_checked_mended_and_taken_out_by_hand() {
    let Some(daemon) = start() else { return };
    assert_eq!(runt(&daemon, &["verify"]), (0, "Nothing is kept of any notebook.\n".into(), String::new()));
    let client = Client::new(&daemon.socket);
    let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
    let session = NotebookSession::create(&client, create).await.unwrap();
    session.ready().await.unwrap();
    add(&session, "picture", "from IPython.display import Image\nImage(bytes(9999), format='png')");
    let done = run(&session, "picture").await;
    until(&session, &done, |it| it.status.is_terminal()).await;
    let id = see(&session).notebook_id;
    let blob = outputs(&session, &done)[0]["data"]["image/png"]["blob"].as_str().unwrap().to_owned();
    let (code, said, _) = runt(&daemon, &["verify"]);
    assert!(code == 0 && said.contains("not all of it is in a file; open"), "{said}");
    assert!(said.ends_with("All of it can be brought back.\n"), "{said}");

    let mut daemon = daemon;
    daemon.signal("KILL");
    daemon.ended();
    daemon.end_kernels();
    let journal = journal_of(&daemon, &id);
    let whole = fs::read(&journal).unwrap();
    fs::write(&journal, [&whole[..], b"torn"].concat()).unwrap();
    let daemon = daemon.start_again_with(|_, command| scripts::pass_environment(command));
    let (code, said, hint) = runt(&daemon, &["verify"]);
    assert!(code == 1 && said.contains("its end is missing") && hint.contains("--repair"), "{said}{hint}");
    let (code, said, _) = runt(&daemon, &["verify", "--repair", "--json"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &report["notebooks"][0]["repaired"]), (0, &"the torn end was cut off".into()));
    assert_eq!(fs::read(&journal).unwrap(), whole);

    let file = daemon.home.path().join("out.ipynb");
    let output = file.to_str().unwrap();
    let (code, said, _) = runt(&daemon, &["recover", "--list"]);
    assert!(code == 0 && said.contains(&id) && said.contains("(untitled)"), "{said}");
    let (code, said, error) = runt(&daemon, &["recover", &id, "--output", output]);
    assert_eq!((code, said.as_str()), (0, "Wrote 2 cells to ~/out.ipynb\n"), "{error}");
    let saved: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let picture = &saved["cells"][1];
    assert_eq!((&picture["id"], &picture["execution_count"]), (&"picture".into(), &1.into()));
    assert_eq!(picture["outputs"][0]["data"]["image/png"].as_str().unwrap().len(), 9999 / 3 * 4);
    let (code, _, error) = runt(&daemon, &["recover", &id, "--output", output]);
    assert!(code == 1 && error.contains("is there already"), "{error}");
    let (code, _, error) = runt(&daemon, &["recover", "/etc/passwd", "--output", "/nowhere/x.ipynb"]);
    assert!(code == 1 && error.contains("Nothing is kept of the notebook"), "{error}");

    fs::remove_file(daemon.base().join("blobs").join(&blob[..2]).join(&blob[2..])).unwrap();
    let (code, said, _) = runt(&daemon, &["verify"]);
    assert!(code == 1 && said.contains("1 outputs have lost their content"), "{said}");
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_told_and_made_up_for() {
    let Some(daemon) = start() else { return };
    let client = Client::new(&daemon.socket);
    // Where the folder of journals would be there is something else.
    let rooms = daemon.base().join("rooms");
    fs::write(&rooms, "").unwrap();
    let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
    let session = NotebookSession::create(&client, create).await.unwrap();
    session.ready().await.unwrap();
    let issue = |documents: &Documents| documents.runtime_state.file_checkpoint().source_issue_reason;
    let told = session.wait_for(|it| Some(issue(it)).filter(|reason| !reason.is_empty())).await.unwrap();
    assert!(told.starts_with("The journal of this notebook cannot be written: "), "{told}");
    add(&session, "kept", "in memory");
    acknowledged(&session).await;

    fs::remove_file(&rooms).unwrap();
    session.wait_for(|it| issue(it).is_empty().then_some(())).await.unwrap();
    let before = see(&session);
    let daemon = kill(daemon);
    let session = join(&Client::new(&daemon.socket), &before.notebook_id).await;
    assert_eq!(see(&session), before);
    stop(daemon);
}

/// The file is the only place where its outputs are: a save must not write that they are missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_its_outputs_though_they_cannot_be_stored_when_it_is_opened() {
    let Some(daemon) = start() else { return };
    let client = Client::new(&daemon.socket);
    let path = daemon.home.path().join("large.ipynb");
    let shown = |output: &str| {
        let data = json!({ "text/plain": [output.repeat(100_000)] });
        json!({ "cell_type": "code", "id": "large", "metadata": {}, "source": [], "execution_count": 1,
            "outputs": [{ "output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": data }] })
    };
    let write = |cells: Value| {
        let file = json!({ "cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5 });
        fs::write(&path, file.to_string()).unwrap();
    };
    let in_file = || -> Value {
        let file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        file["cells"][0]["outputs"][0]["data"]["text/plain"].clone()
    };
    write(json!([shown("a")]));
    // Where the folder of blobs is there is something else.
    let (blobs, aside) = (daemon.base().join("blobs"), daemon.base().join("blobs-aside"));
    let _ = fs::rename(&blobs, &aside);
    fs::write(&blobs, "").unwrap();

    let session = open(&client, &path).await;
    let issue = |documents: &Documents| documents.runtime_state.file_checkpoint().source_issue_reason;
    let told = session.wait_for(|it| Some(issue(it)).filter(|reason| !reason.is_empty())).await.unwrap();
    assert!(told.contains("cannot be written"), "{told}");
    add(&session, "new", "x = 1");
    session.request(NotebookRequest::SaveNotebook { format_cells: false, path: None }).await.unwrap();
    assert_eq!(in_file(), json!(["a".repeat(100_000)]));
    // So it is when another program writes the file.
    write(json!([shown("b")]));
    session.wait_for(|it| (it.notebook.cell_count() == 1).then_some(())).await.unwrap();
    add(&session, "newer", "x = 2");
    session.request(NotebookRequest::SaveNotebook { format_cells: false, path: None }).await.unwrap();
    assert_eq!(in_file(), json!(["b".repeat(100_000)]));

    fs::remove_file(&blobs).unwrap();
    let _ = fs::rename(&aside, &blobs);
    session.wait_for(|it| issue(it).is_empty().then_some(())).await.unwrap();
    let before = see(&session);
    let daemon = kill(daemon);
    let session = open(&Client::new(&daemon.socket), &path).await;
    assert_eq!(see(&session), before);
    let (code, said, _) = runt(&daemon, &["verify"]);
    assert!(code == 0, "{said}");
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_journal_is_made_short_while_it_is_written() {
    let Some(daemon) = start() else { return };
    let client = Client::new(&daemon.socket);
    let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
    let session = NotebookSession::create(&client, create).await.unwrap();
    session.ready().await.unwrap();
    let journal = journal_of(&daemon, &see(&session).notebook_id);
    let mut length = 0;
    // Each change is 60 KB and replaces the last; a snapshot compresses them all.
    for number in 0.. {
        let metadata = json!({"filling": format!("{number:060000}")});
        session.edit(|notebook| notebook.set_metadata(metadata.as_object().unwrap())).unwrap();
        acknowledged(&session).await;
        let before = std::mem::replace(&mut length, fs::metadata(&journal).unwrap().len());
        if length < before {
            break;
        }
        assert!(number < 100, "{length}");
    }
    for number in 0..3 {
        add(&session, &format!("after {number}"), "x");
        acknowledged(&session).await;
    }
    let before = see(&session);
    let daemon = kill(daemon);
    let client = Client::new(&daemon.socket);
    let found = client.verify_notebooks(false).await.unwrap();
    assert_eq!(found.notebooks[0].state, "sound");
    assert_eq!(see(&join(&client, &before.notebook_id).await), before);
    stop(daemon);
}

/// The disk takes a part of a record and no more.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn half_a_record_is_taken_back_and_written_whole_when_there_is_room() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    // A process that ignores the signal gets an error instead, as from a full disk.
    let daemon = start_with(|command| {
        let mut patient = Command::new("sh");
        patient.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#]).arg(command.get_program());
        patient.args(command.get_args()).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        patient.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = patient;
    });
    let Some(daemon) = daemon else { return };
    let client = Client::new(&daemon.socket);
    let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
    let session = NotebookSession::create(&client, create).await.unwrap();
    session.ready().await.unwrap();
    let issue = |documents: &Documents| documents.runtime_state.file_checkpoint().source_issue_reason;
    let journal = journal_of(&daemon, &see(&session).notebook_id);
    let pid = Pid::from_raw(daemon.pid().cast_signed());
    let limit = |bytes| prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();

    limit(Some(fs::metadata(&journal).unwrap().len() + 4096));
    let metadata = json!({"filling": "x".repeat(60_000)});
    session.edit(|notebook| notebook.set_metadata(metadata.as_object().unwrap())).unwrap();
    let told = session.wait_for(|it| Some(issue(it)).filter(|reason| !reason.is_empty())).await.unwrap();
    assert!(told.contains("File too large"), "{told}");
    let found = client.verify_notebooks(false).await.unwrap();
    assert_eq!((found.notebooks.len(), found.notebooks[0].state.as_str()), (1, "sound"));

    limit(None);
    session.wait_for(|it| issue(it).is_empty().then_some(())).await.unwrap();
    let before = see(&session);
    let daemon = kill(daemon);
    let session = join(&Client::new(&daemon.socket), &before.notebook_id).await;
    assert_eq!(see(&session), before);
    stop(daemon);
}
