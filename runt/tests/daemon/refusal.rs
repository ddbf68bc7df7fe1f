//! A daemon that has edits no disk holds, and is asked to stop.

use std::process::Command;

use runtimed_client::protocol::documents::Document as _;
use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::{Documents, NotebookSession};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::world::{Said, World, is_running};

/// No kernel and no environment: nothing but the journal is written.
const SETTINGS: &str = r#"{ "default_python_env": "none-of-them", "install_default_data_packages": false,
    "kernels": { "warm": 0 }, "uv_pool_size": 0, "conda_pool_size": 0, "pixi_pool_size": 0 }"#;
/// Longest file that the daemon can write while its disk is full.
const FULL: u64 = 64 * 1024;

/// A daemon with an untitled notebook whose last edit is in memory only, and its process.
async fn with_unwritten_edits(world: &World) -> (NotebookSession, u64) {
    std::fs::write(world.home().join(".config/nteract/settings.json"), SETTINGS).unwrap();
    // A process that ignores the signal gets an error instead, as from a full disk.
    let start = world.command("runt");
    let mut patient = Command::new("sh");
    patient.args(["-c", r#"trap '' XFSZ; exec "$0" daemon start --json"#]).arg(start.get_program());
    patient.env_clear().envs(start.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let pid = Said::of(patient.output().unwrap()).json()["pid"].as_u64().unwrap();
    let session = NotebookSession::create(&world.client(), CreateNotebook::default()).await.unwrap();
    session.ready().await.unwrap();
    limit(pid, Some(FULL));
    let metadata = json!({ "filling": "x".repeat(2 * FULL as usize) });
    session.edit(|notebook| notebook.set_metadata(metadata.as_object().unwrap())).unwrap();
    session.wait_for(|it| (!issue(it).is_empty()).then_some(())).await.unwrap();
    (session, pid)
}

fn limit(pid: u64, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

fn issue(documents: &Documents) -> String {
    documents.runtime_state.file_checkpoint().source_issue_reason
}

#[tokio::test(flavor = "multi_thread")]
async fn it_refuses_until_there_is_room_and_keeps_everything() {
    let Some(world) = World::new() else { return };
    let (session, pid) = with_unwritten_edits(&world).await;
    for (command, means) in
        [("stop", "Failed to stop daemon: "), ("restart", "Failed to restart daemon: "), ("shutdown", "")]
    {
        let said = world.runt(&["daemon", command]);
        assert_eq!(said.code, 1, "{}", said.out);
        let reason = format!(
            "{means}clean shutdown blocked: the last edits of the untitled notebook {} are in memory only",
            session.notebook_id().unwrap()
        );
        assert!(said.err.contains(&reason) || means.is_empty(), "{}", said.err);
        assert!(said.err.contains("File too large") && said.err.contains("Make room"), "{}", said.err);
        assert!(said.err.contains("--force") || means.is_empty(), "{}", said.err);
    }
    let closed = world.runt(&["stop", &session.notebook_id().unwrap()]);
    assert!(closed.code == 1 && closed.err.contains("It stays open."), "{}", closed.err);
    assert!(is_running(pid));
    assert_eq!(world.runt(&["daemon", "ping"]).good().out, "pong\n");

    limit(pid, None);
    session.wait_for(|it| issue(it).is_empty().then_some(())).await.unwrap();
    let before = session.read(|it| it.notebook.to_json());
    let id = session.notebook_id().unwrap();
    drop(session);
    world.runt(&["daemon", "stop"]).good();
    assert!(!is_running(pid));
    world.runt(&["daemon", "start"]).good();
    let again = CreateNotebook { notebook_id: Some(id), ..CreateNotebook::default() };
    let session = NotebookSession::create(&world.client(), again).await.unwrap();
    session.ready().await.unwrap();
    assert_eq!(session.read(|it| it.notebook.to_json()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn force_ends_it_all_the_same_and_it_says_what_was_lost() {
    let Some(world) = World::new() else { return };
    let (session, pid) = with_unwritten_edits(&world).await;
    let announced = world.home().join(".cache/runt/daemon.json");
    let announced: Value = serde_json::from_slice(&std::fs::read(announced).unwrap()).unwrap();
    assert_eq!(announced["pid"], pid);
    let said = world.runt(&["daemon", "stop", "--force"]).good();
    assert!(said.out.contains("\nDaemon stopped via signal.\n"), "{}", said.out);
    assert!(!is_running(pid));
    let log = world.runt(&["daemon", "logs"]).good().out;
    let words = format!(
        "stopping all the same: clean shutdown blocked: the last edits of the untitled notebook {}",
        session.notebook_id().unwrap()
    );
    assert!(log.contains(&words) && log.contains("graceful shutdown"), "{log}");
    assert!(!world.home().join(".cache/runt/daemon.json").exists());
}
