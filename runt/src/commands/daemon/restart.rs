//! `runt daemon restart`: another daemon in the place of this one, and its kernels go on.
//!
//! For: upgrades, and whoever wants a fresh daemon without losing work.
//! Promises: the new daemon has the options of the old one; says which kernels go on, and of a daemon that does not
//! come up why.
//! Never: kills a daemon that answers, or a kernel.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use runtimed_client::Client;
use runtimed_client::protocol::pool::RoomRow;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Progress;
use super::launch::{PAUSE, launch};
use super::start::{STARTING, by_service};
use super::stop::{Goal, Stopped, end_process};
use crate::cli::VERSION;
use crate::jupyter::processes::Processes;
use crate::patience::waiting;
use crate::service::{Service, Source, Updated};
use crate::terminal;

/// How long it may take until it has its kernels again. Each notebook is read first.
const KERNELS_LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn restart(json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::discover();
    let say = |text: &str| Progress { json }.say(text);
    let below = tokio::task::spawn_blocking(|| Processes::look().are_in_a_kernel()).await?;
    if below {
        bail!(
            "Failed to restart daemon: this is a notebook's kernel, and the next daemon would end with it. \
             Nothing was stopped.\nRun 'runt daemon restart' in a terminal."
        );
    }
    say("Restarting runtimed service...");
    let failed = |error: anyhow::Error| anyhow!("Failed to restart daemon: {error:#}");
    let service = Service::usable().await;
    let mut listen_anew = false;
    if let Some(service) = &service {
        let updated = update(service).await.map_err(failed)?;
        if updated.files {
            say(&format!("The service has version {VERSION} now."));
        }
        listen_anew = updated.definition;
    }
    let old = client.daemon_info().await.ok();
    let before = kernels(&client).await;
    let stopped = end_process(&client, Goal::KeepKernels, false, Progress { json }).await.map_err(failed)?;
    if stopped == Stopped::NotRunning {
        say("No daemon was running.");
    }
    if let Some(service) = &service
        && (listen_anew || stopped == Stopped::NotRunning && service.main_process().await.is_some())
    {
        // It hangs. Otherwise the service goes on to listen, and clients wait for the next daemon.
        service.stop().await.map_err(failed)?;
    }
    let new = match &service {
        Some(service) => waiting(STARTING, by_service(&client, service)).await,
        None => waiting(STARTING, launch(&client, old.as_ref())).await,
    };
    let new =
        new.map_err(|error| anyhow!("Failed to restart daemon: {error:#}\nKernels go on without it."))?;
    let after = waiting("Waiting for kernels", returned(&client, &before)).await;
    let lost: Vec<&RoomRow> = before.iter().filter(|kernel| !is_among(kernel, &after)).collect();
    if json {
        terminal::print_json(&json!({
            "restarted": true,
            "was_running": old.is_some(),
            "pid": new.pid,
            "daemon_version": new.daemon_version,
            "old_daemon_version": old.map(|old| old.daemon_version),
            "kernels": after.iter().map(as_json).collect::<Vec<_>>(),
            "kernels_not_back": lost.into_iter().map(as_json).collect::<Vec<_>>(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say("Service restarted.");
    match old {
        Some(old) if old.daemon_version != new.daemon_version => {
            say(&format!("Version {} took over from {}.", new.daemon_version, old.daemon_version));
        }
        _ => {}
    }
    match &after[..] {
        [] => {}
        [_] => say("1 kernel goes on:"),
        more => say(&format!("{} kernels go on:", more.len())),
    }
    for kernel in &after {
        say(&format!("  {} (pid {})", name(kernel), kernel.kernel_pid.unwrap_or_default()));
    }
    for kernel in lost {
        anstream::eprintln!(
            "Warning: the daemon does not have the kernel of {} (pid {}) again. 'runt ps' and its log say more.",
            name(kernel),
            kernel.kernel_pid.unwrap_or_default()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the service run what is beside this program, unless this is the installed one. What changed.
async fn update(service: &Service) -> anyhow::Result<Updated> {
    // Installed apart from its daemon: then there is nothing newer to take.
    let Ok(source) = Source::find(None) else { return Ok(Updated { files: false, definition: false }) };
    service.update(&source).await.context("the service could not be updated; nothing was stopped")
}

/// Notebooks with a kernel that runs; none while the daemon does not say.
async fn kernels(client: &Client) -> Vec<RoomRow> {
    let rooms = client.list_rooms().await.map(|list| list.rooms).unwrap_or_default();
    rooms.into_iter().filter(|room| room.kernel_pid.is_some()).collect()
}

/// The kernels of the new daemon, when it has those of `before` or has had time enough.
async fn returned(client: &Client, before: &[RoomRow]) -> Vec<RoomRow> {
    let deadline = Instant::now() + KERNELS_LIMIT;
    loop {
        let after = kernels(client).await;
        if before.iter().all(|kernel| is_among(kernel, &after)) || Instant::now() > deadline {
            return after;
        }
        sleep(PAUSE).await;
    }
}

fn is_among(kernel: &RoomRow, kernels: &[RoomRow]) -> bool {
    kernels.iter().any(|other| other.kernel_pid == kernel.kernel_pid)
}

fn name(kernel: &RoomRow) -> String {
    kernel
        .notebook_path
        .as_ref()
        .map_or_else(|| kernel.notebook_id.clone(), |path| terminal::tilde(Path::new(path)))
}

fn as_json(kernel: &RoomRow) -> Value {
    json!({ "notebook_id": kernel.notebook_id, "notebook": kernel.notebook_path, "pid": kernel.kernel_pid })
}
