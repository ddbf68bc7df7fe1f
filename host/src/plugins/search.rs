//! Where plugins are looked for, and what is there.
//!
//! Promises: the first folder with an id wins; later ones are reported as shadowed. Folders without a
//! manifest are not plugins and are passed over.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use runtimed_plugin_api::manifest::{FILE_NAME, Manifest};
use serde::Serialize;

use super::row::Problem;

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
            set("XDG_DATA_HOME").map(PathBuf::from).or_else(|| home.map(|home| home.join(".local/share")))
        };
        let binary = std::env::current_exe().ok();
        Self::new(arguments, set("RUNTIMED_PLUGIN_PATH").as_deref(), data.as_deref(), binary.as_deref())
    }
}

/// A folder that has a manifest.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) source: Source,
    /// Absolute, with symlinks resolved.
    pub(super) folder: PathBuf,
    /// The manifest, or why it is no use.
    pub(super) manifest: Result<Manifest, Problem>,
}

impl Found {
    /// The plugin's id, or its folder's name if the manifest is no use.
    pub(super) fn id(&self) -> String {
        match &self.manifest {
            Ok(manifest) => manifest.id.clone(),
            Err(_) => folder_name(&self.folder),
        }
    }
}

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// One for each id, in search order, and every folder with a useless manifest.
    pub(super) first: Vec<Found>,
    /// Usable ones that come too late, with the folder of the winner.
    pub(super) shadowed: Vec<(Found, PathBuf)>,
}

/// Looks into every folder. Blocks on the file system.
pub(super) fn search(path: &SearchPath) -> Findings {
    let mut findings = Findings::default();
    let mut winners: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (source, folder) in &path.0 {
        for found in plugins_in(*source, folder) {
            match &found.manifest {
                Ok(manifest) => match winners.get(&manifest.id) {
                    // The same folder twice in the search path is no conflict.
                    Some(winner) if *winner == found.folder => {}
                    Some(winner) => findings.shadowed.push((found, winner.clone())),
                    None => {
                        winners.insert(manifest.id.clone(), found.folder.clone());
                        findings.first.push(found);
                    }
                },
                Err(_) => findings.first.push(found),
            }
        }
    }
    findings
}

fn plugins_in(source: Source, folder: &Path) -> Vec<Found> {
    // A search folder that does not exist is as good as an empty one.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.join(FILE_NAME).is_file()).collect();
    folders.sort();
    folders
        .into_iter()
        .map(|named| {
            let manifest = read_manifest(&named);
            let folder = named.canonicalize().unwrap_or(named);
            Found { source, folder, manifest }
        })
        .collect()
}

/// Reads the manifest of a folder, whose name must be the id.
fn read_manifest(folder: &Path) -> Result<Manifest, Problem> {
    let manifest =
        Manifest::read(folder).map_err(|error| Problem::refused(error.to_string(), error.remedy.clone()))?;
    let name = folder_name(folder);
    if manifest.id == name {
        return Ok(manifest);
    }
    Err(Problem::refused(
        format!("the folder `{}` holds a plugin with the id `{}`", folder.display(), manifest.id),
        format!("rename the folder to `{}`", manifest.id),
    ))
}

fn folder_name(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
