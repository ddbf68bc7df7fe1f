//! The plugin as the daemon has it: a library, with the binary interface in between.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::ErrorCode;
use runtimed_plugin_api::adapter::Library;
use support::{Recorder, World, execute};
use tokio::runtime::Handle;

#[tokio::test]
async fn a_loaded_plugin_runs_a_kernel() {
    let library = std::env::current_exe().unwrap().with_file_name("libruntimed_plugin_jupyter.so");
    let library = Library::open(&library).unwrap();
    assert_eq!(library.facts().id, "jupyter");
    let base = tempfile::tempdir().unwrap();
    let panics = |panicked| panic!("the plugin panicked: {panicked:?}");
    let host = Arc::new(support::host(base.path()));
    let plugin = library.create(host, Handle::current(), panics).unwrap();
    let world = World::with(plugin, base).await;
    assert_eq!(world.backend.kinds().await.unwrap().len(), 1);

    let Some((kernel, mut recorder)) = world.launch().await else { return };
    let code = "from IPython.display import display\nfor i in range(2_000): display(i)";
    let (messages, _) = recorder.run(&*kernel, code).await;
    assert_eq!(messages.iter().filter(|message| message.kind == "display_data").count(), 2_000);
    let id = execute(&*kernel, "import time\nprint('running', flush=True)\ntime.sleep(600)");
    recorder.until(|message| message.kind == "stream").await;
    kernel.interrupt().await.unwrap();
    assert_eq!(recorder.answer(&id).await.1["ename"], "KeyboardInterrupt");
    let report = kernel.shutdown(Duration::from_secs(10)).await.unwrap();
    assert!(report.requested);
    assert_eq!(recorder.exit().await, report);

    let mut spec = world.spec("/no/such/python".into());
    spec.kernel = "another".into();
    let error = world.backend.launch(spec, Recorder::new().1).await.err().unwrap();
    assert_eq!(error.code, ErrorCode::NotFound);
    // Dropped across the boundary, the kernel is still there.
    let Some((kernel, mut recorder)) = world.launch().await else { return };
    recorder.run(&*kernel, "x = 6").await;
    let last = recorder.last();
    drop(kernel);
    let found = world.backend.running().await.unwrap();
    assert_eq!(found.len(), 1);
    let (mut recorder, events) = Recorder::after(last);
    let kernel = world.backend.attach(&found[0].spec.kernel, last, events).await.unwrap();
    let (messages, _) = recorder.run(&*kernel, "x * 7").await;
    assert_eq!(support::result(&messages), Some("42"));
    world.end().await;
}
