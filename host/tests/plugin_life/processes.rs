//! The process of a plugin: when it is there, when it is not, and what becomes of the calls.

use std::fs;
use std::sync::Arc;

use runtimed_host::plugins::Status;
use runtimed_plugin_api::{
    EnvPlan, EnvProvider, EnvRequest, Environment, ErrorCode, PluginError, RoomReply, RoomRequest, Task,
};
use serde_json::json;
use tokio::time::{pause, resume};

use crate::support::{World, begin_create, go, install, is_alive, switch};

async fn world() -> World {
    World::start(json!({}), |plugins| drop(install(plugins, "1.0.0", false))).await
}

async fn create(provider: &Arc<dyn EnvProvider>) -> Result<Environment, PluginError> {
    provider.create(EnvPlan::default(), "/envs/a".as_ref(), Task::silent()).await
}

fn environment() -> Environment {
    serde_json::from_value(json!({"kind": "fixture", "prefix": "/envs/a", "python": "/envs/a/bin/python"}))
        .unwrap()
}

#[tokio::test]
async fn a_process_is_there_while_it_is_needed_and_comes_back() {
    let world = World::start(json!({"plugins": {"idle_secs": 0}}), |plugins| {
        install(plugins, "1.0.0", false);
    })
    .await;
    // It was started to see that it can be.
    let row = world.until("fixture", |row| row.process.is_none()).await;
    assert_eq!((row.status, row.reason.as_str(), row.carrier.as_str()), (Status::Ok, "", "child"));

    let provider = world.provider();
    assert_eq!(provider.info().label, "Fixture");
    switch(&world.plugins().join("fixture"), "hold", true);
    let creating = begin_create(&provider).await;
    let first = world.row("fixture").process.unwrap();
    assert_eq!(provider.plan(EnvRequest::default()).await.unwrap().key.len(), 16);
    assert_eq!(world.row("fixture").process, Some(first));
    world.set(json!({"plugins": {"idle_secs": 0}, "fixture": {"go": true}}));
    creating.await.unwrap().unwrap();
    world.until("fixture", |row| row.process.is_none()).await;
    assert!(!is_alive(first));

    world.set(json!({"plugins": {"idle_secs": 3600}}));
    provider.plan(EnvRequest::default()).await.unwrap();
    let second = world.row("fixture").process.unwrap();
    provider.plan(EnvRequest::default()).await.unwrap();
    assert_eq!(world.row("fixture").process, Some(second));
    assert_ne!(first, second);
    world.stop().await;
    assert!(!is_alive(second));
}

#[tokio::test]
async fn one_that_dies_fails_its_calls_and_is_back_for_the_next() {
    let world = world().await;
    let (provider, folder) = (world.provider(), world.plugins().join("fixture"));
    switch(&folder, "hold", true);
    let pending = begin_create(&provider).await;
    switch(&folder, "abort", true);
    let first = create(&provider).await.unwrap_err();
    for error in [first, pending.await.unwrap().unwrap_err()] {
        assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true));
        assert!(error.message.contains("SIGABRT"), "{error}");
    }
    let row = world.until("fixture", |row| !row.reason.is_empty()).await;
    assert!(row.reason.contains("SIGABRT") && row.process.is_none(), "{row:?}");
    let report = fs::read_to_string(row.report.unwrap()).unwrap();
    assert!(report.contains("last words") && report.contains("SIGABRT"), "{report}");
    provider.plan(EnvRequest::default()).await.unwrap();
    let row = world.row("fixture");
    assert_eq!((row.status, row.reason.as_str(), row.process.is_some()), (Status::Ok, "", true));
    world.stop().await;
}

#[tokio::test]
async fn one_that_dies_all_the_time_is_left_alone_until_somebody_reloads() {
    let world = world().await;
    let (provider, folder) = (world.provider(), world.plugins().join("fixture"));
    switch(&folder, "abort", true);
    for _ in 0..6 {
        let error = create(&provider).await.unwrap_err().message;
        assert!(error.contains("last words"), "{error}");
    }
    let row = world.until("fixture", |row| row.status == Status::Failed).await;
    assert!(row.reason.contains("died 6 times within 60 s") && row.reason.contains("SIGABRT"), "{row:?}");
    assert!(row.remedy.contains("runt plugins enable fixture"), "{row:?}");
    let refused = create(&provider).await.unwrap_err();
    assert_eq!((refused.message, refused.help.unwrap()), (row.reason, row.remedy));
    assert_eq!(world.row("fixture").process, None);

    switch(&folder, "abort", false);
    world.reload().await;
    create(&world.provider()).await.unwrap();
    assert_eq!((world.row("fixture").status, world.row("fixture").report), (Status::Ok, None));
    world.stop().await;
}

#[tokio::test]
async fn after_a_panic_the_next_call_gets_a_new_process() {
    let world = world().await;
    let (provider, folder) = (world.provider(), world.plugins().join("fixture"));
    switch(&folder, "hold", true);
    let held = begin_create(&provider).await;
    let first = world.row("fixture").process.unwrap();
    assert_eq!(provider.verify(&environment()).await.unwrap_err().code, ErrorCode::Panicked);
    let row = world.row("fixture");
    assert_eq!((row.status, row.process), (Status::Poisoned, Some(first)));
    assert!(row.reason.contains("verify panics") && row.reason.contains("fixture_plugin.rs"), "{row:?}");

    provider.plan(EnvRequest::default()).await.unwrap();
    let row = world.row("fixture");
    assert_eq!((row.status, row.reason.as_str()), (Status::Ok, ""));
    assert!(row.process != Some(first) && is_alive(first), "what it had begun goes on");
    world.set(go());
    held.await.unwrap().unwrap();
    world.stop().await;
    assert!(!is_alive(first));
}

