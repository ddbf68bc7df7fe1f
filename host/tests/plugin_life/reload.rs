//! Plugins that come, change and go.

use std::fs;

use runtimed_host::plugins::Status;
use runtimed_plugin_api::EnvRequest;
use serde_json::json;

use crate::support::{World, begin_create, go, install, is_alive, switch};

#[tokio::test]
async fn a_new_plugin_appears() {
    let world = World::start(json!({}), |_| {}).await;
    assert!(world.registry.rows().is_empty() && world.find_provider().is_none());
    install(&world.plugins(), "1.0.0", false);
    world.reload().await;
    assert_eq!(world.row("fixture").status, Status::Ok);
    world.provider().plan(EnvRequest::default()).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn nothing_is_touched_that_has_not_changed() {
    let world = World::start(json!({}), |plugins| drop(install(plugins, "1.0.0", false))).await;
    let provider = world.provider();
    provider.plan(EnvRequest::default()).await.unwrap();
    let before = world.row("fixture");
    let (first, second) = tokio::join!(world.registry.reload(), world.registry.reload());
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(world.row("fixture"), before);
    assert!(std::sync::Arc::ptr_eq(&provider, &world.provider()));
    world.stop().await;
}

#[tokio::test]
async fn a_new_version_takes_the_next_call_and_the_old_one_ends_its_own() {
    let world = World::start(json!({}), |plugins| {
        let folder = install(plugins, "1.0.0", false);
        switch(&folder, "hold", true);
    })
    .await;
    let old = world.provider();
    let held = begin_create(&old).await;
    let process = world.row("fixture").process.unwrap();

    let folder = install(&world.plugins(), "1.1.0", false);
    switch(&folder, "hold", false);
    world.reload().await;
    let row = world.row("fixture");
    assert_eq!((row.version.as_str(), row.status, row.pending), ("1.1.0", Status::Ok, None));
    assert_ne!(row.process, Some(process));
    let new = world.provider();
    begin_create(&new).await.await.unwrap().unwrap();
    assert!(is_alive(process) && !held.is_finished());
    // What the old one has begun, it also ends: the plan of a build, and then the build.
    old.plan(EnvRequest::default()).await.unwrap();
    world.set(go());
    held.await.unwrap().unwrap();
    drop(old);
    while is_alive(process) {
        tokio::task::yield_now().await;
    }
    world.stop().await;
}

#[tokio::test]
async fn one_that_is_removed_ends_when_its_work_is_done() {
    let world = World::start(json!({}), |plugins| {
        let folder = install(plugins, "1.0.0", false);
        switch(&folder, "hold", true);
    })
    .await;
    let held = begin_create(&world.provider()).await;
    let process = world.row("fixture").process.unwrap();
    fs::remove_dir_all(world.plugins().join("fixture")).unwrap();
    world.reload().await;
    assert!(world.registry.rows().is_empty() && world.find_provider().is_none());
    assert!(is_alive(process));
    world.set(go());
    held.await.unwrap().unwrap();
    while is_alive(process) {
        tokio::task::yield_now().await;
    }
    world.stop().await;
}

#[tokio::test]
async fn the_settings_switch_a_plugin_off_and_on() {
    let world = World::start(json!({}), |plugins| drop(install(plugins, "1.0.0", false))).await;
    let off = json!({"plugins": {"disabled": ["fixture"]}});
    let mut providers = world.registry.env_providers();
    world.provider().plan(EnvRequest::default()).await.unwrap();
    let process = world.row("fixture").process.unwrap();
    providers.mark_unchanged();
    world.set(off);
    providers.changed().await.unwrap();
    let row = world.row("fixture");
    assert_eq!((row.status, row.process), (Status::Disabled, None));
    assert!(row.remedy.contains("runt plugins enable fixture") && world.find_provider().is_none(), "{row:?}");
    while is_alive(process) {
        tokio::task::yield_now().await;
    }
    providers.mark_unchanged();
    world.set(json!({}));
    providers.changed().await.unwrap();
    assert_eq!(world.row("fixture").status, Status::Ok);
    world.provider().plan(EnvRequest::default()).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn what_runs_in_the_daemon_stays_and_says_what_is_different() {
    let world = World::start(json!({}), |plugins| drop(install(plugins, "1.0.0", true))).await;
    let pending = || {
        let row = world.row("fixture");
        assert_eq!(
            (row.status, row.version.as_str(), row.carrier.as_str()),
            (Status::Ok, "1.0.0", "in-process")
        );
        assert!(world.registry.rooms().is_some());
        row.pending
    };
    assert_eq!(pending(), None);
    let reloaded = |settings| {
        world.set(settings);
        world.reload()
    };
    reloaded(json!({"plugins": {"disabled": ["fixture"]}})).await;
    assert_eq!(pending().unwrap(), "it was switched off; restart the daemon to end it");
    reloaded(json!({"plugins": {"carrier": {"fixture": "child"}}})).await;
    assert_eq!(pending().unwrap(), "it is to have a process of its own; restart the daemon for that");
    reloaded(json!({})).await;
    assert_eq!(pending(), None);

    let folder = install(&world.plugins(), "1.1.0", true);
    reloaded(json!({})).await;
    assert_eq!(pending().unwrap(), "version 1.1.0 is there; restart the daemon to use it");
    install(&world.plugins(), "1.0.0", true);
    reloaded(json!({})).await;
    assert_eq!(pending().unwrap(), "its files have changed; restart the daemon to use them");
    fs::write(folder.join("plugin.toml"), "manifest_version = 7\n").unwrap();
    reloaded(json!({})).await;
    let text = pending().unwrap();
    assert!(
        text.starts_with("what is there now cannot be used:") && text.contains("manifest_version is 7"),
        "{text}"
    );
    fs::remove_dir_all(folder).unwrap();
    reloaded(json!({})).await;
    assert_eq!(pending().unwrap(), "it was removed; restart the daemon to end it");
    world.stop().await;
}
