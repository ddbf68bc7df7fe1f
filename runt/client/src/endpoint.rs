//! Where the daemon listens.

use std::path::PathBuf;

/// The socket that the environment names: `RUNTIMED_SOCKET_PATH`, or `runt/runtimed.sock` in the user's
/// cache directory.
pub(crate) fn socket_path(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name| variable(name).filter(|value| !value.trim().is_empty());
    if let Some(path) = set("RUNTIMED_SOCKET_PATH") {
        return PathBuf::from(path.trim());
    }
    let home = || set("HOME").map(PathBuf::from);
    let cache = if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Caches"))
    } else {
        set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|cache| cache.is_absolute())
            .or_else(|| home().map(|home| home.join(".cache")))
    };
    cache.unwrap_or_else(|| PathBuf::from("/tmp")).join("runt/runtimed.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(variables: &[(&str, &str)]) -> String {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        socket_path(variable).display().to_string()
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
}
