//! `runt daemon install` and `uninstall`.
//!
//! Promises: installing starts nothing; uninstalling leaves no process, socket, definition or program, and says what it
//! leaves.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use runtimed_client::{Client, Places};

use super::Progress;
use super::stop::{Goal, end};
use crate::service::{Service, Source};
use crate::terminal;

/// Copies the daemon and has it started at login.
pub(super) async fn install(binary: Option<&Path>) -> anyhow::Result<ExitCode> {
    let service = Service::of_this_user()?;
    let source = Source::find(binary)?;
    if service.is_installed() {
        anstream::eprintln!(
            "Service already installed. Use 'runt daemon uninstall' first.\n\
             To have it run this version, use 'runt daemon restart'."
        );
        return Ok(ExitCode::FAILURE);
    }
    service.check().await?;
    anstream::println!("Installing runtimed service...\nSource binary: {}", terminal::tilde(&source.daemon));
    service.install(&source).await.context("Failed to install service")?;
    anstream::println!("Service installed. Run 'runt daemon start' to start it.");
    Ok(ExitCode::SUCCESS)
}

/// Stops the daemon and removes what was installed.
pub(super) async fn uninstall() -> anyhow::Result<ExitCode> {
    let service = Service::of_this_user()?;
    if !service.is_installed() {
        anstream::println!("Service not installed.");
        return Ok(ExitCode::SUCCESS);
    }
    let progress = Progress { json: false };
    progress.say("Uninstalling runtimed service...");
    let ended = end(&Client::discover(), Goal::EndKernels, false, progress).await;
    ended.map_err(|error| anyhow::anyhow!("Failed to stop daemon: {error}\nNothing was uninstalled."))?;
    service.uninstall().await.context("Failed to uninstall service")?;
    progress.say("Service uninstalled.");
    let base = terminal::tilde(&Places::of_this_process().base);
    progress.say(&format!("Settings, and logs, environments and notebooks' histories in {base}, were kept."));
    Ok(ExitCode::SUCCESS)
}
