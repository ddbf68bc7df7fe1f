//! System calls on files that fail, one after the other and for a while: the daemon lives, says so, keeps what it
//! acknowledged, and goes on as before once they work again.
//!
//! `faulty.c` lets them fail, for code that knows nothing of it. A few here, on every path of what is kept;
//! `cargo xtask torture faults` is for all of them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use runtimed_client::protocol::response::NotebookResponse;
use runtimed_client::{Client, Documents};
use serde_json::Value;

use crate::bystander::{Bystander, DEEDS, Place};
use crate::random::Random;
use crate::story::Story;
use crate::support::Daemon;
use crate::{asked, scripts, tally};

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "conda_pool_size": 0, "uv_pool_size": 1, "keep_alive_secs": 600 }"#;
/// What a test may take that goes wrong.
const PATIENCE: Duration = Duration::from_secs(120);
/// Faults in the ordinary tests: as many as take half a minute.
const RUNS: u64 = 10;
/// Errors, and the calls that can have them.
const ERRORS: [(&str, i32, &str); 4] =
    [("ENOSPC", 28, "ownd"), ("EIO", 5, "orwsn"), ("EMFILE", 24, "or"), ("EACCES", 13, "ond")];
/// An output in the document, and one that is a blob; each run has its own.
const CELL: &str = "print('shown')\nprint('N' + 'x' * 100_000)";

/// More calls than there will be.
const LASTING: u64 = 1 << 40;

/// Calls that are to fail: the one with this number, and those behind it.
#[derive(Debug, Clone, Copy)]
struct Fault {
    error: (&'static str, i32, &'static str),
    from: u64,
    /// How many; very many are a state that lasts until it is ended.
    count: u64,
}

