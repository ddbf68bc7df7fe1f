//! Kernels that outlive the daemon: what they say while nobody listens, and who finds them again.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{Channel, ErrorCode, Kernel, Plugin};
use runtimed_plugin_jupyter::JupyterPlugin;
use serde_json::{Value, json};
use support::{
    Recorder, World, execute, folders, host, is_running, kernel_python, request, result, stream, until_gone,
};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Attaches to the one kernel there is.
async fn attach(world: &World, after: u64) -> (Box<dyn Kernel>, Recorder) {
    let found = world.backend.running().await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let (recorder, events) = Recorder::after(after);
    let kernel = world.backend.attach(&found[0].spec.kernel, after, events).await.unwrap();
    (kernel, recorder)
}

/// The process ids in the one record there is: of the shim and of the kernel.
fn processes(world: &World) -> (u32, u32) {
    let folder = folders(world.base.path()).remove(0);
    let record: Value = serde_json::from_slice(&std::fs::read(folder.join("record.json")).unwrap()).unwrap();
    let pid = |name: &str| u32::try_from(record[name]["pid"].as_u64().unwrap()).unwrap();
    (pid("shim"), pid("process"))
}

fn signal(pid: u32, signal: &str) {
    let kill = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(kill.unwrap().success());
}

/// The first daemon's part is played by this test in a process of its own, which is killed.
#[tokio::test]
async fn a_killed_daemon_costs_no_line_and_no_variable() {
    const BASE: &str = "RUNTIMED_TEST_DAEMON_BASE";
    const CODE: &str =
        "import time\nx = 41\nfor i in range(300):\n    print(i, flush=True)\n    time.sleep(0.005)";
    let Some(python) = kernel_python() else { return };
    if let Some(base) = std::env::var_os(BASE) {
        let world = World::at(tempfile::Builder::new().disable_cleanup(true).tempdir_in(base).unwrap()).await;
        let (kernel, mut recorder) = world.launch().await.unwrap();
        let id = execute(&*kernel, CODE);
        let mut heard = Vec::new();
        while stream(&heard, "stdout").lines().count() < 50 {
            heard.push(recorder.next().await.unwrap());
            assert!(heard.last().is_none_or(|message| message.parent == id));
        }
        kernel.acknowledge(recorder.last() / 2);
        let said = json!({
            "base": world.base.path(), "pid": kernel.info().pid, "last": recorder.last(), "id": id,
            "text": stream(&heard, "stdout"),
        });
        println!("\n@{said}");
        std::future::pending::<()>().await;
    }
    let base = tempfile::tempdir().unwrap();
    let mut daemon = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_daemon_costs_no_line_and_no_variable", "--nocapture"])
        .env(BASE, base.path())
        .env("RUNTIMED_TEST_KERNEL_PYTHON", python)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
    let said: Value = loop {
        let line = lines.next_line().await.unwrap().expect("the daemon says what it heard");
        if let Some(said) = line.strip_prefix('@') {
            break serde_json::from_str(said).unwrap();
        }
    };
    daemon.kill().await.unwrap();

    let folder = Path::new(said["base"].as_str().unwrap());
    let plugin = Arc::new(JupyterPlugin::create(Arc::new(host(folder))).unwrap());
    plugin.start().await.unwrap();
    let backend = plugin.kernel_backends().remove(0);
    let found = backend.running().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(json!(found[0].pid), said["pid"]);
    assert_eq!(found[0].spec.room, "room");
    let last = said["last"].as_u64().unwrap();
    let (mut recorder, events) = Recorder::after(last);
    let kernel = backend.attach(&found[0].spec.kernel, last, events).await.unwrap();
    assert_eq!(json!(kernel.info().pid), said["pid"]);
    assert_eq!(kernel.info().reply["language_info"]["name"], "python");
    let (messages, reply) = recorder.answer(said["id"].as_str().unwrap()).await;
    assert_eq!(reply["status"], "ok");
    let text = said["text"].as_str().unwrap().to_owned() + &stream(&messages, "stdout");
    let expected: String = (0..300).map(|number| format!("{number}\n")).collect();
    assert_eq!(text, expected, "every number once, in order");
    let (messages, _) = recorder.run(&*kernel, "x + 1").await;
    assert_eq!(result(&messages), Some("42"));
    let report = kernel.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!((report.code, report.requested), (Some(0), true));
    plugin.stop(Duration::from_secs(10)).await.unwrap();
    assert!(folders(folder).is_empty());
}

