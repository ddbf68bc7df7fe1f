//! The bridge and a real daemon.
//!
//! `cargo xtask test` says in `RUNTIMED_TEST_DIST` where one is; without it there is nothing to talk to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use runtimed_client::Client;
use runtimed_client::protocol::frame::FrameType;
use runtimed_client::protocol::pool::PoolRequest;
use serde_json::{Map, Value, json};
use tauri_plugin_runtimed::bridge::{Bridge, Notebook, Told};
use tokio::sync::mpsc;

/// Longest wait for anything; only a test that fails takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Daemon {
    child: Child,
    home: tempfile::TempDir,
}

impl Daemon {
    /// A daemon of our own, once it listens; none without a build.
    fn start() -> Option<Self> {
        let dist = PathBuf::from(std::env::var_os("RUNTIMED_TEST_DIST")?);
        let home = tempfile::Builder::new().prefix("rt").tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("config/nteract")).unwrap();
        let mut child = Command::new(dist.join("bin/runtimed"))
            .args([
                "run",
                "--uv-pool-size",
                "0",
                "--conda-pool-size",
                "0",
                "--pixi-pool-size",
                "0",
                "--socket",
            ])
            .arg(home.path().join("s"))
            .env("HOME", home.path())
            .env("XDG_CACHE_HOME", home.path().join("cache"))
            .env("XDG_CONFIG_HOME", home.path().join("config"))
            .env("XDG_DATA_HOME", home.path().join("data"))
            .env("XDG_RUNTIME_DIR", home.path())
            .env_remove("RUNTIMED_PLUGIN_PATH")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        lines
            .find(|line| line.as_ref().is_ok_and(|line| line.contains("listening on")))
            .expect("it listens")
            .unwrap();
        // Read to its end, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, home })
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("s")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bridge(socket: &Path) -> Bridge {
    Bridge::new(Client::new(socket))
}

/// A notebook whose kernel nobody has, and what its window is told.
async fn open(bridge: &Bridge) -> (uuid::Uuid, String, mpsc::UnboundedReceiver<Told>) {
    let (tell, told) = mpsc::unbounded_channel();
    let tell = Box::new(move |what| drop(tell.send(what)));
    let notebook = Notebook::New("nobody-has-it".into());
    let opened = bridge.open("main", notebook, Some("desktop:main".into()), tell).await.unwrap();
    let id = opened.bootstrap["notebook_id"].as_str().expect("an id").to_owned();
    (opened.session, id, told)
}

async fn next(told: &mut mpsc::UnboundedReceiver<Told>) -> Told {
    tokio::time::timeout(PATIENCE, told.recv()).await.expect("something in time").expect("somebody who tells")
}

fn action(name: &str) -> Map<String, Value> {
    Map::from_iter([("action".to_owned(), json!(name))])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_gets_frames_and_answers_until_it_closes() {
    let Some(daemon) = Daemon::start() else { return };
    let bridge = bridge(&daemon.socket());
    let (session, id, mut told) = open(&bridge).await;

    let rooms = bridge.ask(PoolRequest::ListRooms).await.unwrap();
    assert!(rooms.to_string().contains(&id), "{rooms}");

    // The window's answer to the daemon's first sync message is the window's business; here it only sees that one comes.
    loop {
        let Told::Frame(frame) = next(&mut told).await else { panic!("closed") };
        if frame[0] == FrameType::NOTEBOOK_SYNC {
            break;
        }
    }
    let answer = bridge.request(session, action("get_doc_bytes")).await.unwrap();
    assert_eq!(answer["result"], "doc_bytes", "{answer}");
    let answer = bridge.request(session, action("make_coffee")).await.unwrap();
    assert_eq!(answer["result"], "error", "{answer}");

    bridge.close(session).await;
    let last = loop {
        if let Told::Closed(why) = next(&mut told).await {
            break why;
        }
    };
    assert_eq!(last, "closed");
    let refused = bridge.request(session, action("get_doc_bytes")).await.unwrap_err();
    assert!(refused.contains("open it again"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_told_that_the_daemon_is_gone_and_what_to_do() {
    let Some(mut daemon) = Daemon::start() else { return };
    let bridge = bridge(&daemon.socket());
    let (session, _, mut told) = open(&bridge).await;
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let why = loop {
        if let Told::Closed(why) = next(&mut told).await {
            break why;
        }
    };
    assert!(why.contains("Open the notebook again"), "{why}");
    assert!(bridge.send(session, &[FrameType::PRESENCE]).await.is_err());
    assert!(bridge.send(session, &[]).await.is_err());

    let quiet = Box::new(|_| ());
    let refused = bridge.open("main", Notebook::New("python".into()), None, quiet).await.unwrap_err();
    assert!(refused.contains("runt daemon start"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_goes_leaves_nothing_open() {
    let Some(daemon) = Daemon::start() else { return };
    let bridge = std::sync::Arc::new(bridge(&daemon.socket()));
    let (first, _, _) = open(&bridge).await;
    let (second, _, mut told) = open(&bridge).await;
    // An answer that does not come keeps nothing open: the daemon has closed before it would.
    let asking = std::sync::Arc::clone(&bridge);
    let asked = tokio::spawn(async move { asking.request(second, action("launch_kernel")).await });
    while !matches!(next(&mut told).await, Told::Frame(_)) {}
    bridge.close(second).await;
    while next(&mut told).await != Told::Closed("closed".into()) {}
    // It was answered before the end, or learned that there is none.
    asked.await.unwrap().map_or_else(|why| assert!(why.contains("open it again"), "{why}"), drop);

    bridge.close_all("another");
    assert!(bridge.send(first, &[FrameType::REQUEST, b'{', b'}']).await.is_ok());
    bridge.close_all("main");
    assert!(bridge.send(first, &[FrameType::REQUEST, b'{', b'}']).await.is_err());
}
