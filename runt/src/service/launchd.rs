//! launchd, through `launchctl`.
//!
//! Promises: an error carries what launchctl said. Compiled everywhere, run on macOS only.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

/// The agent's name.
pub(super) const LABEL: &str = "io.runtimed";
/// Exit code of `bootstrap` for an agent that is there already.
const ALREADY_THERE: i32 = 37;
/// Exit codes of `bootout` for an agent that is not there: no such process, not found.
const NOT_THERE: [i32; 2] = [3, 113];

/// The launchd of this session.
pub(super) struct Launchd;

impl Launchd {
    /// Has the agent loaded and running.
    pub(super) async fn start(&self, definition: &Path) -> anyhow::Result<()> {
        let definition = definition.to_string_lossy();
        // `bootstrap` of one that is loaded fails, with a code that other failures have, too.
        if launchctl(&["print", &target()], &[]).await.is_err() {
            launchctl(&["bootstrap", &domain(), &definition], &[ALREADY_THERE]).await?;
        }
        launchctl(&["kickstart", &target()], &[]).await.map(drop)
    }

    /// Ends the agent.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        launchctl(&["bootout", &target()], &NOT_THERE).await.map(drop)
    }

    /// The daemon's process, while it runs.
    pub(super) async fn main_process(&self) -> Option<u32> {
        let said = launchctl(&["print", &target()], &[]).await.ok()?;
        said.lines().find_map(|line| line.trim().strip_prefix("pid = ")?.parse().ok())
    }
}

fn domain() -> String {
    format!("gui/{}", rustix::process::getuid().as_raw())
}

fn target() -> String {
    format!("{}/{LABEL}", domain())
}

/// What launchctl prints; a failure with one of the `accepted` codes is none.
async fn launchctl(arguments: &[&str], accepted: &[i32]) -> anyhow::Result<String> {
    let mut command = Command::new("/bin/launchctl");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.context("launchctl could not be run")?;
    let is_accepted = output.status.code().is_some_and(|code| accepted.contains(&code));
    if output.status.success() || is_accepted {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("launchctl {}: {}", arguments.first().unwrap_or(&""), said.trim())
}
