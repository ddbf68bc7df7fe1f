//! What only a process of its own can do: die, and be bounded.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[path = "support/fixture.rs"]
mod support;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use runtimed_plugin_api::adapter::child::{Child, ChildSpec};
use runtimed_plugin_api::processes::ProcessLimits;
use runtimed_plugin_api::{
    EnvPlan, EnvRequest, Environment, ErrorCode, PluginError, Progress, ProgressSink, Task,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use support::{Carrier, Fixture, fixture_library, spec};
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;

fn environment() -> Environment {
    Environment {
        kind: "fixture".to_owned(),
        prefix: "/envs/a".into(),
        python: "/envs/a/bin/python".into(),
        python_version: None,
        packages: Vec::new(),
        extra: serde_json::Map::new(),
    }
}

/// A child in the middle of a call, and how that call ends.
async fn in_a_call() -> (Fixture, JoinHandle<PluginError>) {
    let mut fixture = Fixture::load(Carrier::Child).await;
    let provider = fixture.provider();
    let call = tokio::spawn(async move { provider.optimize(&environment()).await.unwrap_err() });
    fixture.wait_for_log("waiting").await;
    (fixture, call)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.pid().try_into().unwrap()).unwrap()
}

#[tokio::test]
async fn a_killed_child_fails_its_calls_at_once_and_those_to_come() {
    let (fixture, call) = in_a_call().await;
    let child = fixture.child.as_ref().unwrap();
    assert_eq!(*child.in_flight().borrow(), 1);
    kill_process(pid_of(child), Signal::KILL).unwrap();
    let error = call.await.unwrap();
    assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true));
    assert_eq!(error.message, "plugin `fixture` was ended by signal 9 (SIGKILL)");
    let end = child.ended().await;
    assert_eq!((end.code, end.signal), (None, Some(9)));
    assert_eq!(fixture.provider().optimize(&environment()).await.unwrap_err(), error);
    assert_eq!(*child.in_flight().borrow(), 0);
}

#[tokio::test]
async fn a_child_that_is_closed_exits_and_one_that_is_dropped_is_killed() {
    let (fixture, call) = in_a_call().await;
    let child = fixture.child.as_ref().unwrap();
    child.close(Duration::from_secs(60)).await;
    assert_eq!(child.ended().await.describe(), "exited with code 0");
    assert_eq!(call.await.unwrap().message, "plugin `fixture` was stopped");

    let (fixture, call) = in_a_call().await;
    let pid = pid_of(fixture.child.as_ref().unwrap());
    drop(fixture);
    assert_eq!(call.await.unwrap().code, ErrorCode::Unavailable);
    while test_kill_process(pid).is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_does_not_load_says_why() {
    let fixture = Fixture::load(Carrier::InProcess).await;
    let failure = |spec| async { Child::start(spec, fixture.host.clone(), |_| ()).await.err().unwrap() };
    let none = failure(spec(Path::new("/no/such/library.so"))).await;
    assert!(none.refused && none.reason.starts_with("`/no/such/library.so` could not be loaded: "), "{none}");
    let mut wrong = spec(Path::new("/no/such/library.so"));
    wrong.command = vec!["/bin/sh".into(), "-c".into(), "echo no such command; exit 3".into()];
    let wrong = failure(wrong).await;
    assert_eq!(wrong.reason, "plugin `fixture` exited with code 3 while it was loaded");
    assert_eq!((wrong.report.as_deref(), wrong.refused), (Some("no such command\n"), false));
}

/// What a fixture without limits would not do.
async fn limited(limits: ProcessLimits) -> Fixture {
    Fixture::start(ChildSpec { limits, ..spec(&fixture_library()) }).await
}

/// A fifo in a folder, and the proof that whoever held it is gone.
struct Fifo(tempfile::TempDir);

impl Fifo {
    fn new() -> Self {
        let fifo = Self(tempfile::tempdir().unwrap());
        assert!(Command::new("mkfifo").arg(fifo.path()).status().unwrap().success());
        fifo
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("fifo")
    }

    /// Waits until somebody has written `up`, and then until nobody has it open any more.
    fn follow(&self) -> (JoinHandle<()>, tokio::sync::oneshot::Receiver<()>) {
        let (path, (up, started)) = (self.path(), tokio::sync::oneshot::channel());
        let gone = tokio::spawn(async move {
            let mut fifo = tokio::fs::File::open(path).await.unwrap();
            let mut word = [0; 3];
            fifo.read_exact(&mut word).await.unwrap();
            up.send(()).unwrap();
            assert_eq!(fifo.read(&mut word).await.unwrap(), 0);
        });
        (gone, started)
    }
}

#[tokio::test]
async fn every_way_to_die_is_named() {
    let fixture = Fixture::load(Carrier::Child).await;
    let error = fixture.obey(&["exit", "3"]).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (ErrorCode::Unavailable, "plugin `fixture` exited with code 3")
    );
    let fixture = Fixture::load(Carrier::Child).await;
    let error = fixture.obey(&["signal", "SEGV"]).await.unwrap_err();
    assert_eq!(error.message, "plugin `fixture` was ended by signal 11 (SIGSEGV)");
    assert!(error.retryable && error.help.unwrap().contains("runt plugins show fixture"));
}

