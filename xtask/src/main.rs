//! `cargo xtask`: the one way to build, stage, test, lint, measure and try the project.
//!
//! For: people and CI, which run the same commands.
//! Promises: needs rustup, a C compiler and python3; whatever else it needs it puts under `target/`.
//! Never: writes outside `target/` and temporary folders.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod bench;
mod daemon;
mod deny;
mod fixtures;
mod frozen;
mod fuzz;
mod lint;
mod outlive;
mod quickstart;
mod sim;
mod stage;
mod test;
mod third_party;
mod tidy;
mod tools;
mod torture;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, stage, test, lint, measure and try runtimed")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile everything and stage it under target/dist
    Build {
        /// Optimized, as it is shipped
        #[arg(long)]
        release: bool,
    },
    /// Build, start a private daemon, run the example notebook, print its outputs
    Quickstart,
    /// Build, prepare the tools the tests need, run every test
    Test {
        /// Passed on to the test runner, for instance a part of a test's name
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Formatting, clippy with warnings denied, and the project's own rules
    Lint,
    /// Licenses, sources and known holes of every dependency; compiles cargo-deny the first time
    Deny,
    /// Only the project's own rules: arrows, unsafe, ABI types, file headers
    Tidy,
    /// Compile the plugins and hosts of every released ABI, for the version tests
    Fixtures,
    /// Keep the sources of the ABI as it is released today
    FreezeAbi,
    /// Live random lives of a notebook's room: edits, partitions, crashes, disks that fail
    Sim(sim::Options),
    /// Fuzz everything that reads what it did not write; what is learned is kept in fuzz/corpus
    Fuzz(fuzz::Options),
    /// Put the daemon through what it has to stand, as often as one likes
    #[command(subcommand)]
    Torture(torture::Torture),
    /// Kill, restart and upgrade daemons while cells print, and look for every number
    Outlive(outlive::Options),
    /// Measure a release build: criterion inside, end to end through the real client
    Bench(bench::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Build { release } => stage::build(release).map(|dist| {
            println!("staged {}", dist.display());
        }),
        Command::Quickstart => quickstart::run(),
        Command::Test { arguments } => test::run(&arguments),
        Command::Lint => lint::run(),
        Command::Deny => deny::run(),
        Command::Tidy => tidy::run(),
        Command::Fixtures => fixtures::build().map(|folder| println!("compiled {}", folder.display())),
        Command::FreezeAbi => frozen::freeze(),
        Command::Sim(options) => sim::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Torture(torture) => torture::run(&torture),
        Command::Outlive(options) => outlive::run(&options),
        Command::Bench(options) => bench::run(&options),
    }
}
