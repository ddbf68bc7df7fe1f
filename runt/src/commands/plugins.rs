//! `runt plugins`: which plugins there are and what became of them.

use std::path::Path;
use std::process::ExitCode;

use runtimed_client::protocol::pool::{PluginRow, ProvidedCapability};
use runtimed_client::{Client, ClientError};
use runtimed_plugin_api::manifest::Manifest;
use runtimed_plugin_api::search::{SearchPath, Source};

use crate::terminal;

/// What the daemon cannot do without, and what that means to a user.
const ESSENTIAL: [(&str, &str); 4] = [
    ("rooms.v1", "notebooks cannot be opened"),
    ("blob-store.v1", "images and long outputs cannot be kept"),
    ("kernel-backend.v1", "cells cannot run"),
    ("env-provider.v1", "there are no Python environments"),
];

/// Prints every plugin found, working or not.
pub(crate) async fn list(json: bool) -> anyhow::Result<ExitCode> {
    let (rows, live) = match Client::discover().list_plugins().await {
        Ok(rows) => (rows, true),
        Err(ClientError::Connect(_)) => (from_manifests()?, false),
        Err(error) => anyhow::bail!("could not ask the daemon: {error}"),
    };
    if json {
        terminal::print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !live {
        anstream::eprintln!("The daemon is not running; this is what its plugin folders hold.");
    }
    if rows.is_empty() {
        anstream::println!("No plugins found.");
        return Ok(ExitCode::SUCCESS);
    }
    let header = ["PLUGIN", "VERSION", "PROVIDES", "ABI", "CARRIER", "PATH", "STATUS"];
    anstream::println!("{}", terminal::table(&header, rows.iter().map(row)));
    for row in &rows {
        if let Some(reason) = &row.reason {
            anstream::println!("{}: {reason}", row.id);
        }
    }
    if live {
        missing(&rows).iter().for_each(|problem| anstream::eprintln!("Missing: {problem}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// One sentence for each essential capability that no working plugin provides.
pub(crate) fn missing(rows: &[PluginRow]) -> Vec<String> {
    // A poisoned plugin has panicked once and still serves; its row says so.
    let works = |row: &&PluginRow| matches!(row.status.as_str(), "ok" | "not_loaded" | "poisoned");
    let provided = |wanted: &str| {
        rows.iter()
            .filter(works)
            .any(|row| row.provides.iter().any(|capability| capability.capability == wanted))
    };
    ESSENTIAL
        .iter()
        .filter(|(capability, _)| !provided(capability))
        .map(|(capability, meaning)| {
            format!("no working plugin provides {capability}, so {meaning}. See 'runt plugins list'.")
        })
        .collect()
}

/// What the daemon would find, read from the manifests alone.
fn from_manifests() -> anyhow::Result<Vec<PluginRow>> {
    let mut rows: Vec<PluginRow> = Vec::new();
    for (source, folder) in SearchPath::of_this_process(&[]).plugin_folders() {
        let shadowed = rows.iter().any(|row| Path::new(&row.path).file_name() == folder.file_name());
        rows.push(manifest_row(source, &folder, shadowed));
    }
    Ok(rows)
}

fn manifest_row(source: Source, folder: &Path, shadowed: bool) -> PluginRow {
    let path = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf()).display().to_string();
    let source = source.to_string();
    match Manifest::read(folder) {
        Ok(manifest) => PluginRow {
            id: manifest.id.clone(),
            name: manifest.name.clone(),
            version: manifest.version.to_string(),
            provides: manifest
                .provides
                .iter()
                .map(|provides| ProvidedCapability {
                    capability: provides.capability.clone(),
                    name: provides.name.clone(),
                })
                .collect(),
            abi: format!("{}.{}", manifest.abi.major, manifest.abi.min_minor),
            carrier: manifest.carrier().to_string(),
            source,
            path,
            status: if shadowed { "shadowed" } else { "not_loaded" }.to_owned(),
            ..PluginRow::default()
        },
        Err(error) => PluginRow {
            id: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            source,
            path,
            status: "refused".to_owned(),
            reason: Some(error.to_string()),
            ..PluginRow::default()
        },
    }
}

fn row(row: &PluginRow) -> Vec<String> {
    let provides = row.provides.iter().map(|p| format!("{} ({})", p.capability, p.name)).collect::<Vec<_>>();
    vec![
        row.id.clone(),
        row.version.clone(),
        provides.join("\n"),
        row.abi.clone(),
        row.carrier.clone(),
        terminal::tilde(Path::new(&row.path)),
        row.status.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_plugin_provides_is_missing() {
        let row = |capability: &str, status: &str| PluginRow {
            provides: vec![ProvidedCapability { capability: capability.into(), name: String::new() }],
            status: status.into(),
            ..PluginRow::default()
        };
        let rows = [
            row("rooms.v1", "poisoned"),
            row("blob-store.v1", "ok"),
            row("kernel-backend.v1", "failed"),
            row("env-provider.v1", "not_loaded"),
        ];
        let missing = missing(&rows);
        assert!(matches!(missing.as_slice(), [one] if one.contains("kernel-backend.v1")), "{missing:?}");
    }
}