#[tokio::test]
async fn its_last_words_are_kept_and_no_more() {
    let fixture = Fixture::load(Carrier::Child).await;
    let error = fixture.obey(&["print", "200000", "7"]).await.unwrap_err();
    assert_eq!(error.message, "plugin `fixture` exited with code 7; its last words were: printed 199999");
    let end = fixture.child.as_ref().unwrap().ended().await;
    assert_eq!((end.code, end.stderr.lines().count()), (Some(7), 100));
    assert!(end.stderr.starts_with("printed 199900\n"));
}

#[tokio::test]
async fn who_left_the_group_dies_with_the_child_and_holds_nothing_up() {
    let fixture = Fixture::load(Carrier::Child).await;
    let fifo = Fifo::new();
    let (gone, started) = fifo.follow();
    fixture.obey(&["leave", fifo.path().to_str().unwrap()]).await.unwrap();
    started.await.unwrap();
    let child = fixture.child.as_ref().unwrap();
    kill_process(pid_of(child), Signal::KILL).unwrap();
    child.ended().await;
    gone.await.unwrap();
}

#[tokio::test]
async fn a_process_that_the_host_runs_for_it_dies_with_it() {
    let fixture = Fixture::load(Carrier::Child).await;
    let fifo = Fifo::new();
    let (gone, started) = fifo.follow();
    let script = format!("exec 9>{}; echo up >&9; sleep 600", fifo.path().display());
    let call = async { fixture.obey(&["run", "/bin/sh", "-c", &script]).await.unwrap_err() };
    let kill = async {
        started.await.unwrap();
        kill_process(pid_of(fixture.child.as_ref().unwrap()), Signal::KILL).unwrap();
    };
    let (error, ()) = tokio::join!(call, kill);
    assert_eq!(error.code, ErrorCode::Unavailable);
    gone.await.unwrap();
}

/// A daemon that is killed closes its end of the socket and does nothing else.
#[tokio::test]
async fn a_child_without_a_daemon_ends_with_everything_it_started() {
    let fifo = Fifo::new();
    let (gone, started) = fifo.follow();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let script = format!(
        "setsid sh -c 'exec 9>{}; echo up >&9; exec sleep 600 0<&- ' & exec '{}'",
        fifo.path().display(),
        fixture_library().with_file_name("plugin_child").display()
    );
    let mut child = Command::new("/bin/sh")
        .args(["-c", &script])
        .env("RUNTIMED_PLUGIN_CHILD", format!("test-{}", std::process::id()))
        .stdin(OwnedFd::from(theirs))
        .process_group(0)
        .spawn()
        .unwrap();
    started.await.unwrap();
    drop(ours);
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(ended.signal(), Some(9), "it kills its own group");
    gone.await.unwrap();
}

#[tokio::test]
async fn started_by_hand_it_says_what_it_is() {
    let program = fixture_library().with_file_name("plugin_child");
    let ended = Command::new(program).stdin(Stdio::null()).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(String::from_utf8(ended.stderr).unwrap().starts_with("this is started by the daemon"));
}

#[tokio::test]
async fn limits_hold() {
    let limits = ProcessLimits { memory: Some(2 << 30), ..ProcessLimits::default() };
    let fixture = limited(limits).await;
    fixture.obey(&["reserve", "3000000000"]).await.unwrap_err();
    let end = fixture.child.as_ref().unwrap().ended().await;
    assert_eq!(end.describe(), "was ended by signal 6 (SIGABRT)");
    assert!(end.stderr.contains("memory allocation of 3000000000 bytes failed"), "{}", end.stderr);
    let limits = ProcessLimits { cpu: Some(Duration::from_secs(1)), ..ProcessLimits::default() };
    let error = limited(limits).await.obey(&["spin"]).await.unwrap_err();
    assert_eq!(error.message, "plugin `fixture` was ended by signal 24 (SIGXCPU)");
    let limits = ProcessLimits { files: Some(64), ..ProcessLimits::default() };
    let open: usize = limited(limits).await.obey(&["open"]).await.unwrap().parse().unwrap();
    assert!(open < 64, "{open} files");
}

