//! The plugin as the daemon has it: a library, with the binary interface in between.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::adapter::Library;
use runtimed_plugin_api::{Bytes, Digest, LiveSet};
use runtimed_plugin_testkit::TestHost;
use tokio::runtime::Handle;

#[tokio::test]
async fn a_loaded_plugin_keeps_blobs() {
    let library = std::env::current_exe().unwrap().with_file_name("libruntimed_plugin_blobs.so");
    let library = Library::open(&library).unwrap();
    assert_eq!(library.facts().id, "blobs");
    let base = tempfile::tempdir().unwrap();
    let panics = |panicked| panic!("the plugin panicked: {panicked:?}");
    let host = Arc::new(TestHost::new(base.path()));
    let plugin = library.create(host, Handle::current(), panics).unwrap();
    plugin.start().await.unwrap();
    let blobs = plugin.blob_store().unwrap();

    let digest = blobs.put(Bytes::from_static(b"abc"), "text/plain").await.unwrap();
    let blob = blobs.get(digest).await.unwrap().unwrap();
    assert_eq!((&blob.bytes[..], blob.media_type.as_str()), (&b"abc"[..], "text/plain"));
    let file = blobs.locate(digest).await.unwrap().unwrap();
    assert_eq!((std::fs::read(file.path).unwrap().as_slice(), file.size), (&b"abc"[..], 3));
    assert_eq!(blobs.get(Digest([0; 32])).await.unwrap(), None);
    blobs.flush().await.unwrap();
    let swept = blobs.sweep(LiveSet::default()).await.unwrap();
    assert_eq!((swept.deleted, swept.bytes, swept.kept), (1, 3, 0));
    plugin.stop(Duration::from_secs(10)).await.unwrap();
}
