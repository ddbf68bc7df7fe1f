//! Settings, as stock automerge clients and editors see them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtimed_protocol::documents::automerge::sync::{Message, State, SyncDoc};
use runtimed_protocol::documents::automerge::transaction::Transactable;
use runtimed_protocol::documents::automerge::{AutoCommit, ROOT, ReadDoc};
use runtimed_protocol::documents::json::read;
use serde_json::{Value, json};

use crate::support::{Client, Daemon};

/// A client that stays connected.
struct Window {
    client: Client,
    document: AutoCommit,
    state: State,
}

impl Window {
    fn open(daemon: &Daemon) -> Self {
        let client = daemon.connect(json!({"channel": "settings_sync"}));
        let mut window = Self { client, document: AutoCommit::new(), state: State::new() };
        window.until(|settings| settings["theme"].is_string());
        window
    }

    fn settings(&self) -> Value {
        read(&self.document, &ROOT)
    }

    /// Exchanges messages until the settings are as wanted.
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) {
        while !wanted(&self.settings()) {
            self.listen();
        }
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

    /// Sets a key and stays until the daemon has it: a Bloom filter may take one change in a hundred for
    /// known, and then the daemon asks for it.
    fn set(&mut self, name: &str, value: &str) {
        self.document.put(ROOT, name, value).unwrap();
        self.arrive();
    }

    /// The same for a key of the section `editor`.
    fn set_in_editor(&mut self, name: &str, value: &str) {
        let (_, editor) = self.document.get(ROOT, "editor").unwrap().unwrap();
        self.document.put(editor, name, value).unwrap();
        self.arrive();
    }

    fn arrive(&mut self) {
        self.say();
        while self.state.their_heads != Some(self.document.get_heads()) {
            self.listen();
        }
    }
}

fn file(daemon: &Daemon) -> PathBuf {
    daemon.home.path().join(".config/nteract/settings.json")
}

fn read_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn windows_share_settings_and_the_file_follows() {
    let mut daemon = Daemon::start();
    let (mut one, mut two) = (Window::open(&daemon), Window::open(&daemon));
    assert_eq!(one.settings(), two.settings());
    assert_eq!(
        (&one.settings()["uv_pool_size"], &one.settings()["keep_alive_secs"]),
        (&json!(2), &json!(30))
    );
    one.set("theme", "dark");
    two.until(|settings| settings["theme"] == "dark");
    two.set("default_runtime", "deno");
    one.until(|settings| settings["default_runtime"] == "deno");

    daemon.signal("TERM");
    assert!(daemon.ended().success());
    let file = read_file(&file(&daemon));
    assert_eq!((&file["theme"], &file["default_runtime"]), (&json!("dark"), &json!("deno")));
    assert_eq!(file["$schema"], "./settings.schema.json");
}

#[test]
fn edits_by_replacing_the_file_are_noticed_every_time() {
    let daemon = Daemon::start_with(|home, _| {
        let config = home.join(".config/nteract");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::write(config.join("settings.json"), r#"{"mine": {"a": 1}, "theme": "plaid"}"#).unwrap();
    });
    let mut window = Window::open(&daemon);
    assert_eq!((&window.settings()["theme"], &window.settings()["mine"]["a"]), (&json!("system"), &json!(1)));
    let path = file(&daemon);
    for size in [5, 6, 7] {
        // The daemon writes the file too; an edit starts from whatever is there, as an editor's does.
        let mut edited = read_file(&path);
        edited["uv_pool_size"] = json!(size);
        edited["conda_pool_size"] = json!("not a number");
        let beside = path.with_extension("new");
        std::fs::write(&beside, edited.to_string()).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        window.until(|settings| settings["uv_pool_size"] == size);
        assert_eq!(window.settings()["conda_pool_size"], json!(1));
    }
}

#[test]
fn a_file_that_is_no_json_survives_the_daemon() {
    let broken = "{ \"theme\": \"dark\", oops";
    let mut daemon = Daemon::start_with(|home, _| {
        let config = home.join(".config/nteract");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::write(config.join("settings.json"), broken).unwrap();
    });
    let problem = daemon.ask(json!({"type": "get_daemon_info"}))["settings_problem"].clone();
    assert!(problem.as_str().unwrap().contains("settings.json` cannot be read as JSON"), "{problem}");
    let mut window = Window::open(&daemon);
    window.set("theme", "light");
    let mut other = Window::open(&daemon);
    other.until(|settings| settings["theme"] == "light");
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    let path = file(&daemon);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), broken);
    assert_eq!(std::fs::read_to_string(path.with_extension("json.invalid")).unwrap(), broken);
}

/// Two windows, the command line, and somebody who reads the file all the time. `RUNTIMED_TEST_ROUNDS` makes it longer.
#[test]
fn windows_and_the_command_line_change_settings_at_once() {
    let Some(dist) = std::env::var_os("RUNTIMED_TEST_DIST").map(PathBuf::from) else {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
        return;
    };
    let rounds: u32 = std::env::var("RUNTIMED_TEST_ROUNDS").map_or(60, |rounds| rounds.parse().unwrap());
    let daemon = Daemon::start();
    let mut windows = [("window_one", Window::open(&daemon)), ("window_two", Window::open(&daemon))];
    let path = file(&daemon);
    // The daemon writes it when it has settings to offer.
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = 0;
            while !done.load(Ordering::Relaxed) {
                assert!(read_file(&path).is_object());
                read += 1;
            }
            read
        });
        let typing = windows.each_mut().map(|(name, window)| {
            scope.spawn(move || {
                for round in 0..rounds {
                    window.set(name, &round.to_string());
                    window.set_in_editor(name, &round.to_string());
                }
            })
        });
        for round in 0..rounds {
            let mut runt = Command::new(dist.join("bin/runt"));
            runt.args(["config", "set", "editor.code_font_family", &round.to_string()]);
            let said = runt.env_clear().env("HOME", daemon.home.path()).output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        }
        typing.into_iter().for_each(|typing| typing.join().unwrap());
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    let last = (rounds - 1).to_string();
    let is_last = |settings: &Value| {
        settings["window_one"] == last
            && settings["window_two"] == last
            && settings["editor"]["code_font_family"] == last
            && settings["editor"]["window_one"] == last
            && settings["editor"]["window_two"] == last
            && settings["theme"] == "system"
    };
    for (_, window) in &mut windows {
        window.until(is_last);
    }
    while !is_last(&read_file(&path)) {
        std::thread::sleep(Duration::from_millis(10));
    }
}
