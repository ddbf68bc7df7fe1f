//! What a plugin may ask of the host.
//!
//! For: logging, directories, settings, processes and other capabilities, without depending on the host.
//! Promises: usable from any thread; synchronous calls return at once.
//! Logging needs no call here: use `tracing`, the export macro bridges it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{BlobStore, Environments, KernelBackend, PluginError, Result};

/// The host as a plugin sees it. Cheap to clone.
pub type Host = Arc<dyn HostServices>;

/// Services of the host.
#[async_trait]
pub trait HostServices: Send + Sync + 'static {
    /// Whether anybody listens to this level (1 error .. 5 trace) for this target.
    fn log_enabled(&self, level: u8, target: &str) -> bool;

    /// Writes a log line; `fields` is a JSON object.
    fn log(&self, level: u8, target: &str, message: &str, fields: &str);

    /// Where things belong.
    fn directories(&self) -> Directories;

    /// All settings as they are now, defaults filled in, with the revision they are at.
    fn settings(&self) -> SettingsView;

    /// Waits until the settings are newer than `revision`.
    async fn settings_changed(&self, revision: u64) -> SettingsView;

    /// The blob store, once it is there.
    fn blob_store(&self) -> Option<Arc<dyn BlobStore>>;

    /// The backend that runs kernels of `kind`, or any backend for an empty kind.
    fn kernel_backend(&self, kind: &str) -> Option<Arc<dyn KernelBackend>>;

    /// The environment service.
    fn environments(&self) -> Option<Arc<dyn Environments>>;

    /// Runs a process to its end. Dropping the future, or the time limit, kills its whole tree.
    async fn run_process(&self, spec: ProcessSpec, lines: Arc<dyn ProcessLines>) -> Result<ProcessExit>;

    /// Resolves when the daemon begins to stop.
    async fn shutting_down(&self);
}

impl dyn HostServices {
    /// Runs a process that must succeed.
    ///
    /// # Errors
    /// Those of [`HostServices::run_process`], and `Internal` with what the process said if it exits with anything
    /// but 0.
    pub async fn run(&self, spec: ProcessSpec) -> Result<ProcessExit> {
        let program = spec.argv.first().cloned().unwrap_or_default();
        let exit = self.run_process(spec, Arc::new(NoLines)).await?;
        if exit.success() {
            return Ok(exit);
        }
        let said = exit.complaint();
        let ended =
            exit.code.map_or("was ended by a signal".to_owned(), |code| format!("failed with {code}"));
        Err(PluginError::internal(format!("`{program}` {ended}: {said}")))
    }
}

/// Where the host keeps things. All absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directories {
    /// The daemon's base: `~/.cache/runt`.
    pub base: PathBuf,
    /// Short-lived private things, sockets above all: `$XDG_RUNTIME_DIR` or `/tmp/runt-<uid>`, in a
    /// folder keyed by the base, mode 0700. Short enough for a socket path (107 bytes).
    pub runtime: PathBuf,
    /// Blobs: next to the daemon's socket, where clients look for them.
    pub blobs: PathBuf,
    /// Durable execution records.
    pub executions: PathBuf,
    /// Downloaded tools.
    pub tools: PathBuf,
    /// The folder of the plugin itself.
    pub plugin: PathBuf,
}

/// Settings at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SettingsView {
    /// Grows with each change.
    pub revision: u64,
    /// Nested JSON, as in `settings.json`.
    pub values: serde_json::Value,
}

/// A process to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables to set on top of the daemon's own environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory; the daemon's own if none.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Longest run; no limit if none.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// Niceness to add, 0 to 19: background work takes 10.
    #[serde(default)]
    pub nice: u8,
}

/// Written like [`std::process::Command`].
///
/// ```
/// use runtimed_plugin_api::ProcessSpec;
///
/// let spec = ProcessSpec::new("python3").args(["-m", "venv"]).arg("/envs/a");
/// assert_eq!(spec.argv, ["python3", "-m", "venv", "/envs/a"]);
/// ```
impl ProcessSpec {
    /// Runs `program`, which is looked for on `PATH` unless it is a path. What of it is not Unicode is replaced,
    /// here and in arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self::default().arg(program)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.argv.push(argument.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Sets the longest run.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// Receives a process's output, line by line, without the line ends.
pub trait ProcessLines: Send + Sync + 'static {
    /// One line of `stdout` or `stderr`.
    fn line(&self, stderr: bool, line: &str);
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessExit {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Everything it wrote to stdout, lossily decoded, the last 1 MiB.
    pub stdout: String,
    /// Everything it wrote to stderr, lossily decoded, the last 64 KiB.
    pub stderr: String,
}

impl ProcessExit {
    /// Whether it exited with code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// What a failed process said: its stderr or, if that is blank, its stdout.
    pub fn complaint(&self) -> &str {
        let (stdout, stderr) = (self.stdout.trim(), self.stderr.trim());
        if stderr.is_empty() { stdout } else { stderr }
    }
}

/// Ignores a process's lines; its output is still in [`ProcessExit`].
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLines;

impl ProcessLines for NoLines {
    fn line(&self, _: bool, _: &str) {}
}
