//! `runt`: the command line of the notebook runtime daemon.
//!
//! For: people and scripts. Results go to stdout, everything else to stderr.
//! Promises: exit code 0 on success, 1 when the operation failed or the daemon cannot be reached, 2 for
//! wrong usage, 130 after Ctrl-C and 143 after SIGTERM; `--json` prints one JSON document and nothing else on stdout.
//! Never: decides anything the daemon decides.

#[macro_use]
mod terminal;

mod cli;
mod closest;
mod commands;
mod daemon_lock;
mod diagnostics;
mod interrupt;
mod jupyter;
mod lines;
mod notebook_name;
mod patience;
mod plugins;
mod process;
mod reference;
mod render;
mod service;
mod settings_file;
mod spelling;
mod tail;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse_from(arguments());
    terminal::set_quiet(cli.quiet);
    let Some(command) = cli.command else {
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

/// The arguments in today's words. What was said in others is warned about.
fn arguments() -> Vec<OsString> {
    let given: Result<Vec<String>, _> = std::env::args_os().map(OsString::into_string).collect();
    // A path that is not UTF-8 is nothing that an old word is.
    let Ok(given) = given else { return std::env::args_os().collect() };
    let (today, warning) = spelling::of_today(given);
    if let Some(warning) = warning {
        anstream::eprintln!("{warning}");
    }
    today.into_iter().map(OsString::from).collect()
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(options) => commands::run::run(options).await,
        Command::Daemon { command } => commands::daemon::run(command).await,
        Command::Status { json } => commands::daemon::status(json).await,
        Command::Doctor { fix, no_start, json } => commands::daemon::doctor(fix, !no_start, json).await,
        Command::Logs { follow, lines } => commands::daemon::logs(follow, lines).await,
        Command::Notebooks { json } => commands::notebooks::list(json).await,
        Command::Stop { notebook, json } => commands::stop::stop(&notebook, json).await,
        Command::Inspect { notebook, full_outputs, json } => {
            commands::inspect::inspect(&notebook, full_outputs, json).await
        }
        Command::Diagnostics { output, json } => {
            commands::diagnostics::diagnostics(output.as_deref(), json).await
        }
        Command::Man { folder, markdown } => commands::man::man(folder.as_deref(), markdown),
        Command::Ps { json, verbose } => commands::ps::ps(json, verbose).await,
        Command::Jupyter { command } => commands::jupyter::run(command).await,
        Command::Verify { repair, json } => commands::recovery::verify(repair, json).await,
        Command::Recover(options) => commands::recovery::recover(options).await,
        Command::Env { command } => commands::env::run(command).await,
        Command::Trust { command } => commands::trust::run(command),
        Command::Config { command } => commands::config::run(command),
        Command::Plugins { command } => commands::plugins::run(command).await,
        Command::Mcp(options) => commands::mcp::serve(options).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "runt", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
