//! Has the daemon's own binary try a plugin out, in a process of its own.
//!
//! For: `runt plugins add`, which wants a yes or a no, and `runt plugins check`, whose user reads everything.
//! Promises: the check ends with us.
//! Never: loads the plugin here.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use runtimed_plugin_api::manifest::Carrier;
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

use crate::interrupt::Interrupt;

/// What an interrupted check gets to end its processes and remove what it made. It does neither slowly; this is
/// for a busy machine.
const GRACE: Duration = Duration::from_secs(5);

/// What a check says, as far as it is shown here.
#[derive(Deserialize)]
struct Report {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    suite: String,
    case: String,
    outcome: Outcome,
}

#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Outcome {
    Failed {
        sentence: String,
        remedy: String,
    },
    #[serde(other)]
    Other,
}

/// `runtimed` next to this program.
///
/// # Errors
/// When it is not there.
pub(crate) fn daemon_binary() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?.canonicalize()?;
    let daemon = here.parent().unwrap_or(Path::new(".")).join("runtimed");
    if !daemon.is_file() {
        bail!("Daemon binary not found at: {}\nInstall runtimed beside runt.", daemon.display());
    }
    Ok(daemon)
}

/// Whether a plugin loads, starts and stops the way it will be run.
///
/// # Errors
/// With every fault that was found and what to do about it, or why nothing could be found out.
pub(crate) async fn quick(plugin: &Path, carrier: Carrier, interrupt: &mut Interrupt) -> anyhow::Result<()> {
    let check = command(plugin)?
        .args(["--quick", "--format", "json", "--carrier", &carrier.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("the check could not be started")?;
    let output = ended(check.id(), check.wait_with_output(), interrupt).await?;
    if output.status.success() {
        return Ok(());
    }
    let faults = faults(&output.stdout);
    if faults.is_empty() {
        // It ended before it could report: the plugin took it along, or this runtimed knows no such check.
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("the check ended with {} and without a report\n{}", output.status, said.trim());
    }
    bail!("the check found:\n{}", faults.join("\n"))
}

/// Runs a check with its own options and lets it print. Returns the exit code it ended with.
///
/// # Errors
/// When it cannot be started.
pub(crate) async fn run(
    plugin: &Path,
    options: &[OsString],
    interrupt: &mut Interrupt,
) -> anyhow::Result<ExitCode> {
    let mut check = command(plugin)?.args(options).spawn().context("the check could not be started")?;
    let status = ended(check.id(), check.wait(), interrupt).await?;
    // None for a process that a signal ended.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    if code.is_none() {
        anstream::eprintln!("The check ended with {status}; a plugin can do that to it.");
    }
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Waits until a check has ended. When this program is asked to end, the check is asked too, and gets a while to
/// end its own processes; after that, dropping `end` kills it.
async fn ended<T>(
    check: Option<u32>,
    end: impl Future<Output = io::Result<T>>,
    interrupt: &mut Interrupt,
) -> anyhow::Result<T> {
    let mut end = pin!(end);
    let asked = tokio::select! {
        end = &mut end => return end.context("the check could not be waited for"),
        asked = interrupt.asked() => asked,
    };
    if let Some(check) = check.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
        // Fails when it has ended already, as after Ctrl-C, which reaches both of us.
        let _ = rustix::process::kill_process(check, Signal::TERM);
    }
    let _ = timeout(GRACE, end).await;
    Err(asked.into())
}

fn command(plugin: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(daemon_binary()?);
    command.arg("plugins-check").arg(plugin).stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// What a report says is wrong, one line each with what to do.
fn faults(report: &[u8]) -> Vec<String> {
    let cases = serde_json::from_slice::<Report>(report).map_or_else(|_| Vec::new(), |report| report.cases);
    let fault = |case: Case| match case.outcome {
        Outcome::Failed { sentence, remedy } => {
            Some(format!("  {}/{}: {sentence}; {remedy}", case.suite, case.case))
        }
        Outcome::Other => None,
    };
    cases.into_iter().filter_map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_faults_are_told_and_each_with_its_remedy() {
        let report = r#"{"plugin": "x", "cases": [
            {"suite": "life", "case": "cycles", "shows": "s", "outcome": {"outcome": "passed"}},
            {"suite": "life", "case": "orphans", "outcome": {"outcome": "skipped", "why": "no /proc"}},
            {"suite": "files", "case": "unwind", "outcome":
                {"outcome": "failed", "sentence": "it aborts", "remedy": "panic = \"unwind\"", "detail": "x"}}]}"#;
        assert_eq!(faults(report.as_bytes()), ["  files/unwind: it aborts; panic = \"unwind\""]);
        assert!(faults(b"error: no such subcommand").is_empty());
    }
}
