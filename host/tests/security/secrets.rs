//! Secrets of settings, environment and notebooks never come into a log, however much is logged. The bundle of `runt
//! diagnostics` is in `runt/tests/diagnostics.rs`.

use std::fs;

use runtimed_client::protocol::documents::runtime_state::KernelState;
use runtimed_client::protocol::handshake::OpenNotebook;
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::{Client, Documents, NotebookSession};
use serde_json::{Value, json};

use crate::stop;

/// Part of every secret.
const SEED: &str = "swordfish";

/// Nobody listens at the first port, so every index and channel is refused at once.
fn settings() -> Value {
    json!({
        "install_default_data_packages": false, "uv_pool_size": 0, "conda_pool_size": 1, "keep_alive_secs": 60,
        "uv": { "index": "https://ana:swordfish-0@127.0.0.1:1/simple" },
        "conda": { "channels": ["https://ana:swordfish-1@127.0.0.1:1/channel"] },
        "mine": { "api_token": "swordfish-2" },
    })
}

fn notebook(kind: &str, section: Value) -> String {
    let metadata = json!({"runt": {kind: section}});
    let cell = json!({"id": "a", "cell_type": "code", "metadata": {}, "source": "token = 'swordfish-3'",
        "execution_count": null, "outputs": []});
    json!({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": [cell]}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_however_much_is() {
    let Some(daemon) = crate::start_with(&settings().to_string(), |command| {
        for (name, value) in [
            ("RUST_LOG", "debug"),
            ("AWS_SECRET_ACCESS_KEY", "swordfish-4"),
            ("GITHUB_TOKEN", "swordfish-5"),
            ("UV_INDEX_PRIVATE_PASSWORD", "swordfish-6"),
            ("UV_EXTRA_INDEX_URL", "https://ana:swordfish-7@127.0.0.1:1/simple"),
            ("PIP_EXTRA_INDEX_URL", "https://ana:swordfish-8@127.0.0.1:1/simple"),
        ] {
            command.env(name, value);
        }
    }) else {
        return;
    };
    let client = Client::new(&daemon.socket);
    let folder = daemon.home.path().canonicalize().unwrap();
    let index = "https://ana:swordfish-9@127.0.0.1:1/simple";
    let notebooks = [
        notebook("uv", json!({"dependencies": ["no-such-package-zzz9"], "index": [{"url": index}]})),
        notebook("uv", json!({"dependencies": ["x @ https://ana:swordfish-11@127.0.0.1:1/x-1.0.tar.gz"]})),
        notebook(
            "conda",
            json!({"dependencies": ["x"], "channels": ["https://ana:swordfish-12@127.0.0.1:1/c"]}),
        ),
    ];
    for (number, content) in notebooks.iter().enumerate() {
        let file = folder.join(format!("{number}.ipynb"));
        fs::write(&file, content).unwrap();
        let open = OpenNotebook { path: file.display().to_string(), ..OpenNotebook::default() };
        let session = NotebookSession::open(&client, open).await.unwrap();
        session.ready().await.unwrap();
        let state = |it: &Documents| it.runtime_state.kernel_state();
        let asks = |it: &Documents| match state(it) {
            KernelState::AwaitingTrust => Some(true),
            KernelState::Error { .. } => Some(false),
            _ => None,
        };
        let asks = session.wait_for(asks).await.unwrap();
        assert!(asks, "{number}: {:?}", session.read(state));
        session.request(NotebookRequest::ApproveTrust { observed_heads: None }).await.unwrap();
        let failed = |it: &Documents| matches!(state(it), KernelState::Error { .. }).then_some(());
        session.wait_for(failed).await.unwrap();
    }
    // A pool tried as well.
    let failed =
        || daemon.ask(json!({"type": "status"}))["state"]["conda"]["consecutive_failures"].as_u64() > Some(0);
    while !failed() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let info = daemon.ask(json!({"type": "get_daemon_info"})).to_string();
    assert!(!info.contains(SEED), "{info}");
    let base = daemon.base();
    let logs = || {
        let files = fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().path());
        let logs = files.filter(|path| path.display().to_string().contains(".log"));
        logs.map(|path| fs::read_to_string(path).unwrap()).collect::<String>()
    };
    let lines = logs();
    assert!(lines.contains("DEBUG"), "nothing is shown by a log that is empty: {lines}");
    let said: Vec<&str> = lines.lines().filter(|line| line.contains(SEED)).collect();
    assert!(said.is_empty(), "{}", said.join("\n"));
    assert!(!fs::read_to_string(base.join("daemon.json")).unwrap().contains(SEED));
    stop(daemon);
}
