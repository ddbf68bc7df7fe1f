//! What a built environment says about itself on disk.
//!
//! For: finding environments again after a restart.
//! Promises: the record is written last, so an environment without one is a torn build; marker files of
//! the reference daemon are kept beside it.
//! Blocks: call it from the blocking pool.

use std::io;
use std::path::{Path, PathBuf};

use runtimed_plugin_api::Environment;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::packages::packages_hash;
use super::state::Ready;
use crate::disk;

/// Our record.
const RECORD_FILE: &str = "environment.json";
/// What the folder names of all pooled environments start with.
pub(super) const POOL_START: &str = "runtimed-";
/// Marks an environment that somebody has taken; the next daemon does not hand it out again.
const LEASE_FILE: &str = "lease.json";
/// Marker: validation passed.
const READY_FILE: &str = ".runt-pool-ready";
/// Marker: warm-up finished.
const WARMED_FILE: &str = ".warmed";
/// Marker: hash of the package list, no line end.
const PACKAGES_FILE: &str = ".runt-pool-packages.sha256";
/// Marker: decimal Unix seconds.
const LAST_USED_FILE: &str = ".last-used";
/// Environments are the user's own.
const FILE_MODE: u32 = 0o600;

/// The record of an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The environment, as its provider made it.
    pub environment: Environment,
    /// The package list it was built from, before the provider's additions.
    pub packages: Vec<String>,
    /// What the settings said to the provider then; see [`Ready::settings`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub settings: String,
    /// Whether the provider has optimized it.
    #[serde(default)]
    pub optimized: bool,
    /// See [`Ready::template_key`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_key: Option<String>,
}

/// Who has an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    /// Id of the room, or `client`.
    pub owner: String,
    /// RFC 3339, UTC.
    pub taken_at: String,
}

impl From<Ready> for Record {
    fn from(ready: Ready) -> Self {
        let Ready { environment, packages, settings, optimized, template_key, since: _ } = ready;
        Self { environment, packages, settings, optimized, template_key }
    }
}

impl Record {
    /// That of an environment that was built for a declaration.
    pub(super) fn of(environment: Environment, packages: Vec<String>) -> Self {
        Self { environment, packages, settings: String::new(), optimized: false, template_key: None }
    }

    /// Writes the record and the markers.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write(&self) -> io::Result<()> {
        let prefix = &self.environment.prefix;
        std::fs::write(prefix.join(PACKAGES_FILE), packages_hash(&self.environment.kind, &self.packages))?;
        std::fs::write(prefix.join(READY_FILE), "")?;
        if self.optimized {
            std::fs::write(prefix.join(WARMED_FILE), "")?;
        }
        disk::replace(&file(prefix), &serde_json::to_vec_pretty(self)?, FILE_MODE).map(drop)
    }

    /// The record of the environment at `prefix`, if it is whole and can still be used.
    pub(super) fn read(prefix: &Path) -> Option<Self> {
        Self::read_any(prefix).filter(|record| is_usable(&record.environment))
    }

    /// The record of the environment at `prefix`, even if it cannot be used any more.
    pub(super) fn read_any(prefix: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&std::fs::read(file(prefix)).ok()?).ok()?;
        (record.environment.prefix == prefix).then_some(record)
    }

    /// As an environment that entered its pool then.
    pub(super) fn into_ready(self, since: Instant) -> Ready {
        let Self { environment, packages, settings, optimized, template_key } = self;
        Ready { environment, packages, settings, optimized, template_key, since }
    }

    /// Makes the environment one that is not found again, before it is changed or given away for good.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn forget(prefix: &Path) -> io::Result<()> {
        remove_if_there(&file(prefix))
    }
}

/// Takes out of a copy what was written into the original about itself: until it has a record of its own it is no
/// environment.
///
/// # Errors
/// Those of the file system.
pub(super) fn strip(prefix: &Path) -> io::Result<()> {
    let ours = [RECORD_FILE, LEASE_FILE, READY_FILE, WARMED_FILE, PACKAGES_FILE, LAST_USED_FILE];
    ours.iter().try_for_each(|name| remove_if_there(&prefix.join(name)))
}

/// Whether interpreter and readiness marker are there.
pub(super) fn is_usable(environment: &Environment) -> bool {
    environment.python.exists()
        && (environment.prefix.join(READY_FILE).exists() || environment.prefix.join(WARMED_FILE).exists())
}

