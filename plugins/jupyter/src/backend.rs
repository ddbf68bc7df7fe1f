//! The capability: starts kernels and keeps count of them.
//!
//! Promises: [`JupyterBackend::stop`] returns when no kernel of ours is left.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{
    ErrorCode, Kernel, KernelBackend, KernelEvents, KernelKind, LaunchSpec, PluginError, Result, async_trait,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::kernel::supervise;
use crate::kind::{Kind, PYTHON};
use crate::launch::launch;

/// Runs Jupyter kernels as children of this process.
pub(crate) struct JupyterBackend {
    /// The host's directory for sockets.
    runtime: PathBuf,
    /// One task per kernel.
    kernels: TaskTracker,
    /// Fires once; ends every kernel.
    end: CancellationToken,
}

impl JupyterBackend {
    /// A backend that keeps sockets below `runtime`.
    pub(crate) fn new(runtime: PathBuf) -> Self {
        Self { runtime, kernels: TaskTracker::new(), end: CancellationToken::new() }
    }

    /// Where sockets are kept.
    pub(crate) fn runtime(&self) -> &std::path::Path {
        &self.runtime
    }

    /// Ends every kernel by force and waits until they are gone.
    ///
    /// # Errors
    /// `Timeout` when one is still there after `grace`.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<()> {
        self.end.cancel();
        self.kernels.close();
        timeout(grace, self.kernels.wait()).await.map_err(|_| {
            let left = self.kernels.len();
            PluginError::new(ErrorCode::Timeout, format!("{left} kernel(s) did not end in time"))
        })
    }
}

#[async_trait]
impl KernelBackend for JupyterBackend {
    async fn kinds(&self) -> Result<Vec<KernelKind>> {
        Ok(vec![PYTHON.describe()])
    }

    async fn launch(&self, spec: LaunchSpec, events: Arc<dyn KernelEvents>) -> Result<Box<dyn Kernel>> {
        let kind = Kind::find(&spec.kind)?;
        let stopping =
            || PluginError::new(ErrorCode::Cancelled, "the daemon is stopping; no kernel was started");
        let started = self.end.run_until_cancelled(launch(&self.runtime, &spec, kind)).await;
        let started = started.ok_or_else(stopping)??;
        let (kernel, life) = supervise(started, kind.interrupt, events, self.end.child_token());
        self.kernels.spawn(life);
        Ok(Box::new(kernel))
    }
}
