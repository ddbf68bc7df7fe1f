//! Every plugin there is.
//!
//! For: the rest of the host, which asks for capabilities and never knows who provides them.
//! Promises: plugins start after what they need and stop before it, each within a deadline, and one that
//! hangs delays only those that need it; plugins come, change and go while the daemon runs, as far as they can.
//! Never: holds a lock while a plugin is called or waited for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use runtimed_plugin_api::{
    BlobStore, ENV_PROVIDER, EnvProvider, ErrorCode, KernelBackend, Plugin, PluginError, Rooms,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::config::Config;
use super::load::Loader;
use super::row::{Row, Status};
use super::search::SearchPath;
use super::services::HostContext;
use super::slot::Slot;

/// How long the daemon waits for plugins to start before it goes on without those that have not. They start in a
/// second on a slow disk, and one that hangs has much later deadlines.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a plugin gets to return from `stop` after its grace is over.
const STOP_MARGIN: Duration = Duration::from_secs(1);

/// The environment providers by kind.
pub type Providers = BTreeMap<String, Provided>;

/// An environment provider.
#[derive(Clone)]
pub struct Provided {
    /// What builds.
    pub provider: Arc<dyn EnvProvider>,
    /// Which of all versions and builds of its plugin it is, as one text.
    pub edition: String,
}

/// The plugins of this daemon.
pub struct Registry {
    pub(super) context: Arc<HostContext>,
    pub(super) loader: Arc<Loader>,
    pub(super) path: SearchPath,
    /// The program that serves a plugin in a process of its own, with its arguments.
    pub(super) command: Vec<OsString>,
    pub(super) plugins: Mutex<Arc<Plugins>>,
    /// None until everything that provides environments has started, failed to, or been waited for long enough.
    pub(super) providers: watch::Sender<Option<Arc<Providers>>>,
    /// How far starting is; also wakes at each plugin that has started.
    pub(super) boot: watch::Sender<Boot>,
    /// Whoever wants a reload, and waits for it.
    reloads: mpsc::UnboundedSender<oneshot::Sender<()>>,
    asked: Mutex<Option<mpsc::UnboundedReceiver<oneshot::Sender<()>>>>,
    /// The supervisors.
    pub(super) supervising: Mutex<JoinSet<()>>,
}

/// How far everything is that starts with the daemon.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Boot {
    /// It is looked for or starting.
    Starting,
    /// Something is still starting, and nobody waits for it any more who does not need it.
    Late,
    /// Everything has started, or failed to.
    Done,
}

/// All plugins at one moment.
#[derive(Default)]
pub(super) struct Plugins {
    /// Usable ones in start order.
    pub(super) slots: Vec<Arc<Slot>>,
    /// Rows of those that have no slot.
    pub(super) others: Vec<Row>,
}

impl Registry {
    /// A registry that has not looked for plugins yet. `command` is the program that serves a plugin in a process
    /// of its own, with its arguments. Blocks on the file system for a moment.
    pub fn new(context: Arc<HostContext>, path: SearchPath, command: Vec<OsString>) -> Arc<Self> {
        let (reloads, asked) = mpsc::unbounded_channel();
        Arc::new(Self {
            loader: Loader::open(&context.directories.base, command.clone()),
            context,
            path,
            command,
            plugins: Mutex::default(),
            providers: watch::Sender::new(None),
            boot: watch::Sender::new(Boot::Starting),
            reloads,
            asked: Mutex::new(Some(asked)),
            supervising: Mutex::default(),
        })
    }

    /// Finds and starts all plugins, then looks again whenever somebody asks for it or the settings say something
    /// else about plugins, until the daemon stops. Run it once, beside serving: a daemon answers before its
    /// plugins are there.
    pub async fn run(self: &Arc<Self>) {
        let Some(mut asked) = lock(&self.asked).take() else { return };
        let stopping = self.context.shutdown.clone();
        // What has started until then is stopped with the registry.
        stopping.run_until_cancelled(self.follow(&mut asked)).await;
    }

