//! A host for one plugin: what the daemon would give it, below a folder of the test's own.
//!
//! For: unit tests of a plugin, and every suite here.
//! Promises: processes really run, with the daemon's own code; they get this process's environment (`PATH`,
//! proxies, certificates, caches) but a `HOME` below the folder; everything a plugin logs is counted.
//! Never: a socket, a network, a place outside its folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtimed_plugin_api::{
    BlobStore, Directories, Environments, HostServices, KernelBackend, ProcessExit, ProcessLines,
    ProcessSpec, Result, SettingsView, async_trait, processes,
};
use serde_json::Value;
use tokio::sync::watch;

use crate::leftovers::{self, Leftover};

/// Log lines that are kept; the rest are only counted.
const LINES_KEPT: usize = 10_000;
/// Level of everything there is (trace).
const EVERYTHING: u8 = 5;

/// A host that a test makes. Wrap it in an `Arc` when it is as it should be.
///
/// ```
/// use std::sync::Arc;
/// use runtimed_plugin_api::{HostServices, NoLines, ProcessSpec};
/// use runtimed_plugin_testkit::TestHost;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let folder = tempfile::tempdir().unwrap();
/// let host = Arc::new(TestHost::new(folder.path()).with_env("GREETING", "hello"));
/// let spec = ProcessSpec {
///     argv: vec!["/bin/sh".into(), "-c".into(), "echo $GREETING".into()],
///     ..ProcessSpec::default()
/// };
/// let exit = host.run_process(spec, Arc::new(NoLines)).await.unwrap();
/// assert_eq!(exit.stdout, "hello\n");
/// # });
/// ```
pub struct TestHost {
    directories: Directories,
    settings: watch::Sender<SettingsView>,
    stopping: watch::Sender<bool>,
    env: BTreeMap<String, String>,
    mark: String,
    capabilities: Capabilities,
    log: Log,
    processes: watch::Sender<usize>,
}

/// Capabilities of other plugins that a host passes on.
#[derive(Clone, Default)]
pub struct Capabilities {
    /// Answers `blob_store`.
    pub blob_store: Option<Arc<dyn BlobStore>>,
    /// Answers `kernel_backend`, whatever the kind.
    pub kernel_backend: Option<Arc<dyn KernelBackend>>,
    /// Answers `environments`.
    pub environments: Option<Arc<dyn Environments>>,
}

/// One line that a plugin logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// 1 error .. 5 trace.
    pub level: u8,
    /// The module it came from.
    pub target: String,
    /// The text.
    pub message: String,
    /// A JSON object.
    pub fields: String,
}

struct Log {
    level: AtomicU8,
    lines: Mutex<Vec<LogLine>>,
    count: AtomicU64,
    heard: Option<Box<dyn Fn(LogLine) + Send + Sync>>,
}

impl TestHost {
    /// A host whose directories are all below `base`, which is made when something is put there.
    pub fn new(base: &Path) -> Self {
        let directories = Directories {
            base: base.to_owned(),
            runtime: base.join("run"),
            blobs: base.join("blobs"),
            executions: base.join("executions"),
            tools: base.join("tools"),
            plugin: base.join("plugin"),
        };
        let mark = leftovers::new_mark();
        let home = base.join("home");
        let env = [
            ("HOME".to_owned(), home.display().to_string()),
            ("XDG_CONFIG_HOME".to_owned(), home.join(".config").display().to_string()),
            ("XDG_DATA_HOME".to_owned(), home.join(".local/share").display().to_string()),
            (leftovers::VARIABLE.to_owned(), mark.clone()),
        ];
        Self {
            directories,
            settings: watch::Sender::new(SettingsView { revision: 1, values: Value::Null }),
            stopping: watch::Sender::new(false),
            env: env.into(),
            mark,
            capabilities: Capabilities::default(),
            log: Log {
                level: AtomicU8::new(EVERYTHING),
                lines: Mutex::default(),
                count: AtomicU64::new(0),
                heard: None,
            },
            processes: watch::Sender::new(0),
        }
    }

    /// Sets a variable of every process that is run.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Keeps downloaded tools elsewhere, for instance where several tests share them.
    #[must_use]
    pub fn with_tools(mut self, folder: &Path) -> Self {
        self.directories.tools = folder.to_owned();
        self
    }

    /// Says that the plugin's own files are there.
    #[must_use]
    pub fn with_plugin_folder(mut self, folder: &Path) -> Self {
        self.directories.plugin = folder.to_owned();
        self
    }

    /// Sets the settings, at revision 1.
    #[must_use]
    pub fn with_settings(self, values: Value) -> Self {
        self.settings.send_replace(SettingsView { revision: 1, values });
        self
    }

