//! Which files make up a plugin that is to be added.
//!
//! For: a folder with a plugin in it, and the cargo project of one, whose library is in cargo's target folder.
//! Promises: only what the manifest names is taken, and of the libraries only that for this machine.
//! Never: writes.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use runtimed_plugin_api::manifest::{FILE_NAME, File, Manifest, this_target};

/// Builds of a cargo project, by the name of their folder.
const PROFILES: [&str; 2] = ["release", "debug"];

/// A plugin and where its files are.
pub(crate) struct Origin {
    pub(crate) manifest: Manifest,
    /// The same with everything this version does not know.
    pub(crate) table: toml::Table,
    /// The files but for the manifest.
    pub(crate) files: Vec<OriginFile>,
    /// The build the library was taken from, if it does not lie beside the manifest.
    pub(crate) build: Option<PathBuf>,
}

/// A file of the plugin.
pub(crate) struct OriginFile {
    /// Below the plugin's folder, as the manifest names it.
    pub(crate) path: PathBuf,
    /// Where it is now.
    pub(crate) at: PathBuf,
    /// What the manifest says it has.
    pub(crate) sha256: Option<String>,
}

impl Origin {
    /// Reads the plugin in `folder`, which may be its cargo project.
    ///
    /// # Errors
    /// For a manifest that is no use, and for files that are not there.
    pub(crate) fn of_folder(folder: &Path) -> anyhow::Result<Self> {
        Self::read(folder, newest_build)
    }

    /// Reads the plugin in `folder`, where everything must lie that belongs to it. For what came in an archive:
    /// cargo is not run on a stranger's project.
    ///
    /// # Errors
    /// As [`Origin::of_folder`].
    pub(crate) fn complete(folder: &Path) -> anyhow::Result<Self> {
        Self::read(folder, |_, library| bail!("`{}` is not in the archive", library.display()))
    }

    fn read(folder: &Path, build: impl Fn(&Path, &Path) -> anyhow::Result<PathBuf>) -> anyhow::Result<Self> {
        let file = folder.join(FILE_NAME);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "`{}` is not a plugin: it has no {FILE_NAME}; name a plugin's folder, its cargo project or a .tar.gz",
                folder.display()
            ),
            Err(error) => {
                return Err(error).with_context(|| format!("`{}` could not be read", file.display()));
            }
        };
        let manifest = Manifest::parse(&text, &file).map_err(|error| anyhow!("{error}; {}", error.remedy))?;
        let table = text.parse()?;
        let library = manifest.library_for_this_target().with_context(|| {
            format!(
                "plugin `{}` has no library for {}; build or get it for this machine, and name that under [library]",
                manifest.id,
                this_target()
            )
        })?;
        let is_project = !folder.join(&library.path).exists() && folder.join("Cargo.toml").is_file();
        let build = if is_project { Some(build(folder, &library.path)?) } else { None };
        let mut files = Vec::new();
        let schema =
            manifest.settings.as_ref().map(|settings| File { path: settings.schema.clone(), sha256: None });
        for named in std::iter::once(library).chain(&manifest.files).chain(schema.as_ref()) {
            let beside = folder.join(&named.path);
            let built = build.as_ref().zip(named.path.file_name()).map(|(build, name)| build.join(name));
            let at = [Some(beside.clone()), built].into_iter().flatten().find(|at| at.is_file());
            let at = at.with_context(|| {
                format!("`{}`, which the manifest names, is not there or not a file", beside.display())
            })?;
            files.push(OriginFile { path: named.path.clone(), at, sha256: named.sha256.clone() });
        }
        Ok(Self { table, files, build, manifest })
    }
}

/// The folder of the newest build of a library.
fn newest_build(project: &Path, library: &Path) -> anyhow::Result<PathBuf> {
    let name = library.file_name().unwrap_or_default();
    let target = target_folder(project);
    let built = |profile: &&str| -> Option<(SystemTime, PathBuf)> {
        let folder = target.join(profile);
        Some((folder.join(name).metadata().and_then(|file| file.modified()).ok()?, folder))
    };
    let newest = PROFILES.iter().filter_map(built).max();
    let (_, folder) = newest.with_context(|| {
        format!(
            "the project has not been built: there is no `{}` in `{}`; run 'cargo build --release' first",
            name.display(),
            target.display()
        )
    })?;
    Ok(folder)
}

/// Where cargo puts what it builds of a project: cargo knows about variables, configuration and workspaces.
fn target_folder(project: &Path) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let asked = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(project)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let said = asked.ok().and_then(|output| serde_json::from_slice::<serde_json::Value>(&output.stdout).ok());
    let folder = said.and_then(|said| said["target_directory"].as_str().map(PathBuf::from));
    // Without cargo, the usual place.
    folder.unwrap_or_else(|| project.join("target"))
}
