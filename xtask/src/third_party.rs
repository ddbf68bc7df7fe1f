//! Plugins that are not members of the workspace, as those of third parties are not.
//!
//! Promises: each is built with its own lock file; they share one target directory, so that what they both
//! depend on is compiled once.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{stage, tools, workspace};

/// Where a third party starts.
const TEMPLATE: &str = "plugin-template";
/// Real providers that were started from there.
const PROVIDERS: [&str; 2] = ["plugins/pixi", "plugins/venv"];

/// Builds the providers and stages them; returns a folder for `RUNTIMED_PLUGIN_PATH`.
pub(crate) fn stage() -> Result<PathBuf> {
    let plugins = target().join("plugins");
    for provider in PROVIDERS {
        workspace::run(cargo(provider).args(["build", "--locked"]))?;
        stage::stage_plugin(&workspace::root().join(provider), &target().join("debug"), &plugins)?;
    }
    Ok(plugins)
}

/// Runs their own tests.
pub(crate) fn test(tools: Option<&tools::Tools>) -> Result<()> {
    for folder in folders() {
        let mut test = cargo(folder);
        test.args(["test", "--locked"]);
        if let Some(tools) = tools {
            tools.apply(&mut test)?;
        }
        workspace::run(&mut test)?;
    }
    Ok(())
}

/// Checks their formatting.
pub(crate) fn format() -> Result<()> {
    folders().try_for_each(|folder| workspace::run(cargo(folder).args(["fmt", "--check"])))
}

/// Checks that their lock files know what they depend on today, which this workspace may have changed.
pub(crate) fn locks() -> Result<()> {
    folders().try_for_each(|folder| {
        workspace::output(cargo(folder).args(["metadata", "--locked", "--format-version", "1"]))
            .map(drop)
            .with_context(|| {
                format!("{folder}/Cargo.lock is behind; run `cargo metadata` in {folder} and commit it")
            })
    })
}

fn folders() -> impl Iterator<Item = &'static str> {
    std::iter::once(TEMPLATE).chain(PROVIDERS)
}

fn cargo(folder: &str) -> Command {
    let mut cargo = workspace::cargo();
    cargo.current_dir(workspace::root().join(folder)).env("CARGO_TARGET_DIR", target());
    cargo
}

fn target() -> PathBuf {
    workspace::target().join("third-party")
}
