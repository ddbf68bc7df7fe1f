//! Two daemons of one user, with a home each, and one file.
//!
//! `cargo xtask test` stages the build they need; without it the test says so and passes.

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

use std::path::Path;
use std::{env, fs};

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::handshake::{CreateNotebook, OpenNotebook};
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::{Client, NotebookSession};
use support::Daemon;

/// Nothing is run here.
const SETTINGS: &str = r#"{ "plugins": { "disabled": ["uv", "conda"] }, "keep_alive_secs": 5 }"#;

async fn try_open(daemon: &Daemon, path: &Path) -> Result<NotebookSession, String> {
    let open = OpenNotebook { path: path.display().to_string(), ..OpenNotebook::default() };
    let session = NotebookSession::open(&Client::new(&daemon.socket), open).await;
    session.map_err(|error| error.to_string())
}

async fn open(daemon: &Daemon, path: &Path) -> NotebookSession {
    let session = try_open(daemon, path).await.unwrap();
    session.ready().await.unwrap();
    session
}

fn save(path: Option<&Path>) -> NotebookRequest {
    let path = path.map(|path| path.to_str().unwrap().to_owned());
    NotebookRequest::SaveNotebook { format_cells: false, path }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_daemon_at_a_time_has_a_file() {
    if env::var_os("RUNTIMED_TEST_DIST").is_none() {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
        return;
    }
    let (mut one, mut two) = (scripts::start(SETTINGS, |_| {}), scripts::start(SETTINGS, |_| {}));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().canonicalize().unwrap().join("shared.ipynb");

    let first = open(&one, &file).await;
    let cell =
        NewCell { id: "a".into(), cell_type: "code".into(), source: "one".into(), ..NewCell::default() };
    first.edit(|notebook| notebook.insert_cell(Place::End, &cell)).unwrap();
    first.request(save(None)).await.unwrap();
    let before = fs::read(&file).unwrap();

    // By every name, and as a target: the other one is told who has it, and the file stays as it is.
    let link = file.with_file_name("link.ipynb");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for name in [&file, &link] {
        let refusal = try_open(&two, name).await.err().expect("it is open elsewhere");
        let holder = format!("open in another daemon (process {}, `{}`)", one.pid(), one.base().display());
        assert!(refusal.contains(&holder), "{refusal}");
        assert!(refusal.contains("\nKept: ") && refusal.contains("\nNext: "), "{refusal}");
    }
    let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
    let untitled = NotebookSession::create(&Client::new(&two.socket), create).await.unwrap();
    untitled.ready().await.unwrap();
    let blocked = format!("{:?}", untitled.request(save(Some(&file))).await);
    assert!(blocked.contains("open in another daemon"), "{blocked}");
    assert_eq!(fs::read(&file).unwrap(), before);

    // Two windows of the daemon that has it are no strangers, and other files are anybody's.
    open(&one, &link).await;
    let other = file.with_file_name("other.ipynb");
    untitled.request(save(Some(&other))).await.unwrap();
    assert!(try_open(&one, &other).await.is_err(), "a file got by saving is held as well");

    // A daemon that was killed holds nothing.
    one.signal("KILL");
    one.ended();
    let second = open(&two, &file).await;
    assert_eq!(second.read(|it| it.notebook.source("a")).as_deref(), Some("one"));
    second.edit(|notebook| notebook.set_source("a", "two")).unwrap();
    second.request(save(None)).await.unwrap();

    // Nor does one that ended; and what it wrote meanwhile is merged by the one before.
    let one = one.start_again_with(|_, command| scripts::pass_environment(command));
    assert!(try_open(&one, &file).await.is_err());
    two.signal("TERM");
    assert!(two.ended().success());
    let again = open(&one, &file).await;
    assert_eq!(again.read(|it| it.notebook.source("a")).as_deref(), Some("two"));
    let mut one = one;
    one.signal("TERM");
    assert!(one.ended().success());
}
