//! `runt daemon doctor`: what keeps the daemon from working, and with `--fix` mending what can be mended.
//!
//! Promises: exit code 0 whatever is found. `--fix` ends nothing that runs.
//! Never: changes anything without `--fix`.

mod facts;
mod report;

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::Context;
use runtimed_client::{Client, Places};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::launch::launch;
use super::start::by_service;
use crate::cli::VERSION;
use crate::process::ACCEPT_LIMIT;
use crate::service::{Service, Source};
use crate::{daemon_lock, terminal};

pub(super) use facts::last_words;
use facts::{Daemon, Facts, SocketFile};
use report::Report;

/// What keeps a daemon from starting, as far as places are concerned, and what to do.
pub(super) async fn in_the_way() -> Option<String> {
    let problem = report::in_the_way(&Facts::gather().await)?;
    Some(format!("{}\n{}", problem.what, problem.to_do))
}

/// Looks, mends if asked to, and prints.
pub(crate) async fn doctor(fix: bool, start: bool, json: bool) -> anyhow::Result<ExitCode> {
    let mut facts = Facts::gather().await;
    let mut actions = Vec::new();
    let mut failure = None;
    if fix {
        // What was done counts, also if the next step fails.
        failure = mend(&facts, start, &mut actions).await.err();
        facts = Facts::gather().await;
    }
    let report = Report::of(&facts, VERSION);
    if json {
        terminal::print_json(&report.as_json(&actions))?;
    } else {
        print(&report, fix, &actions);
    }
    match failure {
        Some(error) => Err(error.context("Not everything could be repaired")),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The same as `--json` prints, with nothing mended.
pub(crate) async fn document() -> Value {
    Report::of(&Facts::gather().await, VERSION).as_json(&[])
}

/// Mends what can be mended without ending anything.
async fn mend(facts: &Facts, start: bool, actions: &mut Vec<String>) -> anyhow::Result<()> {
    let client = Client::discover();
    let down = matches!(facts.daemon, Daemon::Down(_)) && facts.holder.is_none();
    if down && facts.socket == SocketFile::Ours && is_abandoned(&facts.places).await {
        std::fs::remove_file(&facts.places.socket).context("the stale socket could not be removed")?;
        actions.push(format!("Removed the stale socket {}", terminal::tilde(&facts.places.socket)));
    }
    let service = Service::of_this_user().ok().filter(|service| service.check_meant().is_ok());
    let available = facts.service.as_ref().is_some_and(|service| service.unavailable.is_none());
    if let Some(service) = service.filter(|_| available) {
        let source = Source::find(None)?;
        if !service.is_installed() {
            service.install(&source).await.context("Failed to install service")?;
            actions.push("Installed the service".to_owned());
        } else {
            let updated = service.update(&source).await.context("Failed to update service")?;
            if updated.files {
                actions.push(format!("Put version {VERSION} in place of the installed one"));
            }
            if updated.definition {
                if down {
                    // Or the manager goes on to listen where the former definition said.
                    service.stop().await.context("Failed to stop service")?;
                }
                actions.push("Wrote the service's definition anew".to_owned());
            }
        }
        if down && start {
            let info = by_service(&client, &service).await.context("Failed to start daemon")?;
            actions.push(format!("Started the service (pid {})", info.pid));
        }
    } else if down && start {
        let info = launch(&client, None).await.context("Failed to start daemon")?;
        actions.push(format!("Started the daemon in the background (pid {})", info.pid));
    }
    Ok(())
}

/// Whether, right now, nobody listens on the socket or holds the lock. One that is busy listens.
async fn is_abandoned(places: &Places) -> bool {
    let connected = timeout(ACCEPT_LIMIT, UnixStream::connect(&places.socket)).await;
    let refused = matches!(connected, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused);
    refused && daemon_lock::holder(&places.lock()).is_none()
}

fn print(report: &Report, fixed: bool, actions: &[String]) {
    anstream::println!("{}", terminal::title("runtimed Health Check"));
    for check in &report.checks {
        let path = check.path.as_ref().map(|path| format!("{path} ")).unwrap_or_default();
        let detail = check.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        anstream::println!("{:<20} {path}[{}]{detail}", check.label, check.status);
    }
    anstream::println!("\nDiagnosis: {}", report.diagnosis());
    for (index, problem) in report.problems.iter().enumerate() {
        if index > 0 {
            anstream::println!("Also: {}", problem.what);
        }
        anstream::println!("  To do: {}", problem.to_do);
    }
    if !actions.is_empty() {
        anstream::println!("\nActions taken:");
        actions.iter().for_each(|action| anstream::println!("  {action}"));
    } else if !fixed && !report.problems.is_empty() {
        anstream::println!("\nRun 'runt daemon doctor --fix' to attempt automatic repair.");
    }
}
