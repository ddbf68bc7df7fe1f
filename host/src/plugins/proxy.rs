//! A plugin that is always there, whatever becomes of its processes.
//!
//! For: pools and rooms, which hold providers for as long as the daemon runs.
//! Promises: each call goes to the process that takes calls at that moment, and has a deadline; whoever gives a
//! call up, cancels it there.
//! Never: repeats a call: only the caller knows whether that may be done.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtimed_plugin_api::{
    Attached, Blob, BlobFile, BlobStore, Digest, EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest,
    Environment, ErrorCode, Health, Host, Join, Kernel, KernelBackend, KernelEvents, KernelKind,
    KernelRecord, LaunchCommand, LaunchSpec, LiveSet, PackageIdentity, PeerLink, Plugin, PluginError,
    Project, Result, RoomReply, RoomRequest, Rooms, Sequence, Swept, Task, async_trait,
};
use tokio::time::timeout;

use super::running::Borrowed;
use super::supervisor::Supervisor;

/// Longest answer to a question (our choice: it reads a file or starts an interpreter, on a busy machine).
const QUESTION: Duration = Duration::from_secs(30);
/// Longest piece of work: an environment with large packages, on a slow line (our choice; a pool gives up a
/// build of its own after half of that).
const WORK: Duration = Duration::from_secs(30 * 60);

/// A plugin in a process of its own, as if it were here.
pub(super) struct Proxy {
    supervisor: Supervisor,
    env_providers: Vec<Arc<dyn EnvProvider>>,
    blob_store: Option<Arc<dyn BlobStore>>,
    kernel_backends: Vec<Arc<dyn KernelBackend>>,
    rooms: Option<Arc<dyn Rooms>>,
}

impl Proxy {
    /// Starts the plugin `id` once, to see that it can be, and what it is.
    ///
    /// # Errors
    /// Why it cannot be started; the plugin's row says the same.
    pub(super) async fn start(id: &str, supervisor: Supervisor) -> Result<Self> {
        let borrowed = supervisor.borrow().await?;
        let to = |at| Remote { id: id.to_owned(), supervisor: supervisor.clone(), at };
        let plugin = borrowed.plugin();
        let env_providers = plugin.env_providers().into_iter().enumerate().map(|(at, provider)| {
            Arc::new(RemoteEnvProvider { info: provider.info(), to: to(at) }) as Arc<dyn EnvProvider>
        });
        let backends = plugin.kernel_backends();
        let backends =
            (0..backends.len()).map(|at| Arc::new(RemoteBackend(to(at))) as Arc<dyn KernelBackend>);
        Ok(Self {
            env_providers: env_providers.collect(),
            blob_store: plugin.blob_store().map(|_| Arc::new(RemoteStore(to(0))) as Arc<dyn BlobStore>),
            kernel_backends: backends.collect(),
            rooms: plugin.rooms().map(|_| Arc::new(RemoteRooms(to(0))) as Arc<dyn Rooms>),
            supervisor,
        })
    }
}

#[async_trait]
impl Plugin for Proxy {
    fn create(_: Host) -> Result<Self> {
        Err(PluginError::unsupported("a plugin in a process of its own is started by its supervisor"))
    }

    async fn stop(&self, grace: Duration) -> Result<()> {
        self.supervisor.stop(grace).await;
        Ok(())
    }

    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        self.env_providers.clone()
    }

    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        self.blob_store.clone()
    }

    fn kernel_backends(&self) -> Vec<Arc<dyn KernelBackend>> {
        self.kernel_backends.clone()
    }

    fn rooms(&self) -> Option<Arc<dyn Rooms>> {
        self.rooms.clone()
    }
}

/// One capability of the plugin: the one at this position of those of its sort.
struct Remote {
    id: String,
    supervisor: Supervisor,
    at: usize,
}

impl Remote {
    /// The capability in the process that takes calls now, for one call.
    async fn reach<T: ?Sized>(
        &self,
        find: impl FnOnce(&dyn Plugin, usize) -> Option<Arc<T>>,
    ) -> Result<Call<'_, T>> {
        let borrowed = self.supervisor.borrow().await?;
        let missing =
            || PluginError::internal(format!("plugin `{}` provides less than it did before", self.id));
        let object = find(&**borrowed.plugin(), self.at).ok_or_else(missing)?;
        Ok(Call { object, id: &self.id, borrowed })
    }
}

/// A capability that is held for one call. The process stays for as long as this does.
struct Call<'a, T: ?Sized> {
    object: Arc<T>,
    id: &'a str,
    borrowed: Borrowed,
}

impl<T: ?Sized> Call<'_, T> {
    /// Waits for `answer` up to `limit`; what takes longer is cancelled.
    async fn within<R>(
        &self,
        limit: Duration,
        what: &str,
        answer: impl Future<Output = Result<R>> + Send,
    ) -> Result<R> {
        timeout(limit, self.borrowed.call(answer)).await.unwrap_or_else(|_| {
            let message =
                format!("plugin `{}` did not answer `{what}` within {} s", self.id, limit.as_secs());
            Err(PluginError::new(ErrorCode::Timeout, message)
                .help(format!("Try again. `runt plugins show {}` says how the plugin is.", self.id))
                .retryable())
        })
    }
}

struct RemoteEnvProvider {
    to: Remote,
    info: EnvProviderInfo,
}

