//! The capability: starts kernels, finds them again and keeps count of them.
//!
//! Promises: [`JupyterBackend::stop`] returns when no kernel is left that somebody holds; those whose handle was
//! dropped stay for whoever attaches next.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtimed_kernel_shim::protocol::{Attached, Launch, Transport};
use runtimed_kernelspecs::Surroundings;
use runtimed_plugin_api::{
    Directories, ErrorCode, Host, Kernel, KernelBackend, KernelEvents, KernelKind, KernelRecord, LaunchSpec,
    PluginError, Result, Sequence, async_trait,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deno::{self, Setup};
use crate::installed::Installed;
use crate::kernel::{JupyterKernel, supervise};
use crate::kind::{Kind, PYTHON};
use crate::launch::{self, Shims, Started, port_was_taken};
use crate::link::Link;
use crate::{folder, found};

/// Pauses before a kernel is started once more that found one of its ports taken (those of the reference).
const PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(250), Duration::from_millis(500)];

/// Name of the program that keeps a kernel, in the plugin's folder.
const PROGRAM: &str = "runtimed-kernel";

/// Runs Jupyter kernels, each in the keeping of a shim.
pub(crate) struct JupyterBackend {
    host: Host,
    /// One task per kernel that somebody holds, and one per shim that was started here.
    kernels: TaskTracker,
    /// Fires once; ends every kernel.
    end: CancellationToken,
}

impl JupyterBackend {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, kernels: TaskTracker::new(), end: CancellationToken::new() }
    }

    fn runtime(&self) -> PathBuf {
        self.host.directories().runtime
    }

    fn shims(&self) -> Shims {
        let Directories { base, runtime, plugin, .. } = self.host.directories();
        let mut defaults = Launch { spill: base, ..Launch::default() };
        let settings = self.host.settings().values;
        let number = |name: &str| settings.pointer(&format!("/kernels/{name}")).and_then(|it| it.as_u64());
        let set = |value: &mut u64, name| *value = number(name).unwrap_or(*value);
        set(&mut defaults.keep_alive_secs, "keep_without_daemon_secs");
        set(&mut defaults.memory_bytes, "keep_memory_bytes");
        set(&mut defaults.disk_bytes, "keep_disk_bytes");
        Shims { program: plugin.join(PROGRAM), runtime, defaults }
    }

    /// Cleans up after kernels whose shim is gone. To be called before the first launch, when there is no folder of a
    /// kernel on its way; the result is the work.
    ///
    /// Kernels that are alive are not touched: whose they are, rooms know.
    pub(crate) fn clean_up(&self) -> impl Future<Output = ()> + use<> {
        found::clean(folder::all(&self.runtime()))
    }

    /// Ends every kernel that somebody holds, by force, and waits until they are gone.
    ///
    /// # Errors
    /// `Timeout` when one is still there after `grace`.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<()> {
        self.end.cancel();
        self.kernels.close();
        let ended = async { self.kernels.wait().await };
        timeout(grace, ended).await.map_err(|_| {
            let left = self.kernels.len();
            PluginError::new(ErrorCode::Timeout, format!("{left} kernel(s) did not end in time"))
        })
    }

    /// Starts a shim and has it bring a kernel up.
    async fn bring_up(&self, spec: &LaunchSpec, kind: &Kind) -> Result<(Started, CancellationToken)> {
        let (starting, mut process) = self.shims().start(spec, kind)?;
        let (folder, let_go, end) = (starting.folder.clone(), CancellationToken::new(), self.end.clone());
        let is_let_go = let_go.clone();
        self.kernels.spawn(async move {
            // A stop waits for every shim but those that go on.
            let left = async { tokio::join!(is_let_go.cancelled(), end.cancelled()) };
            tokio::select! {
                _ = process.wait() => found::bury(folder).await,
                _ = left => {}
            }
        });
        Ok((starting.up(kind).await?, let_go))
    }

    /// The same, again with other ports when somebody else was faster to take one.
    async fn bring_up_somewhere(
        &self,
        spec: &LaunchSpec,
        kind: &Kind,
    ) -> Result<(Started, CancellationToken)> {
        for pause in PAUSES {
            match self.bring_up(spec, kind).await {
                Err(error) if kind.transport == Transport::Tcp && port_was_taken(&error) => {
                    tracing::info!(
                        kind = kind.described.name,
                        "a kernel found a port taken and is started again"
                    );
                    tokio::time::sleep(pause).await;
                }
                result => return result,
            }
        }
        self.bring_up(spec, kind).await
    }

    fn supervise(
        &self,
        kernel: Attached,
        link: Link,
        folder: PathBuf,
        events: Arc<dyn KernelEvents>,
        accepted: CancellationToken,
        let_go: CancellationToken,
    ) -> JupyterKernel {
        let (kernel, life) = supervise(kernel, link, folder, events, accepted, self.end.clone());
        self.kernels.spawn(async move {
            if life.await {
                let_go.cancel();
            }
        });
        kernel
    }
}

