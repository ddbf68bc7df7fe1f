//! Where plugins are looked for.
//!
//! For: the daemon, which loads what it finds, and the command line, which shows it without a daemon.
//! Promises: the order of the search path decides which of two plugins with one id wins: the first.
//! Folders without a manifest are not plugins and are passed over.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::manifest::FILE_NAME;

/// Plugins of the whole system, installed by its package manager.
const SYSTEM_FOLDER: &str = "/usr/lib/runt/plugins";
/// Plugins that ship with the daemon, seen from the folder of its binary.
const BUNDLED_FOLDER: &str = "../lib/runt/plugins";

/// Where a plugin was found, in search order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `--plugin-dir`.
    Argument,
    /// `RUNTIMED_PLUGIN_PATH`.
    Environment,
    /// The user's own folder.
    User,
    /// Shipped with the daemon.
    Bundled,
    /// The system's folder.
    System,
}

/// Folders to search, first wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchPath(pub Vec<(Source, PathBuf)>);

impl SearchPath {
    /// The usual order. `arguments` are the values of `--plugin-dir`, `variable` is that of
    /// `RUNTIMED_PLUGIN_PATH`, `data` is the user's data folder, `binary` the daemon's own path.
    pub fn new(
        arguments: &[PathBuf],
        variable: Option<&OsStr>,
        data: Option<&Path>,
        binary: Option<&Path>,
    ) -> Self {
        let mut folders: Vec<_> = arguments.iter().map(|folder| (Source::Argument, folder.clone())).collect();
        if let Some(variable) = variable {
            let named = std::env::split_paths(variable).filter(|folder| !folder.as_os_str().is_empty());
            folders.extend(named.map(|folder| (Source::Environment, folder)));
        }
        if let Some(data) = data {
            folders.push((Source::User, data.join("runt/plugins")));
        }
        if let Some(folder) = binary.and_then(Path::parent) {
            folders.push((Source::Bundled, folder.join(BUNDLED_FOLDER)));
        }
        folders.push((Source::System, PathBuf::from(SYSTEM_FOLDER)));
        Self(folders)
    }

    /// [`SearchPath::new`] for this process.
    pub fn of_this_process(arguments: &[PathBuf]) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = set("HOME").map(PathBuf::from);
        let data = if cfg!(target_os = "macos") {
            home.map(|home| home.join("Library/Application Support"))
        } else {
            // A relative one counts as unset, says the XDG specification; it would depend on where we stand.
            let data = set("XDG_DATA_HOME").map(PathBuf::from).filter(|data| data.is_absolute());
            data.or_else(|| home.map(|home| home.join(".local/share")))
        };
        let binary = std::env::current_exe().ok();
        Self::new(arguments, set("RUNTIMED_PLUGIN_PATH").as_deref(), data.as_deref(), binary.as_deref())
    }
}

impl SearchPath {
    /// Every folder that has a manifest, in search order. Search folders that cannot be read count as
    /// empty. Blocks on the file system.
    pub fn plugin_folders(&self) -> Vec<(Source, PathBuf)> {
        let mut found = Vec::new();
        for (source, folder) in &self.0 {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let mut folders: Vec<PathBuf> =
                entries.map(|entry| entry.path()).filter(|path| path.join(FILE_NAME).is_file()).collect();
            folders.sort();
            found.extend(folders.into_iter().map(|folder| (*source, folder)));
        }
        found
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Argument => "argument",
            Self::Environment => "environment",
            Self::User => "user",
            Self::Bundled => "bundled",
            Self::System => "system",
        })
    }
}