/// Notes that `owner` has taken the environment at `prefix`.
///
/// # Errors
/// Those of the file system.
pub(super) fn lease(prefix: &Path, owner: &str) -> io::Result<()> {
    let lease = LeaseRecord { owner: owner.to_owned(), taken_at: jiff::Timestamp::now().to_string() };
    disk::replace(&prefix.join(LEASE_FILE), &serde_json::to_vec(&lease)?, FILE_MODE).map(drop)
}

/// Whether somebody has taken the environment at `prefix`.
pub(super) fn is_leased(prefix: &Path) -> bool {
    prefix.join(LEASE_FILE).exists()
}

/// Who has taken the environment at `prefix`.
pub(super) fn leased_by(prefix: &Path) -> Option<String> {
    let lease = std::fs::read(prefix.join(LEASE_FILE)).ok()?;
    serde_json::from_slice::<LeaseRecord>(&lease).ok().map(|lease| lease.owner)
}

/// Whether it is `owner` who has taken the environment at `prefix`.
pub(super) fn is_leased_to(prefix: &Path, owner: &str) -> bool {
    leased_by(prefix).as_deref() == Some(owner)
}

/// Notes that nobody has the environment at `prefix` any more.
///
/// # Errors
/// Those of the file system.
pub(super) fn end_lease(prefix: &Path) -> io::Result<()> {
    remove_if_there(&prefix.join(LEASE_FILE))
}

/// Notes that the environment was used now.
///
/// # Errors
/// Those of the file system.
pub(super) fn touch(prefix: &Path) -> io::Result<()> {
    std::fs::write(prefix.join(LAST_USED_FILE), jiff::Timestamp::now().as_second().to_string())
}

/// The folders of pooled environments of `kind` in `envs`.
pub(super) fn pooled(envs: &Path, kind: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(envs).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| is_pooled(name, kind)));
    ours.map(|entry| entry.path()).collect()
}

/// Whether `name` is that of a folder of a pooled environment of `kind`.
pub(super) fn is_pooled(name: &str, kind: &str) -> bool {
    // What follows the kind's name may also be the rest of another kind's.
    name.strip_prefix(&pool_folder(kind)).is_some_and(|id| uuid::Uuid::try_parse(id).is_ok())
}

/// What the folder names of pooled environments of `kind` start with.
pub(super) fn pool_folder(kind: &str) -> String {
    format!("{POOL_START}{kind}-")
}

/// Where the environment at `prefix` is recorded.
pub(super) fn file(prefix: &Path) -> PathBuf {
    prefix.join(RECORD_FILE)
}

/// Whether it is, be it usable or not.
pub(super) fn is_recorded(prefix: &Path) -> bool {
    file(prefix).exists()
}

/// When the environment says that it was used last, in Unix seconds.
pub(super) fn touched(prefix: &Path) -> Option<i64> {
    std::fs::read_to_string(prefix.join(LAST_USED_FILE)).ok()?.trim().parse().ok()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_again_until_it_is_forgotten_or_the_interpreter_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let id = "00000000-0000-4000-8000-000000000001";
        let prefix = dir.path().join(format!("runtimed-uv-{id}"));
        std::fs::create_dir(dir.path().join(format!("runtimed-uv-nightly-{id}"))).unwrap();
        std::fs::create_dir_all(prefix.join("bin")).unwrap();
        let python = prefix.join("bin/python");
        std::fs::write(&python, "").unwrap();
        let environment = Environment {
            kind: "uv".into(),
            prefix: prefix.clone(),
            python: python.clone(),
            python_version: Some("3.13.1".into()),
            packages: vec!["ipykernel".into()],
            extra: serde_json::Map::new(),
        };
        assert_eq!(Record::read(&prefix), None);
        let record = Record::of(environment, vec!["ipykernel".into()]);
        record.write().unwrap();
        assert_eq!(Record::read(&prefix), Some(record));
        assert_eq!(pooled(dir.path(), "uv"), std::slice::from_ref(&prefix));
        assert!(pooled(dir.path(), "conda").is_empty());

        lease(&prefix, "room").unwrap();
        assert!(is_leased(&prefix) && is_leased_to(&prefix, "room") && !is_leased_to(&prefix, "client"));
        end_lease(&prefix).unwrap();
        end_lease(&prefix).unwrap();
        assert!(!is_leased(&prefix));

        std::fs::remove_file(python).unwrap();
        assert_eq!(Record::read(&prefix), None);
        Record::forget(&prefix).unwrap();
        Record::forget(&prefix).unwrap();
    }
}
