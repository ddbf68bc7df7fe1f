//! Templates: environments that nobody gets, and that fresh ones are copies of.
//!
//! For: keepers.
//! Promises: the record lies beside the folder, so that no copy is ever taken for a whole environment because of it, and is
//! written last; a template that was changed in any place but its byte code is told apart from one that is intact.
//! Blocks: call it from the blocking pool.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtimed_plugin_api::{EnvPlan, Environment, cache_key};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::record;
use crate::disk;

/// What the folder names of all templates start with.
pub(super) const START: &str = "template-";
/// Templates are the user's own, as environments are.
const FILE_MODE: u32 = 0o600;

/// An environment that fresh ones are copies of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Template {
    /// The environment. Nobody runs in it.
    pub environment: Environment,
    /// What it is a template for; see [`key`].
    pub key: String,
    /// Whether it is as fast as it will get.
    pub optimized: bool,
    /// Unix time at which its packages were chosen.
    built: i64,
    /// The interpreter behind all links when it was made.
    interpreter: PathBuf,
    /// What [`fingerprint`] said then.
    content: String,
}

/// What makes a template fit for `plan`: packages and Python, and which edition of the provider built it.
pub(super) fn key(plan: &EnvPlan, edition: &str) -> String {
    let mut packages = plan.request.packages.clone();
    packages.sort();
    cache_key(&json!([plan.key, packages, plan.request.python, edition]).to_string())
}

/// A folder for a template of `kind` in `envs`. As long as the names of pooled environments: the first lines of scripts,
/// which hold it, never become too long in a copy.
pub(super) fn folder(envs: &Path, kind: &str) -> PathBuf {
    envs.join(format!("{}{}", start(kind), uuid::Uuid::new_v4()))
}

fn start(kind: &str) -> String {
    format!("{START}{kind}-")
}

impl Template {
    /// Records a finished environment as a template.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn record(environment: Environment, key: String) -> io::Result<Self> {
        let template = Self {
            key,
            optimized: false,
            built: jiff::Timestamp::now().as_second(),
            interpreter: std::fs::canonicalize(&environment.python)?,
            content: fingerprint(&environment.prefix)?,
            environment,
        };
        template.write()?;
        Ok(template)
    }

    /// Writes it down again.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write(&self) -> io::Result<()> {
        let file = record_file(&self.environment.prefix);
        disk::replace(&file, &serde_json::to_vec_pretty(self)?, FILE_MODE).map(drop)
    }

    /// The newest template of `kind` in `envs`, and folders of others to delete.
    pub(super) fn find(envs: &Path, kind: &str) -> (Option<Self>, Vec<PathBuf>) {
        let mut newest: Option<Self> = None;
        let mut left_over = Vec::new();
        for entry in std::fs::read_dir(envs).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_prefix(&start(kind)));
            if id.is_none_or(|id| uuid::Uuid::try_parse(id).is_err()) {
                continue;
            }
            let found = Self::read(&entry.path()).filter(|template| template.environment.kind == kind);
            let (kept, gone) = match (newest.take(), found) {
                (Some(one), Some(other)) if one.built >= other.built => (Some(one), Some(other)),
                (one, Some(other)) => (Some(other), one),
                (one, None) => {
                    left_over.push(entry.path());
                    (one, None)
                }
            };
            newest = kept;
            left_over.extend(gone.map(|template| template.environment.prefix));
        }
        (newest, left_over)
    }

    fn read(prefix: &Path) -> Option<Self> {
        let template: Self = serde_json::from_slice(&std::fs::read(record_file(prefix)).ok()?).ok()?;
        // What has a record would hand it on to its copies, finished or not.
        (template.environment.prefix == prefix && !record::is_recorded(prefix)).then_some(template)
    }

    /// How long ago its packages were chosen. A clock that was set back makes it new, never older than it is.
    pub(super) fn age(&self) -> Duration {
        let seconds = jiff::Timestamp::now().as_second().saturating_sub(self.built);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    /// Whether it is still what was recorded.
    ///
    /// # Errors
    /// What happened to it, as a sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        let python = self.environment.python.display();
        match std::fs::canonicalize(&self.environment.python) {
            Ok(interpreter) if interpreter == self.interpreter => {}
            Ok(interpreter) => return Err(format!("its interpreter is `{}` now", interpreter.display())),
            Err(_) => return Err(format!("its interpreter `{python}` is gone")),
        }
        match fingerprint(&self.environment.prefix) {
            Ok(content) if content == self.content => Ok(()),
            Ok(_) => Err("files in it were changed".to_owned()),
            Err(error) => Err(format!("it cannot be read: {error}")),
        }
    }
}

