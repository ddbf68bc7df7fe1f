//! The folders Jupyter keeps its files in, as `jupyter --paths` has them.
//!
//! Promises: `JUPYTER_PATH`, then the user's folders and those of the Python on `PATH` (the latter first in a virtual
//! environment), then the system's; no folder twice.
//! Never: runs Python. A launcher that is no program of a Python (pyenv's, say) is not looked behind.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders every user shares (jupyter_core, `SYSTEM_JUPYTER_PATH`).
const SYSTEM: [&str; 2] = ["/usr/local/share/jupyter", "/usr/share/jupyter"];
/// Where data is in the prefix of a Python.
const SHARE: &str = "share/jupyter";
/// What the environment variable of a switch says when it is off (jupyter_core, `envset`).
const OFF: [&str; 6] = ["no", "n", "false", "off", "0", "0.0"];

/// What decides where Jupyter's folders are.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Environment variables.
    pub variables: BTreeMap<OsString, OsString>,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// Whether data is kept where macOS keeps it.
    pub macos: bool,
    /// Folders every user shares, in order.
    pub system: Vec<PathBuf>,
}

/// Where a Python is installed.
pub(crate) struct Prefix {
    pub(crate) folder: PathBuf,
    /// Whether it is a virtual environment.
    virtual_environment: bool,
}

impl Surroundings {
    /// Those of this process.
    pub fn current() -> Self {
        Self::new(std::env::vars_os(), std::env::home_dir())
    }

    /// Those of a process with these variables, on this system.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>, home: Option<PathBuf>) -> Self {
        let system = SYSTEM.map(PathBuf::from).to_vec();
        Self { variables: variables.into_iter().collect(), home, macos: cfg!(target_os = "macos"), system }
    }

    /// Where this user's data is: kernelspecs in `kernels`, for one. None without a home.
    pub fn data_dir(&self) -> Option<PathBuf> {
        let of_home = |folder: &str| self.home.as_ref().map(|home| home.join(folder));
        self.path("JUPYTER_DATA_DIR").or_else(|| {
            if self.macos {
                return of_home("Library/Jupyter");
            }
            let shared = self.path("XDG_DATA_HOME").or_else(|| of_home(".local/share"));
            shared.map(|folder| folder.join("jupyter"))
        })
    }

    /// Where connection files of kernels are written. None without a home.
    pub fn runtime_dir(&self) -> Option<PathBuf> {
        self.runtime_dirs().into_iter().next()
    }

    /// Where connection files may lie: that of [`Surroundings::runtime_dir`] first, then where other programs write
    /// them (jupyter_core does without `XDG_RUNTIME_DIR`).
    pub fn runtime_dirs(&self) -> Vec<PathBuf> {
        let xdg = self.path("XDG_RUNTIME_DIR").map(|folder| folder.join("jupyter"));
        let data = self.data_dir().map(|folder| folder.join("runtime"));
        match self.path("JUPYTER_RUNTIME_DIR") {
            Some(said) => vec![said],
            None => unique(xdg.into_iter().chain(data)),
        }
    }

    /// Every folder for data that is shared, in order of precedence. They need not exist.
    pub fn data_dirs(&self) -> Vec<PathBuf> {
        let said = self.variable("JUPYTER_PATH").filter(|it| !it.is_empty());
        let said = said.into_iter().flat_map(std::env::split_paths);
        let local = self.home.as_ref().map(|home| home.join(".local"));
        let packages = self.path("PYTHONUSERBASE").or(local).map(|base| base.join(SHARE));
        let mut own: Vec<PathBuf> = self.data_dir().into_iter().chain(packages).collect();
        if let Some(prefix) = self.python() {
            let folder = prefix.folder.join(SHARE);
            if self.prefers_environment(&prefix) {
                own.insert(0, folder);
            } else if !self.system.contains(&folder) {
                own.push(folder);
            }
        }
        let all = said.chain(own).chain(self.system.iter().cloned());
        unique(all.filter(|folder| folder.is_absolute()))
    }

    /// Prefix of the Python that is first on `PATH`: what `sys.prefix` is there.
    pub(crate) fn python(&self) -> Option<Prefix> {
        let path = self.variable("PATH")?;
        std::env::split_paths(path).filter(|folder| folder.is_absolute()).find_map(|folder| {
            let name = ["python3", "python"].into_iter().find(|name| is_program(&folder.join(name)))?;
            if let Some(above) = folder.parent()
                && above.join("pyvenv.cfg").is_file()
            {
                return Some(Prefix { folder: above.to_owned(), virtual_environment: true });
            }
            let real = fs::canonicalize(folder.join(name)).ok()?;
            let prefix = real.parent().filter(|bin| bin.ends_with("bin"))?.parent()?;
            Some(Prefix { folder: prefix.to_owned(), virtual_environment: false })
        })
    }

    /// Whether an environment's kernels come before the user's.
    fn prefers_environment(&self, prefix: &Prefix) -> bool {
        if let Some(said) = self.text("JUPYTER_PREFER_ENV_PATH") {
            return !OFF.contains(&said.to_lowercase().as_str());
        }
        let named = self.text("CONDA_DEFAULT_ENV").is_some_and(|name| name != "base");
        let conda = self.path("CONDA_PREFIX").is_some_and(|folder| prefix.folder.starts_with(folder));
        prefix.virtual_environment || (conda && named)
    }

    /// The variable called `name`.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The variable called `name`, where it is text.
    fn text(&self, name: &str) -> Option<&str> {
        self.variable(name).and_then(OsStr::to_str)
    }

    /// The absolute path in the variable called `name`.
    fn path(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }
}

