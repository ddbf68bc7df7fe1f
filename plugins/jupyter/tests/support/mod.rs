//! What kernel tests share: a started plugin, an interpreter with ipykernel, and a recorder of what a kernel says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

mod python;
mod recorder;
pub(crate) mod shim;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{Kernel, KernelBackend, LaunchCommand, LaunchSpec, Plugin, Result};
use runtimed_plugin_jupyter::JupyterPlugin;
use runtimed_plugin_testkit::TestHost;

pub(crate) use python::kernel_python;
pub(crate) use recorder::{Message, Recorder, execute, request};

/// A host below `base` for a plugin whose own folder has the program that keeps kernels.
pub(crate) fn host(base: &Path) -> TestHost {
    let program = Path::new(env!("CARGO_BIN_EXE_runtimed-kernel"));
    TestHost::new(base).with_plugin_folder(program.parent().unwrap())
}

/// The folders of the kernels of a daemon with the base `base`.
pub(crate) fn folders(base: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(base.join("run/kernels")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Whether the process `pid` is there and no zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Waits until `gone`. The system tells nobody but the parent when a process ends, so this looks again.
pub(crate) async fn until_gone(still_there: impl Fn() -> bool) {
    while still_there() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All stream text of one name, in order.
pub(crate) fn stream(messages: &[Message], name: &str) -> String {
    let streams = messages.iter().filter(|m| m.kind == "stream" && m.content["name"] == name);
    streams.map(|message| message.content["text"].as_str().unwrap()).collect()
}

pub(crate) fn result(messages: &[Message]) -> Option<&str> {
    let result = messages.iter().find(|message| message.kind == "execute_result")?;
    result.content["data"]["text/plain"].as_str()
}

/// A started plugin and the folder it works in.
pub(crate) struct World {
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) backend: Arc<dyn KernelBackend>,
    pub(crate) base: tempfile::TempDir,
}

impl World {
    /// A plugin on the static carrier, in a folder with a short path.
    pub(crate) async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap()).await
    }

    /// The same with settings.
    pub(crate) async fn with_settings(settings: serde_json::Value) -> Self {
        let base = tempfile::tempdir().unwrap();
        let plugin = JupyterPlugin::create(Arc::new(host(base.path()).with_settings(settings))).unwrap();
        Self::with(Arc::new(plugin), base).await
    }

    /// The same in a given folder.
    pub(crate) async fn at(base: tempfile::TempDir) -> Self {
        let plugin = JupyterPlugin::create(Arc::new(host(base.path()))).unwrap();
        Self::with(Arc::new(plugin), base).await
    }

    /// The same with a plugin made elsewhere, whose host has `base`.
    pub(crate) async fn with(plugin: Arc<dyn Plugin>, base: tempfile::TempDir) -> Self {
        plugin.start().await.unwrap();
        let backend = plugin.kernel_backends().remove(0);
        Self { plugin, backend, base }
    }

    /// A Python kernel in the base folder.
    pub(crate) fn spec(&self, python: PathBuf) -> LaunchSpec {
        LaunchSpec {
            kernel: "0b0e1c5e-7f3a-4f0e-9d55-1f5f5d0c6a01".into(),
            kind: "python".into(),
            room: "room".into(),
            notebook_path: None,
            command: LaunchCommand {
                argv: vec![python.to_str().unwrap().into()],
                // IPython writes its profile there, never to the developer's home.
                env: [(
                    "IPYTHONDIR".to_owned(),
                    self.base.path().join("ipython").to_str().unwrap().to_owned(),
                )]
                .into(),
                ..LaunchCommand::default()
            },
            cwd: self.base.path().to_owned(),
            options: serde_json::Map::new(),
        }
    }

    /// Starts a Python kernel, or none, with a message, when no interpreter can be had.
    pub(crate) async fn launch(&self) -> Option<(Box<dyn Kernel>, Recorder)> {
        let spec = self.spec(kernel_python()?);
        let (recorder, events) = Recorder::new();
        let kernel: Result<_> = self.backend.launch(spec, events).await;
        Some((kernel.unwrap(), recorder))
    }

    /// Ends everything and shows that nothing is left.
    pub(crate) async fn end(self) {
        // Kernels that nobody holds are left alone by a plugin that stops.
        for found in self.backend.running().await.unwrap() {
            let attached = self.backend.attach(&found.spec.kernel, u64::MAX, Recorder::new().1).await;
            attached.unwrap().shutdown(Duration::ZERO).await.unwrap();
        }
        self.plugin.stop(Duration::from_secs(10)).await.unwrap();
        assert_eq!(self.folders(), 0, "a kernel's folder was left behind");
    }

    /// How many kernels have a folder.
    pub(crate) fn folders(&self) -> usize {
        folders(self.base.path()).len()
    }
}
