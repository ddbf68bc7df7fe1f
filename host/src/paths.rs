//! Where the daemon keeps things.
//!
//! For: every other module; nobody else reads `HOME` or `XDG_*`.
//! Promises: pure: the environment comes in as a value, nothing is created here.
//! Never: a path longer than a socket name allows below [`Paths::runtime`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Folder of this product below the cache directory.
const CACHE_FOLDER: &str = "runt";
/// Folder of this product below the configuration directory; shared with nteract's own programs.
const CONFIG_FOLDER: &str = "nteract";
/// Digits that tell the runtime folders of two bases apart (a socket path has 107 bytes in all).
const RUNTIME_DIGITS: usize = 8;
/// Digits that tell the worktrees of development daemons apart; clients compute the same ones.
const WORKTREE_DIGITS: usize = 12;

/// Every place of one daemon. All absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// `~/.cache/runt`: lock, log, socket, environments, blobs, executions, tools.
    pub base: PathBuf,
    /// `~/.config/nteract`: settings.
    pub config: PathBuf,
    /// Sockets of kernels and helpers, 0700, in a folder of its own for each base.
    pub runtime: PathBuf,
    /// The socket clients connect to.
    pub socket: PathBuf,
    /// Environments of the pools.
    pub envs: PathBuf,
    /// Blobs.
    pub blobs: PathBuf,
    /// `settings.json`.
    pub settings: PathBuf,
    /// The work tree a development daemon belongs to.
    pub worktree: Option<PathBuf>,
    /// The user's home, if there is one.
    pub home: Option<PathBuf>,
}

/// The part of the process environment that decides about paths.
#[derive(Debug, Clone, Default)]
pub struct PathsEnv {
    /// `HOME`.
    pub home: Option<OsString>,
    /// `XDG_CACHE_HOME`.
    pub cache: Option<OsString>,
    /// `XDG_CONFIG_HOME`.
    pub config: Option<OsString>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime: Option<OsString>,
    /// The work tree of a development daemon.
    pub worktree: Option<PathBuf>,
    /// User id of this process.
    pub uid: u32,
}

