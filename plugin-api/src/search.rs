// NOTE to engineer A from the lead: please build host/src/plugins/discovery.rs on this module (runt uses it too, with the daemon down).
// Add `pub mod search;` beside `pub mod manifest;` (not behind the adapter feature) and delete these lines.
//! Where plugins are looked for.
//!
//! For: the daemon, which loads what it finds, and the command line, which shows it without a daemon.
//! Promises: the order is the rule that decides which of two plugins with one id wins: the first.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::manifest;

/// Where a plugin folder was found, in search order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `--plugin-dir`.
    Flag,
    /// `RUNTIMED_PLUGIN_PATH`.
    Environment,
    /// The user's own: `~/.local/share/runt/plugins`.
    User,
    /// Shipped with the daemon: `../lib/runt/plugins` next to its binary.
    Bundled,
    /// The system's: `/usr/lib/runt/plugins`.
    System,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::User => "user",
            Self::Bundled => "bundled",
            Self::System => "system",
        })
    }
}

/// A folder that holds a `plugin.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginFolder {
    /// The folder; its name should be the plugin's id.
    pub path: PathBuf,
    /// Where it was found.
    pub source: Source,
}

/// Every plugin folder, in search order: `flags` first. Folders that cannot be read hold nothing.
pub fn plugin_folders(flags: &[PathBuf]) -> Vec<PluginFolder> {
    let mut found = Vec::new();
    for (source, folder) in search_path(flags) {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut paths: Vec<_> =
            entries.map(|entry| entry.path()).filter(|path| path.join(manifest::FILE_NAME).is_file()).collect();
        paths.sort();
        found.extend(paths.into_iter().map(|path| PluginFolder { path, source }));
    }
    found
}

/// The folders that are searched for plugin folders, in order, each once.
fn search_path(flags: &[PathBuf]) -> Vec<(Source, PathBuf)> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = variable("HOME").map(PathBuf::from);
    let user = if cfg!(target_os = "macos") {
        home.map(|home| home.join("Library/Application Support"))
    } else {
        variable("XDG_DATA_HOME").map(PathBuf::from).or_else(|| home.map(|home| home.join(".local/share")))
    };
    let binary = std::env::current_exe().and_then(|exe| exe.canonicalize()).ok();
    let prefix = binary.as_deref().and_then(Path::parent).and_then(Path::parent).map(Path::to_path_buf);
    let environment = variable("RUNTIMED_PLUGIN_PATH").unwrap_or_default();

    let mut path: Vec<(Source, PathBuf)> = Vec::new();
    let environment = std::env::split_paths(&environment).filter(|folder| !folder.as_os_str().is_empty());
    let candidates = (flags.iter().cloned().map(|folder| (Source::Flag, folder)))
        .chain(environment.map(|folder| (Source::Environment, folder)))
        .chain(user.map(|user| (Source::User, user.join("runt/plugins"))))
        .chain(prefix.map(|prefix| (Source::Bundled, prefix.join("lib/runt/plugins"))))
        .chain([(Source::System, PathBuf::from("/usr/lib/runt/plugins"))]);
    for (source, folder) in candidates {
        let folder = folder.canonicalize().unwrap_or(folder);
        if !path.iter().any(|(_, known)| *known == folder) {
            path.push((source, folder));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_first_and_a_folder_is_searched_once() {
        let flag = PathBuf::from("/somewhere");
        let path = search_path(&[flag.clone(), flag.clone()]);
        assert_eq!(path[0], (Source::Flag, flag.clone()));
        assert_eq!(path.iter().filter(|(_, folder)| *folder == flag).count(), 1);
        assert!(path.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{path:?}");
        assert_eq!(path.last().map(|(source, _)| *source), Some(Source::System));
    }
}
