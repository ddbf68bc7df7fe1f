//! Loads the fixture plugin with a host that records what it hears.
#![allow(dead_code, reason = "each test binary uses its part of it")]
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failed test")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(feature = "host")]
use runtimed_plugin_api::adapter::child::{Child, ChildLimits, ChildSpec};
use runtimed_plugin_api::adapter::{Library, Panicked};
use runtimed_plugin_api::{
    BlobStore, Directories, EnvProvider, Environments, HostServices, KernelBackend, Plugin, PluginError,
    ProcessExit, ProcessLines, ProcessSpec, Result, SettingsView, async_trait,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Where cargo puts the example, seen from the test binary in `target/<profile>/deps`.
pub(crate) fn fixture_library() -> PathBuf {
    let name = format!("{}fixture_plugin{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let binary = std::env::current_exe().unwrap();
    binary.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

pub(crate) struct Fixture {
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) host: Arc<TestHost>,
    pub(crate) logs: UnboundedReceiver<Line>,
    pub(crate) panics: UnboundedReceiver<Panicked>,
    #[cfg(feature = "host")]
    pub(crate) child: Option<Child>,
}

/// How the plugin is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    InProcess,
    #[cfg(feature = "host")]
    Child,
}

/// A child with `library` and no limits.
#[cfg(feature = "host")]
pub(crate) fn spec(library: &Path) -> ChildSpec {
    let program = fixture_library().with_file_name("plugin_child");
    ChildSpec {
        command: vec![program.into()],
        id: "fixture".to_owned(),
        library: library.to_owned(),
        limits: ChildLimits::default(),
    }
}

impl Fixture {
    pub(crate) async fn load(carrier: Carrier) -> Self {
        Self::load_from(carrier, &fixture_library()).await
    }

    /// Loads a copy, which has statics of its own. The file may go once it is mapped.
    pub(crate) async fn load_copy(carrier: Carrier) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.so");
        std::fs::copy(fixture_library(), &copy).unwrap();
        Self::load_from(carrier, &copy).await
    }

    async fn load_from(carrier: Carrier, path: &Path) -> Self {
        let (host, logs) = TestHost::new();
        let (report, panics) = unbounded_channel();
        let on_panic = move |panicked| {
            let _ = report.send(panicked);
        };
        match carrier {
            Carrier::InProcess => {
                let library = Library::open(path).unwrap();
                assert_eq!(library.facts().id, "fixture");
                let plugin = library.create(host.clone(), Handle::current(), on_panic).unwrap();
                Self {
                    plugin,
                    host,
                    logs,
                    panics,
                    #[cfg(feature = "host")]
                    child: None,
                }
            }
            #[cfg(feature = "host")]
            Carrier::Child => {
                let child = Child::start(spec(path), host.clone(), on_panic).await.unwrap();
                assert_eq!(child.facts().id, "fixture");
                Self { plugin: child.plugin().clone(), host, logs, panics, child: Some(child) }
            }
        }
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
}

impl TestHost {
    pub(crate) fn new() -> (Arc<Self>, UnboundedReceiver<Line>) {
        let (log, logs) = unbounded_channel();
        (Arc::new(Self { level: AtomicU8::new(3), log }), logs)
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
        SettingsView::default()
    }

    async fn settings_changed(&self, _: u64) -> SettingsView {
        std::future::pending().await
    }

    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        None
    }

    fn kernel_backend(&self, _: &str) -> Option<Arc<dyn KernelBackend>> {
        None
    }

    fn environments(&self) -> Option<Arc<dyn Environments>> {
        None
    }

    async fn run_process(&self, _: ProcessSpec, _: Arc<dyn ProcessLines>) -> Result<ProcessExit> {
        Err(PluginError::unsupported("this host runs nothing"))
    }

    async fn shutting_down(&self) {
        std::future::pending().await
    }
}