/// Places given on the command line.
#[derive(Debug, Clone, Default)]
pub struct PathsOptions {
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--cache-dir`: moves the pool's environments and nothing else.
    pub envs: Option<PathBuf>,
    /// `--blob-store-dir`.
    pub blobs: Option<PathBuf>,
    /// `--settings-json`.
    pub settings: Option<PathBuf>,
}

impl PathsEnv {
    /// Reads the environment of this process. `dev` is the `--dev` flag.
    pub fn of_this_process(dev: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let named = set("RUNTIMED_WORKSPACE_PATH").map(PathBuf::from);
        let dev = dev || set("RUNTIMED_DEV").is_some_and(|value| value == "1");
        let worktree = named.or_else(|| dev.then(enclosing_worktree).flatten());
        Self {
            home: set("HOME"),
            cache: set("XDG_CACHE_HOME"),
            config: set("XDG_CONFIG_HOME"),
            runtime: set("XDG_RUNTIME_DIR"),
            worktree,
            uid: rustix::process::geteuid().as_raw(),
        }
    }
}

/// The git work tree round the current directory, or that directory itself.
fn enclosing_worktree() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let root = here.ancestors().find(|dir| dir.join(".git").exists()).map(Path::to_path_buf);
    Some(root.unwrap_or(here))
}

impl Paths {
    /// Decides every place from the environment and the command line.
    pub fn new(env: &PathsEnv, options: PathsOptions) -> Self {
        let home = env.home.clone().map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let (cache, config) = if cfg!(target_os = "macos") {
            (home.join("Library/Caches"), home.join("Library/Application Support"))
        } else {
            (absolute_or(&env.cache, home.join(".cache")), absolute_or(&env.config, home.join(".config")))
        };
        let mut base = cache.join(CACHE_FOLDER);
        if let Some(worktree) = &env.worktree {
            let digits = hex_digits(worktree, WORKTREE_DIGITS);
            base = base.join("worktrees").join(digits);
        }
        let config = config.join(CONFIG_FOLDER);
        let runtime = absolute_or(&env.runtime, PathBuf::from("/tmp"));
        let runtime = match &env.runtime {
            Some(_) => runtime.join("runt"),
            None => runtime.join(format!("runt-{}", env.uid)),
        };
        Self {
            runtime: runtime.join(hex_digits(&base, RUNTIME_DIGITS)),
            socket: options.socket.map_or_else(|| base.join("runtimed.sock"), absolute),
            envs: options.envs.map_or_else(|| base.join("envs"), absolute),
            blobs: options.blobs.map_or_else(|| base.join("blobs"), absolute),
            settings: options.settings.map_or_else(|| config.join("settings.json"), absolute),
            worktree: env.worktree.clone(),
            home: env.home.clone().map(PathBuf::from),
            base,
            config,
        }
    }

    /// The singleton lock.
    pub fn lock(&self) -> PathBuf {
        self.base.join("daemon.lock")
    }

    /// The log file.
    pub fn log(&self) -> PathBuf {
        self.base.join("runtimed.log")
    }

    /// Durable execution records.
    pub fn executions(&self) -> PathBuf {
        self.base.join("executions")
    }

    /// Downloaded tools.
    pub fn tools(&self) -> PathBuf {
        self.base.join("tools")
    }
}

/// The variable's value if it is an absolute path, as the XDG specification demands.
fn absolute_or(value: &Option<OsString>, otherwise: PathBuf) -> PathBuf {
    value.as_ref().map(PathBuf::from).filter(|path| path.is_absolute()).unwrap_or(otherwise)
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn hex_digits(path: &Path, digits: usize) -> String {
    let mut text = hex::encode(Sha256::digest(path.as_os_str().as_encoded_bytes()));
    text.truncate(digits);
    text
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn env() -> PathsEnv {
        PathsEnv { home: Some("/home/ana".into()), uid: 1000, ..PathsEnv::default() }
    }

    #[test]
    fn a_plain_home_gives_the_places_clients_look_at() {
        let paths = Paths::new(&env(), PathsOptions::default());
        assert_eq!(paths.socket, Path::new("/home/ana/.cache/runt/runtimed.sock"));
        assert_eq!(paths.settings, Path::new("/home/ana/.config/nteract/settings.json"));
        assert_eq!(paths.lock(), Path::new("/home/ana/.cache/runt/daemon.lock"));
        assert!(paths.runtime.starts_with("/tmp/runt-1000"));
    }

    #[test]
    fn relative_xdg_directories_do_not_count() {
        let env = PathsEnv { cache: Some("cache".into()), config: Some("/etc/ana".into()), ..env() };
        let paths = Paths::new(&env, PathsOptions::default());
        assert_eq!(paths.base, Path::new("/home/ana/.cache/runt"));
        assert_eq!(paths.config, Path::new("/etc/ana/nteract"));
    }

    #[test]
    fn a_work_tree_has_a_base_of_its_own_and_shares_the_settings() {
        let env = PathsEnv { worktree: Some("/src/project".into()), ..env() };
        let paths = Paths::new(&env, PathsOptions::default());
        let plain = Paths::new(&self::env(), PathsOptions::default());
        assert!(paths.base.starts_with("/home/ana/.cache/runt/worktrees"));
        assert_eq!(paths.base.file_name().map(|name| name.len()), Some(12));
        assert_eq!(paths.settings, plain.settings);
        assert_ne!(paths.runtime, plain.runtime);
    }

    #[test]
    fn the_command_line_moves_single_places() {
        let options = PathsOptions {
            envs: Some("/pool".into()),
            socket: Some("/s/x.sock".into()),
            ..Default::default()
        };
        let paths = Paths::new(&env(), options);
        assert_eq!(
            (paths.envs.as_path(), paths.socket.as_path()),
            (Path::new("/pool"), Path::new("/s/x.sock"))
        );
        assert_eq!(paths.base, Path::new("/home/ana/.cache/runt"));
    }
}
