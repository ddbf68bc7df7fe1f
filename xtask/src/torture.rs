//! What the daemon has to stand, as often as one likes.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{stage, tools, workspace};

/// Kills in one home and one process of the test: what fails is found again in minutes, and what went well before is
/// kept count of.
const AT_ONCE: u64 = 50;

/// What it has to stand.
#[derive(clap::Subcommand)]
pub(crate) enum Torture {
    /// Kill the daemon, kernels' keepers, plugins' processes and clients while all of them work, and look for what is lost
    Kill(Kill),
}

/// How often, and in which order of deeds.
#[derive(clap::Args)]
pub(crate) struct Kill {
    /// What everybody does follows from this; when exactly they are answered does not. Every 50 kills have the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many kills
    #[arg(long, default_value_t = 200)]
    runs: u64,
}

/// Builds, stages and runs host/tests/torture. What fails is printed with the folder that has the evidence; what went
/// well is a line of target/torture/kill.txt.
pub(crate) fn run(torture: &Torture) -> Result<()> {
    let Torture::Kill(options) = torture;
    let dist = stage::build(false)?;
    let tools = tools::prepare()?.context("no client to work with: the package index cannot be reached")?;
    tools.client_python.as_ref().context("the PyPI client runs on Linux only")?;
    let folder = workspace::target().join("torture");
    fs::create_dir_all(&folder)?;
    let mut failed = Vec::new();
    for (seed, done) in (options.seed..).zip((0..options.runs).step_by(usize::try_from(AT_ONCE)?)) {
        let mut test = workspace::cargo();
        test.args(["test", "-p", "runtimed", "--test", "torture", "kill::", "--", "--nocapture"]);
        tools.apply(&mut test)?;
        test.env("RUNTIMED_TEST_DIST", &dist).env("RUNT_TORTURE_TALLY", folder.join("kill.txt"));
        test.env("RUNT_TORTURE_SEED", seed.to_string());
        test.env("RUNT_TORTURE_RUNS", AT_ONCE.min(options.runs - done).to_string());
        if workspace::run(&mut test).is_err() {
            failed.push(seed);
        }
    }
    ensure!(failed.is_empty(), "the seeds {failed:?} failed; the evidence of each is printed above");
    Ok(())
}