#[tokio::test]
async fn a_call_that_takes_too_long_fails_and_costs_nobody_else_anything() {
    let world = world().await;
    let (provider, folder) = (world.provider(), world.plugins().join("fixture"));
    switch(&folder, "hold", true);
    let held = begin_create(&provider).await;
    let process = world.row("fixture").process;
    // Nothing else happens, so half an hour passes at once.
    pause();
    let error = held.await.unwrap().unwrap_err();
    resume();
    assert_eq!(error.code, ErrorCode::Timeout);
    assert_eq!(error.message, "plugin `fixture` did not answer `create` within 1800 s");
    provider.plan(EnvRequest::default()).await.unwrap();
    assert_eq!(world.row("fixture").process, process);
    world.stop().await;
}

#[tokio::test]
async fn one_that_answers_nothing_any_more_after_a_cancelled_call_is_killed() {
    let world = world().await;
    let (provider, folder) = (world.provider(), world.plugins().join("fixture"));
    switch(&folder, "stubborn", true);
    let stubborn = begin_create(&provider).await;
    let process = world.row("fixture").process.unwrap();
    stubborn.abort();
    // Its only thread is taken, so this ends when the process does.
    let error = provider.plan(EnvRequest::default()).await.unwrap_err();
    assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true));
    let row = world.until("fixture", |row| row.process != Some(process)).await;
    assert!(row.reason.contains("cancelled") && !is_alive(process), "{row:?}");
    provider.plan(EnvRequest::default()).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn settings_move_a_plugin_out_of_the_daemon_and_never_into_it() {
    let world = World::start(
        json!({"plugins": {
            "carrier": {"fixture": "child"},
            "limits": {"default": {"open_files": 99}, "fixture": {"cpu_secs": 100}},
        }}),
        |plugins| {
            let manifest = install(plugins, "1.0.0", false).join("plugin.toml");
            let text = fs::read_to_string(&manifest).unwrap() + "[run]\ncarrier = \"in-process\"\n";
            fs::write(manifest, text).unwrap();
        },
    )
    .await;
    world.provider().plan(EnvRequest::default()).await.unwrap();
    let row = world.row("fixture");
    assert_eq!((row.carrier.as_str(), row.status), ("child", Status::Ok), "{row:?}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", row.process.unwrap()));
    if let Ok(limits) = limits {
        let limit = |name: &str| {
            limits
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap()
                .split_whitespace()
                .rev()
                .nth(2)
                .unwrap()
                .to_owned()
        };
        assert_eq!((limit("Max open files").as_str(), limit("Max cpu time").as_str()), ("99", "100"));
    }
    world.stop().await;

    let world = World::start(json!({"plugins": {"carrier": {"fixture": "in-process"}}}), |plugins| {
        install(plugins, "1.0.0", false);
    })
    .await;
    let row = world.row("fixture");
    assert_eq!((row.carrier.as_str(), row.status), ("child", Status::Ok));
    assert!(row.reason.contains("plugins.carrier.fixture is ignored"), "{row:?}");
    world.stop().await;
}

#[tokio::test]
async fn what_holds_notebooks_keeps_its_process_also_when_nobody_calls() {
    let settings = json!({"plugins": {"carrier": {"fixture": "child"}, "idle_secs": 0}});
    let world = World::start(settings, |plugins| drop(install(plugins, "1.0.0", true))).await;
    let process = world.row("fixture").process.unwrap();
    let rooms = world.registry.rooms().unwrap();
    assert!(matches!(rooms.ask(RoomRequest::List).await.unwrap(), RoomReply::Closed));
    world.provider().plan(EnvRequest::default()).await.unwrap();
    assert_eq!(world.provider().verify(&environment()).await.unwrap_err().code, ErrorCode::Panicked);
    let row = world.row("fixture");
    assert_eq!((row.status, row.process), (Status::Poisoned, Some(process)));
    install(&world.plugins(), "1.1.0", true);
    world.reload().await;
    let row = world.row("fixture");
    assert_eq!((row.version.as_str(), row.process), ("1.0.0", Some(process)));
    assert_eq!(row.pending.unwrap(), "version 1.1.0 is there; restart the daemon to use it");
    assert!(matches!(rooms.ask(RoomRequest::List).await.unwrap(), RoomReply::Closed));
    world.stop().await;
    assert!(!is_alive(process));
}

#[tokio::test]
async fn one_that_cannot_start_is_a_row_and_another_reload_tries_again() {
    let world = World::start(json!({}), |plugins| {
        let folder = install(plugins, "1.0.0", false);
        switch(&folder, "panic", true);
    })
    .await;
    let row = world.row("fixture");
    assert_eq!((row.status, row.process), (Status::Failed, None));
    assert!(row.reason.contains("create panics, as the test asked"), "{row:?}");
    assert!(world.find_provider().is_none());
    switch(&world.plugins().join("fixture"), "panic", false);
    world.reload().await;
    assert_eq!(world.row("fixture").status, Status::Ok);
    world.provider().plan(EnvRequest::default()).await.unwrap();
    world.stop().await;
}
