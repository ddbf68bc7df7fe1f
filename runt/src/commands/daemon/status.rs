//! `runt daemon status`: whether it runs, where, and how its pools and plugins are.
//!
//! Promises: succeeds whether or not the daemon runs: that is its answer.

use std::process::ExitCode;

use jiff::Timestamp;
use runtimed_client::protocol::pool::{DaemonInfo, PluginRow, PoolReply, PoolRequest, PoolStats, PoolStatus};
use runtimed_client::protocol::preamble::PROTOCOL_VERSION;
use runtimed_client::{Client, Places};
use serde_json::{Value, json};

use super::next_step;
use crate::plugins::rows;
use crate::service::Service;
use crate::terminal;

/// Variables that make a daemon one of a work tree; tools of the reference set the last.
const DEV_VARIABLES: [&str; 3] = ["RUNTIMED_DEV", "RUNTIMED_WORKSPACE_PATH", "RUNTIMED_VITE_PORT"];

/// Kinds of pools in the order in which people know them; others follow.
const USUAL: [&str; 3] = ["uv", "conda", "pixi"];

/// What was found out.
struct Found {
    installed: bool,
    places: Places,
    client: Client,
    /// None while it does not answer.
    info: Option<DaemonInfo>,
    pools: Option<PoolStats>,
    metrics: Option<PoolReply>,
    problems: Problems,
    /// Why it does not answer, and what to do.
    down: Option<String>,
}

/// Prints it.
pub(crate) async fn status(json: bool) -> anyhow::Result<ExitCode> {
    let found = Found::out().await;
    if json {
        terminal::print_json(&found.as_json())?;
    } else {
        found.print();
    }
    Ok(ExitCode::SUCCESS)
}

/// The same as `--json` prints.
pub(crate) async fn document() -> Value {
    Found::out().await.as_json()
}

impl Found {
    async fn out() -> Self {
        let (places, client) = (Places::of_this_process(), Client::discover());
        let mut found = Self {
            installed: Service::of_this_user().is_ok_and(|service| service.is_installed()),
            places,
            client,
            info: None,
            pools: None,
            metrics: None,
            problems: Problems::default(),
            down: None,
        };
        match found.client.daemon_info().await {
            Ok(info) => found.info = Some(info),
            Err(error) => {
                found.down = Some(format!("{error}\n{}", next_step(&error)));
                return found;
            }
        }
        found.pools = found.client.status().await.ok();
        found.metrics = found.client.ask(&PoolRequest::GetRuntimeMetrics).await.ok();
        found.problems = found.client.list_plugins().await.map(Problems::among).unwrap_or_default();
        found
    }

    fn blob_url(&self) -> Option<String> {
        Some(format!("http://127.0.0.1:{}", self.info.as_ref()?.blob_port?))
    }

    fn print(&self) {
        anstream::println!("{}", terminal::title("runtimed Daemon Status"));
        let line = |label: &str, value: &str| anstream::println!("{label:<19} {value}");
        line("Channel:", "stable");
        line("Service installed:", if self.installed { "yes" } else { "no" });
        line("Daemon running:", if self.info.is_some() { "yes" } else { "no" });
        line("Socket:", &terminal::tilde(self.client.socket()));
        if let Some(worktree) = &self.places.worktree {
            line("Mode:", "development");
            line("Worktree:", &terminal::tilde(worktree));
        }
        let Some(info) = &self.info else {
            anstream::println!("\n{}", self.down.as_deref().unwrap_or_default());
            return;
        };
        if let Some(description) = &info.workspace_description {
            line("Description:", description);
        }
        anstream::println!();
        line("PID:", &info.pid.to_string());
        line("Version:", &info.daemon_version);
        line("Protocol:", &format!("v{}", info.protocol_version));
        if info.protocol_version != u32::from(PROTOCOL_VERSION) {
            line("Warning:", &mismatch(info.protocol_version));
        }
        if let Some(url) = self.blob_url() {
            line("Blob server:", &url);
        }
        if let Some(uptime) = uptime(&info.started_at, Timestamp::now()) {
            line("Uptime:", &uptime);
        }
        for problem in &self.problems.missing {
            line("Missing:", problem);
        }
        if let Some(problem) = &info.settings_problem {
            line("Settings:", problem);
        }
        if let Some(sentence) = self.problems.of_plugins() {
            line("Plugins:", &sentence);
        }
        anstream::println!("\nPool:");
        let mut pools: Vec<_> = self.pools.iter().flat_map(PoolStats::pools).collect();
        pools.sort_by_key(|(kind, _)| USUAL.iter().position(|usual| usual == kind).unwrap_or(USUAL.len()));
        for (kind, pool) in pools {
            anstream::println!("  {:<8} {}", format!("{}:", label(kind)), pool_line(pool));
        }
    }

    fn as_json(&self) -> Value {
        let base = &self.places.base;
        let variable = |name: &&str| ((*name).to_owned(), json!(std::env::var(name).ok()));
        let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
        let notebooks = self.places.worktree.clone().or(home).map(|folder| folder.join("notebooks"));
        let info = self.info.as_ref();
        json!({
            "channel": "stable",
            "socket_path": self.client.socket(),
            "installed": self.installed,
            "running": info.is_some(),
            "dev_mode": self.places.worktree.is_some(),
            "protocol_version": info.map(|info| info.protocol_version),
            "daemon_version": info.map(|info| &info.daemon_version),
            "daemon_info": info.map(|info| as_seen(info, &self.client)),
            "pool_stats": self.pools,
            "paths": {
                "base_dir": base,
                "log_path": self.places.log(),
                "envs_dir": base.join("envs"),
                "blobs_dir": base.join("blobs"),
                "notebooks_dir": notebooks,
            },
            "env": DEV_VARIABLES.iter().map(variable).collect::<serde_json::Map<_, _>>(),
            "blob_url": self.blob_url(),
            "worktree_hash": self.places.worktree_hash(),
            "runtime_metrics": self.metrics,
            "missing": self.problems.missing,
            "plugin_problems": self.problems.plugins,
        })
    }
}

/// What the daemon says of itself, and under the names that scripts of the reference know.
fn as_seen(info: &DaemonInfo, client: &Client) -> Value {
    let mut seen = json!(info);
    if let Value::Object(seen) = &mut seen {
        seen.insert("endpoint".to_owned(), json!(client.socket()));
        seen.insert("version".to_owned(), json!(info.daemon_version));
    }
    seen
}

/// How long ago `started`, in hours and minutes. None if that is no time.
fn uptime(started: &str, now: Timestamp) -> Option<String> {
    let seconds = now.as_second() - started.parse::<Timestamp>().ok()?.as_second();
    let minutes = seconds.max(0) / 60;
    Some(format!("{}h {}m", minutes / 60, minutes % 60))
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
        "Please update the daemon: runt daemon doctor --fix, then runt daemon restart; kernels go on."
    };
    format!(
        "Daemon is running protocol version {running}, but this CLI expects version {PROTOCOL_VERSION}. {remedy}"
    )
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
        let now = "2026-11-22T15:29:51Z".parse().unwrap();
        assert_eq!(uptime("2026-11-22T13:16:51.813524269Z", now).unwrap(), "2h 13m");
        assert_eq!((label("uv").as_str(), label("conda").as_str(), label("").as_str()), ("UV", "Conda", ""));
    }
}