    async fn follow(self: &Arc<Self>, asked: &mut mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        let mut settings = self.context.settings.clone();
        let mut config = Config::read(&settings.borrow_and_update().values);
        self.look(&config).await;
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                Some(tell) = asked.recv() => waiting.push(tell),
                Ok(()) = settings.changed() => {
                    let now = Config::read(&settings.borrow_and_update().values);
                    if now == config {
                        continue;
                    }
                }
            }
            // One reload serves all who have asked before it began.
            while let Ok(tell) = asked.try_recv() {
                waiting.push(tell);
            }
            config = Config::read(&settings.borrow_and_update().values);
            self.look(&config).await;
            for tell in waiting {
                // Fails if nobody waits any more.
                let _ = tell.send(());
            }
        }
    }

    /// Looks for plugins once. Whoever waits for them must not wait for ever, whatever happens here.
    async fn look(self: &Arc<Self>, config: &Config) {
        let starting = async {
            self.search(config).await;
            let mut first = pin!(self.start_first());
            let late = timeout(PATIENCE, &mut first).await.is_err();
            self.boot.send_replace(if late { Boot::Late } else { Boot::Done });
            let rest = self.start_rest();
            let mut all = pin!(async {
                if late {
                    let done = async {
                        first.await;
                        self.boot.send_replace(Boot::Done);
                    };
                    tokio::join!(done, rest);
                } else {
                    rest.await;
                }
            });
            if timeout(PATIENCE, &mut all).await.is_err() {
                self.publish();
                all.await;
            }
        };
        if AssertUnwindSafe(starting).catch_unwind().await.is_err() {
            tracing::error!("looking for plugins panicked; those that have started are used");
        }
        self.boot.send_replace(Boot::Done);
        self.publish();
    }

    /// Looks for plugins again and takes over what can be taken over while the daemon runs. Returns when that is
    /// done; who stops waiting stops nothing.
    ///
    /// # Errors
    /// `Cancelled` when the daemon stops before that.
    pub async fn reload(&self) -> Result<(), PluginError> {
        let (tell, told) = oneshot::channel();
        // Fails if nobody listens any more, and so does the wait then.
        let _ = self.reloads.send(tell);
        told.await.map_err(|_| PluginError::new(ErrorCode::Cancelled, "The daemon is stopping."))
    }

    /// Waits until everything that starts with the daemon has started, failed to, or been waited for long enough.
    pub async fn wait_until_loaded(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.boot.subscribe().wait_for(|boot| *boot != Boot::Starting).await;
    }

    /// The rooms, as soon as they have started, whatever else is still starting; none if they failed to.
    pub async fn rooms_once_started(&self) -> Option<Arc<dyn Rooms>> {
        let mut boot = self.boot.subscribe();
        loop {
            let done = *boot.borrow_and_update() == Boot::Done;
            let rooms = self.rooms();
            if done || rooms.is_some() {
                return rooms;
            }
            // The sender lives in `self`, so this cannot fail.
            let _ = boot.changed().await;
        }
    }

    /// Stops every plugin, dependents first, each with `grace` to make everything durable. No process is left.
    pub async fn stop(&self, grace: Duration) {
        for slot in self.plugins().slots.iter().rev() {
            let active = slot.active();
            let (reason, remedy) = match (&slot.supervisor, &active) {
                (Some(supervisor), _) => {
                    supervisor.stop(grace).await;
                    (String::new(), String::new())
                }
                (None, Some(plugin)) => match timeout(grace + STOP_MARGIN, plugin.stop(grace)).await {
                    Ok(Ok(())) => (String::new(), String::new()),
                    Ok(Err(error)) => {
                        (format!("it stopped with an error: {error}"), error.help.unwrap_or_default())
                    }
                    Err(_) => (format!("it did not stop within {} s", grace.as_secs()), String::new()),
                },
                (None, None) => continue,
            };
            if !reason.is_empty() {
                tracing::warn!(plugin = %slot.id(), "{reason}");
            }
            if active.is_some() {
                slot.shown.set(Status::Stopped, reason, remedy, None);
            }
        }
        // Only those are left that were replaced and had not ended yet; their processes go with them.
        let mut supervising = std::mem::take(&mut *lock(&self.supervising));
        supervising.shutdown().await;
        self.loader.expect_end();
    }

    /// Every plugin that was found, in start order, then those that never start.
    pub fn rows(&self) -> Vec<Row> {
        let plugins = self.plugins();
        let rows = plugins.slots.iter().map(|slot| slot.shown.get());
        rows.chain(plugins.others.iter().cloned()).collect()
    }

    /// Lets a plugin that took the daemon down try again at the next reload. Whether there was anything to
    /// forgive. Blocks on the file system.
    pub fn forgive(&self, id: &str) -> bool {
        self.loader.forgive(id)
    }

    /// The environment providers, as they come, change and go; none until they have started or failed to.
    pub fn env_providers(&self) -> watch::Receiver<Option<Arc<Providers>>> {
        self.providers.subscribe()
    }

    /// The blob store, once it has started.
    pub fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        self.active().find_map(|plugin| plugin.blob_store())
    }

    /// The backend that runs kernels of `kind`, or any for an empty kind, once it has started.
    pub fn kernel_backend(&self, kind: &str) -> Option<Arc<dyn KernelBackend>> {
        // Manifests name backends, and kernel kinds are found out by asking a backend; so a kind that is
        // no backend's name goes to the first one.
        let named = |slot: &&Arc<Slot>| slot.plan.manifest.provides.iter().any(|it| it.name == kind);
        let backend = |slot: &Arc<Slot>| slot.active()?.kernel_backends().into_iter().next();
        let plugins = self.plugins();
        plugins
            .slots
            .iter()
            .filter(named)
            .find_map(backend)
            .or_else(|| plugins.slots.iter().find_map(backend))
    }

    /// The rooms, once they have started.
    pub fn rooms(&self) -> Option<Arc<dyn Rooms>> {
        self.active().find_map(|plugin| plugin.rooms())
    }

    /// Tells everybody which environment providers there are now. Of several for one kind the first one counts.
    pub(super) fn publish(&self) {
        let mut providers = Providers::new();
        for slot in &self.plugins().slots {
            let Some(plugin) = slot.active().filter(|_| slot.plan.manifest.provides(ENV_PROVIDER)) else {
                continue;
            };
            for provider in plugin.env_providers() {
                let manifest = &slot.plan.manifest;
                let library =
                    manifest.library_for_this_target().and_then(|library| library.sha256.as_deref());
                let edition = format!("{} {}", manifest.version, library.unwrap_or_default());
                providers.entry(provider.info().kind).or_insert(Provided { provider, edition });
            }
        }
        self.providers.send_replace(Some(Arc::new(providers)));
    }

    /// All plugins at this moment.
    pub(super) fn plugins(&self) -> Arc<Plugins> {
        Arc::clone(&lock(&self.plugins))
    }

    fn active(&self) -> impl Iterator<Item = Arc<dyn Plugin>> {
        let plugins = self.plugins();
        let active: Vec<_> = plugins.slots.iter().filter_map(|slot| slot.active()).collect();
        active.into_iter()
    }
}

/// Locks for a moment; what is behind is plain data, whole at all times.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
