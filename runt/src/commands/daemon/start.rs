//! `runt daemon start`: by the service if there is one, otherwise in the background.
//!
//! Promises: success means that the daemon answers.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use runtimed_client::Client;
use runtimed_client::protocol::pool::DaemonInfo;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Progress;
use super::launch::{PAUSE, launch};
use crate::patience::waiting;
use crate::plugins::check::daemon_binary;
use crate::service::Service;
use crate::terminal;

/// How long a service may take until it answers.
const READY_LIMIT: Duration = Duration::from_secs(5);

/// What the user sees while it starts.
pub(super) const STARTING: &str = "Waiting for the daemon";

/// About a daemon that runs apart from the service that is installed.
pub(super) const HAND_OVER: &str =
    "It was not started by the service. 'runt daemon restart' hands it over to the service; kernels go on.";

/// Starts one, unless one is there.
pub(super) async fn start(json: bool) -> anyhow::Result<ExitCode> {
    let (client, progress) = (Client::discover(), Progress { json });
    let running = client.daemon_info().await.ok();
    let started = running.is_none();
    let info = match running {
        Some(info) => {
            progress.say(&format!("The daemon runs already (pid {}).", info.pid));
            if !json && is_apart(&info).await {
                progress.say(HAND_OVER);
            }
            info
        }
        None => {
            let service = Service::usable().await;
            let is_installed = Service::of_this_user().is_ok_and(|service| service.is_installed());
            progress.say(match (&service, is_installed) {
                (Some(_), _) => "Starting runtimed service...",
                (None, false) => {
                    "Starting runtimed in the background. \
                     ('runt daemon install' makes it a service that is started at login.)"
                }
                (None, true) => {
                    "The service is not for this session, work tree or socket. \
                     Starting runtimed in the background..."
                }
            });
            let started = match &service {
                Some(service) => waiting(STARTING, by_service(&client, service)).await,
                None => waiting(STARTING, launch(&client, None)).await,
            };
            let info = started.map_err(|error| anyhow!("Failed to start daemon: {error:#}"))?;
            progress.say(&match service {
                Some(_) => "Service started.".to_owned(),
                None => format!("Daemon started (pid {}).", info.pid),
            });
            info
        }
    };
    if json {
        terminal::print_json(
            &json!({ "started": started, "pid": info.pid, "daemon_version": info.daemon_version }),
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a daemon that answers was not started by the service, and there is one.
pub(super) async fn is_apart(info: &DaemonInfo) -> bool {
    match Service::usable().await {
        Some(service) => service.main_process().await != Some(info.pid),
        None => false,
    }
}

/// Has the service manager start the daemon and waits until it answers.
///
/// # Errors
/// What the manager says, or the daemon does not.
pub(super) async fn by_service(client: &Client, service: &Service) -> anyhow::Result<DaemonInfo> {
    service.start().await.context("'runt daemon doctor' says more")?;
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        let error = match client.daemon_info().await {
            Ok(info) => match client.ping().await {
                Ok(_) => return Ok(info),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if Instant::now() > deadline {
            bail!(
                "daemon did not become ready within {}s: {error}\n\
                 'runt daemon logs' may say why, and 'runt daemon doctor' looks for what is wrong.",
                READY_LIMIT.as_secs()
            );
        }
        sleep(PAUSE).await;
    }
}

/// Becomes the daemon, so that Ctrl-C and signals are its own.
pub(super) fn in_foreground() -> anyhow::Result<ExitCode> {
    let daemon = daemon_binary()?;
    let mut command = Command::new(&daemon);
    command.arg("run");
    if let Some(socket) = std::env::var_os("RUNTIMED_SOCKET_PATH").filter(|socket| !socket.is_empty()) {
        command.arg("--socket").arg(socket);
    }
    let error = command.exec();
    Err(error).with_context(|| format!("could not start {}", daemon.display()))
}
