//! Loads the fixture plugin with a host that records what it hears.
#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failed test")]

use runtimed_plugin_api::adapter::child::{Child, ChildSpec};
use runtimed_plugin_api::adapter::{Library, Panicked};
use runtimed_plugin_api::processes::ProcessLimits;
use runtimed_plugin_api::{
    BlobStore, Directories, EnvProvider, EnvRequest, Environments, HostServices, KernelBackend, Plugin,
    ProcessExit, ProcessLines, ProcessSpec, Result, SettingsView, async_trait, processes,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

/// Where cargo puts an example's library, seen from the test binary in `target/<profile>/deps`.
fn example(name: &str) -> PathBuf {
    let name = format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let binary = std::env::current_exe().unwrap();
    binary.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

pub(crate) fn fixture_library() -> PathBuf {
    example("fixture_plugin")
}

pub(crate) struct Fixture {
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) host: Arc<TestHost>,
    pub(crate) logs: UnboundedReceiver<Line>,
    pub(crate) panics: UnboundedReceiver<Panicked>,
    pub(crate) child: Option<Child>,
}

/// How the plugin is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    InProcess,
    Child,
}

/// A child with `library` and no limits.
pub(crate) fn spec(library: &Path) -> ChildSpec {
    let program = fixture_library().with_file_name("plugin_child");
    ChildSpec {
        command: vec![program.into()],
        id: "fixture".to_owned(),
        library: library.to_owned(),
        limits: ProcessLimits::default(),
    }
}

impl Fixture {
    pub(crate) async fn load(carrier: Carrier) -> Self {
        Self::load_from(carrier, &fixture_library()).await
    }

    /// Loads a copy of `library`, which has statics of its own. The file may go once it is mapped.
    pub(crate) async fn load_copy(carrier: Carrier, library: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.so");
        std::fs::copy(library, &copy).unwrap();
        Self::load_from(carrier, &copy).await
    }

    /// The plugin that provides one of everything, in a host whose capabilities are one of everything too.
    pub(crate) async fn load_echo(carrier: Carrier) -> Self {
        Self::load_from(carrier, &example("echo_plugin")).await
    }

    /// Starts a child.
    pub(crate) async fn start(spec: ChildSpec) -> Self {
        let (host, logs) = TestHost::new();
        let (report, panics) = unbounded_channel();
        let on_panic = move |panicked| {
            let _ = report.send(panicked);
        };
        let child = Child::start(spec, host.clone(), on_panic).await.unwrap();
        Self { plugin: child.plugin().clone(), host, logs, panics, child: Some(child) }
    }

    async fn load_from(carrier: Carrier, path: &Path) -> Self {
        if carrier == Carrier::Child {
            return Self::start(spec(path)).await;
        }
        let (host, logs) = TestHost::new();
        let (report, panics) = unbounded_channel();
        let on_panic = move |panicked| {
            let _ = report.send(panicked);
        };
        let library = Library::open(path).unwrap();
        let plugin = library.create(host.clone(), Handle::current(), on_panic).unwrap();
        Self { plugin, host, logs, panics, child: None }
    }

    /// Lets the plugin do what `words` say, see the fixture's `obey`.
    pub(crate) async fn obey(&self, words: &[&str]) -> Result<String> {
        let packages = words.iter().map(|&word| word.to_owned()).collect();
        let plan = self.provider().plan(EnvRequest { packages, ..EnvRequest::default() }).await?;
        Ok(plan.key)
    }

    pub(crate) fn provider(&self) -> Arc<dyn EnvProvider> {
        self.plugin.env_providers().remove(0)
    }

    pub(crate) async fn wait_for_log(&mut self, message: &str) -> Line {
        loop {
            let line = self.logs.recv().await.unwrap();
            if line.message == message {
                return line;
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) level: u8,
    pub(crate) message: String,
    pub(crate) fields: String,
}

pub(crate) struct TestHost {
    level: AtomicU8,
    log: UnboundedSender<Line>,
    settings: watch::Sender<SettingsView>,
    stopping: watch::Sender<bool>,
    /// Provides the host's capabilities.
    capabilities: OnceLock<Arc<dyn Plugin>>,
}

impl TestHost {
    pub(crate) fn new() -> (Arc<Self>, UnboundedReceiver<Line>) {
        let (log, logs) = unbounded_channel();
        let host = Self {
            level: AtomicU8::new(3),
            log,
            settings: watch::Sender::default(),
            stopping: watch::Sender::default(),
            capabilities: OnceLock::new(),
        };
        (Arc::new(host), logs)
    }

    pub(crate) fn set_setting(&self, name: &str, value: &str) {
        self.settings.send_modify(|settings| {
            settings.revision += 1;
            settings.values = serde_json::json!({ name: value });
        });
    }

    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(crate) fn provide(&self, capabilities: Arc<dyn Plugin>) {
        assert!(self.capabilities.set(capabilities).is_ok());
    }

    pub(crate) fn set_level(&self, level: u8) {
        self.level.store(level, Ordering::SeqCst);
    }
}

#[async_trait]
impl HostServices for TestHost {
    fn log_enabled(&self, level: u8, _: &str) -> bool {
        level <= self.level.load(Ordering::SeqCst)
    }

    fn log(&self, level: u8, _: &str, message: &str, fields: &str) {
        let _ = self.log.send(Line { level, message: message.to_owned(), fields: fields.to_owned() });
    }

    fn directories(&self) -> Directories {
        Directories {
            base: "/base".into(),
            runtime: "/base/run".into(),
            blobs: "/base/blobs".into(),
            executions: "/base/executions".into(),
            tools: "/base/tools".into(),
            plugin: "/base/plugin".into(),
        }
    }

    fn settings(&self) -> SettingsView {
        self.settings.borrow().clone()
    }

    async fn settings_changed(&self, revision: u64) -> SettingsView {
        let mut settings = self.settings.subscribe();
        settings.wait_for(|settings| settings.revision > revision).await.unwrap().clone()
    }

    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        self.capabilities.get()?.blob_store()
    }

    fn kernel_backend(&self, kind: &str) -> Option<Arc<dyn KernelBackend>> {
        let backend = self.capabilities.get()?.kernel_backends().into_iter().next();
        backend.filter(|_| kind.is_empty() || kind == "echo")
    }

    fn environments(&self) -> Option<Arc<dyn Environments>> {
        None
    }

    async fn run_process(&self, spec: ProcessSpec, lines: Arc<dyn ProcessLines>) -> Result<ProcessExit> {
        let exit = processes::run(spec, &*lines).await;
        self.log(2, "host", "the process ended", "{}");
        exit
    }

    async fn shutting_down(&self) {
        self.stopping.subscribe().wait_for(|stopping| *stopping).await.unwrap();
    }
}