impl RemoteEnvProvider {
    async fn reach(&self) -> Result<Call<'_, dyn EnvProvider>> {
        self.to.reach(|plugin, at| plugin.env_providers().into_iter().nth(at)).await
    }
}

#[async_trait]
impl EnvProvider for RemoteEnvProvider {
    fn info(&self) -> EnvProviderInfo {
        self.info.clone()
    }

    async fn detect(&self, dir: &Path) -> Result<Option<Project>> {
        let call = self.reach().await?;
        call.within(QUESTION, "detect", call.object.detect(dir)).await
    }

    async fn plan(&self, request: EnvRequest) -> Result<EnvPlan> {
        let call = self.reach().await?;
        call.within(QUESTION, "plan", call.object.plan(request)).await
    }

    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
        let call = self.reach().await?;
        call.within(WORK, "create", call.object.create(plan, prefix, task)).await
    }

    async fn clone_env(&self, template: &Environment, prefix: &Path, task: Task) -> Result<Environment> {
        let call = self.reach().await?;
        call.within(WORK, "clone_env", call.object.clone_env(template, prefix, task)).await
    }

    async fn install(&self, env: &Environment, packages: &[String], task: Task) -> Result<()> {
        let call = self.reach().await?;
        call.within(WORK, "install", call.object.install(env, packages, task)).await
    }

    async fn optimize(&self, env: &Environment) -> Result<()> {
        let call = self.reach().await?;
        call.within(WORK, "optimize", call.object.optimize(env)).await
    }

    async fn verify(&self, env: &Environment) -> Result<Health> {
        let call = self.reach().await?;
        call.within(QUESTION, "verify", call.object.verify(env)).await
    }

    async fn launch(&self, env: &Environment) -> Result<LaunchCommand> {
        let call = self.reach().await?;
        call.within(QUESTION, "launch", call.object.launch(env)).await
    }

    async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>> {
        let call = self.reach().await?;
        call.within(QUESTION, "identities", call.object.identities(request)).await
    }
}

struct RemoteStore(Remote);

impl RemoteStore {
    async fn reach(&self) -> Result<Call<'_, dyn BlobStore>> {
        self.0.reach(|plugin, _| plugin.blob_store()).await
    }
}

#[async_trait]
impl BlobStore for RemoteStore {
    async fn put(&self, bytes: Bytes, media_type: &str) -> Result<Digest> {
        let call = self.reach().await?;
        call.within(WORK, "put", call.object.put(bytes, media_type)).await
    }

    async fn get(&self, digest: Digest) -> Result<Option<Blob>> {
        let call = self.reach().await?;
        call.within(WORK, "get", call.object.get(digest)).await
    }

    async fn locate(&self, digest: Digest) -> Result<Option<BlobFile>> {
        let call = self.reach().await?;
        call.within(QUESTION, "locate", call.object.locate(digest)).await
    }

    async fn sweep(&self, live: LiveSet) -> Result<Swept> {
        let call = self.reach().await?;
        call.within(WORK, "sweep", call.object.sweep(live)).await
    }

    async fn flush(&self) -> Result<()> {
        let call = self.reach().await?;
        call.within(WORK, "flush", call.object.flush()).await
    }
}

struct RemoteBackend(Remote);

impl RemoteBackend {
    async fn reach(&self) -> Result<Call<'_, dyn KernelBackend>> {
        self.0.reach(|plugin, at| plugin.kernel_backends().into_iter().nth(at)).await
    }
}

#[async_trait]
impl KernelBackend for RemoteBackend {
    async fn kinds(&self) -> Result<Vec<KernelKind>> {
        let call = self.reach().await?;
        call.within(QUESTION, "kinds", call.object.kinds()).await
    }

    async fn launch(&self, spec: LaunchSpec, events: Arc<dyn KernelEvents>) -> Result<Box<dyn Kernel>> {
        let call = self.reach().await?;
        call.within(WORK, "launch", call.object.launch(spec, events)).await
    }

    async fn running(&self) -> Result<Vec<KernelRecord>> {
        let call = self.reach().await?;
        call.within(QUESTION, "running", call.object.running()).await
    }

    async fn attach(
        &self,
        kernel: &str,
        after: Sequence,
        events: Arc<dyn KernelEvents>,
    ) -> Result<Box<dyn Kernel>> {
        let call = self.reach().await?;
        call.within(WORK, "attach", call.object.attach(kernel, after, events)).await
    }

    async fn adopt(
        &self,
        warm: &str,
        spec: LaunchSpec,
        events: Arc<dyn KernelEvents>,
    ) -> Result<Box<dyn Kernel>> {
        let call = self.reach().await?;
        call.within(WORK, "adopt", call.object.adopt(warm, spec, events)).await
    }
}

struct RemoteRooms(Remote);

impl RemoteRooms {
    async fn reach(&self) -> Result<Call<'_, dyn Rooms>> {
        self.0.reach(|plugin, _| plugin.rooms()).await
    }
}

#[async_trait]
impl Rooms for RemoteRooms {
    async fn attach(&self, join: Join, link: Arc<dyn PeerLink>) -> Result<Attached> {
        let call = self.reach().await?;
        call.within(WORK, "attach", call.object.attach(join, link)).await
    }

    async fn ask(&self, request: RoomRequest) -> Result<RoomReply> {
        let call = self.reach().await?;
        call.within(WORK, "ask", call.object.ask(request)).await
    }
}
