//! Other plugins whose capabilities the one under test may use.
//!
//! Promises: they run until this value is dropped, and have ended then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::case::Stop;
use crate::host::{Capabilities, TestHost};
use crate::subject::{Instance, Subject};

/// Grace that a companion gets to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Where a companion lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Companion {
    /// The folder with its manifest.
    pub folder: PathBuf,
    /// Its library, absolute.
    pub library: PathBuf,
}

/// Companions that have started.
pub(crate) struct Companions {
    runtime: Runtime,
    plugins: Vec<Instance>,
    pub(crate) capabilities: Capabilities,
}

impl Companions {
    /// Loads and starts companions in this process, below `scratch`.
    ///
    /// # Errors
    /// A sentence about the first one that does not start.
    pub(crate) fn start(companions: &[Companion], scratch: &Path) -> Result<Self, String> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().map_err(|error| error.to_string())?;
        let mut started = Self { runtime, plugins: Vec::new(), capabilities: Capabilities::default() };
        for companion in companions {
            let subject = Subject::in_process(&companion.folder, &companion.library);
            let host = TestHost::new(&scratch.join("companions").join(subject.id()));
            host.set_log_level(0);
            let starting = async {
                let plugin = subject.make(Arc::new(host), |_| {}).await.map_err(|stop| match stop {
                    Stop::Failed(fault) => fault.sentence,
                    Stop::Skipped(why) => why,
                })?;
                plugin.start().await.map_err(|error| error.message)?;
                Ok(plugin)
            };
            let plugin = started.runtime.block_on(starting);
            let plugin =
                plugin.map_err(|why: String| format!("`{}` could not be started: {why}", subject.id()))?;
            let Capabilities { blob_store, kernel_backend, .. } = &mut started.capabilities;
            *blob_store = blob_store.take().or_else(|| plugin.blob_store());
            *kernel_backend = kernel_backend.take().or_else(|| plugin.kernel_backends().into_iter().next());
            started.plugins.push(plugin);
        }
        Ok(started)
    }
}

impl Drop for Companions {
    fn drop(&mut self) {
        for plugin in self.plugins.drain(..).rev() {
            // What does not stop in time ends with the process.
            let _ =
                self.runtime.block_on(async { tokio::time::timeout(2 * GRACE, plugin.stop(GRACE)).await });
        }
    }
}
