//! `runt jupyter`: kernels without a daemon.
//!
//! Promises: kernels that other Jupyter programs started are as good as ours, but for `stop --all`, which ends ours alone.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinSet;

use crate::cli::JupyterCommand;
use crate::interrupt::Interrupt;
use crate::jupyter::client::KernelClient;
use crate::jupyter::connection::Connection;
use crate::jupyter::execute::{Front, GONE};
use crate::jupyter::find::{self, Found};
use crate::jupyter::interrupt::Interrupter;
use crate::jupyter::probe::heartbeat;
use crate::jupyter::processes::Processes;
use crate::jupyter::show::Screen;
use crate::jupyter::start::{self, What};
use crate::jupyter::stop::{Stopped, stop};
use crate::patience::waiting;

/// Runs a subcommand.
pub(crate) async fn run(command: JupyterCommand) -> anyhow::Result<ExitCode> {
    match command {
        JupyterCommand::Start { kernel, name } => start_kernel(&kernel, name.as_deref()).await,
        JupyterCommand::Stop { id: Some(id), all: false } => stop_one(&id).await,
        JupyterCommand::Stop { all: true, .. } => stop_all().await,
        JupyterCommand::Stop { .. } => {
            bail!(
                "Either provide a kernel ID or use --all to stop all kernels\nSee the kernels with 'runt ps'."
            )
        }
        JupyterCommand::Interrupt { id } => interrupt(&id).await,
        JupyterCommand::Exec { id, code } => exec(&id, code).await,
        JupyterCommand::Console(options) => super::console::run(options).await,
        JupyterCommand::Clean { timeout, dry_run } => clean(timeout, dry_run).await,
        JupyterCommand::Ps { json, verbose } => super::ps::ps(json, verbose).await,
    }
}

async fn start_kernel(kernel: &str, name: Option<&str>) -> anyhow::Result<ExitCode> {
    let what = What::Spec(start::spec(kernel)?.into());
    let mut interrupt = Interrupt::listen()?;
    let started = waiting("Waiting for the kernel", interrupt.or(start::start(&what, name, true))).await?;
    anstream::println!("Kernel started with ID: {}", started.id);
    anstream::println!("Connection file: {}", started.path.display());
    started.stay();
    Ok(ExitCode::SUCCESS)
}

async fn stop_one(id: &str) -> anyhow::Result<ExitCode> {
    match stop(&find::by_name(id)?).await? {
        Stopped::Now => say!("Kernel with ID {id} stopped"),
        Stopped::Before => {
            say!("Kernel with ID {id} had ended already; its connection file was removed");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn stop_all() -> anyhow::Result<ExitCode> {
    let mut stops = JoinSet::new();
    for found in find::all().into_iter().filter(|found| found.ours) {
        stops.spawn(async move { (stop(&found).await, found) });
    }
    if stops.is_empty() {
        anstream::println!("No running kernels found.");
        return Ok(ExitCode::SUCCESS);
    }
    let (mut stopped, mut failed) = (0, false);
    while let Some(done) = stops.join_next().await {
        match done? {
            (Ok(_), found) => {
                stopped += 1;
                say!("Stopped {}", found.id);
            }
            (Err(error), found) => {
                failed = true;
                anstream::eprintln!("Failed to stop {}\n  {error:#}", found.id);
            }
        }
    }
    say!("\nStopped {stopped} kernel(s)");
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn interrupt(id: &str) -> anyhow::Result<ExitCode> {
    let found = find::by_name(id)?;
    let (mut client, interrupter) = connect(&found).await?;
    interrupter.interrupt(&mut client)?;
    if matches!(interrupter, Interrupter::Message) {
        // What was sent leaves with the first answer at the latest.
        let answered =
            async { while client.next().await.is_ok_and(|said| said.kind != "interrupt_reply") {} };
        let _ = tokio::time::timeout(ANSWER, answered).await;
    }
    say!("Interrupt sent to kernel {id}");
    Ok(ExitCode::SUCCESS)
}

/// How long the answer to an interrupt may take; some kernels give none.
const ANSWER: Duration = Duration::from_secs(1);

async fn exec(id: &str, code: Option<String>) -> anyhow::Result<ExitCode> {
    let found = find::by_name(id)?;
    let code = match code {
        Some(code) => code,
        None => io::read_to_string(io::stdin()).context("the code cannot be read")?,
    };
    let mut interrupt = Interrupt::listen()?;
    let (mut client, interrupter) = connect(&found).await?;
    interrupt.or(async { client.greet().await.context(GONE) }).await?;
    let mut front = Front::new(client, interrupter, Screen::new(false), false);
    let succeeded = front.execute(&code, &mut interrupt).await?.succeeded;
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Connects to a kernel, and finds out how to interrupt it.
pub(crate) async fn connect(found: &Found) -> anyhow::Result<(KernelClient, Interrupter)> {
    let connection = Connection::read(&found.path)?;
    let path = found.path.clone();
    let pid = tokio::task::spawn_blocking(move || Processes::look().of_file(&path)).await?;
    let patience = if pid.is_some() { start::START_LIMIT } else { Duration::ZERO };
    let client = KernelClient::connect_within(&connection, patience).await.with_context(|| {
        format!("the kernel {} does not react; 'runt jupyter clean' removes its connection file", found.id)
    })?;
    Ok((client, Interrupter::new(&connection, pid)))
}

async fn clean(limit: Duration, dry_run: bool) -> anyhow::Result<ExitCode> {
    let processes = tokio::task::spawn_blocking(Processes::look).await?;
    let mut probes = JoinSet::new();
    for found in find::all() {
        let running = processes.of_file(&found.path).is_some();
        probes.spawn(async move {
            let beats = match Connection::read(&found.path) {
                Ok(connection) => {
                    // One that hangs is a kernel all the same.
                    Ok(running
                        || matches!(tokio::time::timeout(limit, heartbeat(&connection)).await, Ok(Ok(()))))
                }
                Err(error) => Err(error),
            };
            (found, beats)
        });
    }
    let (mut stale, mut alive, mut errors) = (0, 0, 0);
    for (found, beats) in probes.join_all().await {
        let path = found.path.display();
        match beats {
            Ok(true) => alive += 1,
            Ok(false) if dry_run => {
                stale += 1;
                anstream::println!("Would remove: {path}");
            }
            Ok(false) => match std::fs::remove_file(&found.path) {
                Ok(()) => {
                    stale += 1;
                    say!("Removed: {path}");
                }
                Err(error) => {
                    errors += 1;
                    anstream::eprintln!("cannot remove {path}: {error}");
                }
            },
            Err(error) => {
                errors += 1;
                anstream::eprintln!("{error:#}");
            }
        }
    }
    match dry_run {
        true => anstream::println!("Dry run complete: {stale} stale, {alive} alive, {errors} errors"),
        false => {
            anstream::println!("Cleaned {stale} stale connection files ({alive} alive, {errors} errors)");
        }
    }
    Ok(ExitCode::SUCCESS)
}