#[tokio::test]
async fn what_was_acknowledged_is_not_told_again_and_the_rest_is() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    recorder.run(&*kernel, "1").await;
    let first = recorder.last();
    recorder.run(&*kernel, "2").await;
    let second = recorder.last();
    assert!(first < second);
    kernel.acknowledge(first);
    // Whoever sends after that is heard after that.
    recorder.run(&*kernel, "3").await;
    let third = recorder.last();
    drop(kernel);
    // As if nothing had been heard: what is there comes.
    let found = world.backend.running().await.unwrap().remove(0);
    let (mut recorder, events) = Recorder::after(first);
    let kernel = world.backend.attach(&found.spec.kernel, 0, events).await.unwrap();
    while recorder.last() < third {
        recorder.next().await.unwrap();
    }
    // As if more had been heard than was said.
    drop(kernel);
    let (mut recorder, events) = Recorder::after(third);
    let kernel = world.backend.attach(&found.spec.kernel, u64::MAX, events).await.unwrap();
    let (messages, _) = recorder.run(&*kernel, "'on'").await;
    assert_eq!(result(&messages), Some("'on'"));
    let missing = world.backend.attach("another", 0, Recorder::new().1).await.err().unwrap();
    assert_eq!(missing.code, ErrorCode::NotFound);
    world.end().await;
}

#[tokio::test]
async fn a_request_sent_again_after_a_restart_runs_once() {
    let world = World::new().await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let content = json!({ "code": "n = globals().get('n', 0) + 1" });
    let asked = request("the-same-id", "execute_request", &content);
    kernel.send(Channel::Shell, asked.clone()).unwrap();
    recorder.answer("the-same-id").await;
    let last = recorder.last();
    drop(kernel);
    let (kernel, mut recorder) = attach(&world, last).await;
    kernel.send(Channel::Shell, asked).unwrap();
    let (messages, _) = recorder.run(&*kernel, "n").await;
    assert_eq!(result(&messages), Some("1"));
    world.end().await;
}

