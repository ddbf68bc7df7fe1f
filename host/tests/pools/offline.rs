//! No network, after it was there once.

use std::fs;
use std::process::Command;

use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::{Client, NotebookSession};
use serde_json::json;

use crate::scripts::pass_environment;
use crate::support::Daemon;
use crate::world::{log, notebook, pooled, prefix, settings, settled, start, stop, templates, until, value};

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

fn without_network(command: &mut Command) {
    pass_environment(command);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env(name, NOWHERE);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
}

/// A new notebook that declares `six`, which creating it approves.
pub(crate) async fn with_six(daemon: &Daemon) -> NotebookSession {
    let create = CreateNotebook {
        runtime: "python".into(),
        dependencies: vec!["six".into()],
        ..CreateNotebook::default()
    };
    let session = NotebookSession::create(&Client::new(&daemon.socket), create).await.unwrap();
    session.ready().await.unwrap();
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_warm_up_pools_refill_and_notebooks_start() {
    let Some(mut daemon) = start(&settings(2), |_| {}) else { return };
    settled(&daemon, 2);
    assert_eq!(value(&with_six(&daemon).await, "six", "import six; six.__name__").await, "six");
    daemon.ask(json!({ "type": "shutdown" }));
    assert!(daemon.ended().success());

    // With its template.
    let mut daemon = daemon.start_again_with(|_, command| without_network(command));
    let session = notebook(&daemon).await;
    let first = prefix(&session).await;
    settled(&daemon, 2);
    assert!(pooled(&daemon).contains(&first));
    // From packages.
    let (old, _) = templates(&daemon).remove(0);
    assert_eq!(daemon.ask(json!({ "type": "flush_pool" }))["type"], "flushed");
    until(&daemon, |_| !old.exists());
    settled(&daemon, 2);
    assert_eq!(value(&notebook(&daemon).await, "one", "1 + 1").await, "2");
    // As it was built, and anew.
    assert_eq!(value(&with_six(&daemon).await, "six", "import six; six.__name__").await, "six");
    daemon.ask(json!({ "type": "shutdown" }));
    assert!(daemon.ended().success());
    fs::remove_dir_all(daemon.base().join("inline-envs")).unwrap();
    let daemon = daemon.start_again_with(|_, command| without_network(command));
    settled(&daemon, 2);
    assert_eq!(value(&with_six(&daemon).await, "six", "import six; six.__name__").await, "six");
    let pool = until(&daemon, |pool| pool["available"] == 2 && pool["warming"] == 0);
    assert_eq!(pool["consecutive_failures"], 0, "{pool}\n{}", log(&daemon));
    stop(daemon);
}
