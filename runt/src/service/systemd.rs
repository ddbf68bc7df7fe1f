//! systemd's user manager, through `systemctl --user`.
//!
//! Promises: an error carries what systemctl said.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

/// The daemon's unit.
pub(super) const SERVICE: &str = "runtimed.service";
/// The unit that listens for it.
pub(super) const SOCKET: &str = "runtimed.socket";
/// Where systemctl is if not on `PATH`.
const PROGRAMS: [&str; 2] = ["/usr/bin/systemctl", "/bin/systemctl"];
/// What an AppImage puts into the environment, which makes systemctl load the image's libraries.
const APP_IMAGE: [&str; 9] = [
    "APPDIR",
    "APPIMAGE",
    "ARGV0",
    "LD_AUDIT",
    "LD_DEBUG",
    "LD_LIBRARY_PATH",
    "LD_ORIGIN_PATH",
    "LD_PRELOAD",
    "OWD",
];

/// The user manager of this session.
pub(super) struct Systemd;

impl Systemd {
    /// Whether it can be reached.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        match systemctl(&["show-environment"]).await {
            Ok(_) => Ok(()),
            Err(error) => bail!(
                "Linux user systemd is not available in this session: {error:#}\n\
                 The service cannot be installed, started or removed here; nothing was changed.\n\
                 Use a login session with XDG_RUNTIME_DIR and DBus, or have your administrator run \
                 'loginctl enable-linger $USER'.\n\
                 Without a service, 'runt daemon start' runs the daemon in the background, \
                 'runt daemon start --foreground' in this terminal."
            ),
        }
    }

    /// Reads the units and has them started at login.
    pub(super) async fn register(&self) -> anyhow::Result<()> {
        self.reload().await?;
        systemctl(&["enable", SERVICE, SOCKET]).await.map(drop)
    }

    /// These are not started at login any more. Nothing happens to units that are not there.
    pub(super) async fn disable(&self, units: &[String]) -> anyhow::Result<()> {
        if units.is_empty() {
            return Ok(());
        }
        let arguments: Vec<&str> = ["disable"].into_iter().chain(units.iter().map(String::as_str)).collect();
        match systemctl(&arguments).await {
            Err(error) if !is_unknown(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads units that were changed.
    pub(super) async fn reload(&self) -> anyhow::Result<()> {
        systemctl(&["daemon-reload"]).await.map(drop)
    }

    /// Starts both. The socket first, so that clients can wait while the daemon starts.
    pub(super) async fn start(&self) -> anyhow::Result<()> {
        self.forget_failures().await;
        systemctl(&["start", SOCKET, SERVICE]).await.map(drop)
    }

    /// Stops both. The socket first, or a client would start the daemon again.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        match systemctl(&["stop", SOCKET, SERVICE]).await {
            Err(error) if !is_unknown(&error) => return Err(error),
            _ => {}
        }
        self.forget_failures().await;
        Ok(())
    }

    /// The daemon's process, while it runs.
    pub(super) async fn main_process(&self) -> Option<u32> {
        let said = systemctl(&["show", "--property=MainPID", "--value", SERVICE]).await.ok()?;
        said.trim().parse().ok().filter(|pid| *pid != 0)
    }

    /// Who failed often waits before the next start, and stays in lists. Units that have not failed do not mind.
    async fn forget_failures(&self) {
        let _ = systemctl(&["reset-failed", SERVICE, SOCKET]).await;
    }
}

fn is_unknown(error: &anyhow::Error) -> bool {
    let said = format!("{error:#}");
    ["not loaded", "does not exist", "not found"].iter().any(|words| said.contains(words))
}

/// What `systemctl --user` prints.
async fn systemctl(arguments: &[&str]) -> anyhow::Result<String> {
    let program = PROGRAMS.into_iter().find(|path| Path::new(path).is_file()).unwrap_or("systemctl");
    let mut command = Command::new(program);
    command.arg("--user").arg("--no-pager").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    for name in APP_IMAGE {
        command.env_remove(name);
    }
    let output = command.output().await.with_context(|| format!("{program} could not be run"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("systemctl {}: {}", arguments.first().unwrap_or(&""), said.trim())
}
