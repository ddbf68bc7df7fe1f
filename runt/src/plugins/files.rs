//! The files of an installed plugin, and what is wrong with them.
//!
//! Never: decides whether the plugin is loaded; the daemon has checks of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use runtimed_plugin_api::lock_file::Pin;
use runtimed_plugin_api::manifest::{FILE_NAME, Manifest};
use serde::Serialize;

use super::staging::sha256;

/// One file of a plugin.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileState {
    /// Below the plugin's folder.
    pub(crate) path: PathBuf,
    /// As it is now; none if it cannot be read.
    pub(crate) sha256: Option<String>,
    /// What is wrong with it.
    pub(crate) problem: Option<String>,
}

/// Every file that the manifest names or that was pinned, as it is now.
pub(crate) fn states(folder: &Path, manifest: Option<&Manifest>, pin: Option<&Pin>) -> Vec<FileState> {
    // With the hash that the manifest gives.
    let mut named: BTreeMap<&Path, Option<&str>> = [(Path::new(FILE_NAME), None)].into();
    if let Some(manifest) = manifest {
        let listed = manifest.library_for_this_target().into_iter().chain(&manifest.files);
        named.extend(listed.map(|file| (file.path.as_path(), file.sha256.as_deref())));
        named.extend(manifest.settings.iter().map(|settings| (settings.schema.as_path(), None)));
    }
    let pinned = pin.iter().flat_map(|pin| pin.files.keys().map(PathBuf::as_path));
    let all: BTreeSet<&Path> = named.keys().copied().chain(pinned).collect();
    let state = |path: &Path| {
        let found = sha256(&folder.join(path));
        let problem = match (&found, named.get(path).copied().flatten(), pin.map(|pin| pin.files.get(path))) {
            (Err(error), ..) => Some(format!("cannot be read: {error}")),
            (Ok(_), _, Some(None)) => Some("was not there when the plugin was added".to_owned()),
            (Ok(found), _, Some(Some(pinned))) if found != pinned => Some(format!(
                "is not the file that was added: its SHA-256 is {found}, plugins.lock has {pinned}"
            )),
            (Ok(found), Some(named), _) if found != named => Some(format!(
                "is not the file its manifest describes: its SHA-256 is {found}, plugin.toml has {named}"
            )),
            _ => None,
        };
        FileState { path: path.to_path_buf(), sha256: found.ok(), problem }
    };
    all.into_iter().map(state).collect()
}
