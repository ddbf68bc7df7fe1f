//! Two daemons of one user, with a home each, and what they share: a file, and the folder of everybody's sockets.
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

#[allow(dead_code, reason = "shared with the tests of what the daemon has to stand")]
#[path = "torture/story.rs"]
mod story;

use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::handshake::{CreateNotebook, OpenNotebook};
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::{Client, NotebookSession};
use story::Story;
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

/// The other one may be of another version: `cargo xtask outlive` makes one.
fn other_version(command: &mut Command) {
    if let Some(program) = env::var_os("RUNT_OUTLIVE_UPGRADE") {
        let mut other = Command::new(program);
        other.args(command.get_args()).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = other;
    }
}

/// Everything that is in a folder.
fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_touches_the_others_kernels_whatever_becomes_of_it() {
    const KERNELS: &str = r#"{ "install_default_data_packages": false, "conda_pool_size": 0, "uv_pool_size": 1, "keep_alive_secs": 60 }"#;
    if env::var_os("RUNTIMED_TEST_DIST").is_none() {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
        return;
    }
    let mut one = scripts::start(KERNELS, |_| {});
    let shared = one.home.path().join("run");
    let beside = |command: &mut Command| {
        command.env("XDG_RUNTIME_DIR", &shared);
        scripts::pass_environment(command);
        other_version(command);
    };
    let mine = Story::create(&one).await.unwrap();
    mine.add("x", "x = object()\nid(x)").await.unwrap();
    let (first, well) = mine.run("x").await.unwrap();
    assert!(well);
    let id =
        |story: &Story, execution: &str| story.outputs(execution)[0]["data"]["text/plain"]["inline"].clone();
    let x = id(&mine, &first);
    let folders = names(&shared.join("runt"));
    let [folder] = &folders[..] else { panic!("{folders:?}") };
    let mut two = scripts::start(KERNELS, beside);
    let theirs = Story::create(&two).await.unwrap();
    theirs.add("x", "x = 1").await.unwrap();
    assert!(theirs.run("x").await.unwrap().1);
    assert_eq!(names(&shared.join("runt")).len(), 2, "a folder each");

    // Killed, started again and ended for good: what is the first one's stays, and works.
    let kernels = || names(&shared.join("runt").join(folder).join("kernels"));
    let before = kernels();
    two.signal("KILL");
    two.ended();
    let mut two = two.start_again_with(|_, command| beside(command));
    assert!(Story::join(&two, &theirs.id()).await.unwrap().run("x").await.unwrap().1);
    two.ask(serde_json::json!({"type": "shutdown"}));
    assert!(two.ended().success());
    assert_eq!(kernels(), before);
    mine.add("y", "id(x)").await.unwrap();
    assert_eq!(id(&mine, &mine.run("y").await.unwrap().0), x, "the same object");

    // And the first one finds its own again.
    let id_of_mine = mine.id();
    drop(mine);
    one.signal("KILL");
    one.ended();
    let mut one = one.start_again_with(|_, command| scripts::pass_environment(command));
    let mine = Story::join(&one, &id_of_mine).await.unwrap();
    assert_eq!(id(&mine, &mine.run("y").await.unwrap().0), x, "still the same");
    assert_eq!(kernels(), before);
    one.ask(serde_json::json!({"type": "shutdown"}));
    assert!(one.ended().success());
    assert_eq!(kernels(), Vec::<std::ffi::OsString>::new());
}