/// Whether `path` is a file that is no script.
fn is_program(path: &Path) -> bool {
    let Ok(mut file) = fs::File::open(path) else { return false };
    let mut start = [0; 2];
    path.is_file() && std::io::Read::read_exact(&mut file, &mut start).is_ok() && start != *b"#!"
}

fn unique(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    for path in paths {
        // Without a slash at the end, `.` and the like.
        let path: PathBuf = path.components().collect();
        if !seen.contains(&path) {
            seen.push(path);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Surroundings { macos: false, ..Surroundings::new(variables, Some("/h".into())) }
    }

    fn shown(paths: &[PathBuf]) -> Vec<&str> {
        paths.iter().map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn without_variables_there_are_the_users_and_the_systems() {
        let here = surroundings(&[]);
        let dirs = ["/h/.local/share/jupyter", "/usr/local/share/jupyter", "/usr/share/jupyter"];
        assert_eq!(shown(&here.data_dirs()), dirs);
        assert_eq!(shown(&here.runtime_dirs()), ["/h/.local/share/jupyter/runtime"]);
        let mac = Surroundings { macos: true, ..here };
        assert_eq!(mac.data_dir(), Some("/h/Library/Jupyter".into()));
        let nobody = Surroundings { home: None, ..mac };
        assert_eq!(shown(&nobody.data_dirs()), dirs[1..]);
        assert_eq!(nobody.runtime_dir(), None);
    }

    #[test]
    fn variables_move_the_folders() {
        let here = surroundings(&[
            ("JUPYTER_PATH", "/a/:/b::relative"),
            ("JUPYTER_DATA_DIR", "/d"),
            ("XDG_RUNTIME_DIR", "/run/1"),
            ("PYTHONUSERBASE", "/u"),
        ]);
        let dirs = ["/a", "/b", "/d", "/u/share/jupyter", "/usr/local/share/jupyter", "/usr/share/jupyter"];
        assert_eq!(shown(&here.data_dirs()), dirs);
        assert_eq!(shown(&here.runtime_dirs()), ["/run/1/jupyter", "/d/runtime"]);
        let here = surroundings(&[("JUPYTER_RUNTIME_DIR", "/r"), ("XDG_DATA_HOME", "/x")]);
        assert_eq!(shown(&here.runtime_dirs()), ["/r"]);
        assert_eq!(here.data_dir(), Some("/x/jupyter".into()));
    }

    #[test]
    fn the_python_on_the_path_brings_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let make = |name: &str, content: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        make("real/bin/python3.12", "\x7fELF");
        make("shims/python3", "#!/bin/sh\n");
        make("venv/pyvenv.cfg", "");
        fs::create_dir_all(root.join("venv/bin")).unwrap();
        fs::create_dir_all(root.join("links")).unwrap();
        std::os::unix::fs::symlink(root.join("real/bin/python3.12"), root.join("venv/bin/python")).unwrap();
        std::os::unix::fs::symlink(root.join("real/bin/python3.12"), root.join("links/python3")).unwrap();
        let dirs = |folders: &[&str], more: &[(&str, &str)]| {
            let path = std::env::join_paths(folders.iter().map(|it| root.join(it))).unwrap();
            let mut variables = vec![("PATH", path.to_str().unwrap())];
            variables.extend(more);
            let dirs = surroundings(&variables).data_dirs();
            shown(&dirs).into_iter().map(|it| it.replace(root.to_str().unwrap(), "")).collect::<Vec<_>>()
        };
        let user = "/h/.local/share/jupyter";
        // A script is passed over, a link is followed.
        assert_eq!(dirs(&["shims", "links"], &[])[..2], [user, "/real/share/jupyter"]);
        assert_eq!(dirs(&["venv/bin"], &[])[..2], ["/venv/share/jupyter", user]);
        let no = ("JUPYTER_PREFER_ENV_PATH", "No");
        assert_eq!(dirs(&["venv/bin"], &[no])[..2], [user, "/venv/share/jupyter"]);
        let conda = [("CONDA_PREFIX", "/"), ("CONDA_DEFAULT_ENV", "work")];
        assert_eq!(dirs(&["links"], &conda)[..2], ["/real/share/jupyter", user]);
    }
}
