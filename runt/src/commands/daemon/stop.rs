//! `runt daemon stop`: the daemon and its kernels end.
//!
//! Promises: notebooks are saved first, unless the daemon hangs or `--force` is given; a refusal is shown.
//! Never: kills a daemon that still answers, without `--force`; signals a process that is no daemon.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use runtimed_client::protocol::pool::STOP_REFUSED;
use runtimed_client::{Client, ClientError, Places};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::Progress;
use crate::patience::waiting;
use crate::process::{gone, is_daemon, listener};
use crate::service::Service;
use crate::{daemon_lock, terminal};

/// How long a daemon may take to be gone: what it gives its rooms (30 s), its tasks and its plugins (5 s each), and a
/// little.
const STOP_LIMIT: Duration = Duration::from_secs(45);
/// The same for one that is to go by force.
const FORCED_LIMIT: Duration = Duration::from_secs(5);
/// How long a process that was killed may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// What the user sees meanwhile.
const ENDING: &str = "Waiting for the daemon to save notebooks and end";

/// What becomes of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// They end.
    EndKernels,
    /// They go on, for the next daemon.
    KeepKernels,
}

/// How it was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Nobody was there.
    NotRunning,
    /// It was asked, and saved notebooks.
    Gracefully(u32),
    /// By the service manager. Its kernels go on.
    ByManager,
    /// By signal. Its kernels go on.
    BySignal(u32),
}

pub(super) async fn stop(force: bool, json: bool) -> anyhow::Result<ExitCode> {
    let progress = Progress { json };
    progress.say("Stopping runtimed service...");
    let stopped = end(&Client::discover(), Goal::EndKernels, force, progress).await;
    let stopped = stopped.map_err(|error| anyhow::anyhow!("Failed to stop daemon: {error:#}"))?;
    let (text, pid) = match stopped {
        Stopped::NotRunning => ("No daemon info found, assuming daemon is stopped.", None),
        Stopped::Gracefully(pid) => ("Daemon stopped gracefully.", Some(pid)),
        Stopped::ByManager => ("Daemon stopped via service manager.", None),
        Stopped::BySignal(pid) => {
            ("Daemon stopped via signal.\nIts kernels go on; the next daemon has them again.", Some(pid))
        }
    };
    progress.say(text);
    if json {
        terminal::print_json(&json!({ "stopped": stopped != Stopped::NotRunning, "pid": pid }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the daemon that listens on the client's socket, or has this user's lock. A service listens no more afterwards.
///
/// # Errors
/// When it is still there: why, and what to do.
pub(super) async fn end(
    client: &Client,
    goal: Goal,
    force: bool,
    progress: Progress,
) -> anyhow::Result<Stopped> {
    let stopped = end_process(client, goal, force, progress).await?;
    match Service::usable().await {
        None => Ok(stopped),
        Some(service) => {
            let runs = service.main_process().await.is_some();
            if runs {
                progress.say("Attempting stop via service manager...");
            }
            service.stop().await?;
            Ok(if runs && stopped == Stopped::NotRunning { Stopped::ByManager } else { stopped })
        }
    }
}

/// The same for the process alone: a service goes on to listen. Finds nobody to ask in a service's daemon that hangs.
///
/// # Errors
/// When it is still there: why, and what to do.
pub(super) async fn end_process(
    client: &Client,
    goal: Goal,
    force: bool,
    progress: Progress,
) -> anyhow::Result<Stopped> {
    let pid = match client.daemon_info().await {
        Ok(info) => {
            let asked = match goal {
                Goal::EndKernels => {
                    progress.say("Attempting graceful shutdown via socket...");
                    client.shutdown().await
                }
                Goal::KeepKernels => client.detach().await,
            };
            match asked {
                Ok(())
                    if waiting(ENDING, gone(info.pid, if force { FORCED_LIMIT } else { STOP_LIMIT }))
                        .await =>
                {
                    return Ok(Stopped::Gracefully(info.pid));
                }
                Ok(()) if !force => bail!(
                    "it agreed to stop and process {} is still there after {} s.\n\
                     It may be saving notebooks or ending kernels; nothing was killed. \
                     Wait and try again, or end it with 'runt daemon stop --force'.",
                    info.pid,
                    STOP_LIMIT.as_secs()
                ),
                Err(ClientError::Daemon(refusal))
                    if !force && (goal == Goal::EndKernels || refusal.starts_with(STOP_REFUSED)) =>
                {
                    bail!(
                        "{refusal}\nNothing was stopped. 'runt daemon stop --force' ends it all the same, and what it \
                         could not save is lost."
                    )
                }
                // One that does not know the request says so or hangs up.
                Err(ClientError::Daemon(_) | ClientError::Disconnected) if goal == Goal::KeepKernels => {
                    bail!(
                        "version {} cannot let its kernels go on. Nothing was stopped.\n\
                     When their work may end, run 'runt daemon stop', then 'runt daemon start'.",
                        info.daemon_version
                    )
                }
                _ => info.pid,
            }
        }
        Err(error) => match hanging(client, &error).await {
            Some(pid) => pid,
            None if matches!(error, ClientError::Connect(_)) => return Ok(Stopped::NotRunning),
            // The service manager listens for it, and ends it.
            None if Service::usable().await.is_some() => return Ok(Stopped::NotRunning),
            None => bail!("{error}\n'runt daemon doctor' says more."),
        },
    };
    by_signal(client, pid, force, progress).await?;
    Ok(Stopped::BySignal(pid))
}

/// The process of a daemon that cannot be asked, unless it is a service's.
async fn hanging(client: &Client, error: &ClientError) -> Option<u32> {
    if !matches!(error, ClientError::Connect(_))
        && let Some(pid) = listener(client.socket()).await
    {
        return Some(pid);
    }
    // It listens elsewhere or not any more, or a service manager listens whose daemon it keeps from starting.
    let holder = daemon_lock::holder(&Places::of_this_process().lock())?;
    (!is_managed(holder).await).then_some(holder)
}

/// Whether a process is a service's: for its manager to end or, where it is not the service that is meant, for nobody
/// here.
async fn is_managed(pid: u32) -> bool {
    let Ok(service) = Service::of_this_user() else { return false };
    let counts = service.is_installed() || service.check_meant().is_err();
    counts && service.main_process().await == Some(pid)
}

async fn by_signal(client: &Client, pid: u32, force: bool, progress: Progress) -> anyhow::Result<()> {
    if !is_daemon(pid) {
        if gone(pid, Duration::ZERO).await {
            return Ok(());
        }
        bail!(
            "process {pid} is not a daemon, by its name. Nothing was ended.\n\
             'runt daemon doctor' says who holds the daemon's lock; 'ps -p {pid}' says what that process is."
        );
    }
    let limit = if force { FORCED_LIMIT } else { STOP_LIMIT };
    progress
        .say(&format!("Attempting stop of process {pid} via signal; waiting up to {} s...", limit.as_secs()));
    send(pid, Signal::TERM)?;
    if waiting(ENDING, gone(pid, limit)).await {
        return Ok(());
    }
    if !force && client.ping().await.is_ok() {
        bail!("it answers, so it was not killed. End it with 'runt daemon stop --force'.");
    }
    // Its number may be another's by now.
    if is_daemon(pid) {
        send(pid, Signal::KILL)?;
    }
    if !gone(pid, KILL_LIMIT).await {
        bail!("process {pid} was killed and is still there. The system may be waiting for a disk.");
    }
    Ok(())
}

fn send(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    match kill_process(process, signal) {
        // It has just gone.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => bail!("process {pid} cannot be ended: {error}"),
    }
}
