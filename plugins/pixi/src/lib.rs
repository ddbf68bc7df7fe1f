//! Environments made with the pixi tool.
//!
//! For: users of pixi, whose projects and habits it follows; plugin authors who want to see a provider with projects.
//! Map: `provider` decides and runs the steps, `tool` finds pixi, `packages` and `manifest` say to pixi what a notebook
//! wants, `project` reads what the user's own files say, `commands` has pixi's command lines and answers, `errors` turns
//! what went wrong into what to do.

mod commands;
mod errors;
mod manifest;
mod packages;
mod project;
mod provider;
mod tool;

use std::sync::Arc;

use runtimed_plugin_api::{EnvProvider, Host, Plugin, Result, async_trait, export_plugin};

pub use provider::PixiProvider;
pub use tool::Surroundings;

/// The plugin: one environment provider.
pub struct PixiPlugin(Arc<PixiProvider>);

#[async_trait]
impl Plugin for PixiPlugin {
    fn create(host: Host) -> Result<Self> {
        Ok(Self(Arc::new(PixiProvider::new(host, Surroundings::of_this_process()))))
    }

    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        vec![self.0.clone()]
    }
}

export_plugin!(PixiPlugin, id = "io.github.runtimed.pixi");
