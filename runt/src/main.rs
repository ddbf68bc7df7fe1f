//! `runt`: the command line of the notebook runtime daemon.
//!
//! For: people and scripts. Results go to stdout, everything else to stderr.
//! Promises: exit code 0 on success, 1 when the operation failed or the daemon cannot be reached, 2 for
//! wrong usage, 130 after Ctrl-C and 143 after SIGTERM; `--json` prints one JSON document and nothing else on stdout.
//! Never: decides anything the daemon decides.

mod cli;
mod commands;
mod daemon_lock;
mod interrupt;
mod jupyter;
mod lines;
mod plugins;
mod process;
mod render;
mod service;
mod settings_file;
mod tail;
mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{Cli, Command};

fn main() -> ExitCode {
    let Some(command) = Cli::parse().command else {
        return match Cli::command().print_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            anstream::eprintln!("Error: could not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(command));
    // A question that nobody will answer any more may still wait for a line on the terminal.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("Error: {error:#}");
            let asked = error.downcast_ref::<interrupt::Asked>();
            asked.map_or(ExitCode::FAILURE, |asked| ExitCode::from(asked.exit_code()))
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(options) => commands::run::run(options).await,
        Command::Daemon { command } => commands::daemon::run(command).await,
        Command::Status { json } => commands::daemon::status(json).await,
        Command::Doctor { fix, no_start, json } => commands::daemon::doctor(fix, !no_start, json).await,
        Command::Logs { follow, lines } => commands::daemon::logs(follow, lines).await,
        Command::Notebooks { json } => commands::notebooks::list(json).await,
        Command::Ps { json, verbose } => commands::ps::ps(json, verbose).await,
        Command::Jupyter { command } => commands::jupyter::run(command).await,
        Command::Verify { repair, json } => commands::recovery::verify(repair, json).await,
        Command::Recover(options) => commands::recovery::recover(options).await,
        Command::Env { command } => commands::env::run(command).await,
        Command::Trust { command } => commands::trust::run(command),
        Command::Config { command } => commands::config::run(command),
        Command::Plugins { command } => commands::plugins::run(command).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "runt", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
