//! `runt config`: settings from the command line.
//!
//! For: people and scripts, with and without a daemon, which follows the file.
//! Promises: a value that would not be used as it is, is refused, and so is a setting that nobody knows; what others write
//! at the same time is kept.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, anyhow, bail};
use runtimed_client::Places;
use runtimed_client::protocol::settings;
use runtimed_plugin_api::search::SearchPath;
use runtimed_plugin_api::settings_schema::sections;
use serde_json::{Map, Value};

use crate::cli::ConfigCommand;
use crate::closest::closest;
use crate::{settings_file, terminal};

/// Where editors find the schema, seen from the file; the daemon writes it.
const SCHEMA: &str = "./settings.schema.json";
/// What is tried when no editor is named.
const EDITOR: &str = "vi";

/// Runs the command.
pub(crate) fn run(command: Option<ConfigCommand>) -> anyhow::Result<ExitCode> {
    let file = Places::of_this_process().settings;
    match command.unwrap_or(ConfigCommand::Show) {
        ConfigCommand::Show => terminal::print_json(&complete(&file)?)?,
        ConfigCommand::Path => anstream::println!("{}", file.display()),
        ConfigCommand::Get { key } => get(&file, &key)?,
        ConfigCommand::Set { key, value } => set(&file, &key, &value)?,
        ConfigCommand::Unset { key } => unset(&file, &key)?,
        ConfigCommand::Edit => edit(&file)?,
        ConfigCommand::Schema => terminal::print_json(&settings::json_schema(&plugins()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the daemon makes of the file.
fn complete(file: &Path) -> anyhow::Result<Map<String, Value>> {
    Ok(settings::complete(&settings_file::read(file)?))
}

/// The sections that plugins describe.
fn plugins() -> Map<String, Value> {
    sections(&SearchPath::of_this_process(&[]))
}

fn get(file: &Path, key: &str) -> anyhow::Result<()> {
    let complete = complete(file)?;
    match settings::get(&complete, key).filter(|value| !value.is_null()) {
        Some(Value::String(text)) => anstream::println!("{text}"),
        Some(value) => anstream::println!("{}", serde_json::to_string_pretty(value)?),
        None if is_known(key) => bail!(
            "`{key}` is not set, and nothing stands in for it.\nNothing was changed.\nSet it: runt config set {key} <value>"
        ),
        None => return Err(unknown(key)),
    }
    Ok(())
}

fn set(file: &Path, key: &str, text: &str) -> anyhow::Result<()> {
    let unchanged = |bad: settings::BadSetting| anyhow!("{bad}\nNothing was changed.");
    let value = match settings::parse(key, text) {
        Some(value) => value.map_err(unchanged)?,
        None => {
            let plugins = plugins();
            let (_, schema) =
                settings::of_sections(&plugins).find(|(name, _)| name == key).ok_or_else(|| unknown(key))?;
            settings::parse_as(schema, key, text).map_err(unchanged)?
        }
    };
    settings_file::edit(file, |settings| {
        if settings::get(settings, key) == Some(&value) {
            return Ok(false);
        }
        settings.entry("$schema").or_insert_with(|| SCHEMA.into());
        settings::set(settings, key, value.clone());
        Ok(true)
    })?;
    say!("Updated {key} in {}", terminal::tilde(file));
    Ok(())
}

fn unset(file: &Path, key: &str) -> anyhow::Result<()> {
    let changed = settings_file::edit(file, |settings| {
        let now = settings::get(settings, key).filter(|now| !now.is_null());
        let mut others = settings.clone();
        settings::set(&mut others, key, Value::Null);
        let standard = settings::complete(&others);
        // The daemon keeps a setting that is gone from the file; one that says so is what changes it.
        let value = settings::get(&standard, key).cloned().unwrap_or_default();
        let there = now.is_some_and(|now| *now != value);
        if there {
            settings::set(settings, key, value);
        }
        Ok(there)
    })?;
    match changed {
        true => say!("Updated {key} in {}", terminal::tilde(file)),
        false if is_known(key) => say!("{key} was not set. Nothing was changed."),
        false => return Err(unknown(key)),
    }
    Ok(())
}

fn edit(file: &Path) -> anyhow::Result<()> {
    if !file.exists() {
        settings_file::edit(file, |settings| {
            settings.insert("$schema".to_owned(), SCHEMA.into());
            settings.extend(settings::complete(&Map::new()));
            Ok(true)
        })?;
    }
    let named = ["VISUAL", "EDITOR"].iter().filter_map(|name| std::env::var(name).ok());
    let editor = named.into_iter().find(|editor| !editor.trim().is_empty()).unwrap_or(EDITOR.to_owned());
    // As git does: an editor may be named with arguments.
    let status = Command::new("sh").args(["-c", &format!("{editor} \"$@\""), &editor]).arg(file).status();
    let status = status.with_context(|| format!("could not start the editor `{editor}`"))?;
    if !status.success() {
        bail!(
            "The editor `{editor}` ended with {status}.\nThe daemon follows what is in the file.\nName another one in EDITOR."
        );
    }
    let raw = settings_file::read(file)
        .context("The daemon keeps the settings that it has until the file is JSON again")?;
    let used = settings::complete(&raw);
    for name in settings::names() {
        if let Some(given) = settings::get(&raw, name)
            && settings::get(&used, name) != Some(given)
        {
            let used = settings::get(&used, name).map_or("nothing".to_owned(), ToString::to_string);
            anstream::eprintln!("Warning: {name} cannot be {given}; {used} is used instead.");
        }
    }
    Ok(())
}

fn is_known(key: &str) -> bool {
    settings::names().any(|name| name == key)
        || settings::of_sections(&plugins()).any(|(name, _)| name == key)
}

fn unknown(key: &str) -> anyhow::Error {
    let plugins = plugins();
    let of_plugins = settings::of_sections(&plugins).map(|(name, _)| name);
    let names: Vec<String> = settings::names().map(str::to_owned).chain(of_plugins).collect();
    let meant = closest(key, names.iter().map(String::as_str));
    let meant = meant.map(|name| format!(" Did you mean '{name}'?")).unwrap_or_default();
    anyhow!("Unknown setting '{key}'. Valid keys: {}.\nNothing was changed.{meant}", names.join(", "))
}
