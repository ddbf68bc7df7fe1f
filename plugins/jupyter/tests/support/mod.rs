//! What kernel tests share: a started plugin, an interpreter with ipykernel, and a recorder of what a kernel says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

mod python;
mod recorder;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{Kernel, KernelBackend, LaunchCommand, LaunchSpec, Plugin, Result};
use runtimed_plugin_jupyter::JupyterPlugin;
use runtimed_plugin_testkit::TestHost;

pub(crate) use python::kernel_python;
pub(crate) use recorder::{Message, Recorder, execute, request};

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

    /// The same in a given folder.
    pub(crate) async fn at(base: tempfile::TempDir) -> Self {
        let plugin = JupyterPlugin::create(Arc::new(TestHost::new(base.path()))).unwrap();
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
        self.plugin.stop(Duration::from_secs(10)).await.unwrap();
        assert_eq!(self.folders(), 0, "a kernel's folder was left behind");
    }

    /// How many kernels have a folder.
    pub(crate) fn folders(&self) -> usize {
        std::fs::read_dir(self.base.path().join("run/kernels")).map_or(0, Iterator::count)
    }
}
