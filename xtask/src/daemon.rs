//! A private daemon: its own home, socket and caches, ended when dropped.
//!
//! For: the quickstart and the benchmarks.
//! Promises: no process is left behind, also after a failure.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a daemon may take to listen, on a busy machine with a cold disk.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long it may take to end after it was asked to.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    /// Its socket, in a folder of its own with a short path (a socket path holds 107 bytes).
    pub(crate) socket: PathBuf,
    dist: PathBuf,
    home: PathBuf,
    _socket_dir: tempfile::TempDir,
}

impl Daemon {
    /// Starts the staged daemon with `home` as its home; `home` keeps its caches for the next time.
    pub(crate) fn start(dist: &Path, home: &Path, settings: &serde_json::Value) -> Result<Self> {
        Self::start_with(dist, home, settings, |_| Ok(()))
    }

    /// The same, after `prepare` had a look at the command.
    pub(crate) fn start_with(
        dist: &Path,
        home: &Path,
        settings: &serde_json::Value,
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let config = home.join("config/nteract");
        std::fs::create_dir_all(&config)?;
        std::fs::write(config.join("settings.json"), serde_json::to_vec_pretty(settings)?)?;
        let socket_dir = tempfile::Builder::new().prefix("runt-").tempdir()?;
        let socket = socket_dir.path().join("runtimed.sock");
        let mut command = Command::new(dist.join("bin/runtimed"));
        command.arg("run").arg("--socket").arg(&socket).stdin(Stdio::null()).stderr(Stdio::null());
        private(&mut command, home);
        prepare(&mut command)?;
        let child = command.spawn().context("could not start the daemon")?;
        let mut daemon = Self {
            child,
            socket,
            dist: dist.to_path_buf(),
            home: home.to_path_buf(),
            _socket_dir: socket_dir,
        };
        daemon.wait_until_listening()?;
        Ok(daemon)
    }

    /// Process id of the daemon.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A `runt` command that talks to this daemon.
    pub(crate) fn runt(&self) -> Command {
        let mut command = Command::new(self.dist.join("bin/runt"));
        private(&mut command, &self.home);
        command.env("RUNTIMED_SOCKET_PATH", &self.socket);
        command
    }

    /// Asks the daemon to end and waits for it.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn wait_until_listening(&mut self) -> Result<()> {
        let start = Instant::now();
        while UnixStream::connect(&self.socket).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended at once with {status}; its log is {}", self.log().display());
            }
            if start.elapsed() > START_LIMIT {
                bail!("the daemon does not listen; its log is {}", self.log().display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Its log.
    pub(crate) fn log(&self) -> PathBuf {
        self.home.join("cache/runt/runtimed.log")
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        // A signal would leave kernels for the next daemon, and there is none.
        self.runt().args(["daemon", "stop"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        let start = Instant::now();
        while start.elapsed() < STOP_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                return if status.success() { Ok(()) } else { bail!("the daemon ended with {status}") };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill()?;
        self.child.wait()?;
        bail!("the daemon did not end within {STOP_LIMIT:?} and was killed")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Keeps a process away from the user's own caches and settings.
fn private(command: &mut Command, home: &Path) {
    command
        .env("XDG_CACHE_HOME", home.join("cache"))
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_DATA_HOME", home.join("data"))
        // Where kernels keep their history.
        .env("IPYTHONDIR", home.join("ipython"))
        .env_remove("RUNTIMED_PLUGIN_PATH")
        .env_remove("RUNTIMED_SOCKET_PATH")
        .env_remove("RUNTIMED_WORKSPACE_PATH")
        .env_remove("RUNTIMED_DEV");
}
