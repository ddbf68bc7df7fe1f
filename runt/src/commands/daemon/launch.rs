//! Starts a daemon of our own, without a service manager, and waits until it answers.
//!
//! For: `start` and `restart`.
//! Promises: it outlives this program and its terminal; of one that does not come up, why.
//! Never: kills anything.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessSession};
use runtimed_client::protocol::pool::DaemonInfo;
use runtimed_client::{Client, Places};
use tokio::time::{Instant, sleep, timeout_at};

use super::doctor::{self, last_words};
use crate::daemon_lock;
use crate::plugins::check::daemon_binary;
use crate::terminal;

/// How long it may take until it answers. It needs milliseconds; this is for a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Pause before looking again.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// How often one is started that finds the lock held. Each waits for a second.
const TRIES: usize = 4;
/// The times of files are those of the clock's last tick, and it ticks a hundred times a second at least.
const TICK: Duration = Duration::from_millis(10);

/// Starts a daemon, with the options of `like` if given.
///
/// # Errors
/// When it ends, or does not answer in time: what happened, and what to do.
pub(super) async fn launch(client: &Client, like: Option<&DaemonInfo>) -> anyhow::Result<DaemonInfo> {
    let (deadline, began) = (Instant::now() + START_LIMIT, SystemTime::now());
    let places = Places::of_this_process();
    let log = places.log();
    let mut daemon = spawn(client, like)?;
    let mut tries = 1;
    while Instant::now() < deadline {
        if let Ok(Ok(info)) = timeout_at(deadline, client.daemon_info()).await {
            return Ok(info);
        }
        match daemon.try_wait()? {
            None => {}
            // Somebody else holds the lock: another new daemon, which will answer soon, or one that does not.
            Some(status) if status.success() && tries < TRIES => {
                tries += 1;
                daemon = spawn(client, like)?;
            }
            Some(status) if status.success() => bail!(held(client, &places)),
            Some(status) => bail!(ended(status, &log, began).await),
        }
        sleep(PAUSE).await;
    }
    bail!(
        "it does not answer at {} after {} s.\n'runt daemon logs' may say why.",
        terminal::tilde(client.socket()),
        START_LIMIT.as_secs()
    )
}

fn spawn(client: &Client, like: Option<&DaemonInfo>) -> anyhow::Result<Box<dyn ChildWrapper>> {
    let binary = daemon_binary()?;
    let mut command = Command::new(&binary);
    match like.and_then(|like| like.arguments.as_ref()) {
        Some(arguments) => command.args(arguments),
        None => command.arg("run").arg("--socket").arg(std::path::absolute(client.socket())?),
    };
    let folder = like.and_then(|like| like.working_dir.as_deref()).map(Path::new);
    command
        .current_dir(folder.filter(|folder| folder.is_dir()).unwrap_or(Path::new("/")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(worktree) = Places::of_this_process().worktree {
        // It stands elsewhere, and would not find it.
        command.env("RUNTIMED_WORKSPACE_PATH", worktree);
    }
    let mut command = CommandWrap::from(command);
    command.wrap(ProcessSession).spawn().with_context(|| format!("could not start {}", binary.display()))
}

fn held(client: &Client, places: &Places) -> String {
    let holder = daemon_lock::holder(&places.lock());
    format!(
        "{} holds the lock {} and does not answer at {}.\n\
         It is a daemon on another socket, or one that hangs; it was left alone. \
         'runt daemon doctor' says more; 'runt daemon stop' ends it.",
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")),
        terminal::tilde(&places.lock()),
        terminal::tilde(client.socket()),
    )
}

async fn ended(status: ExitStatus, log: &Path, began: SystemTime) -> String {
    let written = std::fs::metadata(log).and_then(|metadata| metadata.modified());
    if let Some(reason) = last_words(log).filter(|_| written.is_ok_and(|written| written + TICK >= began)) {
        return format!(
            "it ended with {status} before it answered: {reason}.\nIts log {} may say more; \
             'runt daemon doctor' looks for what is wrong.",
            terminal::tilde(log)
        );
    }
    // It had no log yet.
    match doctor::in_the_way().await {
        Some(problem) => format!("it ended with {status} before it answered.\n{problem}"),
        None => format!(
            "it ended with {status} before it answered.\n'runt daemon doctor' looks for what is wrong, and \
             'runt daemon start --foreground' shows what it says."
        ),
    }
}