#[tokio::test]
async fn the_last_one_that_attaches_has_the_kernel() {
    let world = World::new().await;
    let Some((first, mut recorder)) = world.launch().await else { return };
    recorder.run(&*first, "x = 1").await;
    let (second, mut new_recorder) = attach(&world, recorder.last()).await;
    // The first hears nothing any more, of an end least of all.
    assert!(recorder.is_closed().await);
    assert_eq!(first.interrupt().await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(first.shutdown(Duration::ZERO).await.unwrap_err().code, ErrorCode::Unavailable);
    let (messages, _) = new_recorder.run(&*second, "x").await;
    assert_eq!(result(&messages), Some("1"));
    world.end().await;
}

/// With a memory so small that nearly all of it goes to disk.
#[tokio::test]
async fn a_flood_that_nobody_reads_is_kept_whole() {
    let settings = json!({ "kernels": { "keep_memory_bytes": 64 << 10 } });
    let world = World::with_settings(settings).await;
    let Some((kernel, recorder)) = world.launch().await else { return };
    let (_, process) = processes(&world);
    let id = execute(&*kernel, "for i in range(200_000): print(i)\nopen('done', 'w').close()");
    drop((kernel, recorder));
    let done = world.base.path().join("done");
    until_gone(|| !done.exists()).await;
    let (kernel, mut recorder) = attach(&world, 0).await;
    let (messages, reply) = recorder.answer(&id).await;
    assert_eq!(reply["status"], "ok");
    let text = stream(&messages, "stdout");
    assert!(text.lines().enumerate().all(|(number, line)| line == number.to_string()));
    assert_eq!(text.lines().count(), 200_000);
    // Once more from the middle, where the disk has to be searched.
    let middle = recorder.last() / 2;
    let last = recorder.last();
    drop(kernel);
    let (kernel, mut recorder) = attach(&world, middle).await;
    while recorder.last() < last {
        recorder.next().await.unwrap();
    }
    kernel.acknowledge(last);
    let (messages, _) = recorder.run(&*kernel, "import os; os.getpid()").await;
    assert_eq!(result(&messages), Some(process.to_string().as_str()));
    world.end().await;
}

#[tokio::test]
async fn more_than_can_be_kept_leaves_a_gap_that_says_so() {
    let settings = json!({ "kernels": { "keep_memory_bytes": 32 << 10, "keep_disk_bytes": 64 << 10 } });
    let world = World::with_settings(settings).await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    recorder.run(&*kernel, "from IPython.display import display").await;
    let before = recorder.last();
    let id = execute(&*kernel, "for i in range(5_000): display(i)\nopen('done', 'w').close()");
    drop((kernel, recorder));
    let done = world.base.path().join("done");
    until_gone(|| !done.exists()).await;
    let (kernel, mut recorder) = attach(&world, before).await;
    // The recorder checks that the numbers have no gap.
    let (messages, reply) = recorder.answer(&id).await;
    assert_eq!(reply["status"], "ok", "the answer is not lost");
    let shown: BTreeSet<u64> = messages
        .iter()
        .filter(|message| message.kind == "display_data")
        .map(|message| message.content["data"]["text/plain"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(!shown.is_empty() && shown.len() < 5_000, "{}", shown.len());
    // More than one notice, if the last of it came while we were reading already.
    let notices = stream(&messages, "stderr");
    let counts = notices.split('[').filter_map(|notice| notice.split_once(" message(s) of this output"));
    let missing: usize = counts.map(|(count, _)| count.parse::<usize>().unwrap()).sum();
    assert_eq!(shown.len() + missing, 5_000, "{notices}");
    // With room again, everything is kept.
    kernel.acknowledge(recorder.last());
    let (messages, _) = recorder.run(&*kernel, "for i in range(10): display(i)").await;
    assert_eq!(messages.iter().filter(|message| message.kind == "display_data").count(), 10);
    world.end().await;
}

#[tokio::test]
async fn an_end_that_nobody_saw_is_reported_later() {
    let world = World::new().await;
    let Some((kernel, _recorder)) = world.launch().await else { return };
    let (shim, process) = processes(&world);
    let code = "import os, sys\nprint('last words', flush=True)\n\
        sys.__stderr__.write('it was me\\n')\nsys.__stderr__.flush()\n\
        sys.stdout.flush(); import time; time.sleep(0.2); os._exit(3)";
    execute(&*kernel, code);
    drop(kernel);
    until_gone(|| is_running(process)).await;
    let (kernel, mut recorder) = attach(&world, 0).await;
    let said = recorder.until(|message| message.kind == "stream").await;
    assert_eq!(said.content["text"], "last words\n");
    let report = recorder.exit().await;
    assert_eq!((report.code, report.signal, report.requested), (Some(3), None, false));
    assert!(report.stderr_tail.ends_with("it was me"), "{report:?}");
    // The shim keeps it until what was said has had its effect.
    assert!(is_running(shim));
    kernel.acknowledge(u64::MAX);
    until_gone(|| is_running(shim) || world.folders() > 0).await;
    assert!(world.backend.running().await.unwrap().is_empty());
    world.end().await;
}

#[tokio::test]
async fn nobody_else_can_enter_and_nothing_is_held_open() {
    let world = World::new().await;
    // A descriptor that children inherit.
    let open = tempfile::NamedTempFile::new_in(world.base.path()).unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    let Some((kernel, _recorder)) = world.launch().await else { return };
    let (shim, process) = processes(&world);
    let folder = folders(world.base.path()).remove(0);
    let mode = |name: &str| folder.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    assert_eq!([mode("shim"), mode("record.json"), mode("connection.json")], [0o600; 3]);
    let links = |pid| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap()).collect::<Vec<_>>()
    };
    for pid in [shim, process] {
        let open = links(pid).into_iter().find(|link| link == open.path());
        assert_eq!(open, None, "of process {pid}");
    }
    // Sessions of their own, fields 4 to 6 of stat: parent, group, session.
    let family = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(1).take(3);
        fields.map(|field| field.parse().unwrap()).collect::<Vec<u32>>()
    };
    assert_eq!(family(shim)[1..], [shim, shim]);
    assert_eq!(family(process), [shim, process, process]);
    drop(kernel);
    world.end().await;
    assert!(!is_running(shim) && !is_running(process));
}