    /// Passes on what other plugins provide.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Calls `heard` with every line that is logged.
    #[must_use]
    pub fn with_log(mut self, heard: impl Fn(LogLine) + Send + Sync + 'static) -> Self {
        self.log.heard = Some(Box::new(heard));
        self
    }

    /// Listens up to `level` (1 error .. 5 trace, which is where it starts) from now on.
    pub fn set_log_level(&self, level: u8) {
        self.log.level.store(level, Ordering::SeqCst);
    }

    /// Changes the settings; whoever waits for a change hears of it.
    pub fn set_settings(&self, values: Value) {
        self.settings.send_modify(|now| *now = SettingsView { revision: now.revision + 1, values });
    }

    /// Tells the plugin that the daemon stops.
    pub fn shut_down(&self) {
        self.stopping.send_replace(true);
    }

    /// The first lines that were logged, at most 10,000.
    pub fn log_lines(&self) -> Vec<LogLine> {
        lock(&self.log.lines).clone()
    }

    /// How many lines were logged so far, kept or not.
    pub fn logged(&self) -> u64 {
        self.log.count.load(Ordering::SeqCst)
    }

    /// How many processes were started so far.
    pub fn processes_started(&self) -> usize {
        *self.processes.borrow()
    }

    /// Waits until so many processes were started.
    pub async fn wait_for_process(&self, count: usize) {
        // Fails only when the sender is gone, and it is ours.
        let _ = self.processes.subscribe().wait_for(|started| *started >= count).await;
    }

    /// Processes that were run for the plugin, or started by them, and are still there. Always empty where
    /// there is no `/proc`.
    pub fn leftovers(&self) -> Vec<Leftover> {
        leftovers::find(&self.mark)
    }

    /// Waits until nothing that was run is left, at most for `limit`. Returns what is left then: whoever kills
    /// a process is told of its end by nobody, so this looks again and again.
    pub async fn all_ended(&self, limit: Duration) -> Vec<Leftover> {
        self.all_ended_but(&[], limit).await
    }

    /// The same, where the processes `own` may stay.
    pub(crate) async fn all_ended_but(&self, own: &[u32], limit: Duration) -> Vec<Leftover> {
        leftovers::until_gone(&self.mark, own, limit).await
    }
}

#[async_trait]
impl HostServices for TestHost {
    fn log_enabled(&self, level: u8, _: &str) -> bool {
        level <= self.log.level.load(Ordering::SeqCst)
    }

    fn log(&self, level: u8, target: &str, message: &str, fields: &str) {
        let count = self.log.count.fetch_add(1, Ordering::SeqCst);
        let kept = usize::try_from(count).is_ok_and(|count| count < LINES_KEPT);
        if !kept && self.log.heard.is_none() {
            return;
        }
        let line = LogLine {
            level,
            target: target.to_owned(),
            message: message.to_owned(),
            fields: fields.to_owned(),
        };
        if let Some(heard) = &self.log.heard {
            heard(line.clone());
        }
        if kept {
            lock(&self.log.lines).push(line);
        }
    }

    fn directories(&self) -> Directories {
        self.directories.clone()
    }

    fn settings(&self) -> SettingsView {
        self.settings.borrow().clone()
    }

    async fn settings_changed(&self, revision: u64) -> SettingsView {
        let mut settings = self.settings.subscribe();
        let newer = settings.wait_for(|settings| settings.revision > revision).await;
        match newer.map(|settings| settings.clone()) {
            Ok(settings) => settings,
            // The sender is ours, so this is never reached while somebody calls.
            Err(_) => std::future::pending().await,
        }
    }

    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        self.capabilities.blob_store.clone()
    }

    fn kernel_backend(&self, _: &str) -> Option<Arc<dyn KernelBackend>> {
        self.capabilities.kernel_backend.clone()
    }

    fn environments(&self) -> Option<Arc<dyn Environments>> {
        self.capabilities.environments.clone()
    }

    async fn run_process(&self, mut spec: ProcessSpec, lines: Arc<dyn ProcessLines>) -> Result<ProcessExit> {
        for (name, value) in &self.env {
            spec.env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self.processes.send_modify(|started| *started += 1);
        processes::run(spec, &*lines).await
    }

    async fn shutting_down(&self) {
        // Fails only when the sender is gone, and it is ours.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }
}

/// Folder of a file that cargo built beside this test: `target/<profile>`.
///
/// # Errors
/// When the system does not say where this binary is.
pub fn cargo_output() -> std::io::Result<PathBuf> {
    let binary = std::env::current_exe()?;
    let folder = binary.ancestors().nth(2).map(Path::to_owned);
    folder.ok_or_else(|| std::io::Error::other("this binary lies at the root of the file system"))
}

/// Locks for a moment; what is behind is plain data, whole at all times.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
