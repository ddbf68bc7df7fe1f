//! The plugin's life.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtimed_plugin_api::{Host, KernelBackend, Plugin, Result, async_trait};
use tokio::task::JoinSet;

use crate::backend::JupyterBackend;

/// Runs Jupyter kernels for the host.
pub struct JupyterPlugin {
    backend: Arc<JupyterBackend>,
    /// The start's clean-up after kernels that lost their shim.
    background: Mutex<JoinSet<()>>,
}

#[async_trait]
impl Plugin for JupyterPlugin {
    fn create(host: Host) -> Result<Self> {
        let backend = Arc::new(JupyterBackend::new(host));
        Ok(Self { backend, background: Mutex::default() })
    }

    async fn start(&self) -> Result<()> {
        // Listed now, before the first launch can add a folder of ours; ended without holding up the start.
        let cleaning = self.backend.clean_up();
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        background.spawn(cleaning);
        Ok(())
    }

    async fn stop(&self, grace: Duration) -> Result<()> {
        let mut background =
            std::mem::take(&mut *self.background.lock().unwrap_or_else(PoisonError::into_inner));
        while background.join_next().await.is_some() {}
        self.backend.stop(grace).await
    }

    fn kernel_backends(&self) -> Vec<Arc<dyn KernelBackend>> {
        vec![self.backend.clone()]
    }
}