#[tokio::test]
async fn a_storm_of_progress_or_log_lines_is_cut_to_what_passes() {
    struct Count(AtomicUsize);
    impl ProgressSink for Count {
        fn progress(&self, _: Progress) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let mut fixture = Fixture::load(Carrier::Child).await;
    let (seen, since) = (Arc::new(Count(AtomicUsize::new(0))), Instant::now());
    let packages = vec!["many-steps".to_owned(), "200000".to_owned()];
    let plan = EnvPlan { request: EnvRequest { packages, ..EnvRequest::default() }, ..EnvPlan::default() };
    fixture.provider().create(plan, "/envs/b".as_ref(), Task::new(seen.clone())).await.unwrap();
    let steps = seen.0.load(Ordering::SeqCst);
    let most = 256 + 64 * (since.elapsed().as_secs() as usize + 1);
    assert!((100..=most).contains(&steps), "{steps} steps");

    let since = Instant::now();
    fixture.obey(&["log", "200000"]).await.unwrap();
    let most = 2000 + 500 * (since.elapsed().as_secs() as usize + 1) + 10;
    let mut lines = 0;
    while fixture.logs.try_recv().is_ok() {
        lines += 1;
    }
    assert!((1000..=most).contains(&lines), "{lines} lines");
}

/// A process in the host prints 20 MB while the plugin does not take a line.
#[tokio::test]
async fn lines_that_the_plugin_does_not_take_are_left_out() {
    let mut fixture = Fixture::load(Carrier::Child).await;
    let gate = Fifo::new();
    let path = gate.path();
    let words =
        ["run", "slowly", path.to_str().unwrap(), "/bin/sh", "-c", "yes 0123456789 | head -n 2000000"];
    let call = {
        let provider = fixture.provider();
        let packages = words.map(str::to_owned).to_vec();
        tokio::spawn(async move {
            provider.plan(EnvRequest { packages, ..EnvRequest::default() }).await.unwrap().key
        })
    };
    fixture.wait_for_log("the process ended").await;
    tokio::fs::write(path, "go").await.unwrap();
    let answer = call.await.unwrap();
    let lines: u64 = answer.strip_prefix("Some(0) ").unwrap().parse().unwrap();
    assert!((1000..1_000_000).contains(&lines), "{lines} lines");
}

/// A program that is no plugin's process at all, or stops being one.
#[tokio::test]
async fn garbage_ends_the_child_and_is_named() {
    let fixture = Fixture::load(Carrier::InProcess).await;
    let mut wrong = spec(Path::new("/no/such/library.so"));
    wrong.command = vec!["/bin/sh".into(), "-c".into(), "echo HTTP/1.1 400 >&0; exec sleep 600".into()];
    let failure = Child::start(wrong, fixture.host.clone(), |_| ()).await.err().unwrap();
    assert_eq!(
        failure.reason,
        "plugin `fixture` was ended by the daemon: it sent a frame of 1213486160 bytes, the limit is 134217728 \
         while it was loaded"
    );

    let gate = Fifo::new();
    let child = fixture_library().with_file_name("plugin_child");
    let script = format!(
        "exec 3<&0; '{}' <&3 3<&- & read line <'{}'; printf '\\0\\0\\0\\1\\11' >&3; wait",
        child.display(),
        gate.path().display()
    );
    let mut odd = spec(&fixture_library());
    odd.command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    let mut fixture = Fixture::start(odd).await;
    let provider = fixture.provider();
    let call = tokio::spawn(async move { provider.optimize(&environment()).await.unwrap_err() });
    fixture.wait_for_log("waiting").await;
    tokio::fs::write(gate.path(), "go\n").await.unwrap();
    assert_eq!(
        call.await.unwrap().message,
        "plugin `fixture` was ended by the daemon: it sent a frame of the unknown kind 9"
    );
}

#[tokio::test]
async fn a_hundred_calls_at_once_are_all_answered() {
    let fixture = Fixture::load(Carrier::Child).await;
    let calls = (0..100).map(|_| fixture.obey(&["pid"]));
    let pid = fixture.child.as_ref().unwrap().pid().to_string();
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap(), pid);
    }
    assert_eq!(*fixture.child.as_ref().unwrap().in_flight().borrow(), 0);
}
