//! Providers that were written outside of this workspace: they get a pool, trust, progress and rows in the
//! status without a change to the daemon.
//!
//! `cargo xtask test` builds them and says where they are; without them the tests say so and pass.

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

/// There is no pixi on the machines these tests run on. Its absence is one sentence with what to do, wherever it is missed.
#[test]
fn without_pixi_it_is_said_what_is_missing() {
    let Some(path) = plugin_path() else {
        eprintln!("skipped: no plugin of a third party here. `cargo xtask test` builds one.");
        return;
    };
    let settings =
        json!({ "default_python_env": "pixi", "uv_pool_size": 0, "conda_pool_size": 0, "venv_pool_size": 0 });
    let start = || {
        scripts::start(&settings.to_string(), |command| {
            let search = env::var_os("PATH").unwrap_or_default();
            let search = env::split_paths(&search).filter(|folder| !folder.join("pixi").exists());
            command.env("PATH", env::join_paths(search).unwrap()).env_remove("PIXI_HOME");
            command.env("RUNTIMED_PLUGIN_PATH", &path);
        })
    };
    scripts::run("pixi.py", start, |daemon| {
        let state = daemon.ask(json!({"type": "status"}))["state"].clone();
        assert_eq!(
            (&state["pixi"]["pool_size"], &state["pixi"]["available"]),
            (&json!(2), &json!(0)),
            "{state}"
        );
        assert_eq!(state["pixi"]["error_kind"], "setup_failed", "{state}");
        assert!(state["pixi"]["error"].as_str().unwrap().starts_with("pixi is not installed"), "{state}");
    });
}

/// The bundled plugins and the third party's.
fn plugin_path() -> Option<OsString> {
    let bundled = PathBuf::from(env::var_os("RUNTIMED_TEST_DIST")?).join("lib/runt/plugins");
    let third_party = PathBuf::from(env::var_os("RUNTIMED_TEST_THIRD_PARTY")?);
    env::join_paths([third_party, bundled]).ok()
}
