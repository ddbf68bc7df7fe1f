//! Python environments made with venv and pip.
//!
//! For: users who have a Python and want no other tool; plugin authors who want to see a whole provider.
//! Map: `provider` decides and runs the steps, `python` chooses the interpreter, `pip` speaks to pip,
//! `errors` turns what went wrong into what to do.

mod errors;
mod pip;
mod provider;
mod python;

use std::sync::Arc;

use runtimed_plugin_api::{EnvProvider, Host, Plugin, Result, async_trait, export_plugin};

pub use provider::VenvProvider;

/// The plugin: one environment provider.
pub struct VenvPlugin(Arc<VenvProvider>);

#[async_trait]
impl Plugin for VenvPlugin {
    fn create(host: Host) -> Result<Self> {
        Ok(Self(Arc::new(VenvProvider::new(host))))
    }

    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        vec![self.0.clone()]
    }
}

export_plugin!(VenvPlugin, id = "io.github.runtimed.venv");
