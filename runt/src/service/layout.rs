//! Where the service's parts are.
//!
//! Promises: pure but for [`Layout::of_this_process`].

use std::path::{Path, PathBuf};

use runtimed_client::Places;
use runtimed_plugin_api::search::{SearchPath, Source};

/// Variables that say where a user's files are. The service gets them as they were when it was installed, because the
/// service manager may have others, and clients would look elsewhere.
const PLACES: [&str; 3] = ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"];

/// Places of the service, and what it is told.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// `~/.local/share/runt`: `versions/`, and `bin`, a link to the one that counts.
    pub(crate) data: PathBuf,
    /// Where the service manager reads definitions.
    pub(crate) definitions: PathBuf,
    /// Where the daemon listens.
    pub(crate) socket: PathBuf,
    /// Whether that is not where it would listen by itself.
    pub(crate) other_socket: bool,
    /// The work tree of a development daemon, which is never a service.
    pub(crate) worktree: Option<PathBuf>,
    /// What the daemon finds in its environment.
    pub(crate) environment: Vec<(String, String)>,
}

impl Layout {
    /// None without a home.
    pub(super) fn of_this_process() -> Option<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = PathBuf::from(set("HOME")?);
        let places = Places::of_this_process();
        let plugins = SearchPath::of_this_process(&[]).0.into_iter().find(|(from, _)| *from == Source::User);
        let data = plugins?.1.parent()?.to_owned();
        let named = PLACES.map(|name| (name, set(name).filter(|value| Path::new(value).is_absolute())));
        let config = named.iter().find(|(name, _)| *name == "XDG_CONFIG_HOME").and_then(|(_, it)| it.clone());
        let mut environment = vec![("HOME".to_owned(), home.display().to_string())];
        let mut path = format!("{}/.local/bin:/usr/local/bin:/usr/bin:/bin", home.display());
        let definitions = if cfg!(target_os = "macos") {
            environment.extend(set("USER").map(|user| ("USER".to_owned(), user)));
            path += ":/opt/homebrew/bin";
            home.join("Library/LaunchAgents")
        } else {
            environment.extend(named.into_iter().filter_map(|(name, it)| Some((name.to_owned(), it?))));
            config.map_or_else(|| home.join(".config"), PathBuf::from).join("systemd/user")
        };
        environment.push(("PATH".to_owned(), path));
        Some(Self {
            data,
            definitions,
            other_socket: places.socket != places.base.join("runtimed.sock"),
            socket: std::path::absolute(&places.socket).unwrap_or(places.socket),
            worktree: places.worktree,
            environment,
        })
    }

    /// The folder of the installed programs: a link.
    pub(crate) fn bin(&self) -> PathBuf {
        self.data.join("bin")
    }

    /// The installed daemon.
    pub(crate) fn binary(&self) -> PathBuf {
        self.bin().join("runtimed")
    }

    /// Where versions are, in a folder each.
    pub(crate) fn versions(&self) -> PathBuf {
        self.data.join("versions")
    }
}
