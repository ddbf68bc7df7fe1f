//! Where environments with a name lie that conda's own tools made.
//!
//! Promises: only looks; nothing is written.

use std::path::{Path, PathBuf};

use crate::surroundings::Surroundings;

/// Folders of environments below the home folder that installers of conda make.
const HOME_DIRS: [&str; 5] =
    ["miniconda3/envs", "anaconda3/envs", "miniforge3/envs", ".conda/envs", ".local/share/mamba/envs"];
/// A list of all environments that conda has made, one a line, below the home folder.
const KNOWN: &str = ".conda/environments.txt";
/// Where a new one goes if there is no folder for it yet, below the home folder.
const NEW: &str = ".conda/envs";

/// The interpreter in an environment.
pub(crate) fn interpreter(prefix: &Path) -> PathBuf {
    prefix.join("bin/python")
}

/// The environment that somebody made with the name `name`.
pub(crate) fn named(name: &str, surroundings: &Surroundings) -> Option<PathBuf> {
    let candidates = folders(surroundings).into_iter().map(|folder| folder.join(name));
    candidates.into_iter().find(|prefix| interpreter(prefix).exists())
}

/// Where an environment with the name `name` goes that nobody has made yet; none without a home folder.
pub(crate) fn new(name: &str, surroundings: &Surroundings) -> Option<PathBuf> {
    let there = folders(surroundings).into_iter().find(|folder| std::fs::read_dir(folder).is_ok());
    let folder = there.or_else(|| surroundings.home.as_ref().map(|home| home.join(NEW)))?;
    Some(folder.join(name))
}

/// Folders that hold environments, in the order in which they are looked through.
fn folders(surroundings: &Surroundings) -> Vec<PathBuf> {
    let mut folders = surroundings.envs_dirs.clone();
    let roots = surroundings.conda_prefix.iter().chain(&surroundings.mamba_root);
    folders.extend(roots.map(|root| root.join("envs")));
    if let Some(home) = &surroundings.home {
        folders.extend(HOME_DIRS.iter().map(|folder| home.join(folder)));
        let known = std::fs::read_to_string(home.join(KNOWN)).unwrap_or_default();
        folders.extend(known.lines().filter_map(|line| Path::new(line.trim()).parent().map(Path::to_owned)));
    }
    folders.retain(|folder| folder.is_absolute());
    folders
}

/// Version of the Python in an environment, as its records have it.
pub(crate) fn python_version(prefix: &Path) -> Option<String> {
    let entries = std::fs::read_dir(prefix.join("conda-meta")).ok()?.flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).find_map(|file| {
        let record = file.strip_suffix(".json")?.strip_prefix("python-")?;
        // Other packages' names begin so, too, but a version begins with a digit.
        let (version, _build) = record.rsplit_once('-')?;
        version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_are_found_where_conda_puts_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let make = |path: &str| {
            std::fs::create_dir_all(at(path).join("bin")).unwrap();
            std::fs::write(interpreter(&at(path)), "").unwrap();
        };
        let surroundings = Surroundings {
            home: Some(at("home")),
            envs_dirs: vec![at("envs")],
            mamba_root: Some(at("mamba")),
            ..Surroundings::default()
        };
        assert_eq!(named("lab", &surroundings), None);
        assert_eq!(new("lab", &surroundings), Some(at("home/.conda/envs/lab")));
        make("elsewhere/lab");
        std::fs::create_dir_all(at("home/.conda")).unwrap();
        let list = format!("{}\n", at("elsewhere/other").display());
        std::fs::write(at("home/.conda/environments.txt"), list).unwrap();
        assert_eq!(named("lab", &surroundings), Some(at("elsewhere/lab")));
        make("home/miniforge3/envs/lab");
        assert_eq!(named("lab", &surroundings), Some(at("home/miniforge3/envs/lab")));
        make("mamba/envs/lab");
        assert_eq!(named("lab", &surroundings), Some(at("mamba/envs/lab")));
        assert_eq!(new("other", &surroundings), Some(at("mamba/envs/other")));
        make("envs/lab");
        assert_eq!(named("lab", &surroundings), Some(at("envs/lab")));
    }

    #[test]
    fn a_pythons_version_is_in_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let records = folder.path().join("conda-meta");
        assert_eq!(python_version(folder.path()), None);
        std::fs::create_dir(&records).unwrap();
        for record in ["python-gil-3.13.0-0.json", "python-dateutil-2.9-0.json", "history"] {
            std::fs::write(records.join(record), "").unwrap();
        }
        assert_eq!(python_version(folder.path()), None);
        std::fs::write(records.join("python-3.13.1-h1_0_cp313.json"), "").unwrap();
        assert_eq!(python_version(folder.path()).as_deref(), Some("3.13.1"));
    }
}
