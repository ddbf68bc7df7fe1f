//! Settings, as stock automerge clients and editors see them.

use std::path::{Path, PathBuf};

use runtimed_protocol::documents::automerge::sync::{Message, State, SyncDoc};
use runtimed_protocol::documents::automerge::transaction::Transactable;
use runtimed_protocol::documents::automerge::{AutoCommit, ROOT};
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
