//! Which interpreter an environment gets.
//!
//! Promises: pure. A wish goes to uv unchanged, which prefers an installed interpreter that satisfies
//! it. Without a wish Python 3.13 is taken if it is installed, else the newest that is; a download is the last resort.

use std::fmt;

use serde::Deserialize;

/// Oldest Python chosen unasked. Source: current ipykernel and IPython releases need it.
const OLDEST: (u64, u64) = (3, 10);

/// What is taken if it is installed, whatever else is. Source: the reference daemon's pools.
const USUAL: (u64, u64) = (3, 13);

/// The same, as uv downloads it when nothing usable is installed.
const DOWNLOAD: &str = "3.13";

/// How the interpreter was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Asked for by the notebook or the settings.
    Wish(String),
    /// The usual one, or the newest on this machine.
    Installed { path: String, version: String },
    /// Nothing usable is here.
    Download,
}

impl Choice {
    /// The value of uv's `--python`.
    pub(crate) fn request(&self) -> &str {
        match self {
            Self::Wish(wish) => wish,
            Self::Installed { path, .. } => path,
            Self::Download => DOWNLOAD,
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wish(wish) => write!(f, "`{wish}`, as asked for"),
            Self::Installed { path, version } => write!(f, "{version} at {path}, as installed"),
            Self::Download => write!(f, "{DOWNLOAD}, to be downloaded as none is installed"),
        }
    }
}

/// The parts we read of an entry of `uv python list --output-format json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Installed {
    pub(crate) version: String,
    path: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    implementation: Option<String>,
}

impl Installed {
    /// Release number, or none for anything a kernel should not be surprised with: pre-releases,
    /// free-threaded builds, other implementations, old versions.
    fn release(&self) -> Option<(u64, u64, u64)> {
        let usual = |part: &Option<String>, usual: &str| part.as_deref().is_none_or(|part| part == usual);
        if !usual(&self.variant, "default") || !usual(&self.implementation, "cpython") {
            return None;
        }
        let mut parts = self.version.splitn(3, '.').map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) = (parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        ((major, minor) >= OLDEST).then_some((major, minor, patch))
    }
}

/// Decides. `wish` is a version, a constraint or a path.
pub(crate) fn choose(wish: Option<&str>, installed: &[Installed]) -> Choice {
    if let Some(wish) = wish.map(str::trim).filter(|wish| !wish.is_empty()) {
        return Choice::Wish(wish.to_owned());
    }
    let mut best: Option<((u64, u64, u64), &str, &str)> = None;
    for python in installed {
        // On equal versions the first wins: uv lists its own before those on PATH.
        if let (Some(release), Some(path)) = (python.release(), python.path.as_deref())
            && best.is_none_or(|(best, ..)| rank(release) > rank(best))
        {
            best = Some((release, path, &python.version));
        }
    }
    match best {
        Some((_, path, version)) => Choice::Installed { path: path.to_owned(), version: version.to_owned() },
        None => Choice::Download,
    }
}

/// What is better ranks higher.
fn rank(release: (u64, u64, u64)) -> (bool, (u64, u64, u64)) {
    let (major, minor, _) = release;
    ((major, minor) == USUAL, release)
}

/// Versions worth showing, each once, in uv's order.
pub(crate) fn versions(installed: &[Installed]) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for python in installed.iter().filter(|python| python.release().is_some()) {
        if !versions.contains(&python.version) {
            versions.push(python.version.clone());
        }
    }
    versions
}

/// The interpreter's version as an environment's `pyvenv.cfg` has it.
pub(crate) fn version_in(pyvenv_cfg: &str) -> Option<String> {
    pyvenv_cfg.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "version_info").then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(json: &str) -> Vec<Installed> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_newest_release_wins() {
        let pythons = installed(
            r#"[{"version":"3.15.0b1","path":"/beta"},
                {"version":"3.14.1","path":"/threads","variant":"freethreaded"},
                {"version":"3.14.2","path":"/pypy","implementation":"pypy"},
                {"version":"3.9.20","path":"/old"},
                {"version":"3.11.7","path":"/first","variant":"default","implementation":"cpython"},
                {"version":"3.11.7","path":"/second"},
                {"version":"3.11.2","path":"/usr"},
                {"version":"3.13.0","path":null}]"#,
        );
        let chosen = Choice::Installed { path: "/first".to_owned(), version: "3.11.7".to_owned() };
        assert_eq!(choose(None, &pythons), chosen);
        assert_eq!(choose(Some("  "), &pythons), chosen);
        assert_eq!(choose(Some(" >=3.12 "), &pythons), Choice::Wish(">=3.12".to_owned()));
        assert_eq!(versions(&pythons), ["3.11.7", "3.11.2", "3.13.0"]);
    }

    #[test]
    fn the_usual_release_wins_over_a_newer_one() {
        let pythons = installed(
            r#"[{"version":"3.14.2","path":"/new"},{"version":"3.13.1","path":"/a"},
                {"version":"3.13.5","path":"/b"},{"version":"3.11.7","path":"/old"}]"#,
        );
        let chosen = Choice::Installed { path: "/b".to_owned(), version: "3.13.5".to_owned() };
        assert_eq!(choose(None, &pythons), chosen);
    }

    #[test]
    fn nothing_usable_means_a_download() {
        let pythons = installed(r#"[{"version":"3.9.20","path":"/old"}]"#);
        assert_eq!(choose(None, &pythons), Choice::Download);
    }

    #[test]
    fn version_of_an_environment() {
        assert_eq!(version_in("home = /usr/bin\nversion_info = 3.11.2\n").as_deref(), Some("3.11.2"));
        assert_eq!(version_in("home = /usr/bin\n"), None);
    }
}