/// What is installed, seen from this process.
async fn look() -> Result<Installed> {
    let look = || Installed::look(Surroundings::current());
    tokio::task::spawn_blocking(look).await.map_err(|error| PluginError::internal(error.to_string()))
}

/// The kind that `spec` asks for, as it wants it.
async fn find(spec: &LaunchSpec) -> Result<Kind> {
    let installed = look().await?;
    let mut kind = installed.find(&spec.kind)?;
    if installed.is_plain_deno(&spec.kind) {
        kind = Kind::deno(&deno::recent(installed.denos()).await?);
    }
    if spec.options.is_empty() {
        return Ok(kind);
    }
    if !kind.is_deno() {
        let text = format!(
            "the kernel `{}` does not start `deno` itself, so it cannot be told what the notebook says \
                            in `runt.deno`",
            spec.kind
        );
        return Err(PluginError::unsupported(text)
            .help("Nothing was started. Choose the kernel `deno`, or take that section out of the notebook's metadata."));
    }
    let (options, cwd) = (spec.options.clone(), launch::cwd(spec).to_owned());
    let read = tokio::task::spawn_blocking(move || Setup::read(&options, &cwd)).await;
    Ok(kind.set_up(read.map_err(|error| PluginError::internal(error.to_string()))??))
}

#[async_trait]
impl KernelBackend for JupyterBackend {
    async fn kinds(&self) -> Result<Vec<KernelKind>> {
        Ok(look().await?.kinds())
    }

    async fn launch(&self, spec: LaunchSpec, events: Arc<dyn KernelEvents>) -> Result<Box<dyn Kernel>> {
        let stopping =
            || PluginError::new(ErrorCode::Cancelled, "the daemon is stopping; no kernel was started");
        let started = self.end.run_until_cancelled(async {
            let kind = find(&spec).await?;
            self.bring_up_somewhere(&spec, &kind).await
        });
        let (Started { link, kernel, folder }, let_go) = started.await.ok_or_else(stopping)??;
        Ok(Box::new(self.supervise(kernel, link, folder, events, CancellationToken::new(), let_go)))
    }

    async fn running(&self) -> Result<Vec<KernelRecord>> {
        Ok(found::running(&self.runtime()).await)
    }

    async fn attach(
        &self,
        kernel: &str,
        after: Sequence,
        events: Arc<dyn KernelEvents>,
    ) -> Result<Box<dyn Kernel>> {
        let (kernel, link, folder) = found::attach(&self.runtime(), kernel, after).await?;
        let accepted = CancellationToken::new();
        accepted.cancel();
        Ok(Box::new(self.supervise(kernel, link, folder, events, accepted, CancellationToken::new())))
    }

    async fn adopt(
        &self,
        warm: &str,
        spec: LaunchSpec,
        events: Arc<dyn KernelEvents>,
    ) -> Result<Box<dyn Kernel>> {
        if spec.kind != PYTHON {
            return Err(PluginError::unsupported(format!("kernels of kind `{}` are never warm", spec.kind)));
        }
        let (kernel, link, folder) = found::adopt(&self.runtime(), warm, &spec).await?;
        let (accepted, let_go) = (CancellationToken::new(), CancellationToken::new());
        Ok(Box::new(self.supervise(kernel, link, folder, events, accepted, let_go)))
    }
}
