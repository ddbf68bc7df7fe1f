//! Where the daemon listens, and where it keeps things.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Digits that tell the work trees of development daemons apart; daemons compute the same ones.
const WORKTREE_DIGITS: usize = 12;

/// Places of the daemon that this environment's user has; a daemon with options of its own may have others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Where it listens: `RUNTIMED_SOCKET_PATH`, or `runtimed.sock` in the base.
    pub socket: PathBuf,
    /// Its log, its caches and what it remembers: `runt` in the user's cache directory, or the part of it that belongs
    /// to a work tree.
    pub base: PathBuf,
    /// The settings file: `nteract/settings.json` in the user's configuration directory.
    pub settings: PathBuf,
    /// The work tree whose development daemon is meant: `RUNTIMED_WORKSPACE_PATH`, or with `RUNTIMED_DEV=1` the one round
    /// the current directory.
    pub worktree: Option<PathBuf>,
}

impl Places {
    /// The places that the environment of this process names.
    pub fn of_this_process() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = variable("RUNTIMED_WORKSPACE_PATH").map(PathBuf::from);
        let dev = variable("RUNTIMED_DEV").is_some_and(|value| value == "1");
        Self::new(variable, named.or_else(|| dev.then(enclosing_worktree).flatten()))
    }

    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        self.base.join("runtimed.log")
    }

    /// What one daemon at a time locks.
    pub fn lock(&self) -> PathBuf {
        self.base.join("daemon.lock")
    }

    /// What tells the work tree of a development daemon from others.
    pub fn worktree_hash(&self) -> Option<String> {
        self.worktree.as_deref().map(worktree_hash)
    }

    /// The places that an environment names, for a work tree if one is given.
    pub(crate) fn new(variable: impl Fn(&str) -> Option<String>, worktree: Option<PathBuf>) -> Self {
        let set = |name| variable(name).filter(|value| !value.trim().is_empty());
        let home = set("HOME").map(PathBuf::from);
        let below = |xdg, linux: &str, macos: &str| {
            if cfg!(target_os = "macos") {
                return home.as_ref().map(|home| home.join(macos));
            }
            let named = set(xdg).map(PathBuf::from).filter(|folder| folder.is_absolute());
            named.or_else(|| home.as_ref().map(|home| home.join(linux)))
        };
        let cache = below("XDG_CACHE_HOME", ".cache", "Library/Caches");
        let mut base = cache.unwrap_or_else(|| PathBuf::from("/tmp")).join("runt");
        if let Some(worktree) = &worktree {
            base = base.join("worktrees").join(worktree_hash(worktree));
        }
        let config = below("XDG_CONFIG_HOME", ".config", "Library/Application Support");
        let config = config.unwrap_or_else(|| PathBuf::from("/tmp/.config"));
        let named = set("RUNTIMED_SOCKET_PATH").map(|path| PathBuf::from(path.trim()));
        Self {
            socket: named.unwrap_or_else(|| base.join("runtimed.sock")),
            settings: config.join("nteract/settings.json"),
            base,
            worktree,
        }
    }
}

fn worktree_hash(worktree: &Path) -> String {
    let mut digits = hex::encode(Sha256::digest(worktree.as_os_str().as_encoded_bytes()));
    digits.truncate(WORKTREE_DIGITS);
    digits
}

/// The git work tree round the current directory, or that directory itself.
fn enclosing_worktree() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let root = here.ancestors().find(|folder| folder.join(".git").exists()).map(Path::to_path_buf);
    Some(root.unwrap_or(here))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(variables: &[(&str, &str)]) -> String {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Places::new(variable, None).socket.display().to_string()
    }

    #[test]
    fn the_override_wins_and_blanks_count_as_unset() {
        assert_eq!(path(&[("RUNTIMED_SOCKET_PATH", " /x/s.sock\n"), ("HOME", "/h")]), "/x/s.sock");
        assert_eq!(path(&[]), "/tmp/runt/runtimed.sock");
        if cfg!(target_os = "linux") {
            let home = [("RUNTIMED_SOCKET_PATH", "  "), ("HOME", "/h")];
            assert_eq!(path(&home), "/h/.cache/runt/runtimed.sock");
            assert_eq!(path(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]), "/c/runt/runtimed.sock");
            assert_eq!(path(&[("XDG_CACHE_HOME", "rel"), ("HOME", "/h")]), "/h/.cache/runt/runtimed.sock");
        }
    }

    #[test]
    fn the_settings_are_where_the_daemon_reads_them() {
        let variable = |name: &str| (name == "HOME").then(|| "/h".to_owned());
        let places = Places::new(variable, None);
        if cfg!(target_os = "linux") {
            assert_eq!(places.settings, PathBuf::from("/h/.config/nteract/settings.json"));
            assert_eq!(places.base, PathBuf::from("/h/.cache/runt"));
            let places = Places::new(variable, Some("/src/project".into()));
            // The first digits of what `printf /src/project | sha256sum` prints.
            let base = Path::new("/h/.cache/runt/worktrees/5744b1258f44");
            assert_eq!((places.base.as_path(), places.socket), (base, base.join("runtimed.sock")));
        }
    }
}
