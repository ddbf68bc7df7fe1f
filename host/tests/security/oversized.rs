//! More of everything than anybody needs.
//!
//! Shown elsewhere: handshakes and pool requests just over their limit (`host/tests/daemon/garbage.rs`), blobs and uploads
//! (`host/tests/frames/uploads.rs`), a notebook of 200 MB (`plugins/rooms/src/disk/access.rs`), clients that do not read
//! (`host/tests/frames/slow.rs`), messages of the documents (`fuzz`).

use std::fs;

use runtimed_protocol::documents::automerge::sync::{Message, State, SyncDoc};
use runtimed_protocol::documents::automerge::transaction::Transactable;
use runtimed_protocol::documents::automerge::{AutoCommit, ObjType, ROOT, ReadDoc};
use runtimed_protocol::frame::FrameType;
use serde_json::{Value, json};

use crate::http::{say, status};
use crate::peer::Peer;
use crate::support::{Client, Daemon};
use crate::{is_well, port, start, stop};

/// Opening brackets, and no end.
fn nested(depth: usize) -> String {
    "[".repeat(depth)
}

/// What the daemon has in memory, in MB.
fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn frames_over_their_limit_are_refused_by_their_first_bytes() {
    let Some(daemon) = start() else { return };
    let mut healthy = Peer::create(&daemon);
    let id = healthy.info["notebook_id"].clone();
    let before = resident(&daemon);
    for frame_type in 0..=0x0A {
        if let Some(max) = FrameType::payload_max(frame_type) {
            let mut client = daemon.connect(json!({"channel": "notebook_sync", "notebook_id": id}));
            client.receive();
            // The length counts the type, too.
            client.write(&u32::try_from(max + 2).unwrap().to_be_bytes());
            client.write(&[frame_type]);
            // It is closed while it still waits for the rest.
            client.rest();
        }
    }
    assert_eq!(
        healthy.ask(json!({"action": "acknowledge_notebook_sync"}))["result"],
        "notebook_sync_acknowledged"
    );
    assert!(resident(&daemon) < before + 64, "{} MB, {before} before", resident(&daemon));
    stop(daemon);
}

