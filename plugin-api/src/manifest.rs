//! `plugin.toml`: what a plugin says about itself without being loaded.
//!
//! For: the daemon's checks and `runt plugins`.
//! Promises: an error names the file, the key and the remedy; unknown keys are ignored, so that an older
//! daemon reads a newer manifest.
//! Never: touches anything but the one file.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{ENV_PROVIDER, read_text};

/// Name of the file in a plugin's folder.
pub const FILE_NAME: &str = "plugin.toml";
/// The only manifest version there is.
const MANIFEST_VERSION: u32 = 1;
/// Longest id: it becomes a folder's name and a thread's label.
const MAX_ID: usize = 64;

/// A plugin manifest.
///
/// ```
/// use runtimed_plugin_api::manifest::{Carrier, Manifest};
///
/// let text = r#"
///     manifest_version = 1
///     id = "org.example.mine"
///     name = "My environments"
///     version = "0.1.0"
///     abi = { major = 1 }
///     library = { linux-x86_64 = { path = "libmine.so" } }
///     provides = [{ capability = "env-provider.v1", name = "mine" }]
/// "#;
/// let manifest = Manifest::parse(text, "plugin.toml".as_ref())?;
/// assert_eq!(manifest.carrier(), Carrier::Child);
/// # Ok::<_, runtimed_plugin_api::manifest::ManifestError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format: 1.
    pub manifest_version: u32,
    /// Id, the same as the folder's name: `uv`, `org.example.pixi`.
    pub id: String,
    /// Name for users.
    pub name: String,
    /// Version of the plugin.
    pub version: semver::Version,
    /// SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// The ABI the plugin was built for.
    pub abi: Abi,
    /// The library for each target, `linux-x86_64` and so on.
    pub library: BTreeMap<String, File>,
    /// Capabilities.
    #[serde(default)]
    pub provides: Vec<Provides>,
    /// What must be there before this plugin starts.
    #[serde(default)]
    pub needs: Needs,
    /// How it is run.
    #[serde(default)]
    pub run: Run,
    /// Its own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// Further files that belong to it, such as helper programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
}

/// The ABI a plugin was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abi {
    /// Major version; must be the daemon's.
    pub major: u16,
    /// Lowest minor version of a daemon it can live in.
    #[serde(default)]
    pub min_minor: u16,
}

/// A file of the plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Relative to the manifest, inside its folder.
    pub path: PathBuf,
    /// SHA-256 of the content in lower-case hex; unchecked if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// One capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provides {
    /// Capability id: `env-provider.v1`.
    pub capability: String,
    /// Kind within the capability: `uv`, `jupyter`.
    pub name: String,
    /// Project files it recognizes, so that it can be chosen without being loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<String>,
}

/// What a plugin needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Capability ids that must be there before it starts.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Host services it uses, for the user to see: `run-process`, `settings`.
    #[serde(default)]
    pub services: Vec<String>,
}

/// How a plugin is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// In which process; [`Manifest::carrier`] decides if it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Carrier>,
    /// When.
    #[serde(default)]
    pub activate: Activate,
}

/// In which process a plugin runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// In the daemon: for hot work.
    InProcess,
    /// In a child of the daemon: for heavy or untrusted work.
    Child,
}

/// When a plugin is loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activate {
    /// With the daemon.
    #[default]
    Startup,
    /// When somebody asks for one of its capabilities.
    OnDemand,
}

/// A plugin's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// JSON Schema of its section, relative to the manifest.
    pub schema: PathBuf,
}

/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct ManifestError {
    /// The manifest.
    pub file: PathBuf,
    /// One sentence that names the key.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl std::fmt::Display for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InProcess => "in-process",
            Self::Child => "child",
        })
    }
}

impl Manifest {
    /// Reads and checks the manifest in `folder`. Blocks on the file system.
    ///
    /// # Errors
    /// [`ManifestError`] for a file that is missing, unreadable, not TOML, or says something impossible.
    pub fn read(folder: &Path) -> Result<Self, ManifestError> {
        let file = folder.join(FILE_NAME);
        match read_text(&file) {
            Ok(text) => Self::parse(&text, &file),
            Err(error) => Err(ManifestError {
                file,
                problem: format!("it could not be read: {error}"),
                remedy: "reinstall the plugin, or correct the file's permissions".to_owned(),
            }),
        }
    }

