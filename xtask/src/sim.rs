//! Random lives of a notebook's room, by the thousand or one again.

use anyhow::Result;

use crate::workspace;

/// Which lives to live.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Live this one again
    #[arg(long, conflicts_with_all = ["from", "runs"])]
    seed: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many lives
    #[arg(long, default_value_t = 2000)]
    runs: u64,
}

/// Builds an optimized test and runs it. A life that fails is printed as the few deeds it takes.
pub(crate) fn run(options: &Options) -> Result<()> {
    let (from, runs) = options.seed.map_or((options.from, options.runs), |seed| (seed, 1));
    let mut test = workspace::cargo();
    test.args([
        "test",
        "--release",
        "-p",
        "runtimed-plugin-rooms",
        "--lib",
        "room::tests::sim",
        "--",
        "--nocapture",
    ]);
    test.env("RUNT_SIM_FROM", from.to_string()).env("RUNT_SIM_RUNS", runs.to_string());
    workspace::run(&mut test)?;
    println!("{runs} lives, seeds {from} to {}: all agree and nothing is lost", from + runs.max(1) - 1);
    Ok(())
}
