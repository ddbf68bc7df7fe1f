//! What a plugin sees of the host: one object for each plugin.

use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use runtimed_plugin_api::{
    BlobStore, Directories, Environments, HostServices, KernelBackend, ProcessExit, ProcessLines,
    ProcessSpec, Result, SettingsView,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::processes;
use super::registry::Registry;

/// What the daemon's main hands to every plugin.
pub struct HostContext {
    /// Where things belong; `plugin` is filled in for each plugin.
    pub directories: Directories,
    /// The settings, as they change.
    pub settings: watch::Receiver<SettingsView>,
    /// Fires when the daemon begins to stop.
    pub shutdown: CancellationToken,
    /// The environment service, which itself needs plugins and therefore comes later.
    pub environments: OnceLock<Arc<dyn Environments>>,
}

/// The host as one plugin sees it.
pub(super) struct Services {
    pub(super) plugin: String,
    pub(super) folder: PathBuf,
    pub(super) context: Arc<HostContext>,
    /// Weak: the registry owns the plugins, and they own this.
    pub(super) registry: Weak<Registry>,
}

/// Log target of everything a plugin says; its own target is a field.
const TARGET: &str = "runtimed::plugin";

#[async_trait]
impl HostServices for Services {
    fn log_enabled(&self, level: u8, _: &str) -> bool {
        match level {
            1 => tracing::enabled!(target: TARGET, Level::ERROR),
            2 => tracing::enabled!(target: TARGET, Level::WARN),
            3 => tracing::enabled!(target: TARGET, Level::INFO),
            4 => tracing::enabled!(target: TARGET, Level::DEBUG),
            _ => tracing::enabled!(target: TARGET, Level::TRACE),
        }
    }

    fn log(&self, level: u8, target: &str, message: &str, fields: &str) {
        let plugin = self.plugin.as_str();
        match level {
            1 => tracing::error!(target: TARGET, plugin, from = target, fields, "{message}"),
            2 => tracing::warn!(target: TARGET, plugin, from = target, fields, "{message}"),
            3 => tracing::info!(target: TARGET, plugin, from = target, fields, "{message}"),
            4 => tracing::debug!(target: TARGET, plugin, from = target, fields, "{message}"),
            _ => tracing::trace!(target: TARGET, plugin, from = target, fields, "{message}"),
        }
    }

    fn directories(&self) -> Directories {
        Directories { plugin: self.folder.clone(), ..self.context.directories.clone() }
    }

    fn settings(&self) -> SettingsView {
        self.context.settings.borrow().clone()
    }

    async fn settings_changed(&self, revision: u64) -> SettingsView {
        let mut settings = self.context.settings.clone();
        let newer = settings.wait_for(|settings| settings.revision > revision).await;
        match newer.map(|settings| settings.clone()) {
            Ok(settings) => settings,
            // Whoever wrote settings is gone, so there will be no newer ones.
            Err(_) => pending().await,
        }
    }

    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        self.registry.upgrade()?.blob_store()
    }

    fn kernel_backend(&self, kind: &str) -> Option<Arc<dyn KernelBackend>> {
        self.registry.upgrade()?.kernel_backend(kind)
    }

    fn environments(&self) -> Option<Arc<dyn Environments>> {
        self.context.environments.get().cloned()
    }

    async fn run_process(&self, spec: ProcessSpec, lines: Arc<dyn ProcessLines>) -> Result<ProcessExit> {
        processes::run(spec, &*lines).await
    }

    async fn shutting_down(&self) {
        self.context.shutdown.cancelled().await;
    }
}
