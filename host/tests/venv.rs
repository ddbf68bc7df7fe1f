//! A provider that was written outside of this workspace: it gets a pool, trust, progress and rows in the
//! status without a change to the daemon.
//!
//! `cargo xtask test` builds the provider and says where it is; without it the test says so and passes.

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
use std::path::PathBuf;

use serde_json::json;

#[test]
fn a_third_partys_provider_serves_notebooks() {
    let Some(path) = plugin_path() else {
        eprintln!("skipped: no plugin of a third party here. `cargo xtask test` builds one.");
        return;
    };
    let settings = json!({
        "default_python_env": "venv",
        "venv_pool_size": 1,
        "uv_pool_size": 0,
        "install_default_data_packages": false,
    });
    let start = || {
        scripts::start(&settings.to_string(), |command| {
            command.env("RUNTIMED_PLUGIN_PATH", &path);
        })
    };
    scripts::run("venv.py", start, |daemon| {
        let state = daemon.ask(json!({"type": "status"}))["state"].clone();
        assert_eq!(state["venv"]["pool_size"], 1, "{state}");
        assert_eq!(state["venv"]["consecutive_failures"], 0, "{state}");
    });
}

/// The bundled plugins and the third party's.
fn plugin_path() -> Option<OsString> {
    let bundled = PathBuf::from(env::var_os("RUNTIMED_TEST_DIST")?).join("lib/runt/plugins");
    let third_party = PathBuf::from(env::var_os("RUNTIMED_TEST_THIRD_PARTY")?);
    env::join_paths([third_party, bundled]).ok()
}
