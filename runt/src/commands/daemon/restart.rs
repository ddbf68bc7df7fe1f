//! `runt daemon restart`: another daemon in the place of this one, and its kernels go on.
//!
//! For: upgrades, and whoever wants a fresh daemon without losing work.
//! Promises: the new daemon has the options of the old one; says which kernels go on, and of a daemon that does not
//! come up where to read why.
//! Never: kills anything.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessSession};
use runtimed_client::protocol::pool::{DaemonInfo, RoomRow};
use runtimed_client::{Client, ClientError, Places};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use crate::jupyter::processes::Processes;
use crate::plugins::check::daemon_binary;
use crate::process::gone;
use crate::terminal;

/// How long the old daemon may take to be gone: what it gives its rooms (30 s), its tasks and its plugins (5 s each),
/// and a little.
const STOP_LIMIT: Duration = Duration::from_secs(45);
/// How long the new one may take until it answers. It needs milliseconds; this is for a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take until it has its kernels again. Each notebook is read first.
const KERNELS_LIMIT: Duration = Duration::from_secs(20);
/// Pause before looking again.
const PAUSE: Duration = Duration::from_millis(20);

/// `runt daemon restart`.
pub(crate) async fn restart(json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::discover();
    let say = |text: &str| {
        if !json {
            anstream::println!("{text}");
        }
    };
    let below = tokio::task::spawn_blocking(|| Processes::look().are_in_a_kernel()).await?;
    if below {
        bail!(
            "Failed to restart daemon: this is a notebook's kernel, and the next daemon would end with it. \
             Nothing was stopped.\nRun 'runt daemon restart' in a terminal."
        );
    }
    say("Restarting runtimed service...");
    let (old, before) = match client.daemon_info().await {
        Ok(info) => (Some(info), kernels(&client).await),
        Err(ClientError::Connect(_)) => (None, Vec::new()),
        Err(error) => bail!("Failed to restart daemon: {error}\nNothing was stopped."),
    };
    match &old {
        Some(old) => stop(&client, old).await?,
        None => say("No daemon was running."),
    }
    let new = start(&client, old.as_ref()).await?;
    let after = returned(&client, &before).await;
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

/// Has the old daemon let go of its kernels and end.
async fn stop(client: &Client, old: &DaemonInfo) -> anyhow::Result<()> {
    match client.detach().await {
        Ok(()) => {}
        // One that does not know the request says so or hangs up.
        Err(ClientError::Daemon(_) | ClientError::Disconnected) => bail!(
            "Failed to restart daemon: version {} cannot let its kernels go on. Nothing was stopped.\n\
             When their work may end, run 'runt daemon stop', then 'runt daemon restart'.",
            old.daemon_version
        ),
        Err(error) => bail!("Failed to restart daemon: {error}\nNothing was stopped."),
    }
    if !gone(old.pid, STOP_LIMIT).await {
        bail!(
            "Failed to restart daemon: process {} agreed to end and is still there after {} s.\n\
             It may be saving notebooks; nothing was killed. Wait and try again.",
            old.pid,
            STOP_LIMIT.as_secs()
        );
    }
    Ok(())
}

/// Starts a daemon and waits until it answers.
async fn start(client: &Client, old: Option<&DaemonInfo>) -> anyhow::Result<DaemonInfo> {
    let deadline = Instant::now() + START_LIMIT;
    let log = Places::of_this_process().base.join("runtimed.log");
    let log = terminal::tilde(&log);
    let mut daemon = spawn(client, old)?;
    while Instant::now() < deadline {
        if let Ok(Ok(info)) = timeout_at(deadline, client.daemon_info()).await {
            return Ok(info);
        }
        match daemon.try_wait()? {
            None => {}
            // Somebody holds the lock: another new daemon, or for a moment a child that the old one was just starting.
            Some(status) if status.success() => daemon = spawn(client, old)?,
            Some(status) => bail!(
                "Failed to restart daemon: it ended with {status} before it answered. Kernels go on without it.\n\
                 Its log {log} may say why; 'runt daemon start --foreground' shows it."
            ),
        }
        sleep(PAUSE).await;
    }
    bail!(
        "Failed to restart daemon: it does not answer at {} after {} s. Kernels go on without it.\n\
         Its log {log} may say why.",
        terminal::tilde(client.socket()),
        START_LIMIT.as_secs()
    )
}

/// Starts a daemon that outlives this program and its terminal.
fn spawn(client: &Client, old: Option<&DaemonInfo>) -> anyhow::Result<Box<dyn ChildWrapper>> {
    let binary = daemon_binary()?;
    let mut command = Command::new(&binary);
    match old.and_then(|old| old.arguments.as_ref()) {
        Some(arguments) => command.args(arguments),
        None => command.arg("run").arg("--socket").arg(std::path::absolute(client.socket())?),
    };
    let folder = old.and_then(|old| old.working_dir.as_deref()).map(Path::new);
    command
        .current_dir(folder.filter(|folder| folder.is_dir()).unwrap_or(Path::new("/")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut command = CommandWrap::from(command);
    command.wrap(ProcessSession).spawn().with_context(|| format!("could not start {}", binary.display()))
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
