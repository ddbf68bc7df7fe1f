//! What the daemon has to stand, as often as one likes.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{stage, tools, workspace};

/// Runs in one home and one process of the test: what fails is found again in minutes, and what went well before is
/// kept count of.
const AT_ONCE: u64 = 50;

/// What it has to stand.
#[derive(clap::Subcommand)]
pub(crate) enum Torture {
    /// Kill the daemon, kernels' keepers, plugins' processes and clients while all of them work, and look for what is lost
    Kill(Options),
    /// Let system calls on what is kept fail, and look whether that is told, and made up for
    Faults(Options),
    /// Damage what is kept, and look whether it comes back or is missed
    Corrupt(Options),
    /// Many rooms, peers, cells and connections, one who reads nothing, floods of output, and hours of use
    Load(Load),
}

/// How much at once, and for how long.
#[derive(clap::Args)]
pub(crate) struct Load {
    /// What is done follows from this
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long the case `soak` goes on
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Which of them, all if none is named
    #[arg(value_parser = CASES)]
    cases: Vec<String>,
}

/// The files of host/tests/torture/load.
const CASES: [&str; 7] = ["storm", "stalled", "flood", "rooms", "peers", "cells", "soak"];

/// How often, and what follows from what.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What is done follows from this; when exactly it is answered does not. Every 50 runs have the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many kills, faults, or daemons with some damage
    #[arg(long, default_value_t = 200)]
    runs: u64,
}

/// Builds, stages and runs host/tests/torture. What fails is printed with its seed; what went well is a line of
/// target/torture/*.txt.
pub(crate) fn run(torture: &Torture) -> Result<()> {
    let (test, options) = match torture {
        Torture::Kill(options) => ("kill", options),
        Torture::Faults(options) => ("faults", options),
        Torture::Corrupt(options) => ("corrupt", options),
        Torture::Load(options) => return load(options),
    };
    let dist = stage::build(false)?;
    let tools = tools::prepare()?.context("no client to work with: the package index cannot be reached")?;
    tools.client_python.as_ref().context("the PyPI client runs on Linux only")?;
    let folder = workspace::target().join("torture");
    fs::create_dir_all(&folder)?;
    let mut failed = Vec::new();
    for (seed, done) in (options.seed..).zip((0..options.runs).step_by(usize::try_from(AT_ONCE)?)) {
        let filter = format!("{test}::");
        let mut command = workspace::cargo();
        command.args(["test", "--workspace", "--test", "torture", &filter, "--", "--nocapture"]);
        tools.apply(&mut command)?;
        command.env("RUNTIMED_TEST_DIST", &dist);
        command.env("RUNT_TORTURE_TALLY", folder.join(format!("{test}.txt")));
        command.env("RUNT_TORTURE_SEED", seed.to_string());
        command.env("RUNT_TORTURE_RUNS", AT_ONCE.min(options.runs - done).to_string());
        if workspace::run(&mut command).is_err() {
            failed.push(seed);
        }
    }
    ensure!(failed.is_empty(), "the seeds {failed:?} failed; the evidence of each is printed above");
    Ok(())
}

/// Builds, stages and runs host/tests/torture/load, one case after the other. What each measured is a line of
/// target/torture/load.txt; it fails for what is wrong, never for what is late.
fn load(options: &Load) -> Result<()> {
    let dist = stage::build(false)?;
    let tools = tools::prepare()?.context("nothing to run with: the package index cannot be reached")?;
    let folder = workspace::target().join("torture");
    fs::create_dir_all(&folder)?;
    let named: Vec<&str> = options.cases.iter().map(String::as_str).collect();
    let mut failed = Vec::new();
    for case in if named.is_empty() { &CASES[..] } else { &named } {
        let filter = format!("load::{case}::");
        let mut command = workspace::cargo();
        command.args(["test", "--workspace", "--test", "torture", &filter]);
        command.args(["--", "--nocapture", "--test-threads", "1"]);
        tools.apply(&mut command)?;
        command.env("RUNTIMED_TEST_DIST", &dist);
        command.env("RUNT_TORTURE_TALLY", folder.join("load.txt"));
        command.env("RUNT_TORTURE_SEED", options.seed.to_string());
        command.env("RUNT_TORTURE_REAL", options.minutes.to_string());
        if workspace::run(&mut command).is_err() {
            failed.push(*case);
        }
    }
    ensure!(failed.is_empty(), "the cases {failed:?} failed; what was wrong is printed above");
    Ok(())
}
