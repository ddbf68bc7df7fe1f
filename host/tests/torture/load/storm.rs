//! Connections by the thousand, as fast as they can be opened, and most of them never say who they are.
//!
//! The daemon answers everybody else all the time, and has its descriptors back when they have left. With too few
//! descriptors for all of them it says so, those who are there work on, and the others come in as soon as some have left.

use std::io::{ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use runtimed_client::Client;
use runtimed_client::protocol::response::NotebookResponse;
use serde_json::json;

use super::beside::Beside;
use super::figures::Figures;
use super::{end, is_staged, log, size};
use crate::random::Random;
use crate::story::Story;
use crate::support::{Daemon, PREAMBLE};
use crate::{asked, scripts, tally};

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "conda_pool_size": 0, "uv_pool_size": 0, "keep_alive_secs": 600 }"#;
/// Who opens connections at the same time.
const THREADS: usize = 8;
/// Descriptors of a daemon that has too few: what it needs itself, and some clients.
const FEW: usize = 160;

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_connections_is_nobody_elses_concern() {
    if !is_staged() {
        return;
    }
    runtimed_host::limits::raise_open_files();
    let ((seed, _), connections) = (asked(1), size(300, 5000));
    let mut daemon = scripts::start(SETTINGS, |_| {});
    let story = Story::create(&daemon).await.unwrap();
    story.add("a", "1").await.unwrap();
    let idle = Beside::idle(&daemon, None);
    let before = Figures::at_rest(&daemon);

    let beside = Beside::begin(&daemon, None);
    let pings = Pings::begin(&daemon);
    let start = Instant::now();
    let held = storm(&daemon, &story.id(), connections, seed);
    let took = start.elapsed().as_secs_f64();
    let during = Figures::of(&daemon);
    // They stay for a while.
    thread::sleep(Duration::from_secs(size(1, 5)));
    let opened = held.len();
    drop(held);
    let (answered, refused) = pings.end();
    beside.end().compare(&idle, &format!("storm: {connections} connections in {took:.1} s"));
    story.add("b", "2").await.unwrap();

    let is_back = |it: &Figures| it.descriptors <= before.descriptors && it.threads <= before.threads;
    let after = Figures::settled(&daemon, is_back);
    tally(&format!(
        "storm: {opened} held, {answered} pings answered, {} not; before {before}; during {during}; after {after}",
        refused.len()
    ));
    assert!(refused.is_empty(), "pings that were not answered: {refused:?}");
    assert!(is_back(&after), "descriptors and threads are back: {before}, then {after}");
    drop(story);
    end(&mut daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_descriptors_says_so_and_recovers() {
    if !is_staged() {
        return;
    }
    let (seed, _) = asked(1);
    let mut daemon = scripts::start(SETTINGS, |command| {
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", &format!("ulimit -n {FEW}; exec \"$0\" \"$@\"")]).arg(command.get_program());
        limited.args(command.get_args()).env_clear();
        limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        limited.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        *command = limited;
    });
    let file = daemon.home.path().canonicalize().unwrap().join("file.ipynb");
    let story = Story::open(&daemon, &file).await.unwrap();
    story.add("a", "1").await.unwrap();
    story.save().await.unwrap();
    let before = Figures::at_rest(&daemon);

    let held = storm(&daemon, &story.id(), FEW, seed);
    let said = "connections are open, and no more files are for them";
    let end_of_wait = Instant::now() + crate::support::PATIENCE;
    while !log(&daemon).contains(said) {
        assert!(Instant::now() < end_of_wait, "nothing is said of it\n{}", log(&daemon));
        thread::sleep(Duration::from_millis(50));
    }
    // Who is there works on, also with what needs a file.
    story.add("b", "2").await.unwrap();
    let saved = story.save().await;
    assert!(matches!(saved, Ok(NotebookResponse::NotebookSaved(_))), "{saved:?}");
    assert_eq!(story.trouble(), "");
    let busy = Figures::of(&daemon).busy;
    thread::sleep(Duration::from_secs(size(2, 10)));
    let busy = Figures::of(&daemon).busy - busy;
    tally(&format!(
        "storm with {FEW} descriptors: notebooks are saved, busy for {busy} ms of {} s",
        size(2, 10)
    ));
    // They are still there; those that have not said who they are are let go.
    Client::new(&daemon.socket).reach(crate::support::PATIENCE).await.unwrap();
    drop(held);
    story.add("c", "3").await.unwrap();
    let after = Figures::settled(&daemon, |it| it.descriptors <= before.descriptors);
    tally(&format!("storm with {FEW} descriptors: before {before}; after {after}"));
    assert!(after.descriptors <= before.descriptors, "descriptors are back: {before}, then {after}");
    let lines = log(&daemon).lines().filter(|line| line.contains(said)).count();
    assert_eq!(lines, 1, "one line a minute is enough\n{}", log(&daemon));
    drop(story);
    end(&mut daemon);
}

/// Opens connections of every kind, from several threads; returns those that are still open.
fn storm(daemon: &Daemon, notebook: &str, connections: usize, seed: u64) -> Vec<UnixStream> {
    let opening: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (socket, notebook) = (daemon.socket.clone(), notebook.to_owned());
            let mut random = Random(seed + thread as u64);
            thread::spawn(move || {
                let mut held = Vec::new();
                for _ in 0..connections / THREADS {
                    let mut stream = UnixStream::connect(&socket).unwrap();
                    // Whoever is not accepted is not read from either.
                    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
                    let kind = random.below(7);
                    match stream.write_all(&first_words(kind, &notebook)) {
                        Ok(()) => {}
                        Err(error)
                            if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::WouldBlock) => {}
                        Err(error) => panic!("{error}"),
                    }
                    // One in seven leaves at once.
                    if kind > 0 {
                        held.push(stream);
                    }
                }
                held
            })
        })
        .collect();
    opening.into_iter().flat_map(|it| it.join().unwrap()).collect()
}

/// What a connection of some kind says first.
fn first_words(kind: usize, notebook: &str) -> Vec<u8> {
    let frame = |body: serde_json::Value| {
        let body = body.to_string().into_bytes();
        [&(body.len() as u32).to_be_bytes()[..], &body].concat()
    };
    let pool = [&PREAMBLE[..], &frame(json!({"channel": "pool"}))].concat();
    match kind {
        0 | 1 => Vec::new(),
        2 => PREAMBLE[..3].to_vec(),
        3 => pool[..PREAMBLE.len() + 7].to_vec(),
        4 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        5 => [pool, frame(json!({"type": "ping"}))].concat(),
        _ => {
            let sync = json!({"channel": "notebook_sync", "notebook_id": notebook, "protocol": "v4"});
            [&PREAMBLE[..], &frame(sync)].concat()
        }
    }
}

/// Somebody who asks again and again whether the daemon is there.
struct Pings {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Vec<String>>,
}

impl Pings {
    fn begin(daemon: &Daemon) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (client, stopped, count) = (Client::new(&daemon.socket), stop.clone(), answered.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut refused = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    match client.ping().await {
                        Ok(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => refused.push(error.to_string()),
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                refused
            })
        });
        Self { stop, answered, thread }
    }

    /// How many were answered, and what was wrong with the others.
    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let refused = self.thread.join().unwrap();
        (self.answered.load(Ordering::Relaxed), refused)
    }
}
