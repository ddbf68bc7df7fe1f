//! uv on a machine that has none: fetched from an index on loopback, which serves the real wheel.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{Bench, Server};
use runtimed_plugin_api::{ErrorCode, Task};

/// A bench whose tools folder is its own and empty.
fn fresh() -> Option<(Bench, PathBuf)> {
    let mut bench = Bench::new()?;
    let tools = bench.path("tools");
    let folder = bench.folder.path().to_owned();
    let cache = common::test_tools().join("uv-cache");
    let own = tools.clone();
    bench.host(|_| {
        common::TestHost::new(&folder).with_tools(&own).with_env("UV_CACHE_DIR", cache.to_str().unwrap())
    });
    Some((bench, tools))
}

/// What is installed, apart from locks.
fn installed(tools: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(tools).map(|entries| entries.map(|entry| entry.unwrap().path()).collect());
    let entries: Vec<PathBuf> = entries.unwrap_or_default();
    entries.into_iter().filter(|path| !path.ends_with(".locks")).collect()
}

#[tokio::test]
async fn two_at_once_fetch_it_once_and_use_it() {
    let Some((bench, tools)) = fresh() else { return };
    let (one, two) = (bench.provider(), bench.provider());
    let (a, b) = tokio::join!(
        bench.create(&one, "a", &["ipykernel"], Task::silent()),
        bench.create(&two, "b", &["ipykernel"], Task::silent()),
    );
    a.unwrap();
    b.unwrap();
    let downloads = bench.index.requests().iter().filter(|path| path.ends_with(".whl")).count();
    assert_eq!(downloads, 1);
    let folders = installed(&tools);
    assert_eq!(folders.len(), 1, "{folders:?}");
    let uv = folders[0].join("bin/uv");
    assert_eq!(fs::metadata(&uv).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_dir(&folders[0]).unwrap().count(), 1, "only bin is kept");
}

#[tokio::test]
async fn a_wheel_with_another_checksum_is_refused() {
    let Some((bench, tools)) = fresh() else { return };
    let mut tampered = fs::read(common::wheel().unwrap()).unwrap();
    let middle = tampered.len() / 2;
    tampered[middle] ^= 1;
    let evil = Server::with_wheel(tampered);
    let index = evil.url("/simple");
    let provider = bench.provider_in("", &index);
    let error = bench.create(&provider, "a", &["six"], Task::silent()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Denied);
    assert!(error.message.contains("Checksum mismatch: expected "), "{}", error.message);
    assert!(error.help.is_some());
    assert_eq!(installed(&tools), Vec::<PathBuf>::new());
    assert!(!bench.path("a").exists());
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let Some((bench, tools)) = fresh() else { return };
    // The first index knows nothing; then the same provider meets a machine that got its uv.
    let provider = bench.provider_in("", &bench.index.url("/other"));
    let error = bench.create(&provider, "a", &["ipykernel"], Task::silent()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.retryable);
    assert_eq!(error.detail["network"], true);
    assert_eq!(installed(&tools), Vec::<PathBuf>::new());
    bench.create(&bench.provider(), "b", &["ipykernel"], Task::silent()).await.unwrap();
    bench.create(&provider, "c", &["ipykernel"], Task::silent()).await.unwrap();
}

#[tokio::test]
async fn the_users_own_uv_is_preferred_unless_it_is_too_old() {
    let Some((bench, tools)) = fresh() else { return };
    bench.create(&bench.provider(), "a", &["ipykernel"], Task::silent()).await.unwrap();
    let mine = bench.path("mine");
    fs::create_dir(&mine).unwrap();
    fs::rename(installed(&tools)[0].join("bin/uv"), mine.join("uv")).unwrap();
    fs::remove_dir_all(&tools).unwrap();
    let old = bench.path("old");
    fs::create_dir(&old).unwrap();
    fs::write(old.join("uv"), "#!/bin/sh\necho uv 0.4.0\n").unwrap();
    fs::set_permissions(old.join("uv"), PermissionsExt::from_mode(0o755)).unwrap();

    let path = format!("{}:{}", old.display(), mine.display());
    let provider = bench.provider_in(&path, &bench.index.url("/other"));
    bench.create(&provider, "b", &["ipykernel"], Task::silent()).await.unwrap();
    assert_eq!(installed(&tools), Vec::<PathBuf>::new());
}
