//! `runt daemon install` and `uninstall`.
//!
//! Promises: installing starts nothing; uninstalling leaves no daemon, socket, definition or program, and says what it
//! leaves.
//! Never: touches the service from a work tree, or one that is another program's or another daemon's.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use runtimed_client::{Client, Places};

use super::Progress;
use super::start::{HAND_OVER, is_apart};
use super::stop::{Goal, Stopped, end};
use crate::service::{Service, Source};
use crate::terminal;

/// Copies the daemon and has it started at login.
pub(super) async fn install(binary: Option<&Path>) -> anyhow::Result<ExitCode> {
    let service = Service::of_this_user()?;
    service.check_meant()?;
    let source = Source::find(binary)?;
    if service.is_installed() {
        anstream::eprintln!(
            "Service already installed. Use 'runt daemon uninstall' first.\n\
             To have it run this version, use 'runt daemon restart'."
        );
        return Ok(ExitCode::FAILURE);
    }
    service.check().await?;
    say!("Installing runtimed service...\nSource binary: {}", terminal::tilde(&source.daemon));
    service.install(&source).await.context("Failed to install service")?;
    match Client::discover().daemon_info().await {
        Ok(info) if is_apart(&info).await => {
            say!("Service installed. A daemon runs already (pid {}).\n{HAND_OVER}", info.pid);
        }
        _ => say!("Service installed. Run 'runt daemon start' to start it."),
    }
    Ok(ExitCode::SUCCESS)
}

/// Stops the daemon and removes what was installed.
pub(super) async fn uninstall() -> anyhow::Result<ExitCode> {
    let service = Service::of_this_user()?;
    service.check_meant()?;
    if !service.is_installed() {
        say!("Service not installed.");
        return Ok(ExitCode::SUCCESS);
    }
    service.check().await?;
    let progress = Progress { json: false };
    progress.say("Uninstalling runtimed service...");
    let ended = end(&Client::discover(), Goal::EndKernels, false, progress).await;
    let ended =
        ended.map_err(|error| anyhow::anyhow!("Failed to stop daemon: {error}\nNothing was uninstalled."))?;
    service.uninstall().await.context("Failed to uninstall service")?;
    progress.say("Service uninstalled.");
    if matches!(ended, Stopped::ByManager | Stopped::BySignal(_)) {
        progress.say(
            "The daemon did not end its kernels, and they may go on. 'runt daemon start' finds them again; then \
             'runt ps' lists them, and 'runt daemon stop' ends them.",
        );
    }
    let base = terminal::tilde(&Places::of_this_process().base);
    progress.say(&format!("Settings, and logs, environments and notebooks' histories in {base}, were kept."));
    Ok(ExitCode::SUCCESS)
}
