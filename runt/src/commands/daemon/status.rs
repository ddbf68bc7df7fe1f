//! `runt daemon`: is it there, start it, stop it.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use runtimed_client::protocol::pool::{DaemonInfo, PluginRow, PoolStats, PoolStatus};
use runtimed_client::protocol::preamble::PROTOCOL_VERSION;
use runtimed_client::{Client, ClientError};
use serde_json::{Value, json};

use crate::plugins::check::daemon_binary;
use crate::plugins::rows;
use crate::process::gone;
use crate::terminal;

/// How long a stopped daemon may take to be gone. It saves notebooks and ends kernels meanwhile.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// `runt daemon ping`.
pub(crate) async fn ping(json: bool) -> anyhow::Result<ExitCode> {
    match Client::discover().ping().await {
        Ok(pong) => {
            if json {
                terminal::print_json(&json!({ "running": true, "daemon_version": pong.daemon_version }))?;
            } else {
                anstream::println!("pong");
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            if json {
                terminal::print_json(&json!({ "running": false, "error": error.to_string() }))?;
            }
            anstream::eprintln!("Daemon not running: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// `runt daemon status`. Succeeds whether or not the daemon runs: that is its answer.
pub(crate) async fn status(json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::discover();
    let info = client.daemon_info().await.ok();
    let pools = match &info {
        Some(_) => client.status().await.ok(),
        None => None,
    };
    let plugins = match &info {
        Some(_) => client.list_plugins().await.ok(),
        None => None,
    };
    let problems = plugins.map(Problems::among).unwrap_or_default();
    if json {
        return status_json(&client, info.as_ref(), pools.as_ref(), &problems);
    }
    anstream::println!("{}", terminal::title("runtimed Daemon Status"));
    let line = |label: &str, value: &str| anstream::println!("{label:<19} {value}");
    line("Channel:", "stable");
    line("Daemon running:", if info.is_some() { "yes" } else { "no" });
    line("Socket:", &terminal::tilde(client.socket()));
    let Some(info) = info else {
        anstream::println!("\nStart it with 'runt daemon start --foreground'.");
        return Ok(ExitCode::SUCCESS);
    };
    anstream::println!();
    line("PID:", &info.pid.to_string());
    line("Version:", &info.daemon_version);
    line("Protocol:", &format!("v{}", info.protocol_version));
    if info.protocol_version != u32::from(PROTOCOL_VERSION) {
        line("Warning:", &mismatch(info.protocol_version));
    }
    if let Some(port) = info.blob_port {
        line("Blob server:", &format!("http://127.0.0.1:{port}"));
    }
    for problem in &problems.missing {
        line("Missing:", problem);
    }
    if let Some(sentence) = problems.of_plugins() {
        line("Plugins:", &sentence);
    }
    anstream::println!("\nPool:");
    for (kind, pool) in pools.iter().flat_map(PoolStats::pools) {
        anstream::println!("  {:<8} {}", format!("{}:", label(kind)), pool_line(pool));
    }
    Ok(ExitCode::SUCCESS)
}

fn status_json(
    client: &Client,
    info: Option<&DaemonInfo>,
    pools: Option<&PoolStats>,
    problems: &Problems,
) -> anyhow::Result<ExitCode> {
    let blob_url = info.and_then(|info| info.blob_port).map(|port| format!("http://127.0.0.1:{port}"));
    terminal::print_json(&json!({
        "channel": "stable",
        "socket_path": client.socket(),
        "installed": false,
        "running": info.is_some(),
        "protocol_version": info.map(|info| info.protocol_version),
        "daemon_version": info.map(|info| &info.daemon_version),
        "daemon_info": info,
        "pool_stats": pools,
        "blob_url": blob_url,
        "missing": problems.missing,
        "plugin_problems": problems.plugins,
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// What somebody should look at.
#[derive(Default)]
struct Problems {
    /// Sentences about essential capabilities.
    missing: Vec<String>,
    /// Plugins that do not work, or not well.
    plugins: Vec<PluginRow>,
}

impl Problems {
    fn among(plugins: Vec<PluginRow>) -> Self {
        let missing = rows::missing(&plugins);
        Self { missing, plugins: plugins.into_iter().filter(rows::is_problem).collect() }
    }

    /// How many plugins have problems, which, and how to see more.
    fn of_plugins(&self) -> Option<String> {
        let ids: Vec<_> =
            self.plugins.iter().map(|row| format!("{} {}", row.id, rows::status(row))).collect();
        let count = ids.len();
        (count > 0).then(|| format!("{count} with problems ({}). See 'runt plugins list'.", ids.join(", ")))
    }
}

/// `UV` and `Conda` are what these tools call themselves.
fn label(kind: &str) -> String {
    let mut letters = kind.chars();
    match kind {
        "uv" => "UV".to_owned(),
        _ => letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect()),
    }
}

fn pool_line(pool: &PoolStatus) -> String {
    let mut text = format!("{}/{} ready", pool.available, pool.pool_size);
    if pool.warming > 0 {
        text += &format!(" ({} warming)", pool.warming);
    }
    if let Some(error) = &pool.error {
        let first = error.lines().next().unwrap_or_default();
        text += &format!(", failing: {first}");
        if let Some(package) = &pool.failed_package {
            text += &format!(" (package {package})");
        }
        text += &format!(", next try in {} s", pool.retry_in_secs);
    }
    text
}

fn mismatch(running: u32) -> String {
    let remedy = if running > u32::from(PROTOCOL_VERSION) {
        "Please update the CLI (or reinstall the app) to match the daemon."
    } else {
        "Please update the daemon: runt daemon doctor --fix"
    };
    format!(
        "Daemon is running protocol version {running}, but this CLI expects version {PROTOCOL_VERSION}. {remedy}"
    )
}

/// `runt daemon start`.
pub(crate) fn start(foreground: bool) -> anyhow::Result<ExitCode> {
    if !foreground {
        anstream::eprintln!(
            "This version has no system service yet. Run 'runt daemon start --foreground', or start 'runtimed' yourself."
        );
        return Ok(ExitCode::FAILURE);
    }
    let daemon = daemon_binary()?;
    let mut command = std::process::Command::new(&daemon);
    command.arg("run");
    if let Some(socket) = std::env::var_os("RUNTIMED_SOCKET_PATH").filter(|socket| !socket.is_empty()) {
        command.arg("--socket").arg(socket);
    }
    // Takes our place, so that Ctrl-C and signals are the daemon's own.
    let error = command.exec();
    Err(error).with_context(|| format!("could not start {}", daemon.display()))
}

/// `runt daemon stop`.
pub(crate) async fn stop(json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::discover();
    let say = |text: &str| {
        if !json {
            anstream::println!("{text}");
        }
    };
    let done = |stopped: bool, pid: Option<u32>| {
        if json {
            terminal::print_json(
                &json!({ "stopped": stopped, "pid": pid.map_or(Value::Null, Value::from) }),
            )?;
        }
        anyhow::Ok(ExitCode::SUCCESS)
    };
    say("Stopping runtimed service...");
    let info = match client.daemon_info().await {
        Ok(info) => info,
        Err(ClientError::Connect(_)) => {
            say("No daemon info found, assuming daemon is stopped.");
            return done(false, None);
        }
        Err(error) => bail!("Failed to stop daemon: {error}"),
    };
    say("Attempting graceful shutdown via socket...");
    client.shutdown().await.map_err(|error| anyhow::anyhow!("Failed to stop daemon: {error}"))?;
    if !gone(info.pid, STOP_LIMIT).await {
        bail!(
            "Failed to stop daemon: it agreed to stop but process {} is still there after {} s.\n\
             It may be saving notebooks or ending kernels; nothing was killed. See its log, or wait and try again.",
            info.pid,
            STOP_LIMIT.as_secs()
        );
    }
    say("Daemon stopped gracefully.");
    done(true, Some(info.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_pool_says_why_and_when_it_tries_again() {
        let pool = PoolStatus {
            available: 0,
            pool_size: 2,
            error: Some("no such package\nlong story".into()),
            failed_package: Some("numpyy".into()),
            retry_in_secs: 29,
            ..PoolStatus::default()
        };
        assert_eq!(
            pool_line(&pool),
            "0/2 ready, failing: no such package (package numpyy), next try in 29 s"
        );
        assert_eq!((label("uv").as_str(), label("conda").as_str(), label("").as_str()), ("UV", "Conda", ""));
    }
}
