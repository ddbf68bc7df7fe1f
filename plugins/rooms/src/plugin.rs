//! The plugin's life.
//!
//! Promises: when it has stopped, every file is written, every kernel has ended and no task runs.

use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{Host, Plugin, Result, Rooms, async_trait};

use crate::rooms::OpenNotebooks;

/// Open notebooks, as a plugin.
pub struct RoomsPlugin {
    rooms: Arc<OpenNotebooks>,
}

#[async_trait]
impl Plugin for RoomsPlugin {
    fn create(host: Host) -> Result<Self> {
        Ok(Self { rooms: Arc::new(OpenNotebooks::new(host)) })
    }

    async fn start(&self) -> Result<()> {
        self.rooms.begin();
        Ok(())
    }

    async fn stop(&self, _grace: Duration) -> Result<()> {
        self.rooms.close().await;
        Ok(())
    }

    fn rooms(&self) -> Option<Arc<dyn Rooms>> {
        Some(self.rooms.clone())
    }
}

runtimed_plugin_api::export_plugin!(RoomsPlugin, id = "rooms", workers = cores);
