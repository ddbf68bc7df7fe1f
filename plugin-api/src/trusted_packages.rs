//! `trusted-packages.json`: what the user allows notebooks to install.
//!
//! For: the daemon, which asks before anything a notebook declares is built, and `runt trust`.
//! Promises: written by rename, one program at a time, readable by the user alone; a file that cannot be read is an
//! error and never an empty list; what a newer program wrote there is kept.
//! Never: knows how a package manager spells names; identities come from its provider.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::PackageIdentity;

/// Name of the file; it lies in the daemon's base folder.
pub const FILE_NAME: &str = "trusted-packages.json";
/// Whoever changes the file holds the lock of this one beside it.
const LOCK_NAME: &str = ".trusted-packages.lock";
/// Packages allowed in both `pypi` and `conda`. Source: the reference daemon.
const DEFAULT_PACKAGES: [&str; 13] = [
    "ipykernel",
    "ipywidgets",
    "anywidget",
    "pip",
    "nbformat",
    "pyarrow",
    "pandas",
    "polars",
    "matplotlib",
    "plotly",
    "altair",
    "numpy",
    "scipy",
];
/// Channels allowed in both `conda-channel` and `pixi-channel`; URLs with and without the last slash. Source: the
/// reference daemon.
const DEFAULT_CHANNELS: [&str; 5] = [
    "conda-forge",
    "defaults",
    "https://repo.anaconda.com/pkgs/main",
    "https://repo.anaconda.com/pkgs/r",
    "https://repo.anaconda.com/pkgs/msys2",
];
/// Ecosystems of [`DEFAULT_PACKAGES`].
const PACKAGES: [&str; 2] = ["pypi", "conda"];
/// Ecosystems of [`DEFAULT_CHANNELS`].
const CHANNELS: [&str; 2] = ["conda-channel", "pixi-channel"];

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrustedPackages {
    /// What was approved, in the order in which it was.
    #[serde(default)]
    pub packages: Vec<Approval>,
    /// What a newer program wrote.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// One approved name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// What is allowed.
    #[serde(flatten)]
    pub identity: PackageIdentity,
    /// When it was approved, RFC 3339, UTC.
    pub approved_at: String,
    /// By which action: `trust_dialog`, `project_env_dialog`, `command_line`.
    pub source: String,
    /// What a newer program wrote.
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl TrustedPackages {
    /// Reads the file in the folder `base`; one that does not exist is empty. Blocks on the file system.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn read(base: &Path) -> io::Result<Self> {
        match fs::read(base.join(FILE_NAME)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Changes the file in the folder `base`, which is made if it is not there. Waits for others who do; blocks on the
    /// file system. Returns what `change` does.
    ///
    /// # Errors
    /// When it cannot be read or written; it is as it was then.
    pub fn edit<T>(base: &Path, change: impl FnOnce(&mut Self) -> T) -> io::Result<T> {
        DirBuilder::new().recursive(true).mode(0o700).create(base)?;
        let lock = File::create(base.join(LOCK_NAME))?;
        lock.lock()?;
        let before = Self::read(base)?;
        let mut after = before.clone();
        let result = change(&mut after);
        if after != before {
            after.write(base)?;
        }
        Ok(result)
    }

    /// Whether `identity` is allowed.
    pub fn allows(&self, identity: &PackageIdentity) -> bool {
        is_default(identity) || self.packages.iter().any(|one| is_same(&one.identity, identity))
    }

    /// Allows `identity`, which happened `at` and by the action `source`. False if it was allowed before.
    pub fn allow(&mut self, identity: PackageIdentity, at: &str, source: &str) -> bool {
        if self.allows(&identity) {
            return false;
        }
        let (approved_at, source) = (at.to_owned(), source.to_owned());
        self.packages.push(Approval { identity, approved_at, source, others: Map::new() });
        true
    }

    /// Allows `identity` no more. False if it was not allowed before, or is on every machine.
    pub fn forget(&mut self, identity: &PackageIdentity) -> bool {
        let before = self.packages.len();
        self.packages.retain(|one| !is_same(&one.identity, identity));
        self.packages.len() < before
    }

    fn write(&self, base: &Path) -> io::Result<()> {
        let (file, new) = (base.join(FILE_NAME), base.join(format!(".{FILE_NAME}.new")));
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let mut out = File::create(&new)?;
        // Whatever the umask says.
        out.set_permissions(fs::Permissions::from_mode(0o600))?;
        out.write_all(&text)?;
        out.sync_all()?;
        fs::rename(&new, &file)?;
        File::open(base)?.sync_all()
    }
}

/// Whether both are the same thing. The last slash of a channel's URL says nothing.
fn is_same(one: &PackageIdentity, other: &PackageIdentity) -> bool {
    one.ecosystem == other.ecosystem
        && (one.name == other.name
            || CHANNELS.contains(&one.ecosystem.as_str())
                && one.name.trim_end_matches('/') == other.name.trim_end_matches('/'))
}

/// Whether `identity` is allowed on every machine.
pub fn is_default(identity: &PackageIdentity) -> bool {
    let name = identity.name.as_str();
    match identity.ecosystem.as_str() {
        ecosystem if PACKAGES.contains(&ecosystem) => DEFAULT_PACKAGES.contains(&name),
        ecosystem if CHANNELS.contains(&ecosystem) => {
            DEFAULT_CHANNELS.contains(&name.strip_suffix('/').unwrap_or(name))
        }
        _ => false,
    }
}

/// Everything that is allowed on every machine; of channels, without the last slash.
pub fn defaults() -> impl Iterator<Item = PackageIdentity> {
    let all = |ecosystems: [&'static str; 2], names: &'static [&'static str]| {
        ecosystems.into_iter().flat_map(move |ecosystem| {
            let identity = move |name: &&str| PackageIdentity {
                ecosystem: ecosystem.to_owned(),
                name: (*name).to_owned(),
            };
            names.iter().map(identity)
        })
    };
    all(PACKAGES, &DEFAULT_PACKAGES).chain(all(CHANNELS, &DEFAULT_CHANNELS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(ecosystem: &str, name: &str) -> PackageIdentity {
        PackageIdentity { ecosystem: ecosystem.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn what_was_allowed_stays_allowed_and_nothing_of_others_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        let allow = |name: &str| {
            let identity = identity("pypi", name);
            TrustedPackages::edit(&base, |trusted| trusted.allow(identity, "2026-01-01T00:00:00Z", "test"))
        };
        assert!(allow("cowsay").unwrap());
        assert!(!allow("cowsay").unwrap(), "it is there already");
        let file = base.join(FILE_NAME);
        let text = fs::read_to_string(&file).unwrap().replacen('{', "{\"later\": 1,", 1);
        let text = text.replacen("\"name\"", "\"until\": 2, \"name\"", 1);
        fs::write(&file, text).unwrap();
        assert!(allow("six").unwrap());
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("\"later\": 1") && text.contains("\"until\": 2"), "{text}");
        let trusted = TrustedPackages::read(&base).unwrap();
        assert!(trusted.allows(&identity("pypi", "cowsay")) && trusted.allows(&identity("conda", "numpy")));
        assert!(
            !trusted.allows(&identity("conda", "cowsay")) && !trusted.allows(&identity("pypi-url", "numpy"))
        );
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&base).unwrap().permissions().mode() & 0o777, 0o700);

        fs::write(&file, "not json").unwrap();
        assert!(TrustedPackages::read(&base).is_err() && allow("attrs").is_err());
        assert_eq!(fs::read_to_string(file).unwrap(), "not json");
    }

    #[test]
    fn channels_are_allowed_with_and_without_a_slash() {
        let mut trusted = TrustedPackages::default();
        trusted.allow(identity("conda-channel", "https://host/lab/"), "", "test");
        assert!(trusted.allows(&identity("conda-channel", "https://host/lab")));
        assert!(!trusted.allows(&identity("conda-url", "https://host/lab")));
        assert!(
            trusted.forget(&identity("conda-channel", "https://host/lab")) && trusted.packages.is_empty()
        );
        assert_eq!(defaults().count(), 36);
        assert!(defaults().all(|identity| is_default(&identity)));
        assert!(is_default(&identity("conda-channel", "https://repo.anaconda.com/pkgs/r/")));
    }
}
