//! Environments that notebooks keep.
//!
//! For: a notebook that is opened again and gets the environment it had.
//! Promises: the note lies in the environment and goes with it; prefixes never move and notebooks are not written to;
//! a copy of a notebook does not get the environment of the original.
//! Blocks: call it from the blocking pool.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use runtimed_plugin_api::EnvNeed;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::forsaken;
use super::labels::{declares, says, section, strings};
use super::record::{self, Record};
use crate::disk;

/// The note.
const FILE: &str = "captured.json";
/// What an environment was that is being made anew, beside it.
const ASIDE: &str = "kept.json";
/// The option that says where packages come from.
const CHANNELS: &str = "channels";
/// Environments are the user's own.
const FILE_MODE: u32 = 0o600;

/// Whose an environment is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Captured {
    /// `runt.env_id` of the notebook, if it has one: it stays with the notebook when its file moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    env_id: Option<String>,
    /// The notebook's file.
    notebook: PathBuf,
    /// What the notebook declares that is in there.
    pub(super) packages: Vec<String>,
    /// What else it declares for it: a Python, channels, options.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    options: Map<String, Value>,
}

/// An environment that a notebook had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Whose it is.
    pub(super) captured: Captured,
    /// The environment and what it was built from; its interpreter may be gone.
    pub(super) record: Record,
}

impl Kept {
    /// What the notebook that keeps the environment at `prefix` has, or had before it was being made anew.
    fn read(prefix: &Path) -> Option<Self> {
        let there = || Some(Self { captured: Captured::read(prefix)?, record: Record::read_any(prefix)? });
        there().or_else(|| serde_json::from_slice(&std::fs::read(aside(prefix)).ok()?).ok())
    }

    /// Notes beside the environment what it is, before it is deleted to be made anew: whoever tries again knows.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn put_aside(&self) -> io::Result<()> {
        let file = aside(&self.record.environment.prefix);
        disk::replace(&file, &serde_json::to_vec_pretty(self)?, FILE_MODE).map(drop)
    }

    /// The environment has been made anew.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn put_back(&self) -> io::Result<()> {
        let prefix = &self.record.environment.prefix;
        self.captured.write(prefix)?;
        remove_if_there(&aside(prefix))
    }
}

impl Captured {
    /// The note for the notebook of `need`, which has `packages` in its environment of `kind`. None without a file: it
    /// cannot be opened again.
    pub(super) fn by(need: &EnvNeed, kind: &str, packages: Vec<String>) -> Option<Self> {
        let notebook = need.notebook_path.clone()?;
        Some(Self { env_id: env_id(need), notebook, packages, options: options(need, kind) })
    }

    /// Puts the note into the environment at `prefix`.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write(&self, prefix: &Path) -> io::Result<()> {
        forsaken::found(prefix)?;
        disk::replace(&prefix.join(FILE), &serde_json::to_vec_pretty(self)?, FILE_MODE).map(drop)
    }

    /// The note, now that other packages are in there: another Python or other options than `before` are not, whatever is
    /// declared by now. Channels are where the packages come from.
    pub(super) fn after(mut self, before: Option<&Self>) -> Self {
        if let Some(before) = before {
            self.options.retain(|name, _| name == CHANNELS);
            let others = before.options.iter().filter(|(name, _)| *name != CHANNELS);
            self.options.extend(others.map(|(name, value)| (name.clone(), value.clone())));
        }
        self
    }

    /// The file of the notebook that keeps the environment at `prefix`, or kept it before it was being made anew.
    pub(super) fn notebook_of(prefix: &Path) -> Option<PathBuf> {
        let kept = || Kept::read(prefix).map(|kept| kept.captured);
        Some(Self::read(prefix).or_else(kept)?.notebook)
    }

    /// The note in the environment at `prefix`.
    pub(super) fn read(prefix: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(prefix.join(FILE)).ok()?).ok()
    }

    /// Whether the notebook of `need` is the one, and declares what is in there for `kind` and nothing for another.
    fn is_of(&self, need: &EnvNeed, kind: &str) -> bool {
        let Some(path) = &need.notebook_path else { return false };
        let env_id = env_id(need);
        let same_id = env_id.is_some() && env_id == self.env_id;
        let same_file = *path == self.notebook && (env_id.is_none() || self.env_id.is_none());
        // The original of a copy is still where it was.
        let is_it = same_file || same_id && (*path == self.notebook || !self.notebook.exists());
        let declared = section(&need.metadata, kind).map(|section| strings(section, "dependencies"));
        let declared: BTreeSet<String> = declared.into_iter().flatten().collect();
        let same = declared == self.packages.iter().cloned().collect() && self.options == options(need, kind);
        is_it && same && (!declared.is_empty() || need.script_blocks.is_empty())
    }
}

/// Whether a notebook keeps the environment at `prefix`.
pub(super) fn is_captured(prefix: &Path) -> bool {
    // One that cannot be read just now is no less the notebook's.
    prefix.join(FILE).exists() || aside(prefix).exists()
}

