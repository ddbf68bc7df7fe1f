//! Where the daemon listens, and where it keeps things.

use std::path::PathBuf;

/// Places of the daemon that this environment's user has; a daemon with options of its own may have others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Where it listens: `RUNTIMED_SOCKET_PATH`, or `runtimed.sock` in the base.
    pub socket: PathBuf,
    /// Its log, its caches and what it remembers: `runt` in the user's cache directory.
    pub base: PathBuf,
    /// The settings file: `nteract/settings.json` in the user's configuration directory.
    pub settings: PathBuf,
}

impl Places {
    /// The places that the environment of this process names.
    pub fn of_this_process() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }

    /// The places that an environment names.
    pub(crate) fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
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
        let base = cache.unwrap_or_else(|| PathBuf::from("/tmp")).join("runt");
        let config = below("XDG_CONFIG_HOME", ".config", "Library/Application Support");
        let config = config.unwrap_or_else(|| PathBuf::from("/tmp/.config"));
        let named = set("RUNTIMED_SOCKET_PATH").map(|path| PathBuf::from(path.trim()));
        Self {
            socket: named.unwrap_or_else(|| base.join("runtimed.sock")),
            settings: config.join("nteract/settings.json"),
            base,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(variables: &[(&str, &str)]) -> String {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Places::new(variable).socket.display().to_string()
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
        let places = Places::new(variable);
        if cfg!(target_os = "linux") {
            assert_eq!(places.settings, PathBuf::from("/h/.config/nteract/settings.json"));
            assert_eq!(places.base, PathBuf::from("/h/.cache/runt"));
        }
    }
}
