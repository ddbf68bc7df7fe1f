//! `runt plugins`: one file per command.

mod add;
mod check;
mod doctor;
mod list;
mod new;
mod remove;
mod show;
mod switch;

use std::process::ExitCode;

use runtimed_client::protocol::pool::PluginRow;
use runtimed_client::{Client, ClientError};

use crate::cli::PluginsCommand;

/// Runs a command.
pub(crate) async fn run(command: PluginsCommand) -> anyhow::Result<ExitCode> {
    match command {
        PluginsCommand::List { json, all } => list::list(json, all).await,
        PluginsCommand::Show { id, json } => show::show(&id, json).await,
        PluginsCommand::Add(options) => add::add(options).await,
        PluginsCommand::Remove { id, json } => remove::remove(&id, json).await,
        PluginsCommand::Enable { id, json } => switch::switch(&id, true, json).await,
        PluginsCommand::Disable { id, json } => switch::switch(&id, false, json).await,
        PluginsCommand::Check(options) => check::check(options).await,
        PluginsCommand::New(options) => new::new(&options),
        PluginsCommand::Doctor { json } => doctor::doctor(json).await,
    }
}

/// What the daemon made of a change.
enum Told {
    /// It is not running.
    Down,
    /// Its plugins now.
    Rows(Vec<PluginRow>),
    /// It does not answer, or does not know how to look again.
    Failed(ClientError),
}

/// Has the daemon look at the plugin folders again, if it runs.
async fn reload() -> Told {
    told(Client::discover().reload_plugins().await)
}

fn told(answer: Result<Vec<PluginRow>, ClientError>) -> Told {
    match answer {
        Ok(rows) => Told::Rows(rows),
        Err(ClientError::Connect(_)) => Told::Down,
        Err(error) => Told::Failed(error),
    }
}

impl Told {
    /// The row of a plugin that is used, or would be.
    fn row(&self, id: &str) -> Option<&PluginRow> {
        let Self::Rows(rows) = self else { return None };
        rows.iter().find(|row| row.id == id && row.status != "shadowed")
    }
}