    /// Checks the text of a manifest; `file` is for the message.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ManifestError> {
        let broken = |problem: String, remedy: &str| ManifestError {
            file: file.to_owned(),
            problem,
            remedy: remedy.to_owned(),
        };
        // The version first: the rest of a later format may look different.
        let versioned: Versioned = toml::from_str(text).map_err(|error| {
            broken(one_line(text, &error), "correct the file; its format is described in docs/PLUGINS.md")
        })?;
        if versioned.manifest_version != MANIFEST_VERSION {
            let found = versioned.manifest_version;
            let problem =
                format!("manifest_version is {found}, this version of runtimed reads {MANIFEST_VERSION}");
            return Err(broken(problem, "update runtimed, or install an older version of the plugin"));
        }
        let manifest: Self = toml::from_str(text).map_err(|error| {
            broken(one_line(text, &error), "correct the file; its format is described in docs/PLUGINS.md")
        })?;
        manifest.check().map_err(|(problem, remedy)| broken(problem, remedy))?;
        Ok(manifest)
    }

    /// The library for the machine this runs on.
    pub fn library_for_this_target(&self) -> Option<&File> {
        self.library.get(&this_target())
    }

    /// In which process the plugin asks to run: what it says, or a child of its own for a plugin that provides
    /// nothing but environments, which is heavy work and seldom hot.
    pub fn carrier(&self) -> Carrier {
        let only_environments =
            !self.provides.is_empty() && self.provides.iter().all(|it| it.capability == ENV_PROVIDER);
        self.run.carrier.unwrap_or(if only_environments { Carrier::Child } else { Carrier::InProcess })
    }

    /// Whether the plugin provides that capability.
    pub fn provides(&self, capability: &str) -> bool {
        self.provides.iter().any(|provided| provided.capability == capability)
    }

    fn check(&self) -> Result<(), (String, &'static str)> {
        let id = &self.id;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if id.is_empty() || id.len() > MAX_ID || !id.chars().all(plain) || id.starts_with(['.', '-']) {
            return Err((
                format!("id `{id}` is not allowed"),
                "use 1 to 64 lower-case letters, digits, `-`, `_` and `.`, beginning with a letter or digit",
            ));
        }
        if self.library.is_empty() {
            return Err((
                "[library] names no library".to_owned(),
                "add a line such as linux-x86_64 = { path = \"libx.so\" }",
            ));
        }
        let libraries = self.library.iter().map(|(target, file)| (format!("library.{target}"), file));
        let files = self.files.iter().map(|file| ("files".to_owned(), file));
        for (key, file) in libraries.chain(files) {
            if !stays_inside(&file.path) {
                let problem = format!("{key}.path `{}` leaves the plugin's folder", file.path.display());
                return Err((problem, "name a file relative to plugin.toml, without `..`"));
            }
            if let Some(sha256) = &file.sha256
                && !is_sha256(sha256)
            {
                let problem = format!("{key}.sha256 `{sha256}` is not a SHA-256");
                return Err((problem, "write 64 lower-case hex digits, or leave the key out"));
            }
        }
        if let Some(settings) = &self.settings
            && !stays_inside(&settings.schema)
        {
            let problem =
                format!("settings.schema `{}` leaves the plugin's folder", settings.schema.display());
            return Err((problem, "name a file relative to plugin.toml, without `..`"));
        }
        let versioned =
            |id: &str| id.rsplit_once(".v").is_some_and(|(_, version)| version.parse::<u16>().is_ok());
        let provided = self.provides.iter().map(|it| ("provides.capability", &it.capability));
        let needed = self.needs.capabilities.iter().map(|it| ("needs.capabilities", it));
        for (key, capability) in provided.chain(needed) {
            if !versioned(capability) {
                let problem = format!("{key} `{capability}` is not a capability id");
                return Err((problem, "write a name and a version, such as env-provider.v1"));
            }
        }
        Ok(())
    }
}