#[test]
fn text_nested_a_hundred_thousand_deep_costs_its_sender_an_error() {
    let Some(daemon) = start() else { return };
    let mut healthy = Peer::create(&daemon);
    let id = healthy.info["notebook_id"].clone();
    // As deep as fits.
    for text in [nested(60_000), format!(r#"{{"channel":{}"#, nested(60_000)), r#"{"a":"#.repeat(10_000)] {
        let mut client = daemon.dial();
        client.write(&crate::support::PREAMBLE);
        client.send(text.as_bytes());
        assert!(client.rest().is_empty());
        let mut client = daemon.connect(json!({"channel": "pool"}));
        client.send(text.as_bytes());
        let said = client.next().map(|said| String::from_utf8_lossy(&said).into_owned());
        assert!(said.as_ref().is_none_or(|said| said.contains("\"error\"")), "{said:?}");
    }
    let join = || Peer::connect(&daemon, json!({"channel": "notebook_sync", "notebook_id": id}));
    let mut bob = join();
    for text in [
        nested(100_000),
        format!(r#"{{"id":"1","action":"send_comm","message":{}"#, nested(100_000)),
        format!(r#"{{"id":"1","action":"x","y":{}{}}}"#, nested(100_000), "]".repeat(100_000)),
    ] {
        bob.send(FrameType::REQUEST, text.as_bytes());
    }
    assert_eq!(
        bob.ask(json!({"action": "acknowledge_notebook_sync"}))["result"],
        "notebook_sync_acknowledged"
    );
    // CBOR: lists in lists, as many as a frame may hold.
    let mut bob = join();
    bob.send(FrameType::PRESENCE, &[0x81; 4096]);
    bob.send(FrameType::PRESENCE, &[0xa1; 4096]);
    let mut header = 100_000_u32.to_be_bytes().to_vec();
    header.extend(nested(100_000).into_bytes());
    bob.send(FrameType::PUT_BLOB, &header);
    is_well(&daemon, "nesting");
    assert_eq!(
        healthy.ask(json!({"action": "acknowledge_notebook_sync"}))["result"],
        "notebook_sync_acknowledged"
    );

    // A file.
    let folder = daemon.home.path().canonicalize().unwrap();
    for depth in [100_000, 5_000_000] {
        let file = folder.join(format!("{depth}.ipynb"));
        let text =
            format!(r#"{{"nbformat":4,"nbformat_minor":5,"cells":[],"metadata":{{"a":{}"#, nested(depth));
        fs::write(&file, &text).unwrap();
        let mut client = daemon.connect(json!({"channel": "open_notebook", "path": file}));
        let mut said = String::new();
        while !crate::paths::is_refused(&said) {
            said += &String::from_utf8_lossy(&client.next().unwrap_or_else(|| panic!("{said}")));
        }
        assert_eq!(fs::metadata(&file).unwrap().len(), text.len() as u64);
    }
    stop(daemon);
}

/// What is just not too deep comes back from the disk.
#[test]
fn a_notebook_as_deep_as_can_be_read_is_saved_as_it_was() {
    let Some(daemon) = start() else { return };
    let folder = daemon.home.path().canonicalize().unwrap();
    let deep = |depth: usize| {
        let value = format!("{}{}", nested(depth), "]".repeat(depth));
        format!(r#"{{"nbformat":4,"nbformat_minor":5,"cells":[],"metadata":{{"a":{value}}}}}"#)
    };
    let deepest = (1..200).rev().find(|depth| serde_json::from_str::<Value>(&deep(*depth)).is_ok()).unwrap();
    for depth in [deepest - 8, deepest - 1, deepest] {
        let file = folder.join(format!("{depth}.ipynb"));
        fs::write(&file, deep(depth)).unwrap();
        let mut ana = Peer::connect(&daemon, json!({"channel": "open_notebook", "path": file}));
        let copy = folder.join(format!("copy-{depth}.ipynb"));
        let saved = ana.ask(json!({"action": "save_notebook", "format_cells": false, "path": copy}));
        assert_eq!(saved["result"], "notebook_saved", "{depth}: {saved}");
        let read = |file| serde_json::from_slice::<Value>(&fs::read(file).unwrap());
        assert_eq!(read(&copy).unwrap()["metadata"]["a"], read(&file).unwrap()["metadata"]["a"], "{depth}");
    }
    stop(daemon);
}

/// A window of the settings that says what it likes.
struct Window {
    client: Client,
    document: AutoCommit,
    state: State,
}

impl Window {
    fn open(daemon: &Daemon) -> Self {
        let client = daemon.connect(json!({"channel": "settings_sync"}));
        let mut window = Self { client, document: AutoCommit::new(), state: State::new() };
        while window.document.get(ROOT, "theme").unwrap().is_none() {
            window.listen();
        }
        window
    }

    fn listen(&mut self) {
        let message = Message::decode(&self.client.receive()).unwrap();
        self.document.sync().receive_sync_message(&mut self.state, message).unwrap();
        self.say();
    }

    fn say(&mut self) {
        if let Some(message) = self.document.sync().generate_sync_message(&mut self.state) {
            self.client.send(&message.encode());
        }
    }

    /// Says what is new, until the daemon has it.
    fn arrive(&mut self) {
        self.say();
        while self.state.their_heads != Some(self.document.get_heads()) {
            self.listen();
        }
    }
}

#[test]
fn settings_of_any_depth_and_size_are_kept_or_cut_and_can_be_read_again() {
    let daemon = Daemon::start();
    let mut window = Window::open(&daemon);
    let (mut map, mut list) = (ROOT, ROOT);
    for depth in 0..20_000 {
        map = window.document.put_object(&map, "deep", ObjType::Map).unwrap();
        list = match depth {
            0 => window.document.put_object(ROOT, "lists", ObjType::List),
            _ => window.document.insert_object(&list, 0, ObjType::List),
        }
        .unwrap();
    }
    window.document.put(ROOT, "theme", "dark").unwrap();
    window.document.put(ROOT, "mine", "x".repeat(4 << 20)).unwrap();
    window.document.put(ROOT, "y".repeat(1 << 20), true).unwrap();
    window.document.put(ROOT, "uv_pool_size", u64::MAX).unwrap();
    window.arrive();
    is_well(&daemon, "large settings");
    drop(window);

    let mut daemon = daemon;
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    let file = daemon.home.path().join(".config/nteract/settings.json");
    let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!((&written["theme"], written["mine"].as_str().unwrap().len()), (&json!("dark"), 4 << 20));
    let daemon = daemon.start_again();
    let info = daemon.ask(json!({"type": "get_daemon_info"}));
    assert!(info["settings_problem"].is_null(), "{info}");
    let window = Window::open(&daemon);
    let (theme, _) = window.document.get(ROOT, "theme").unwrap().unwrap();
    assert_eq!(theme.as_str(), Some("dark"));
    drop(window);
    stop(daemon);
}

#[test]
fn a_settings_file_nested_without_end_is_a_problem_that_is_told() {
    let daemon = Daemon::start_with(|home, _| {
        let config = home.join(".config/nteract");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("settings.json"), format!(r#"{{"theme": {}"#, nested(1_000_000))).unwrap();
    });
    let problem = daemon.ask(json!({"type": "get_daemon_info"}))["settings_problem"].to_string();
    assert!(problem.contains("cannot be read as JSON"), "{problem}");
    stop(daemon);
}

#[test]
fn names_of_a_megabyte_are_answered_and_kept_nowhere() {
    let Some(daemon) = start() else { return };
    let mut ana = Peer::create(&daemon);
    let long = "x".repeat(1 << 20);
    for request in [
        json!({"action": "execute_cell", "cell_id": long}),
        json!({"action": "execute_cell", "cell_id": "a", "execution_id": long}),
        json!({"action": "run_all_cells", "cell_execution_ids": {&long: &long}}),
        json!({"action": "launch_kernel", "kernel_type": long, "env_source": long, "notebook_path": long}),
        json!({"action": "save_notebook", "format_cells": false, "path": format!("/{long}")}),
        json!({"action": "clone_as_ephemeral", "source_notebook_id": long}),
        json!({"action": "complete_blob_upload", "upload_id": long, "parts": []}),
        json!({"action": "acknowledge_notebook_sync", "required_heads": [long]}),
        json!({"action": long}),
    ] {
        let action = request["action"].as_str().unwrap().to_owned();
        let said = ana.ask(request);
        assert!(said["result"].is_string(), "{action:.40}: {said:.300}");
    }
    // What a client calls itself is in every change it makes.
    let operator = "o".repeat(60_000);
    let id = ana.info["notebook_id"].clone();
    for handshake in [
        json!({"channel": "notebook_sync", "notebook_id": id, "operator": operator}),
        json!({"channel": "create_notebook", "runtime": "x".repeat(60_000)}),
        json!({"channel": "create_notebook", "runtime": "python", "notebook_id": "x".repeat(60_000)}),
        json!({"channel": "open_notebook", "path": format!("/{}", "x".repeat(60_000))}),
    ] {
        let mut client = daemon.connect(handshake);
        let said = String::from_utf8_lossy(&client.receive()).into_owned();
        assert!(!said.contains(&"o".repeat(1000)), "{said:.300}");
    }
    assert_eq!(
        ana.ask(json!({"action": "acknowledge_notebook_sync"}))["result"],
        "notebook_sync_acknowledged"
    );
    let log = crate::log(&daemon);
    assert!(log.len() < 64 << 10, "{} bytes of log", log.len());
    stop(daemon);
}

#[test]
fn requests_without_end_over_http_are_cut_off() {
    let daemon = Daemon::start();
    let port = port(&daemon);
    let before = resident(&daemon);
    let host = format!("Host: localhost:{port}\r\n");
    let long = "a".repeat(32 << 20);
    for (what, request) in [
        ("a method", long.clone()),
        ("a line", format!("GET /{long}")),
        ("a version", format!("GET / {long}")),
        ("a name", format!("GET /health HTTP/1.1\r\n{host}{long}")),
        ("a value", format!("GET /health HTTP/1.1\r\n{host}A: {long}")),
        ("blanks", format!("GET /health HTTP/1.1\r\n{host}A: {}", " ".repeat(32 << 20))),
        ("many headers", format!("GET /health HTTP/1.1\r\n{host}{}", "A: b\r\n".repeat(100_000))),
        ("many empty lines", "\r\n".repeat(16 << 20)),
    ] {
        let answer = say(port, request.as_bytes());
        assert!(matches!(status(&answer), None | Some(400 | 414 | 431)), "{what}: {answer:.200}");
        is_well(&daemon, what);
    }
    for body in ["Content-Length: 99999999999", "Transfer-Encoding: chunked"] {
        let request = format!("GET /health HTTP/1.1\r\n{host}Connection: close\r\n{body}\r\n\r\n");
        assert_eq!(status(&say(port, request.as_bytes())), Some(200), "{body}");
    }
    assert!(resident(&daemon) < before + 64, "{} MB, {before} before", resident(&daemon));
    stop(daemon);
}