/// Lets go of the environment at `prefix`, which is about to be deleted.
///
/// # Errors
/// Those of the file system.
pub(super) fn forget(prefix: &Path) -> io::Result<()> {
    remove_if_there(&aside(prefix))?;
    remove_if_there(&prefix.join(FILE))
}

/// The environment in `envs` that the notebook of `need` had, of the first of `kinds` that there is one of. One that
/// somebody else has at the moment is not found.
pub(super) fn find(envs: &Path, kinds: &[String], need: &EnvNeed) -> Option<Kept> {
    kinds.iter().find_map(|kind| {
        if kinds.iter().any(|other| other != kind && declares(&need.metadata, other)) {
            return None;
        }
        prefixes(envs, kind).into_iter().find_map(|prefix| {
            let kept = Kept::read(&prefix).filter(|kept| kept.captured.is_of(need, kind))?;
            let free = !record::is_leased(&prefix) || record::is_leased_to(&prefix, &need.room);
            free.then_some(kept)
        })
    })
}

/// Prefixes of `kind` in `envs`, those among them that are being made anew and not there.
fn prefixes(envs: &Path, kind: &str) -> BTreeSet<PathBuf> {
    let names = std::fs::read_dir(envs).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let names = names.map(|name| match name.strip_suffix(ASIDE).and_then(|name| name.strip_suffix('.')) {
        Some(name) => name.to_owned(),
        None => name,
    });
    names.filter(|name| record::is_pooled(name, kind)).map(|name| envs.join(name)).collect()
}

/// Where it is noted what the environment at `prefix` was.
fn aside(prefix: &Path) -> PathBuf {
    prefix.with_extension(ASIDE)
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the section of `kind` says beside packages.
fn options(need: &EnvNeed, kind: &str) -> Map<String, Value> {
    let section = section(&need.metadata, kind).into_iter().flatten();
    section
        .filter(|(name, value)| *name != "dependencies" && says(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn env_id(need: &EnvNeed) -> Option<String> {
    need.metadata.pointer("/runt/env_id").and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtimed_plugin_api::Environment;
    use serde_json::json;

    fn need(path: &Path, env_id: Option<&str>, packages: &[&str]) -> EnvNeed {
        EnvNeed {
            room: "room".to_owned(),
            metadata: json!({"runt": {"env_id": env_id, "uv": {"dependencies": packages}}}),
            notebook_path: Some(path.to_owned()),
            ..EnvNeed::default()
        }
    }

    #[test]
    fn a_notebook_finds_what_it_had_and_a_copy_of_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (envs, original) = (dir.path().join("envs"), dir.path().join("a.ipynb"));
        let prefix = envs.join("runtimed-uv-00000000-0000-4000-8000-000000000001");
        std::fs::create_dir_all(&prefix).unwrap();
        let environment = Environment::at(&prefix, "uv", Vec::new());
        Record::of(environment, Vec::new()).write().unwrap();
        std::fs::write(&original, "").unwrap();
        let found = |need: &EnvNeed| find(&envs, &["uv".to_owned()], need).is_some();
        let mine = need(&original, Some("id"), &["six"]);
        assert!(!found(&mine) && !is_captured(&prefix));
        Captured::by(&mine, "uv", vec!["six".to_owned()]).unwrap().write(&prefix).unwrap();

        assert!(found(&mine) && is_captured(&prefix));
        assert!(!found(&need(&original, Some("id"), &[])), "it declares something else by now");
        let mut python = mine.clone();
        python.metadata["runt"]["uv"]["requires-python"] = "3.12".into();
        assert!(!found(&python));
        assert!(!found(&need(&original, Some("other"), &["six"])), "another notebook at the same place");
        assert!(find(&envs, &["conda".to_owned()], &mine).is_none());
        let copy = need(&dir.path().join("b.ipynb"), Some("id"), &["six"]);
        assert!(!found(&copy));
        std::fs::remove_file(&original).unwrap();
        assert!(found(&copy), "it has moved");
        record::lease(&prefix, "another room").unwrap();
        assert!(!found(&copy));

        assert_eq!(Captured::by(&EnvNeed { notebook_path: None, ..mine }, "uv", Vec::new()), None);
    }

    #[test]
    fn a_notebook_without_an_id_is_known_by_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.ipynb");
        let (bare, named) = (need(&path, None, &[]), need(&path, Some("id"), &[]));
        let captured = Captured::by(&bare, "uv", Vec::new()).unwrap();
        assert!(captured.is_of(&bare, "uv") && captured.is_of(&named, "uv"));
        assert!(!captured.is_of(&need(&dir.path().join("b.ipynb"), None, &[]), "uv"));
        let block = runtimed_plugin_api::ScriptBlock { cell: 1, text: String::new() };
        assert!(!captured.is_of(&EnvNeed { script_blocks: vec![block], ..bare }, "uv"));
    }
}
