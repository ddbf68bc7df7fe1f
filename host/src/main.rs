//! The notebook runtime daemon's executable. Everything is in the library beside it.

use std::process::ExitCode;

use clap::Parser;
use runtimed_host::cli::{Cli, Command};
use runtimed_plugin_api::adapter::child;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        // Without a log file, a lock or the daemon's runtime.
        Some(Command::PluginChild) => child::serve(),
        Some(Command::Run) | None => runtimed_host::daemon::run(&cli),
    }
}
