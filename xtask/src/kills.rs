//! A daemon that is killed while two real clients work, as often as one likes.

use anyhow::{Context, Result};

use crate::{stage, tools, workspace};

/// How often, and in which order of deeds.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What the clients do follows from this; when exactly they are told what does not
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many kills
    #[arg(long, default_value_t = 200)]
    runs: u64,
}

/// Builds, stages and runs host/tests/kills.rs. What fails is printed with the folder that has the evidence.
pub(crate) fn run(options: &Options) -> Result<()> {
    let dist = stage::build(false)?;
    let tools = tools::prepare()?.context("no client to work with: the package index cannot be reached")?;
    tools.client_python.as_ref().context("the PyPI client runs on Linux only")?;
    let mut test = workspace::cargo();
    test.args(["test", "-p", "runtimed", "--test", "kills", "--", "--nocapture"]);
    tools.apply(&mut test)?;
    test.env("RUNTIMED_TEST_DIST", &dist);
    test.env("RUNT_KILLS_SEED", options.seed.to_string()).env("RUNT_KILLS_RUNS", options.runs.to_string());
    workspace::run(&mut test)
}
