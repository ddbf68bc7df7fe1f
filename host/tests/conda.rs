//! Conda environments from a channel on disk, for real notebooks.
//!
//! `cargo xtask test` makes the channel and says where it is; without it the test says so and passes.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "daemon/support.rs"]
mod support;

#[path = "real_client/scripts.rs"]
mod scripts;

use std::env;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Daemon, PATIENCE};

/// The channel, and where unpacked packages are kept.
fn channel() -> Option<(String, OsString)> {
    let Some(channel) = env::var("CONDA_CHANNELS").ok().filter(|channel| channel.starts_with('/')) else {
        eprintln!("skipped: no conda channel here. `cargo xtask test` makes one.");
        return None;
    };
    Some((format!("file://{channel}"), env::var_os("RATTLER_CACHE_DIR")?))
}

fn start(settings: Value, cache: OsString) -> Daemon {
    scripts::start(&settings.to_string(), |command| {
        command.env("RATTLER_CACHE_DIR", cache);
    })
}

fn settings(channel: &str) -> Value {
    json!({
        "default_python_env": "conda",
        "conda": { "channels": [channel], "python": ">=3.9" },
        "conda_pool_size": 1,
        "uv_pool_size": 0,
        "install_default_data_packages": false,
    })
}

#[test]
fn pooled_and_declared_conda_environments_serve_notebooks() {
    let Some((channel, cache)) = channel() else { return };
    scripts::run(
        "conda.py pooled",
        || start(settings(&channel), cache),
        |daemon| {
            let state = daemon.ask(json!({"type": "status"}))["state"].clone();
            assert_eq!(state["conda"]["pool_size"], 1, "{state}");
            assert_eq!(state["conda"]["consecutive_failures"], 0, "{state}");
        },
    );
}

/// Held, approved, built with what pip adds, used again; and what cannot be built says why. No pool is in the way.
#[test]
fn an_environment_yml_is_what_its_notebooks_run_in() {
    for function in ["environment_yml", "impossible_yml"] {
        let Some((channel, cache)) = channel() else { return };
        let settings = json!({ "conda_pool_size": 0, "uv_pool_size": 0, "conda": { "channels": [channel] } });
        scripts::run(&format!("conda.py {function}"), || start(settings, cache), |_| {});
    }
}

/// A pool that has nothing to build from says why and waits; others are not disturbed.
#[test]
fn a_channel_that_cannot_be_had_is_the_pools_own_trouble() {
    let Some((_, cache)) = channel() else { return };
    if env::var_os("RUNTIMED_PLUGIN_PATH").is_none() {
        return;
    }
    // Port 9 discards; nobody listens there.
    let mut settings = settings("http://127.0.0.1:9/channel");
    settings["default_python_env"] = "uv".into();
    settings["uv_pool_size"] = 1.into();
    let mut daemon = start(settings, cache);
    let status = |kind: &str| daemon.ask(json!({"type": "status"}))["state"][kind].clone();
    let until = |kind: &str, holds: &dyn Fn(&Value) -> bool| {
        let begin = Instant::now();
        loop {
            let status = status(kind);
            if holds(&status) {
                return status;
            }
            assert!(begin.elapsed() < 3 * PATIENCE, "{kind}: {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let conda = until("conda", &|status| status["consecutive_failures"] == 1);
    assert!(conda["error"].as_str().unwrap().starts_with("Failed to fetch package metadata"), "{conda}");
    assert_eq!(conda["error_kind"], "setup_failed");
    assert!((1..=10).contains(&conda["retry_in_secs"].as_u64().unwrap()), "{conda}");
    until("uv", &|status| status["available"] == 1);
    daemon.signal("TERM");
    assert!(daemon.ended().success());
}
