//! `runt plugins remove`: takes a plugin out of the user's folder.
//!
//! Promises: its files and its pin go together. What it made for notebooks stays.
//! Never: touches a plugin that somebody else installed.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use runtimed_client::protocol::pool::PluginRow;
use serde_json::json;

use super::{Told, reload};
use crate::plugins::rows::Plugins;
use crate::plugins::user_folder::{self, UserFolder};
use crate::terminal;

/// Removes the plugin with that id.
pub(crate) async fn remove(id: &str, json: bool) -> anyhow::Result<ExitCode> {
    // An id is the name of a folder, and never a way to one.
    let is_name = Path::new(id).components().count() == 1 && Path::new(id).file_name().is_some();
    let folder = user_folder::path().filter(|folder| folder.is_dir() && is_name && !id.starts_with('.'));
    let removed = match folder {
        Some(_) => UserFolder::open()?.remove(id).with_context(|| {
            format!("`{id}` could not be removed.\nIt is installed as before.\nThe reason")
        })?,
        None => false,
    };
    if !removed {
        bail!("{}\nNothing was removed.", not_ours(id).await);
    }
    let told = reload().await;
    if json {
        let error = if let Told::Failed(error) = &told { Some(error.to_string()) } else { None };
        terminal::print_json(&json!({
            "id": id,
            "removed": true,
            "daemon_running": !matches!(told, Told::Down),
            "daemon_error": error,
            "plugin": told.row(id),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("Removed {id}. Environments it made for notebooks stay in the daemon's caches.");
    match (&told, told.row(id)) {
        (Told::Failed(error), _) => anstream::eprintln!(
            "The running daemon could not let it go: {error}\nIt uses {id} until it is restarted."
        ),
        (_, Some(PluginRow { pending: Some(pending), .. })) => say!("{pending}"),
        (_, Some(row)) => say!("The one in {} is used now.", row.path),
        (_, None) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Whose plugin it is, and how it could be removed.
async fn not_ours(id: &str) -> String {
    let plugins = Plugins::find().await.ok();
    let Some(row) = plugins.as_ref().and_then(|plugins| plugins.get(id)) else {
        return format!("There is no plugin `{id}`. 'runt plugins list' shows those there are.");
    };
    let owner = match row.source.as_str() {
        "bundled" => "came with runtimed",
        "system" => "was installed for all users of this system; its package manager removes it",
        "environment" => "is in a folder that RUNTIMED_PLUGIN_PATH names; remove it there",
        "argument" => "is in a folder that the daemon was started with; remove it there",
        _ => "is not in your plugin folder",
    };
    format!("`{id}` in {} {owner}. 'runt plugins disable {id}' switches it off.", row.path)
}
