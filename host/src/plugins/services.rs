//! What a plugin sees of the host: one object for each plugin.

use std::fmt::Write;
use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use runtimed_plugin_api::processes::ProcessLimits;
use runtimed_plugin_api::{
    BlobStore, Directories, Environments, HostServices, KernelBackend, ProcessExit, ProcessLines,
    ProcessSpec, Result, SettingsView, processes,
};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::registry::Registry;
use crate::log;

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
    /// What its processes may use.
    pub(super) limits: ProcessLimits,
    pub(super) context: Arc<HostContext>,
    /// Weak: the registry owns the plugins, and they own this.
    pub(super) registry: Weak<Registry>,
}

#[async_trait]
impl HostServices for Services {
    fn log_enabled(&self, level: u8, target: &str) -> bool {
        log::enabled(level_of(level), target)
    }

    fn log(&self, level: u8, target: &str, message: &str, fields: &str) {
        if self.log_enabled(level, target) {
            let source = format!("plugin {}", self.plugin);
            log::line(level_of(level), &source, &format!("{message}{}", readable(fields)));
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
        processes::run_within(spec, &self.limits, &*lines).await
    }

    async fn shutting_down(&self) {
        self.context.shutdown.cancelled().await;
    }
}

/// A level by its ABI number.
fn level_of(number: u8) -> Level {
    match number {
        0 | 1 => Level::ERROR,
        2 => Level::WARN,
        3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

/// The fields of a line, a JSON object, as ` key=value` each; quoted where a value would not end visibly.
fn readable(fields: &str) -> String {
    let fields: Map<String, Value> = serde_json::from_str(fields).unwrap_or_default();
    let mut text = String::new();
    for (key, value) in &fields {
        let plain =
            |text: &&str| !text.is_empty() && !text.contains(|c: char| c.is_control() || " \"=".contains(c));
        // Writing to a string cannot fail.
        let _ = match value.as_str().filter(plain) {
            Some(value) => write!(text, " {key}={value}"),
            None => write!(text, " {key}={value}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_like_a_line() {
        assert_eq!(readable("{}"), "");
        assert_eq!(readable("no JSON"), "");
        assert_eq!(
            readable(r#"{"list":[1,"a b"],"none":"","path":"/usr/bin/uv","step":2,"why":"no such\nfile"}"#),
            r#" list=[1,"a b"] none="" path=/usr/bin/uv step=2 why="no such\nfile""#
        );
    }
}
