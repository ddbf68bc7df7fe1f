//! Cells that print on while their daemons are killed, restarted and upgraded, as often as one likes.

use std::fs;

use anyhow::{Context, Result};

use crate::{stage, tools, workspace};

/// Version of the daemon that is upgraded to.
const NEXT: &str = "99.0.0-next";

/// How often, and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many lives: a third each is killed, restarted, and upgraded to another version
    #[arg(long, default_value_t = 50)]
    runs: u64,
    /// Length of the cell in seconds; a number is printed every 10 ms
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// Builds a daemon of another version, then all as it is, and runs host/tests/outliving.rs; two_daemons.rs as well,
/// with a daemon of each.
pub(crate) fn run(options: &Options) -> Result<()> {
    let tools = tools::prepare()?.context("no client to work with: the package index cannot be reached")?;
    tools.client_python.as_ref().context("the PyPI client runs on Linux only")?;
    let mut next = workspace::cargo();
    next.args(["build", "-p", "runtimed"]).env("RUNTIMED_VERSION", NEXT);
    workspace::run(&mut next)?;
    let upgrade = workspace::target().join("upgrade");
    fs::create_dir_all(&upgrade)?;
    let upgrade = upgrade.join("runtimed");
    // A program that still runs cannot be written over, but can be replaced.
    fs::remove_file(&upgrade).ok();
    fs::copy(workspace::target().join("debug/runtimed"), &upgrade)?;
    let dist = stage::build(false)?;
    let mut test = workspace::cargo();
    test.args([
        "test",
        "-p",
        "runtimed",
        "--test",
        "outliving",
        "--test",
        "two_daemons",
        "--",
        "--nocapture",
    ]);
    tools.apply(&mut test)?;
    test.env("RUNTIMED_TEST_DIST", &dist).env("RUNT_OUTLIVE_UPGRADE", &upgrade);
    test.env("RUNT_OUTLIVE_RUNS", options.runs.to_string());
    test.env("RUNT_OUTLIVE_SECS", options.seconds.to_string());
    workspace::run(&mut test)
}
