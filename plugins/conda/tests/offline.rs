//! A channel on a server, and what is possible once that server is gone.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use common::{Bench, Recorder, request};
use runtimed_plugin_api::{EnvProvider, EnvRequest, ErrorCode, Health, Task};

/// Serves a folder on loopback until it is dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn of(folder: &str) -> Self {
        let mut process = Command::new("python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", folder])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // "Serving HTTP on 127.0.0.1 port 40123 (http://127.0.0.1:40123/) ..."
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("no address in `{line}`"));
        Self { url: url.trim_end_matches('/').to_owned(), process }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test]
async fn what_was_downloaded_once_is_enough() {
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().to_str().unwrap();
    let Some(bench) = Bench::with(|host| host.with_env("RATTLER_CACHE_DIR", cache)) else { return };
    let server = Server::of(bench.channel.strip_prefix("file://").unwrap());
    let channels = vec![server.url.clone()];
    let wanted = || EnvRequest { channels: channels.clone(), ..request(&["six=1.16"]) };
    let recorder = Arc::new(Recorder::default());
    bench.create("online", wanted(), Task::new(recorder.clone())).await.unwrap();
    let downloaded = recorder.last("download_progress");
    assert_eq!(downloaded["completed"], downloaded["total"]);
    assert!(downloaded["bytes_downloaded"].as_u64().unwrap() > 100 << 20, "{downloaded}");
    assert_eq!(downloaded["bytes_downloaded"], downloaded["bytes_total"]);
    assert!(downloaded["bytes_per_second"].as_f64().unwrap() > 0.0);

    drop(server);
    let recorder = Arc::new(Recorder::default());
    let env = bench.create("offline", wanted(), Task::new(recorder.clone())).await.unwrap();
    assert_eq!(bench.provider().verify(&env).await.unwrap(), Health::Usable);
    let phases = recorder.phases();
    assert!(phases.iter().any(|phase| phase == "offline_hit"), "{phases:?}");
    assert!(!phases.iter().any(|phase| phase == "download_progress"), "{phases:?}");

    // What was not downloaded is named, and may be there again later.
    let error = bench.provider().install(&env, &["cowsay".to_owned()], Task::silent()).await.unwrap_err();
    assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true), "{error}");
    assert!(error.message.contains("cowsay"), "{error}");
    assert_eq!(bench.provider().verify(&env).await.unwrap(), Health::Usable);
}
