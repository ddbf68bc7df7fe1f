//! Which plugins there are: what the daemon says, or what its folders hold while it is down.
//!
//! Promises: without a daemon, what can be known without loading anything: shadowing, what the settings switch
//! off, and whether a plugin of the user's folder was ever added.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::bail;
use runtimed_client::protocol::pool::{PluginRow, ProvidedCapability};
use runtimed_client::{Client, ClientError, Places};
use runtimed_plugin_api::lock_file::LockFile;
use runtimed_plugin_api::manifest::Manifest;
use runtimed_plugin_api::search::{SearchPath, Source};

use super::{settings_file, user_folder};

/// What the daemon cannot do without, and what that means to a user.
const ESSENTIAL: [(&str, &str); 4] = [
    ("rooms.v1", "notebooks cannot be opened"),
    ("blob-store.v1", "images and long outputs cannot be kept"),
    ("kernel-backend.v1", "cells cannot run"),
    ("env-provider.v1", "there are no Python environments"),
];

/// Every plugin, and how that is known.
pub(crate) struct Plugins {
    pub(crate) rows: Vec<PluginRow>,
    /// Whether a daemon said so. Otherwise nothing is loaded, and the folders were read.
    pub(crate) live: bool,
}

impl Plugins {
    /// Asks the daemon, or reads the folders while it is down.
    pub(crate) async fn find() -> anyhow::Result<Self> {
        match Client::discover().list_plugins().await {
            Ok(rows) => Ok(Self { rows, live: true }),
            Err(ClientError::Connect(_)) => Ok(Self::in_folders()),
            Err(error) => bail!(
                "could not ask the daemon about its plugins: {error}\nNothing was changed.\n\
                 See 'runt daemon status'; while the daemon is stopped, the plugin folders are read instead."
            ),
        }
    }

    /// What the folders hold, whatever a daemon would say.
    pub(crate) fn in_folders() -> Self {
        Self { rows: from_folders(), live: false }
    }

    /// The one with that id that is used, or would be.
    pub(crate) fn get(&self, id: &str) -> Option<&PluginRow> {
        let mut named = self.rows.iter().filter(|row| row.id == id);
        let first = named.clone().next();
        named.find(|row| row.status != "shadowed").or(first)
    }
}

/// Whether somebody should look at the plugin.
pub(crate) fn is_problem(row: &PluginRow) -> bool {
    matches!(row.status.as_str(), "refused" | "failed" | "poisoned")
}

/// A status for people.
pub(crate) fn status(row: &PluginRow) -> String {
    row.status.replace('_', " ")
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

/// What the daemon would find, read from manifests, lock file and settings.
fn from_folders() -> Vec<PluginRow> {
    let disabled = settings_file::disabled(&Places::of_this_process().settings).unwrap_or_default();
    let lock = user_folder::path().map_or_else(|| Ok(LockFile::default()), |folder| LockFile::read(&folder));
    let pinned = |id: &str| match &lock {
        Ok(lock) if lock.plugins.contains_key(id) => None,
        Ok(_) => {
            Some("it was not added with 'runt plugins add'; add it if you trust it, or remove it".to_owned())
        }
        Err(error) => Some(format!("{error}; run 'runt plugins doctor'")),
    };
    rows(&SearchPath::of_this_process(&[]), &disabled, pinned)
}

/// `unpinned` says why a plugin of the user's folder may not be loaded.
fn rows(
    path: &SearchPath,
    disabled: &BTreeSet<String>,
    unpinned: impl Fn(&str) -> Option<String>,
) -> Vec<PluginRow> {
    let mut rows: Vec<PluginRow> = Vec::new();
    let mut winners: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (source, named) in path.plugin_folders() {
        let folder = named.canonicalize().unwrap_or(named);
        if rows.iter().any(|row| Path::new(&row.path) == folder) {
            continue;
        }
        let manifest = match read(&folder) {
            Ok(manifest) => manifest,
            Err(reason) => {
                rows.push(PluginRow {
                    id: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                    source: source.to_string(),
                    path: folder.display().to_string(),
                    status: "refused".to_owned(),
                    reason: Some(reason),
                    ..PluginRow::default()
                });
                continue;
            }
        };
        let id = &manifest.id;
        let unpinned = if source == Source::User { unpinned(id) } else { None };
        let (status, reason) = if unpinned.is_some() {
            // What was never added is no candidate, so it shadows nothing.
            ("refused", unpinned)
        } else if let Some(winner) = winners.get(id) {
            ("shadowed", Some(format!("`{}` has the same id and comes first", winner.display())))
        } else {
            winners.insert(id.clone(), folder.clone());
            if disabled.contains(id) {
                (
                    "disabled",
                    Some(format!("switched off in the settings; switch it on: runt plugins enable {id}")),
                )
            } else {
                ("not_loaded", None)
            }
        };
        rows.push(PluginRow { status: status.to_owned(), reason, ..row(&manifest, source, &folder) });
    }
    rows
}

/// The manifest of a folder, whose name must be the id.
fn read(folder: &Path) -> Result<Manifest, String> {
    let manifest = Manifest::read(folder).map_err(|error| format!("{error}; {}", error.remedy))?;
    if folder.file_name().is_some_and(|name| *name == *manifest.id) {
        return Ok(manifest);
    }
    let id = &manifest.id;
    Err(format!(
        "the folder `{}` holds a plugin with the id `{id}`; rename the folder to `{id}`",
        folder.display()
    ))
}

fn row(manifest: &Manifest, source: Source, folder: &Path) -> PluginRow {
    let provided = manifest.provides.iter().map(|provides| ProvidedCapability {
        capability: provides.capability.clone(),
        name: provides.name.clone(),
    });
    PluginRow {
        id: manifest.id.clone(),
        name: manifest.name.clone(),
        version: manifest.version.to_string(),
        provides: provided.collect(),
        abi: format!("{}.{}", manifest.abi.major, manifest.abi.min_minor),
        carrier: manifest.carrier().to_string(),
        source: source.to_string(),
        path: folder.display().to_string(),
        ..PluginRow::default()
    }
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

    #[test]
    fn folders_tell_which_plugin_would_run() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let add = |folder: &str, id: &str| {
            let folder = root.join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            let text = format!(
                "manifest_version = 1\nid = \"{id}\"\nname = \"X\"\nversion = \"1.0.0\"\nabi = {{ major = 1 }}\n\
                 [library]\nlinux-x86_64 = {{ path = \"libx.so\" }}\n"
            );
            std::fs::write(folder.join("plugin.toml"), text).unwrap();
        };
        add("user/a", "a");
        add("user/stranger", "stranger");
        add("user/off", "off");
        add("user/wrong-name", "b");
        add("bundled/a", "a");
        add("bundled/stranger", "stranger");
        let path =
            SearchPath(vec![(Source::User, root.join("user")), (Source::Bundled, root.join("bundled"))]);
        let unpinned = |id: &str| (id == "stranger").then(|| "never added".to_owned());
        let rows = rows(&path, &["off".to_owned()].into(), unpinned);
        let told: Vec<_> = rows.iter().map(|row| (row.id.as_str(), row.status.as_str())).collect();
        assert_eq!(
            told,
            [
                ("a", "not_loaded"),
                ("off", "disabled"),
                ("stranger", "refused"),
                ("wrong-name", "refused"),
                ("a", "shadowed"),
                ("stranger", "not_loaded")
            ]
        );
        let plugins = Plugins { rows, live: false };
        assert_eq!(plugins.get("a").unwrap().source, "user");
        assert!(plugins.get("b").is_none());
    }
}
