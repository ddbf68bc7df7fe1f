//! Kernels by their connection files, and by what people call them.
//!
//! Promises: a name is a kernel's id, the beginning of one that no other begins with, or a path.

use std::path::{Path, PathBuf};

use anyhow::bail;
use runtimed_kernelspecs::Surroundings;

/// Before the id in the names of our files.
pub(crate) const OURS: &str = "runt-kernel-";
/// Before the id in the names of jupyter_client's.
const JUPYTER: &str = "kernel-";

/// A connection file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    /// The file's name without what is before and behind the id.
    pub(crate) id: String,
    /// Whether `runt` made it.
    pub(crate) ours: bool,
    pub(crate) path: PathBuf,
}

impl Found {
    fn new(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
        let (id, ours) = match name.strip_prefix(OURS) {
            Some(id) => (id, true),
            None => (name.strip_prefix(JUPYTER)?, false),
        };
        Some(Self { id: id.to_owned(), ours, path: path.to_owned() })
    }

    /// The id as it fits into a table: of a UUID the first part.
    pub(crate) fn short(&self) -> &str {
        let is_uuid = uuid::Uuid::try_parse(&self.id).is_ok();
        self.id.get(..8).filter(|_| is_uuid).unwrap_or(&self.id)
    }
}

/// Every connection file in the folders where Jupyter keeps them, by id.
pub(crate) fn all() -> Vec<Found> {
    let mut found: Vec<Found> = Surroundings::current()
        .runtime_dirs()
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().filter_map(|entry| Found::new(&entry.path())))
        .collect();
    found.sort();
    found
}

/// The kernel that `name` means.
///
/// # Errors
/// When there is none, or more than one.
pub(crate) fn by_name(name: &str) -> anyhow::Result<Found> {
    match maybe_by_name(name)? {
        Some(found) => Ok(found),
        None => bail!("There is no kernel {name}. See what there is with 'runt ps'."),
    }
}

/// The same; none if there is none.
///
/// # Errors
/// When there is more than one.
pub(crate) fn maybe_by_name(name: &str) -> anyhow::Result<Option<Found>> {
    let path = Path::new(name);
    if path.extension().is_some_and(|extension| extension == "json") && path.is_file() {
        let path = path.canonicalize()?;
        let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(Some(Found::new(&path).unwrap_or(Found { id, ours: false, path })));
    }
    among(all(), name)
}

fn among(all: Vec<Found>, name: &str) -> anyhow::Result<Option<Found>> {
    let name = name.strip_suffix(".json").unwrap_or(name);
    let name = name.strip_prefix(OURS).or(name.strip_prefix(JUPYTER)).unwrap_or(name);
    if let Some(exact) = all.iter().find(|found| found.id == name) {
        return Ok(Some(exact.clone()));
    }
    let mut begin: Vec<Found> =
        all.into_iter().filter(|found| !name.is_empty() && found.id.starts_with(name)).collect();
    if begin.len() > 1 {
        let ids: Vec<&str> = begin.iter().map(|found| found.id.as_str()).collect();
        bail!("{name} could be any of {}. Say more of it.", ids.join(", "));
    }
    Ok(begin.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_id_by_the_beginning_of_it_and_by_its_file() {
        let names = [
            "/r/runt-kernel-brave-otter.json",
            "/r/runt-kernel-brave-owl.json",
            "/r/kernel-0b0e1c5e-7f3a-4f0e-9d55-1f5f5d0c6a01.json",
            "/r/jpserver-1.json",
        ];
        let all: Vec<Found> = names.iter().filter_map(|name| Found::new(Path::new(name))).collect();
        let id = |name| among(all.clone(), name).unwrap().map(|found| found.id);
        let uuid = Some("0b0e1c5e-7f3a-4f0e-9d55-1f5f5d0c6a01".to_owned());
        assert_eq!(id("brave-otter"), Some("brave-otter".to_owned()));
        assert_eq!(id("brave-ot"), Some("brave-otter".to_owned()));
        assert_eq!(id("kernel-0b0e1c5e-7f3a-4f0e-9d55-1f5f5d0c6a01.json"), uuid);
        assert_eq!(id("0b0e"), uuid);
        assert_eq!((id(""), id("jpserver-1"), id("x")), (None, None, None));
        let error = among(all.clone(), "brave").unwrap_err().to_string();
        assert_eq!(error, "brave could be any of brave-otter, brave-owl. Say more of it.");
        assert_eq!((all[0].short(), all[2].short()), ("brave-otter", "0b0e1c5e"));
    }
}
