//! Tells the program which commit it was built from: `0.1.0+32e010b`, and `+dirty` if files differed from it.
//!
//! For: `runtimed` and `runt`, whose manifests name this file.
//! Promises: works without git and outside a checkout, with the bare version; `RUNTIMED_VERSION` wins.
//! Never: makes a debug build depend on the commit, or everything would be compiled again after each one.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=RUNTIMED_VERSION");
    let variable = |name| std::env::var(name).unwrap_or_default();
    if !variable("RUNTIMED_VERSION").is_empty() || variable("PROFILE") != "release" {
        return;
    }
    if let Some(head) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={head}");
        println!("cargo::rerun-if-changed=.");
    }
    let Some(commit) = git(&["rev-parse", "--short=7", "HEAD"]) else { return };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|it| !it.is_empty());
    let dirty = if changed { "+dirty" } else { "" };
    println!("cargo::rustc-env=RUNTIMED_VERSION={}+{commit}{dirty}", variable("CARGO_PKG_VERSION"));
}

/// What git says; none where there is no git or no checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}
