//! Conda environments.
//!
//! For: the daemon, which loads this library as a plugin; tests, which use [`CondaProvider`] directly.
//! Map: `provider` decides; `build` and `project` run the steps, `program` the one that solves and installs; `plan`,
//! `key`, `packages`, `environment_yml` and `errors` are the pure parts; `prefixes` looks for environments of the user's
//! own.

mod build;
mod environment_yml;
mod errors;
mod key;
mod packages;
mod plan;
mod prefixes;
mod program;
mod project;
mod provider;
mod surroundings;

use std::sync::Arc;

use runtimed_plugin_api::{EnvProvider, Host, Plugin, Result, async_trait};

pub use provider::CondaProvider;
pub use surroundings::Surroundings;

/// The plugin: one environment provider.
pub struct CondaPlugin {
    provider: Arc<CondaProvider>,
}

#[async_trait]
impl Plugin for CondaPlugin {
    fn create(host: Host) -> Result<Self> {
        Ok(Self { provider: Arc::new(CondaProvider::new(host, Surroundings::of_this_process())) })
    }

    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        vec![self.provider.clone()]
    }
}

runtimed_plugin_api::export_plugin!(CondaPlugin, id = "conda");
