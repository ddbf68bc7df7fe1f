//! `runt plugins enable` and `disable`: switches a plugin on or off in the settings.

use std::process::ExitCode;

use anyhow::{Context, bail};
use runtimed_client::{Client, Places};
use serde_json::json;

use super::{Told, told};
use crate::plugins::rows::{self, Plugins};
use crate::plugins::{crash_memory, settings_file};
use crate::terminal;

/// Switches a plugin on or off, through the daemon if it runs.
pub(crate) async fn switch(id: &str, enabled: bool, json: bool) -> anyhow::Result<ExitCode> {
    let places = Places::of_this_process();
    let listed = settings_file::disabled(&places.settings).is_ok_and(|disabled| disabled.contains(id));
    let before = Plugins::find().await?;
    let row = before.get(id);
    // The daemon knows sooner than its file. One that is gone may still be taken off the list.
    let was_off = row.map_or(listed, |row| row.status == "disabled");
    if row.is_none() && !(enabled && listed) {
        bail!(
            "there is no plugin `{id}`.\nThe settings were not changed.\n'runt plugins list' shows the plugins there are."
        );
    }
    let told = told(Client::discover().set_plugin_enabled(id, enabled).await);
    if let Told::Failed(error) = &told {
        bail!(
            "the running daemon could not switch `{id}`: {error}\nSee 'runt plugins list' for how it is now, and \
             try again; while the daemon is stopped, this command changes the settings file itself."
        );
    }
    let changed = match &told {
        Told::Down => switch_file(&places, id, enabled)?,
        _ => was_off == enabled,
    };
    if json {
        return print_json(id, enabled, changed, &told);
    }
    let (word, already) = if enabled { ("on", "on already") } else { ("off", "off already") };
    say!("{id} is switched {}.", if changed { word } else { already });
    match (&told, told.row(id)) {
        (Told::Down, _) => say!("The daemon is not running; it obeys when it starts."),
        (_, Some(row)) => {
            say!("{:<10} {}", "Status:", rows::status(row));
            let reason = row.reason.as_ref().filter(|_| enabled);
            reason.into_iter().chain(&row.pending).for_each(|sentence| say!("{sentence}"));
        }
        (_, None) => {}
    }
    let rows = match told {
        Told::Rows(rows) => rows,
        _ => Plugins::find().await?.rows,
    };
    rows::missing(&rows).iter().for_each(|problem| anstream::eprintln!("Missing: {problem}"));
    Ok(ExitCode::SUCCESS)
}

/// Does what the daemon would do if it ran. False if nothing had to be changed.
fn switch_file(places: &Places, id: &str, enabled: bool) -> anyhow::Result<bool> {
    let changed = settings_file::set_enabled(&places.settings, id, enabled)?;
    let forgiven = enabled
        && crash_memory::forgive(&places.base, id).with_context(|| {
            format!(
                "what `{id}` did to the daemon could not be forgotten.\nIt is switched on all the same.\nCheck the \
                 permissions of `{}`",
                places.base.display()
            )
        })?;
    Ok(changed || forgiven)
}

fn print_json(id: &str, enabled: bool, changed: bool, told: &Told) -> anyhow::Result<ExitCode> {
    terminal::print_json(&json!({
        "id": id,
        "enabled": enabled,
        "changed": changed,
        "daemon_running": !matches!(told, Told::Down),
        "plugin": told.row(id),
    }))?;
    Ok(ExitCode::SUCCESS)
}
