//! Which blobs go, and which never do: a real daemon, notebooks that are open, closed, damaged, and records.

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

use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use std::{env, fs};

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::{Client, Documents, NotebookSession};
use support::Daemon;

/// Looks every second, and deletes what nothing has referred to for an hour.
const SETTINGS: &str = r#"{ "install_default_data_packages": false, "uv_pool_size": 1,
    "blobs": { "collect_every_secs": 1, "keep_unused_secs": 3600 } }"#;

fn blob(daemon: &Daemon, hash: &str) -> PathBuf {
    daemon.base().join("blobs").join(&hash[..2]).join(&hash[2..])
}

/// Makes a blob look as if it was needed last two hours ago.
fn age(daemon: &Daemon, hash: &str) {
    let old = SystemTime::now() - Duration::from_secs(7200);
    fs::File::options().write(true).open(blob(daemon, hash)).unwrap().set_modified(old).unwrap();
}

/// A blob that nothing refers to, last needed two hours ago.
fn orphan(daemon: &Daemon, hash: &str) {
    let path = blob(daemon, hash);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let meta = r#"{"media_type":"text/plain","size":4,"created_at":"2026-01-01T00:00:00.000000000Z"}"#;
    fs::write(path.with_extension("meta"), meta).unwrap();
    fs::write(path, "dead").unwrap();
    age(daemon, hash);
}

/// Waits for something that another process does.
async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, waiting).await.unwrap();
}

/// The record of the execution that showed a blob.
fn record(daemon: &Daemon, hash: &str) -> PathBuf {
    let records = fs::read_dir(daemon.base().join("executions")).unwrap().map(|it| it.unwrap().path());
    let mut records = records.filter(|it| fs::read_to_string(it).unwrap().contains(hash));
    records.next().unwrap()
}

/// Makes a notebook that shows an image of `size` bytes; says which blob that is.
async fn notebook(client: &Client, size: usize) -> (NotebookSession, String) {
    let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
    let session = NotebookSession::create(client, create).await.unwrap();
    session.ready().await.unwrap();
    let source = format!("from IPython.display import Image\nImage(bytes({size}), format='png')");
    let (id, cell_type) = ("image".to_owned(), "code".to_owned());
    let cell = NewCell { id, cell_type, source, ..NewCell::default() };
    session.edit(|notebook| notebook.insert_cell(Place::End, &cell)).unwrap();
    let id = session.execute_cell("image").await.unwrap().execution_id;
    let ended = |it: &Documents| it.runtime_state.execution(&id).filter(|it| it.status.is_terminal());
    session.wait_for(ended).await.unwrap();
    let outputs = session.read(|it| it.runtime_state.outputs(&id));
    let hash = outputs[0].manifest["data"]["image/png"]["blob"].as_str().unwrap().to_owned();
    (session, hash)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_when_nothing_that_can_be_read_needs_it() {
    if env::var_os("RUNTIMED_TEST_DIST").is_none() {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
        return;
    }
    let daemon = scripts::start(SETTINGS, |_| {});
    let client = Client::new(&daemon.socket);
    let (_open, in_open) = notebook(&client, 5000).await;
    let (closed, in_closed) = notebook(&client, 6000).await;
    let (forgotten, in_record) = notebook(&client, 7000).await;
    for session in [closed, forgotten] {
        let id = session.notebook_id().unwrap();
        session.close().await;
        client.shutdown_notebook(&id).await.unwrap();
        let journal = daemon.base().join(format!("rooms/{id}.journal"));
        assert!(journal.exists());
        if fs::read_to_string(record(&daemon, &in_record)).unwrap().contains(&id) {
            fs::remove_file(journal).unwrap();
        }
    }
    // One is needed by an open notebook, one by a journal, one by the record of an execution.
    for hash in [&in_open, &in_closed] {
        fs::remove_file(record(&daemon, hash)).unwrap();
    }
    let needed = [in_open, in_closed, in_record.clone()];
    let dead = "d".repeat(64);
    needed.iter().for_each(|hash| age(&daemon, hash));
    orphan(&daemon, &dead);
    until(|| !blob(&daemon, &dead).exists()).await;
    assert!(!blob(&daemon, &dead).with_extension("meta").exists());
    assert!(needed.iter().all(|hash| blob(&daemon, hash).exists()), "{needed:?}");

    // A journal that cannot be read may need anything.
    let newer =
        daemon.base().join(format!("rooms/{}.journal", "0".repeat(8) + "-0000-4000-8000-000000000000"));
    fs::write(&newer, "of another version").unwrap();
    // A look that began before has ended when the second complaint is there.
    let log = || fs::read_to_string(daemon.base().join("runtimed.log")).unwrap();
    let complaints =
        || log().lines().filter(|it| it.contains("no blob is deleted") && it.contains("0000")).count();
    until(|| complaints() > 0).await;
    orphan(&daemon, &dead);
    let before = complaints();
    until(|| complaints() > before + 1).await;
    assert!(blob(&daemon, &dead).exists());
    fs::remove_file(newer).unwrap();
    until(|| !blob(&daemon, &dead).exists()).await;
    assert!(needed.iter().all(|hash| blob(&daemon, hash).exists()), "{needed:?}");

    fs::remove_file(record(&daemon, &in_record)).unwrap();
    age(&daemon, &in_record);
    until(|| !blob(&daemon, &in_record).exists()).await;
    client.shutdown().await.unwrap();
    let mut daemon = daemon;
    assert!(daemon.ended().success());
}
