//! `runt ps`.

use serde_json::json;

use crate::world::{World, is_running, number};

#[tokio::test(flavor = "multi_thread")]
async fn kernels_of_notebooks_are_listed_and_a_death_is_explained() {
    let Some(world) = World::new() else { return };
    assert_eq!(world.runt(&["ps"]).good().out, "No running kernels found.\n");
    world.runt(&["daemon", "restart"]).good();
    assert_eq!(world.runt(&["ps", "--json"]).good().out, "[]\n");
    let session = world.notebook("a.ipynb").await;
    let pid = number(&session, "import os; os.getpid()").await;
    let path = world.home().join("work/a.ipynb");
    let row = world.ps().remove(0);
    let seen = ["name", "status", "source", "notebook", "pid", "env_source"].map(|key| row[key].clone());
    let wanted = json!(["python", "idle", "runtimed", path, pid, "uv:prewarmed"]);
    assert_eq!(json!(seen), wanted);
    assert!(row["memory_bytes"].as_u64() > Some(1 << 20), "{row}");
    let table = world.runt(&["ps"]).good().out;
    assert!(table.contains("│ ~/work/a.ipynb") && table.contains(&format!("│ {pid} ")), "{table}");
    world.runt(&["jupyter", "start", "python3", "--name", "other"]).good();
    let verbose = world.runt(&["ps", "-v"]).good().out;
    assert!(verbose.starts_with("Connection-file kernels:\n╭") && verbose.contains("│ other "), "{verbose}");
    assert!(verbose.contains("\n\nDaemon-managed kernels:\n╭"), "{verbose}");

    std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    let gone = session.wait_for(|it| {
        use runtimed_client::protocol::documents::runtime_state::KernelState;
        matches!(it.runtime_state.kernel_state(), KernelState::Error { .. }).then_some(())
    });
    gone.await.unwrap();
    assert!(!is_running(pid));
    let row = world.ps().remove(0);
    let sentence =
        "The kernel was ended by signal 9 (SIGKILL: somebody killed it, or the system for lack of memory).";
    assert_eq!((&row["status"], &row["error"]), (&json!("error"), &json!(sentence)));
    let said = world.runt(&["ps"]).good().out;
    assert!(said.ends_with(&format!("\n~/work/a.ipynb: {sentence}\n")), "{said}");
}
