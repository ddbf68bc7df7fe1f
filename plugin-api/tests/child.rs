//! What only a process of its own can do: die, and be bounded.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[path = "support/fixture.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use runtimed_plugin_api::adapter::child::Child;
use runtimed_plugin_api::{Environment, ErrorCode, PluginError};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use support::{Carrier, Fixture, spec};

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
async fn in_a_call() -> (Fixture, tokio::task::JoinHandle<PluginError>) {
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
