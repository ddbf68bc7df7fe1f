//! A host for one plugin on the static carrier: directories, and nothing else.

use std::path::PathBuf;
use std::sync::Arc;

use runtimed_plugin_api::{
    BlobStore, Directories, Environments, Host, HostServices, KernelBackend, PluginError, ProcessExit,
    ProcessLines, ProcessSpec, Result, SettingsView, async_trait,
};

/// A host whose directories are all below `base`.
pub(crate) fn host(base: PathBuf) -> Host {
    Arc::new(TestHost { base })
}

struct TestHost {
    base: PathBuf,
}

#[async_trait]
impl HostServices for TestHost {
    fn log_enabled(&self, _: u8, _: &str) -> bool {
        false
    }

    fn log(&self, _: u8, _: &str, _: &str, _: &str) {}

    fn directories(&self) -> Directories {
        let below = |name| self.base.join(name);
        Directories {
            base: self.base.clone(),
            runtime: below("run"),
            blobs: below("blobs"),
            executions: below("executions"),
            tools: below("tools"),
            plugin: below("plugin"),
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
        Err(PluginError::unsupported("the test host runs no processes"))
    }

    async fn shutting_down(&self) {
        std::future::pending().await
    }
}
