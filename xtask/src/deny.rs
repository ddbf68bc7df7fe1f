//! `cargo xtask deny`: licenses, sources and known holes of everything any lock file names, as `deny.toml` has it.
//!
//! For: whoever changes a dependency. Not part of `lint`: the tool takes minutes to compile.
//! Promises: says in one line what was not checked; that is never shown as clean.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::{third_party, workspace};

/// Version of cargo-deny; another one may judge differently.
const VERSION: &str = "0.20.2";

/// What cargo-deny says when the list of known holes cannot be had.
const NO_DATABASE: &str = "failed to fetch advisory database";

/// Holds every lock file against `deny.toml`.
///
/// # Errors
/// What does not agree with it; or there is no tool.
pub(crate) fn run() -> Result<()> {
    let tool = tool()?;
    let mut disagree = Vec::new();
    for folder in ["."].into_iter().chain(third_party::all()) {
        println!("{folder}");
        if !check(&tool, folder).args(["bans", "licenses", "sources"]).status()?.success() {
            disagree.push(folder);
        }
    }
    match advisories(&tool)? {
        Advisories::Clean => println!("advisories ok"),
        Advisories::Found => disagree.push("advisories"),
        Advisories::NotChecked => {
            println!("advisories NOT CHECKED: their database cannot be reached from here");
        }
    }
    if !disagree.is_empty() {
        bail!("not as deny.toml has it: {}", disagree.join(", "));
    }
    Ok(())
}

/// A check of what is in `folder`; what is checked is to be added.
fn check(tool: &Path, folder: &str) -> Command {
    let mut command = workspace::command(tool);
    command.args(["--log-level", "warn", "--config", "deny.toml", "--manifest-path"]);
    command.arg(workspace::root().join(folder).join("Cargo.toml")).arg("check");
    command
}

/// What became of the look for known holes.
enum Advisories {
    Clean,
    Found,
    NotChecked,
}

fn advisories(tool: &Path) -> Result<Advisories> {
    let mut found = false;
    for folder in ["."].into_iter().chain(third_party::all()) {
        let output = check(tool, folder).arg("advisories").output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains(NO_DATABASE) {
            return Ok(Advisories::NotChecked);
        }
        if !output.status.success() {
            eprintln!("{folder}\n{said}");
            found = true;
        }
    }
    Ok(if found { Advisories::Found } else { Advisories::Clean })
}

/// cargo-deny below `target/tools`, made if it is not there.
fn tool() -> Result<PathBuf> {
    let folder = workspace::target().join("tools");
    let tool = folder.join("bin/cargo-deny");
    let there = workspace::output(workspace::command(&tool).arg("--version"));
    if there.is_ok_and(|version| version.split_whitespace().last() == Some(VERSION)) {
        return Ok(tool);
    }
    workspace::run(
        workspace::cargo()
            .args(["install", "--locked", "cargo-deny", "--version", VERSION, "--root"])
            .arg(&folder),
    )?;
    Ok(tool)
}
