//! Which plugins there are.
//!
//! Promises: the first folder with an id wins; later ones are reported as shadowed. What lies in the user's
//! folder without having been added there is no candidate, so it shadows nothing either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use runtimed_plugin_api::lock_file::{FILE_NAME as LOCK_FILE, LockFile, Pin};
use runtimed_plugin_api::manifest::Manifest;
pub use runtimed_plugin_api::search::{SearchPath, Source};

use super::permissions::check_permissions;
use super::row::Problem;

/// A folder that has a manifest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) source: Source,
    /// Absolute, with symlinks resolved.
    pub(super) folder: PathBuf,
    /// The manifest, or why it is no use.
    pub(super) manifest: Result<Manifest, Problem>,
    /// The files the user accepted, for a plugin of the user's folder.
    pub(super) pin: Option<Pin>,
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
    for (source, folder) in &path.0 {
        // Somebody named it, so somebody expects plugins there; the other folders may be missing.
        if matches!(source, Source::Argument | Source::Environment)
            && let Err(error) = folder.read_dir()
        {
            tracing::warn!(
                "no plugins from `{}`, which was named for them: {error}; in a checkout of runtimed, \
                 `cargo xtask build` puts them there",
                folder.display()
            );
        }
    }
    let mut findings = Findings::default();
    let mut winners: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut locks: BTreeMap<PathBuf, Result<LockFile, Problem>> = BTreeMap::new();
    for (source, named) in path.plugin_folders() {
        let mut manifest = read_manifest(&named);
        let mut pin = None;
        if source == Source::User {
            let plugins = named.parent().unwrap_or(&named);
            let lock = locks.entry(plugins.to_owned()).or_insert_with(|| read_lock(plugins));
            (manifest, pin) = match pin_of(&named, lock, manifest) {
                Ok((manifest, pin)) => (Ok(manifest), Some(pin)),
                Err(problem) => (Err(problem), None),
            };
        }
        let folder = named.canonicalize().unwrap_or(named);
        let found = Found { source, folder, manifest, pin };
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
    findings
}

/// Reads the lock file of the user's plugins, which nobody else may have written.
fn read_lock(plugins: &Path) -> Result<LockFile, Problem> {
    let file = plugins.join(LOCK_FILE);
    if file.exists() {
        check_permissions(&file)?;
    }
    LockFile::read(plugins).map_err(|error| {
        Problem::refused(
            format!("{error}; without it no plugin of that folder can be trusted, and none of them was run"),
            format!(
                "move `{}` away and add the plugins again: runt plugins add <folder>",
                plugins.join(LOCK_FILE).display()
            ),
        )
    })
}

/// Finds what the user accepted when adding the plugin in `folder`.
fn pin_of(
    folder: &Path,
    lock: &Result<LockFile, Problem>,
    manifest: Result<Manifest, Problem>,
) -> Result<(Manifest, Pin), Problem> {
    let pins = &lock.as_ref().map_err(Problem::clone)?.plugins;
    let manifest = manifest?;
    match pins.get(&manifest.id) {
        Some(pin) => Ok((manifest, pin.clone())),
        None => Err(Problem::refused(
            format!("`{}` was not added with `runt plugins add`, so it was not run", folder.display()),
            format!("if you trust it: runt plugins add '{}'", folder.display()),
        )),
    }
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