/// Key of this machine in [`Manifest::library`]: system and processor, as in `linux-x86_64`.
pub fn this_target() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

#[derive(Deserialize)]
struct Versioned {
    manifest_version: u32,
}

/// Whether a path names something below the folder it is relative to.
fn stays_inside(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// A TOML error as one line with its place.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    match error.span() {
        Some(span) if !span.is_empty() => {
            let line = text.get(..span.start).unwrap_or_default().lines().count().max(1);
            format!("line {line}: {message}")
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
manifest_version = 1
id = "org.example.pixi"
name = "Pixi environments"
version = "0.3.1"
license = "MIT"
[abi]
major = 1
[library]
linux-x86_64 = { path = "lib/libpixi.so" }
[[provides]]
capability = "env-provider.v1"
name = "pixi"
markers = ["pixi.toml"]
[needs]
capabilities = ["blob-store.v1"]
[run]
carrier = "child"
activate = "on-demand"
[a_later_section]
key = 1
"#;

    fn parse(text: &str) -> Result<Manifest, ManifestError> {
        Manifest::parse(text, Path::new("/plugins/x/plugin.toml"))
    }

    fn problem(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from));
        let error = parse(&GOOD.replace(from, to)).unwrap_err();
        assert!(!error.remedy.is_empty());
        error.to_string()
    }

    #[test]
    fn a_manifest_is_read_and_written_back() {
        let manifest = parse(GOOD).unwrap();
        assert_eq!((manifest.id.as_str(), manifest.abi.min_minor), ("org.example.pixi", 0));
        assert_eq!(manifest.run, Run { carrier: Some(Carrier::Child), activate: Activate::OnDemand });
        assert!(manifest.provides("env-provider.v1") && !manifest.provides("rooms.v1"));
        let text = toml::to_string(&manifest).unwrap();
        assert_eq!(parse(&text).unwrap(), manifest);
    }

    #[test]
    fn environments_are_built_in_a_child_unless_the_manifest_says_otherwise() {
        let silent = GOOD.replace("carrier = \"child\"\n", "");
        assert_eq!(parse(&silent).unwrap().carrier(), Carrier::Child);
        let trusted = GOOD.replace("\"child\"", "\"in-process\"");
        assert_eq!(parse(&trusted).unwrap().carrier(), Carrier::InProcess);
        let hot = silent.replace("env-provider.v1", "rooms.v1");
        assert_eq!(parse(&hot).unwrap().carrier(), Carrier::InProcess);
    }

    #[test]
    fn bundled_manifests_are_good() {
        for id in ["blobs", "jupyter", "rooms", "uv"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(id);
            assert_eq!(Manifest::read(&folder).unwrap().id, id);
        }
    }

    #[test]
    fn errors_name_file_key_and_value() {
        let file = "/plugins/x/plugin.toml: ";
        assert_eq!(
            problem("manifest_version = 1", "manifest_version = 2"),
            format!("{file}manifest_version is 2, this version of runtimed reads 1")
        );
        assert_eq!(problem("org.example.pixi", "../evil"), format!("{file}id `../evil` is not allowed"));
        assert_eq!(
            problem("lib/libpixi.so", "../libpixi.so"),
            format!("{file}library.linux-x86_64.path `../libpixi.so` leaves the plugin's folder")
        );
        assert!(problem("lib/libpixi.so", "/lib/libpixi.so").contains("leaves the plugin's folder"));
        assert!(problem("env-provider.v1", "env-provider").contains("`env-provider` is not a capability id"));
        assert!(
            problem("\"lib/libpixi.so\"", "\"x\", sha256 = \"12\"").contains("library.linux-x86_64.sha256")
        );
        assert!(problem("\"0.3.1\"", "\"three\"").contains("line 5"));
        assert!(problem("name = \"Pixi environments\"\n", "").contains("`name`"));
        assert!(problem("carrier = \"child\"", "carrier = \"moon\"").contains("moon"));
        assert!(parse("= nonsense").is_err() && parse("").is_err());
    }
}
