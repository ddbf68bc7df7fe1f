//! `runt env`: what environments take on disk, and getting rid of them.
//!
//! Promises: says what is kept and why; with `--dry-run` nothing is touched.
//! Never: deletes anything itself; the daemon does, which knows who uses what.

use std::path::Path;
use std::process::ExitCode;

use runtimed_client::protocol::environments::{EnvironmentList, EnvironmentRow, EnvironmentVerdict};
use runtimed_client::{Client, ClientError};
use serde_json::json;

use crate::cli::EnvCommand;
use crate::patience::waiting;
use crate::terminal;

/// What the user sees meanwhile.
const LOOKING: &str = "Looking at every environment";

/// Does what was asked.
pub(crate) async fn run(command: EnvCommand) -> anyhow::Result<ExitCode> {
    let client = Client::discover();
    match command {
        EnvCommand::List { json } => {
            list(&waiting(LOOKING, client.list_environments()).await.map_err(explain)?, json)
        }
        EnvCommand::Stats { json } => {
            stats(&waiting(LOOKING, client.list_environments()).await.map_err(explain)?, json)
        }
        EnvCommand::Clean { dry_run, all, json } => clean(&client, dry_run, all, json).await,
        EnvCommand::Rebuild { what, json } => rebuild(&client, what, json).await,
    }
}

fn list(list: &EnvironmentList, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        terminal::print_json(list)?;
    } else if list.environments.is_empty() {
        anstream::println!("There are no environments.");
    } else {
        let header = ["PATH", "KIND", "OWNER", "IN USE", "LAST USED", "SIZE", "ALONE"];
        anstream::println!("{}", terminal::table(&header, list.environments.iter().map(row)));
    }
    if let Some(left_out) = list.truncated {
        anstream::eprintln!("{left_out} more, the smallest ones, are not shown.");
    }
    Ok(ExitCode::SUCCESS)
}

fn row(env: &EnvironmentRow) -> Vec<String> {
    let owner = env.taken_by.as_ref().filter(|_| env.owner == "room");
    vec![
        terminal::tilde(Path::new(&env.path)),
        terminal::or_dash(Some(env.kind.clone()).filter(|kind| !kind.is_empty())),
        owner.map_or_else(|| env.owner.clone(), |by| format!("{} {by}", env.owner)),
        if env.in_use { "yes" } else { "no" }.to_owned(),
        env.last_used.replace('T', " ").trim_end_matches('Z').to_owned(),
        size(env.bytes),
        size(env.own_bytes),
    ]
}

fn stats(list: &EnvironmentList, json: bool) -> anyhow::Result<ExitCode> {
    let mut owners: Vec<(&str, u64, u64)> = Vec::new();
    for env in &list.environments {
        match owners.iter_mut().find(|(owner, ..)| *owner == env.owner) {
            Some((_, count, own)) => {
                *count += 1;
                *own += env.own_bytes;
            }
            None => owners.push((&env.owner, 1, env.own_bytes)),
        }
    }
    if json {
        let owners = owners
            .iter()
            .map(|(owner, count, own)| json!({"owner": owner, "count": count, "own_bytes": own}));
        terminal::print_json(&json!({
            "bytes": list.bytes,
            "budget_bytes": list.budget_bytes,
            "disk_bytes": list.disk_bytes,
            "free_bytes": list.free_bytes,
            "count": list.environments.len(),
            "owners": owners.collect::<Vec<_>>(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    anstream::println!("{} environments take {}.", list.environments.len(), size(list.bytes));
    for (owner, count, own) in owners {
        anstream::println!("  {owner}: {count}, {} of it theirs alone", size(own));
    }
    anstream::println!(
        "Unused ones go when all take more than {} (`environments.max_gib`).",
        size(list.budget_bytes)
    );
    anstream::println!("The disk has {}, {} of it free.", size(list.disk_bytes), size(list.free_bytes));
    Ok(ExitCode::SUCCESS)
}

async fn clean(client: &Client, dry_run: bool, all: bool, json: bool) -> anyhow::Result<ExitCode> {
    let cleaned = waiting(LOOKING, client.clean_environments(dry_run, all)).await.map_err(explain)?;
    if json {
        terminal::print_json(&cleaned)?;
        return Ok(ExitCode::SUCCESS);
    }
    let tell = |what: &str, verdicts: &[EnvironmentVerdict]| {
        for verdict in verdicts {
            anstream::println!("{what} {}: {}", terminal::tilde(Path::new(&verdict.path)), verdict.reason);
        }
    };
    tell(if dry_run { "would delete" } else { "deleted" }, &cleaned.removed);
    tell("kept", &cleaned.kept);
    let (count, freed) = (cleaned.removed.len(), size(cleaned.freed_bytes));
    match dry_run {
        true => anstream::println!("{count} would be deleted, which frees {freed}. Nothing was touched."),
        false => anstream::println!("{count} deleted, {freed} freed."),
    }
    Ok(ExitCode::SUCCESS)
}

async fn rebuild(client: &Client, what: Option<String>, json: bool) -> anyhow::Result<ExitCode> {
    // A kind is a word; anything else is a path, seen from here.
    let what = match what {
        Some(path) if path.contains('/') => Some(std::path::absolute(path)?.to_string_lossy().into_owned()),
        what => what,
    };
    let rebuilt = waiting(LOOKING, client.rebuild_environments(what.as_deref())).await.map_err(explain)?;
    if json {
        terminal::print_json(&json!({ "rebuilt": rebuilt }))?;
    } else if what.as_ref().is_some_and(|what| what.contains('/')) {
        say!("Deleted; it is built anew when it is needed.");
    } else {
        say!("Building anew: {}. `runt daemon status` shows how far it is.", rebuilt.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = UNITS.iter();
    let mut name = unit.next().copied().unwrap_or_default();
    for next in unit {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        name = next;
    }
    format!("{amount:.1} {name}")
}

fn explain(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Daemon(message) => anyhow::anyhow!(message),
        error => anyhow::anyhow!(
            "{error}\nNothing was changed. Only the daemon knows which environments are in use. Is it running? \
             Try `runt daemon start`."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let shown = [0, 512, 1 << 20, (3 << 30) + (1 << 29), 5 << 50].map(size);
        assert_eq!(shown, ["0.0 KiB", "0.5 KiB", "1.0 MiB", "3.5 GiB", "5120.0 TiB"]);
    }
}
