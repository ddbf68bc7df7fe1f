//! The notebook runtime daemon's executable. Everything is in the library beside it.

use std::process::ExitCode;

use clap::Parser;
use runtimed_host::cli::Cli;

fn main() -> ExitCode {
    runtimed_host::daemon::run(&Cli::parse())
}
