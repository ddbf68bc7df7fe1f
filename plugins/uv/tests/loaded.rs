//! The plugin as the daemon has it: a library, with the binary interface in between.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Recorder, request};
use runtimed_plugin_api::adapter::Library;
use runtimed_plugin_api::{EnvPlan, Health, Task};
use tokio::runtime::Handle;

#[tokio::test]
async fn a_loaded_plugin_builds_an_environment() {
    let Some(bench) = Bench::new() else { return };
    // Puts uv where the plugin finds it; a loaded one would ask the index of the environment.
    bench.create(&bench.provider(), "first", &["ipykernel"], Task::silent()).await.unwrap();

    let library = std::env::current_exe().unwrap().with_file_name("libruntimed_plugin_uv.so");
    let library = Library::open(&library).unwrap();
    assert_eq!(library.facts().id, "uv");
    let panics = |panicked| panic!("the plugin panicked: {panicked:?}");
    let plugin = library.create(bench.host.clone(), Handle::current(), panics).unwrap();
    plugin.start().await.unwrap();
    let provider = plugin.env_providers().remove(0);
    let info = provider.info();
    assert_eq!((info.kind.as_str(), info.label.as_str()), ("uv", "UV"));

    let recorder = Arc::new(Recorder::default());
    let plan = EnvPlan { key: "0".repeat(16), request: request(&["ipykernel"]) };
    let env = provider.create(plan, &bench.path("a"), Task::new(recorder.clone())).await.unwrap();
    assert_eq!(provider.verify(&env).await.unwrap(), Health::Usable);
    assert_eq!(recorder.phases().last().unwrap(), "ready");
    let plan = EnvPlan { key: "0".repeat(16), request: request(&["no such requirement"]) };
    let error = provider.create(plan, &bench.path("b"), Task::silent()).await.unwrap_err();
    assert_eq!(error.detail["failed_package"], "no");
    plugin.stop(Duration::from_secs(1)).await.unwrap();
}