/// What was acknowledged.
#[derive(Default)]
struct Kept {
    /// Cells, and what they say.
    cells: BTreeMap<String, String>,
    /// Executions that ended well, and what they showed.
    runs: Vec<(String, Vec<Value>)>,
    /// The last cell that was there at a save that was answered.
    saved: Option<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_are_told_of_and_made_up_for() {
    if env::var_os("RUNTIMED_TEST_DIST").is_none() {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
        return;
    }
    let tools = tempfile::tempdir().unwrap();
    let Some(faulty) = Faulty::build(tools.path()) else {
        eprintln!("skipped: calls cannot be made to fail here.");
        return;
    };
    let (seed, runs) = asked(RUNS);
    let mut daemon = scripts::start(SETTINGS, |_| {});
    let file = daemon.home.path().canonicalize().unwrap().join("work/file.ipynb");
    let story = Story::open(&daemon, &file).await.unwrap();
    let (mut bystander, mut kept, mut random) = (Bystander::new(seed), Kept::default(), Random(seed));
    // From now on with a kernel that stays, and calls that can be made to fail.
    act(&story, &daemon, &mut bystander, &mut kept, "first").await;
    drop(story);
    daemon = again(daemon, &faulty);
    let (mut found, mut failed) = ([0; ERRORS.len()], 0);
    for run in 0..runs {
        let kind = run as usize % ERRORS.len();
        let error = ERRORS[kind];
        if found[kind] == 0 {
            // How many calls there are to choose from.
            faulty.order(Fault { error, from: u64::MAX >> 1, count: 0 });
            let story = Story::open(&daemon, &file).await.unwrap();
            act(&story, &daemon, &mut bystander, &mut kept, &format!("counts{kind}")).await;
            story.session.close().await;
            found[kind] = faulty.calls().len();
        }
        // A full disk first.
        let from = if run == 0 { 1 } else { random.below(found[kind]) as u64 + 1 };
        let count = if run == 0 { LASTING } else { [1, 2, LASTING][random.below(3)] };
        let fault = Fault { error, from, count };
        println!("seed {seed}, run {run}: {fault:?}");
        let endured = endure(&mut daemon, &file, &faulty, fault, &mut bystander, &mut kept, run);
        failed += tokio::time::timeout(PATIENCE, endured).await.unwrap_or_else(|_| {
            panic!("seed {seed}, run {run}: {fault:?}: nothing happens any more\n{}", log_of(&daemon))
        });
        daemon = again(daemon, &faulty);
        check(&daemon, &file, &mut bystander, &kept, fault).await;
    }
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    tally(&format!("seed {seed}: {runs} faults, {failed} calls failed"));
}

/// One fault, and what comes after; returns how many calls failed.
async fn endure(
    daemon: &mut Daemon,
    file: &Path,
    faulty: &Faulty,
    fault: Fault,
    bystander: &mut Bystander,
    kept: &mut Kept,
    run: u64,
) -> usize {
    let client = Client::new(&daemon.socket);
    let story = Story::open(daemon, file).await.unwrap();
    fs::remove_file(daemon.base().join("runtimed.log.1")).ok();
    let before = log_of(daemon).len();
    faulty.order(fault);
    let mut told = act(&story, daemon, bystander, kept, &format!("cell{run}")).await;
    client.ping().await.unwrap();
    told.push(story.trouble());
    told.push(client.daemon_info().await.unwrap().settings_problem.unwrap_or_default());
    let failed: Vec<_> = faulty.calls().into_iter().filter(|it| it.contains(" failed ")).collect();
    faulty.order(Fault { count: 0, ..fault });
    // What it was not allowed to remove is removed for it.
    for path in
        failed.iter().filter_map(|it| it.split_once(" n failed ")?.1.contains(".runtimed-").then_some(it))
    {
        fs::remove_file(path.split_once(" failed ").unwrap().1).ok();
    }
    let log = log_of(daemon);
    let log = &log[before.min(log.len())..];
    told.extend(log.lines().filter(|it| it.contains("WARN") || it.contains("ERROR")).map(ToOwned::to_owned));
    assert!(!log.contains("PANIC"), "{fault:?}: {failed:?}\n{log}");
    let lasting = fault.count == LASTING;
    if lasting && failed.iter().any(|it| matters(it)) {
        assert!(told.iter().any(|it| !it.is_empty()), "{fault:?}: nobody says anything of {failed:?}");
    }
    println!(
        "  {} failed, told: {:.300}",
        failed.len(),
        told.iter().find(|it| !it.is_empty()).map_or("nothing", |it| it)
    );

    // All is well again, by itself or when it is tried again.
    let well =
        |it: &Documents| it.runtime_state.file_checkpoint().source_issue_reason.is_empty().then_some(());
    story.session.wait_for(well).await.unwrap();
    while client.daemon_info().await.unwrap().settings_problem.is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = act(&story, daemon, bystander, kept, &format!("after{run}")).await;
    assert!(told.is_empty(), "{fault:?}: it works again, but {told:?}\n{}", log_of(daemon));
    // A flush that failed at the last moment is heard of later than all of this.
    story.session.wait_for(well).await.unwrap();
    story.session.close().await;
    failed.len()
}

/// Whether somebody has to hear of a call that failed: not if it only looked whether something is there, or cleaned up.
fn matters(call: &str) -> bool {
    let kind = call.split(' ').nth(1).unwrap();
    matches!(kind, "o" | "w" | "s" | "d")
}

/// Does everything once; returns what failed.
async fn act(
    story: &Story,
    daemon: &Daemon,
    bystander: &mut Bystander,
    kept: &mut Kept,
    cell: &str,
) -> Vec<String> {
    let mut failed = Vec::new();
    let source = CELL.replace('N', cell);
    match story.add(cell, &source).await {
        Ok(()) => drop(kept.cells.insert(cell.to_owned(), source)),
        Err(error) => failed.push(error.to_string()),
    }
    match story.run(cell).await {
        Ok((execution, true)) => kept.runs.push((execution.clone(), story.outputs(&execution))),
        Ok((execution, false)) => failed.push(format!("{:?}", story.outputs(&execution))),
        Err(error) => failed.push(error.to_string()),
    }
    match story.save().await {
        Ok(NotebookResponse::NotebookSaved(_) | NotebookResponse::NotebookAlreadyCurrent(_)) => {
            kept.saved = kept.cells.contains_key(cell).then(|| cell.to_owned()).or(kept.saved.take());
        }
        other => failed.push(said(&other)),
    }
    for deed in 0..DEEDS {
        let (mut one, place, id) = (std::mem::take(bystander), Place::of(daemon), story.id());
        let (one, done) = tokio::task::spawn_blocking(move || {
            let done = one.act(deed, &place, &id);
            (one, done)
        })
        .await
        .unwrap();
        *bystander = one;
        failed.extend(done.err().map(|error| error.to_string()));
    }
    failed
}

fn said(answer: &impl Debug) -> String {
    format!("{answer:?}")
}

/// Kills the daemon, and starts the next one with calls that can fail.
fn again(mut daemon: Daemon, faulty: &Faulty) -> Daemon {
    daemon.signal("KILL");
    daemon.ended();
    faulty.order(Fault { error: ERRORS[0], from: 1, count: 0 });
    daemon.start_again_with(|home, command| {
        faulty.wrap(home, command);
        scripts::pass_environment(command);
    })
}

/// Fails unless all that was acknowledged is there; `file` is where the notebook's file is seen from here.
async fn check(daemon: &Daemon, file: &Path, bystander: &mut Bystander, kept: &Kept, fault: Fault) {
    let here = daemon.home.path().canonicalize().unwrap().join("work/file.ipynb");
    let story = Story::open(daemon, &here).await.unwrap();
    for (cell, source) in &kept.cells {
        let there = story.session.read(|it| it.notebook.source(cell));
        assert_eq!(there.as_ref(), Some(source), "{fault:?}: cell {cell}");
    }
    let blobs = Client::new(&daemon.socket).blobs().await.unwrap();
    for (execution, outputs) in kept.runs.iter().rev().take(4) {
        let there = story.outputs(execution);
        assert!(
            there == *outputs,
            "{fault:?}: {execution} should show {outputs:.300?} and shows {there:.300?}; told: {}\n{}",
            story.trouble(),
            log_of(daemon)
        );
        for hash in outputs.iter().filter_map(|it| it.pointer("/text/blob")?.as_str()) {
            assert!(blobs.read(hash).await.is_ok(), "{fault:?}: what {execution} showed is gone: {hash}");
        }
    }
    let saved = fs::read_to_string(file).unwrap();
    let notebook: Value = serde_json::from_str(&saved).expect("the file is whole");
    let ids: Vec<_> =
        notebook["cells"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert!(
        kept.saved.iter().all(|cell| ids.contains(&&**cell)),
        "{fault:?}: {:?} was saved: {ids:?}",
        kept.saved
    );
    let beside: Vec<_> =
        fs::read_dir(file.parent().unwrap()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(beside, [file.file_name().unwrap()], "{fault:?}: nothing is left beside the file");
    let rows = Client::new(&daemon.socket).verify_notebooks(false).await.unwrap().notebooks;
    assert!(rows.iter().all(|row| row.is_safe()), "{fault:?}: {rows:?}");
    let (mut one, place) = (std::mem::take(bystander), Place::of(daemon));
    let checked = tokio::task::spawn_blocking(move || {
        one.check(&place, one.blobs.len().saturating_sub(8)..);
        one
    });
    *bystander = checked.await.unwrap();
    story.session.close().await;
}

fn log_of(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.base().join("runtimed.log")).unwrap_or_default()
}

/// The program that lets calls fail, and what it is told.
struct Faulty {
    program: PathBuf,
    orders: PathBuf,
    log: PathBuf,
}

impl Faulty {
    /// None where it cannot be made or used.
    fn build(folder: &Path) -> Option<Self> {
        let [program, orders, log] = ["faulty", "orders", "calls"].map(|name| folder.join(name));
        if !cfg!(target_os = "linux") {
            return None;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/faulty.c");
        let made = Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(source).status();
        assert!(made.unwrap().success());
        let faulty = Self { program, orders, log };
        faulty.order(Fault { error: ERRORS[0], from: 1, count: 0 });
        let mut command = Command::new("true");
        faulty.wrap(folder, &mut command);
        command.status().unwrap().success().then_some(faulty)
    }

    /// Lets what a command does to what is kept go through it.
    fn wrap(&self, home: &Path, command: &mut Command) {
        let mut wrapped = Command::new(&self.program);
        wrapped.args([&self.orders, &self.log]);
        let home = home.canonicalize().unwrap();
        let base = home.join(".cache/runt");
        let kept = ["rooms", "blobs", "executions"].map(|name| base.join(name));
        wrapped
            .args(kept)
            .args([home.join("work"), home.join(".config")])
            .arg("--")
            .arg(command.get_program());
        wrapped.args(command.get_args()).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = wrapped;
    }

    /// Lets calls fail from now on, and forgets those before.
    fn order(&self, Fault { error: (_, error, kinds), from, count }: Fault) {
        fs::write(&self.log, "").unwrap();
        // No two are alike, so that each is noticed.
        let now = jiff::Timestamp::now();
        fs::write(&self.orders, format!("{from} {count} {error} {kinds} {now}")).unwrap();
    }

    /// The calls since then that might have been the one: number, kind, what became of it, path.
    fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap();
        log.lines().filter(|line| !line.starts_with("0 ")).map(ToOwned::to_owned).collect()
    }
}

/// What is kept lies on a disk of its own, of 4 MiB, which somebody fills.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_really_full_is_told_of_and_made_up_for() {
    if env::var_os("RUNTIMED_TEST_DIST").is_none() {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
        return;
    }
    let mut disk = None;
    let mut daemon = scripts::start(SETTINGS, |command| {
        let home = command.get_envs().find_map(|(name, value)| (name == "HOME").then_some(value?));
        disk = Disk::mount(Path::new(home.unwrap()));
        disk.iter().for_each(|disk| disk.wrap(command));
    });
    let Some(disk) = disk else {
        eprintln!("skipped: nothing can be mounted here.");
        return;
    };
    let file = daemon.home.path().canonicalize().unwrap().join("work/file.ipynb");
    let (mut bystander, mut kept) = (Bystander::new(1), Kept::default());
    let story = Story::open(&daemon, &file).await.unwrap();
    assert_eq!(act(&story, &daemon, &mut bystander, &mut kept, "before").await, Vec::<String>::new());
    assert!(disk.at.join("work/file.ipynb").exists(), "it is on that disk");

    let filling = disk.at.join("filling");
    let full = fs::write(&filling, vec![0; 8 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let told = act(&story, &daemon, &mut bystander, &mut kept, "full").await;
    assert!(told.iter().any(|it| it.contains("No space left on device")), "{told:?}");
    story
        .session
        .wait_for(|it| (it.runtime_state.file_checkpoint().source_issue_kind == "degraded").then_some(()))
        .await
        .unwrap();

    fs::remove_file(&filling).unwrap();
    let well =
        |it: &Documents| it.runtime_state.file_checkpoint().source_issue_reason.is_empty().then_some(());
    story.session.wait_for(well).await.unwrap();
    assert_eq!(act(&story, &daemon, &mut bystander, &mut kept, "after").await, Vec::<String>::new());
    daemon.signal("KILL");
    daemon.ended();
    let mut daemon = daemon.start_again_with(|_, command| {
        disk.wrap(command);
        scripts::pass_environment(command);
    });
    let file = disk.at.join("work/file.ipynb");
    check(&daemon, &file, &mut bystander, &kept, Fault { error: ERRORS[0], from: 1, count: LASTING }).await;
    daemon.signal("TERM");
    assert!(daemon.ended().success());
}

/// A small disk that only those see who are wrapped. Gone when dropped, and they with it.
struct Disk {
    /// Whose view of the file system has it.
    holder: Child,
    /// Where it is seen from here.
    at: PathBuf,
}

impl Disk {
    /// Puts it where a daemon of this home keeps things. None where that is not allowed.
    fn mount(home: &Path) -> Option<Self> {
        const SCRIPT: &str = r#"
            mkdir "$1/disk" && mount -t tmpfs -o size=4m none "$1/disk" || exit 1
            for name in rooms blobs executions; do
                mkdir -p -m 700 "$1/.cache/runt/$name" "$1/disk/$name"
                mount --bind "$1/disk/$name" "$1/.cache/runt/$name" || exit 1
            done
            mkdir "$1/work" "$1/disk/work" && mount --bind "$1/disk/work" "$1/work" || exit 1
            echo mounted; exec sleep infinity
        "#;
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"]).arg(home);
        let mut holder = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().ok()?;
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
        let at = root.join(home.strip_prefix("/").unwrap()).join("disk");
        let disk = Self { holder, at };
        (said == "mounted\n").then_some(disk)
    }

    /// Lets a command see it.
    fn wrap(&self, command: &mut Command) {
        let mut wrapped = Command::new("nsenter");
        wrapped.args([
            "--user",
            "--mount",
            "--preserve-credentials",
            "--target",
            &self.holder.id().to_string(),
        ]);
        wrapped.arg("--").arg(command.get_program()).args(command.get_args());
        wrapped.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = wrapped;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}
