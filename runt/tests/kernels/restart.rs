//! `runt daemon restart`.

use serde_json::json;

use crate::world::{World, is_running, number};

#[tokio::test(flavor = "multi_thread")]
async fn kernels_go_on_when_the_daemon_is_restarted() {
    let Some(world) = World::new() else { return };
    // There is none: it is started.
    let first = world.runt(&["daemon", "restart", "--json"]).json();
    assert_eq!((&first["was_running"], &first["kernels"]), (&json!(false), &json!([])));
    let session = world.notebook("a.ipynb").await;
    let pid = number(&session, "import os; kept = 41; os.getpid()").await;

    let second = world.runt(&["daemon", "restart", "--json"]).json();
    assert_ne!(first["pid"], second["pid"]);
    assert!(!is_running(first["pid"].as_u64().unwrap()));
    assert_eq!(second["kernels"][0]["pid"], pid);
    assert_eq!(second["kernels"][0]["notebook"].as_str(), world.home().join("work/a.ipynb").to_str());
    assert_eq!(second["kernels_not_back"], json!([]));
    let session = world.notebook("a.ipynb").await;
    assert_eq!(number(&session, "kept + 1").await, 42);
    assert_eq!(number(&session, "os.getpid()").await, pid);

    let runt = world.command("runt").get_program().to_string_lossy().into_owned();
    let inside = format!("import subprocess; subprocess.run([{runt:?}, 'daemon', 'restart']).returncode");
    assert_eq!(number(&session, &inside).await, 1, "it would end with the kernel");

    let said = world.runt(&["daemon", "restart"]).good();
    assert_eq!(
        said.out,
        format!(
            "Restarting runtimed service...\nService restarted.\n1 kernel goes on:\n  ~/work/a.ipynb (pid {pid})\n"
        )
    );
    world.runt(&["daemon", "stop"]).good();
    assert!(!is_running(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_daemon_has_the_options_of_the_last() {
    let Some(world) = World::new() else { return };
    let mut daemon = world.command("runtimed");
    daemon.args(["--log-level", "info", "run", "--uv-pool-size", "0", "--blob-store-dir", "blobs here"]);
    let mut daemon = daemon.stderr(std::process::Stdio::null()).spawn().unwrap();
    let client = world.client();
    let info = loop {
        if let Ok(info) = client.daemon_info().await {
            break info;
        }
        assert!(daemon.try_wait().unwrap().is_none());
    };
    world.runt(&["daemon", "restart"]).good();
    assert!(daemon.wait().unwrap().success());
    let next = client.daemon_info().await.unwrap();
    assert_ne!(info.pid, next.pid);
    assert_eq!((info.arguments, info.working_dir), (next.arguments, next.working_dir));
}

#[test]
fn a_daemon_that_cannot_start_says_where_to_read_why() {
    let Some(world) = World::new() else { return };
    std::fs::create_dir_all(world.home().join(".cache/runt/runtimed.sock/in the way")).unwrap();
    let said = world.runt(&["daemon", "restart"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("ended with exit status: 1 before it answered"), "{}", said.err);
    assert!(said.err.contains("~/.cache/runt/runtimed.log"), "{}", said.err);
    std::fs::remove_dir_all(world.home().join(".cache/runt/runtimed.sock")).unwrap();
}
