//! Plugins and applications that are not members of the workspace, as those of third parties are not.
//!
//! Promises: each is built with its own lock file; they share one target directory, so that what they both
//! depend on is compiled once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{stage, tools, workspace};

/// Where a third party starts.
const TEMPLATE: &str = "plugin-template";
/// Real providers that were started from there.
const PROVIDERS: [&str; 2] = ["plugins/pixi", "plugins/venv"];
/// An application. Of it what needs no libraries of a web view is built and tested.
const APPLICATION: &str = "examples/tauri-plugin-runtimed";
/// What is compiled with instrumentation.
const FUZZER: &str = "fuzz/libfuzzer";

/// Builds the providers and stages them; returns a folder for `RUNTIMED_PLUGIN_PATH`.
pub(crate) fn stage() -> Result<PathBuf> {
    let plugins = target().join("plugins");
    for provider in PROVIDERS {
        workspace::run(cargo(provider).args(["build", "--locked"]))?;
        stage::stage_plugin(&workspace::root().join(provider), &target().join("debug"), &plugins)?;
    }
    Ok(plugins)
}

/// Runs their own tests; `dist` is where the daemon is staged.
pub(crate) fn test(dist: &Path, tools: Option<&tools::Tools>) -> Result<()> {
    for folder in folders() {
        let mut test = cargo(folder);
        test.args(["test", "--locked"]).env("RUNTIMED_TEST_DIST", dist);
        if folder == APPLICATION {
            test.arg("--no-default-features");
        }
        if let Some(tools) = tools {
            tools.apply(&mut test)?;
        }
        workspace::run(&mut test)?;
    }
    Ok(())
}

/// Every folder with a lock file of its own.
pub(crate) fn all() -> impl Iterator<Item = &'static str> {
    folders().chain([FUZZER])
}

/// Checks their formatting.
pub(crate) fn format() -> Result<()> {
    all().try_for_each(|folder| workspace::run(cargo(folder).args(["fmt", "--check"])))
}

/// Checks that their lock files, and the fuzzer's, know what they depend on today, which this workspace may have changed.
pub(crate) fn locks() -> Result<()> {
    all().try_for_each(|folder| {
        // Asks the index alone: what is locked for other systems need not be fetched.
        workspace::output(cargo(folder).args(["update", "--workspace", "--locked"])).map(drop).with_context(
            || {
                format!(
                    "{folder}/Cargo.lock is behind; run `cargo update --workspace` in {folder} and commit it"
                )
            },
        )
    })
}

fn folders() -> impl Iterator<Item = &'static str> {
    [TEMPLATE, APPLICATION].into_iter().chain(PROVIDERS)
}

fn cargo(folder: &str) -> Command {
    let mut cargo = workspace::cargo();
    cargo.current_dir(workspace::root().join(folder)).env("CARGO_TARGET_DIR", target());
    cargo
}

fn target() -> PathBuf {
    workspace::target().join("third-party")
}
