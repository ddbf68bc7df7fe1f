//! Python environments built with uv.
//!
//! For: the daemon, which loads this library as a plugin; tests, which use [`UvProvider`] directly.
//! Map: `provider` decides, `build` runs the steps, `commands`, `errors`, `progress`, `python`, `key`
//! and `project` are the pure parts, `tool`, `bootstrap`, `index` and `wheel` see to uv itself.

mod bootstrap;
mod build;
mod commands;
mod errors;
mod index;
mod key;
mod origins;
mod progress;
mod project;
mod provider;
mod python;
mod tool;
mod wheel;

use std::sync::Arc;

use runtimed_plugin_api::{EnvProvider, Host, Plugin, Result, async_trait};

pub use provider::UvProvider;
pub use tool::Surroundings;
pub use wheel::{PinnedWheel, UV_VERSION};

/// The plugin: one environment provider.
pub struct UvPlugin {
    provider: Arc<UvProvider>,
}

#[async_trait]
impl Plugin for UvPlugin {
    fn create(host: Host) -> Result<Self> {
        Ok(Self { provider: Arc::new(UvProvider::new(host, Surroundings::of_this_process())) })
    }

    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        vec![self.provider.clone()]
    }
}

runtimed_plugin_api::export_plugin!(UvPlugin, id = "uv");