#[tokio::test]
async fn a_shim_that_is_asked_to_end_ends_its_kernel_in_order() {
    let world = World::new().await;
    let Some((_kernel, mut recorder)) = world.launch().await else { return };
    let (shim, process) = processes(&world);
    signal(shim, "-TERM");
    let report = recorder.exit().await;
    assert_eq!((report.code, report.requested), (Some(0), true));
    assert!(!is_running(process));
    world.end().await;
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_its_kernel_along() {
    let world = World::new().await;
    let Some((_kernel, mut recorder)) = world.launch().await else { return };
    let (shim, process) = processes(&world);
    // Not even a kernel that does not look after its parent is left.
    signal(process, "-STOP");
    signal(shim, "-KILL");
    let report = recorder.exit().await;
    assert_eq!((report.code, report.signal, report.requested), (None, None, false));
    assert!(report.stderr_tail.contains("kept the kernel"), "{report:?}");
    until_gone(|| is_running(process) || world.folders() > 0).await;
    world.end().await;
}

#[tokio::test]
async fn a_kernel_that_nobody_comes_back_for_ends() {
    let world = World::with_settings(json!({ "kernels": { "keep_without_daemon_secs": 1 } })).await;
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let (shim, process) = processes(&world);
    recorder.run(&*kernel, "1").await;
    drop(kernel);
    until_gone(|| is_running(process) || is_running(shim) || world.folders() > 0).await;
    world.end().await;
}

#[tokio::test]
async fn a_kernel_that_was_never_made_use_of_ends_with_its_handle() {
    let world = World::new().await;
    let Some((kernel, _recorder)) = world.launch().await else { return };
    let (shim, process) = processes(&world);
    drop(kernel);
    until_gone(|| is_running(process) || is_running(shim) || world.folders() > 0).await;
    world.end().await;
}

#[tokio::test]
async fn the_next_start_cleans_up_after_a_shim_that_died_with_its_daemon() {
    let world = World::new().await;
    let Some((kernel, recorder)) = world.launch().await else { return };
    let (shim, process) = processes(&world);
    kernel.acknowledge(0);
    drop((kernel, recorder));
    // Without a look at its parent.
    signal(process, "-STOP");
    // A folder as it is before the record is written.
    let early = world.base.path().join("run/kernels/12345678");
    std::fs::create_dir(&early).unwrap();
    // Its parent is this test, which has not waited for it yet: to others it is dead all the same.
    signal(shim, "-KILL");
    let next = JupyterPlugin::create(Arc::new(host(world.base.path()))).unwrap();
    next.start().await.unwrap();
    next.stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!(world.folders(), 0);
    until_gone(|| is_running(process)).await;
    world.end().await;
}

#[tokio::test]
async fn the_next_start_ends_a_kernel_that_cannot_be_found_again() {
    let world = World::new().await;
    let Some((kernel, recorder)) = world.launch().await else { return };
    let (shim, process) = processes(&world);
    kernel.acknowledge(0);
    drop((kernel, recorder));
    let record = folders(world.base.path()).remove(0).join("record.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, &text[..text.len() / 2]).unwrap();
    let next = JupyterPlugin::create(Arc::new(host(world.base.path()))).unwrap();
    next.start().await.unwrap();
    next.stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!(world.folders(), 0);
    until_gone(|| is_running(process) || is_running(shim)).await;
    world.end().await;
}