/// Forgets the template in `prefix`, if it is one.
pub(super) fn forget(prefix: &Path) {
    // That it is none is the usual case.
    let _ = std::fs::remove_file(record_file(prefix));
}

/// Where a template is recorded.
pub(super) fn record_file(prefix: &Path) -> PathBuf {
    prefix.with_extension("json")
}

/// Changes when a file comes, goes, or is written to, in whatever place: copies share their blocks with the template, and
/// somebody may edit a package in place. Byte code is left out, which comes later and is checked by Python.
fn fingerprint(prefix: &Path) -> io::Result<String> {
    let mut sum = 0_u64;
    let mut folders = vec![prefix.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if entry.file_name() != "__pycache__" {
                    folders.push(path);
                }
            } else if kind.is_file() {
                let about = entry.metadata()?;
                let mut hash = Sha256::new();
                hash.update(path.strip_prefix(prefix).unwrap_or(&path).as_os_str().as_encoded_bytes());
                for number in [about.size().cast_signed(), about.mtime(), about.mtime_nsec()] {
                    hash.update(number.to_le_bytes());
                }
                let digest = hash.finalize();
                let first = digest.first_chunk().copied().unwrap_or_default();
                // In whatever order the folder names them.
                sum = sum.wrapping_add(u64::from_le_bytes(first));
            }
        }
    }
    Ok(format!("{sum:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(envs: &Path) -> Template {
        let prefix = folder(envs, "uv");
        std::fs::create_dir_all(prefix.join("lib/__pycache__")).unwrap();
        std::fs::write(prefix.join("python"), "").unwrap();
        std::fs::write(prefix.join("lib/module.py"), "1").unwrap();
        let environment =
            Environment { python: prefix.join("python"), ..Environment::at(&prefix, "uv", Vec::new()) };
        Template::record(environment, "key".to_owned()).unwrap()
    }

    #[test]
    fn the_newest_is_found_and_everything_else_goes() {
        let envs = tempfile::tempdir().unwrap();
        let (mut old, new) = (template(envs.path()), template(envs.path()));
        old.built -= 60;
        old.write().unwrap();
        let torn = folder(envs.path(), "uv");
        std::fs::create_dir(&torn).unwrap();
        let others = folder(envs.path(), "uv-nightly");
        std::fs::create_dir(&others).unwrap();
        let (found, mut gone) = Template::find(envs.path(), "uv");
        assert_eq!(found, Some(new.clone()));
        gone.sort();
        let mut expected = [old.environment.prefix, torn];
        expected.sort();
        assert_eq!(gone, expected);
        forget(&new.environment.prefix);
        assert_ne!(Template::find(envs.path(), "uv").0, Some(new));
    }

    #[test]
    fn a_change_is_seen_and_byte_code_is_none() {
        let envs = tempfile::tempdir().unwrap();
        let template = template(envs.path());
        let prefix = &template.environment.prefix;
        std::fs::write(prefix.join("lib/__pycache__/module.pyc"), "code").unwrap();
        assert_eq!(template.check(), Ok(()));
        std::fs::write(prefix.join("lib/module.py"), "22").unwrap();
        assert_eq!(template.check().unwrap_err(), "files in it were changed");
        std::fs::remove_file(prefix.join("python")).unwrap();
        assert!(template.check().unwrap_err().contains("is gone"));
        std::os::unix::fs::symlink("/bin/sh", prefix.join("python")).unwrap();
        assert!(template.check().unwrap_err().starts_with("its interpreter is `"));
    }

    #[test]
    fn a_clock_that_jumps_makes_it_old_or_new_and_nothing_else() {
        let envs = tempfile::tempdir().unwrap();
        let mut template = template(envs.path());
        template.built += 1_000_000;
        assert_eq!(template.age(), Duration::ZERO);
        template.built = i64::MIN;
        assert!(template.age() > Duration::from_secs(1_000_000));
    }
}
