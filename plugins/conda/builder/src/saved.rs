//! The solve that an environment was made from, in a file of its own.
//!
//! For: making it again without asking a channel, and telling whether it is still whole.
//! Promises: a file that is missing or unreadable is no error, only no help.

use std::path::Path;

use rattler_conda_types::RepoDataRecord;
use serde::{Deserialize, Serialize};

/// Its name in the environment. Source: the wire contract.
pub const SAVED_SOLVE: &str = ".lock.json";

/// The format we write and read.
const VERSION: u32 = 1;

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedSolve {
    version: u32,
    platform: String,
    specs: Vec<String>,
    channels: Vec<String>,
    pub(crate) packages: Vec<RepoDataRecord>,
}

impl SavedSolve {
    pub(crate) fn new(
        platform: &str,
        specs: &[String],
        channels: &[String],
        packages: Vec<RepoDataRecord>,
    ) -> Self {
        let (specs, channels) = (specs.to_vec(), channels.to_vec());
        Self { version: VERSION, platform: platform.to_owned(), specs, channels, packages }
    }

    /// The solve in `file`, if it answers the same question.
    pub(crate) fn read(file: &Path, platform: &str, specs: &[String], channels: &[String]) -> Option<Self> {
        let saved: Self = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        let same = saved.version == VERSION
            && saved.platform == platform
            && folded(&saved.specs) == folded(specs)
            && folded(&saved.channels) == folded(channels);
        same.then_some(saved)
    }

    /// Puts it into the environment at `prefix`.
    pub(crate) fn write(&self, prefix: &Path) {
        // Without it the environment is solved again one day.
        if let Ok(text) = serde_json::to_vec(self) {
            let _ = std::fs::write(prefix.join(SAVED_SOLVE), text);
        }
    }
}

/// Sorted and without a difference between upper and lower case.
fn folded(list: &[String]) -> Vec<String> {
    let mut list: Vec<String> = list.iter().map(|item| item.to_lowercase()).collect();
    list.sort();
    list
}

/// The part of the file that says which packages there are.
#[derive(Debug, Deserialize)]
pub struct SavedNames {
    packages: Vec<Name>,
}

#[derive(Debug, Deserialize)]
struct Name {
    name: String,
    version: String,
    build: String,
}

impl SavedNames {
    /// Of the environment at `prefix`; none if it has no such file.
    pub fn read(prefix: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(prefix.join(SAVED_SOLVE)).ok()?).ok()
    }

    /// Names of the files in `conda-meta` that have to be there.
    pub fn records(&self) -> impl Iterator<Item = String> {
        self.packages.iter().map(|Name { name, version, build }| format!("{name}-{version}-{build}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solve_answers_the_same_question_in_any_order() {
        let folder = std::env::temp_dir().join(format!("runtimed-saved-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let saved = SavedSolve::new("linux-64", &list(&["six", "Python >=3.13"]), &list(&["a"]), Vec::new());
        saved.write(&folder);
        let file = folder.join(SAVED_SOLVE);
        let read = |platform, specs: &[&str], channels: &[&str]| {
            SavedSolve::read(&file, platform, &list(specs), &list(channels))
        };
        assert_eq!(read("linux-64", &["python >=3.13", "six"], &["A"]), Some(saved));
        assert_eq!(read("osx-64", &["python >=3.13", "six"], &["a"]), None);
        assert_eq!(read("linux-64", &["python >=3.13"], &["a"]), None);
        assert_eq!(read("linux-64", &["python >=3.13", "six"], &["b"]), None);
        assert_eq!(SavedNames::read(&folder).unwrap().records().count(), 0);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
