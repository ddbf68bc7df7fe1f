//! `runt daemon`: is it there, start it, stop it, read its log.

mod doctor;
mod install;
mod launch;
mod logs;
mod restart;
mod start;
mod status;
mod stop;

use std::process::ExitCode;

use anyhow::bail;
use runtimed_client::{Client, ClientError};
use serde_json::json;

pub(crate) use doctor::{doctor, document as doctor_document};
pub(crate) use logs::logs;
pub(crate) use status::{document as status_document, status};

use crate::cli::DaemonCommand;
use crate::terminal;

/// Carries a command out.
pub(crate) async fn run(command: DaemonCommand) -> anyhow::Result<ExitCode> {
    match command {
        DaemonCommand::Status { json } => status(json).await,
        DaemonCommand::Install { binary } => install::install(binary.as_deref()).await,
        DaemonCommand::Uninstall => install::uninstall().await,
        DaemonCommand::Start { foreground: true, .. } => start::in_foreground(),
        DaemonCommand::Start { json, .. } => start::start(json).await,
        DaemonCommand::Stop { force, json } => stop::stop(force, json).await,
        DaemonCommand::Restart { json } => restart::restart(json).await,
        DaemonCommand::Logs { follow, lines } => logs(follow, lines).await,
        DaemonCommand::Doctor { fix, no_start, json } => doctor(fix, !no_start, json).await,
        DaemonCommand::Flush => flush().await,
        DaemonCommand::Ping { json } => ping(json).await,
        DaemonCommand::Shutdown => shutdown().await,
    }
}

async fn ping(json: bool) -> anyhow::Result<ExitCode> {
    match Client::discover().ping().await {
        Ok(pong) => {
            if json {
                terminal::print_json(&json!({ "running": true, "daemon_version": pong.daemon_version }))?;
            } else {
                anstream::println!("pong");
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            if json {
                terminal::print_json(&json!({ "running": false, "error": error.to_string() }))?;
            }
            anstream::eprintln!("Daemon not running: {error}\n{}", next_step(&error));
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn flush() -> anyhow::Result<ExitCode> {
    if let Err(error) = Client::discover().flush().await {
        bail!("Failed to flush pool: {error}\n{}", next_step(&error));
    }
    say!("Pool flushed — environments will be rebuilt");
    Ok(ExitCode::SUCCESS)
}

/// Only asks. `stop` also waits.
async fn shutdown() -> anyhow::Result<ExitCode> {
    match Client::discover().shutdown().await {
        Ok(()) => {}
        Err(ClientError::Daemon(refusal)) => {
            bail!("Failed to shutdown daemon: {refusal}\nNothing was stopped.")
        }
        Err(error) => bail!("Failed to shutdown daemon: {error}\n{}", next_step(&error)),
    }
    say!("Shutdown request sent");
    Ok(ExitCode::SUCCESS)
}

/// What to do about a daemon that could not be asked.
fn next_step(error: &ClientError) -> &'static str {
    match error {
        ClientError::Connect(_) => {
            "Start it with 'runt daemon start'; 'runt daemon doctor' says what keeps it from that."
        }
        _ => "See 'runt daemon doctor' and 'runt daemon logs'.",
    }
}

/// What a command says on the way to its result; nothing where the result is JSON.
#[derive(Clone, Copy)]
struct Progress {
    json: bool,
}

impl Progress {
    fn say(self, text: &str) {
        if !self.json {
            say!("{text}");
        }
    }
}
