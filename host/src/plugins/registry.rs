//! Every plugin there is, and its life.
//!
//! Promises: plugins start after what they need and stop before it, each within a deadline, and one that
//! hangs delays only those that need it; one that waits for its first use is loaded once, however many ask
//! for it at a time and even if they stop waiting.
//! Never: holds a lock while a plugin is called.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use runtimed_plugin_api::adapter::Panicked;
use runtimed_plugin_api::manifest::{Activate, Manifest};
use runtimed_plugin_api::{BlobStore, ENV_PROVIDER, EnvProvider, KernelBackend, Plugin, PluginError, Rooms};
use tokio::sync::{OnceCell, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::load::{Loaded, Loader, Note};
use super::order::order;
use super::row::{Problem, Row, Status};
use super::search::{Found, SearchPath, search};
use super::services::{HostContext, Services};

/// What a plugin gets to return from `stop` after its grace is over.
const STOP_MARGIN: Duration = Duration::from_secs(1);
/// Folder below the base for the long form of why a plugin was refused.
const REPORTS: &str = "plugin-reports";

/// The environment providers by kind.
pub type Providers = BTreeMap<String, Arc<dyn EnvProvider>>;

/// The plugins of this daemon.
pub struct Registry {
    context: Arc<HostContext>,
    loader: Arc<Loader>,
    path: SearchPath,
    /// Ids that the settings switch off.
    disabled: BTreeSet<String>,
    /// Usable plugins in start order; set once the search is over.
    slots: OnceLock<Vec<Arc<Slot>>>,
    /// Rows of those that have no slot.
    others: Mutex<Vec<Row>>,
    /// Whether everything that starts with the daemon has started, or failed to.
    loaded: watch::Sender<bool>,
    /// Activations under way: they belong to the registry and not to who asked first and may stop waiting.
    activations: Mutex<JoinSet<()>>,
}

/// A plugin that may be loaded.
struct Slot {
    found: Found,
    manifest: Manifest,
    row: Mutex<Row>,
    /// Filled by the first activation; empty inside if that failed.
    plugin: OnceCell<Option<Arc<dyn Plugin>>>,
}

impl Registry {
    /// A registry that has not looked for plugins yet. Blocks on the file system for a moment.
    pub fn new(context: Arc<HostContext>, path: SearchPath, disabled: BTreeSet<String>) -> Arc<Self> {
        Arc::new(Self {
            loader: Loader::open(&context.directories.base),
            context,
            path,
            disabled,
            slots: OnceLock::new(),
            others: Mutex::default(),
            loaded: watch::Sender::new(false),
            activations: Mutex::default(),
        })
    }

    /// Finds all plugins, and starts those that start with the daemon and what they need. Call it once,
    /// beside serving: a daemon answers before its plugins are there.
    pub async fn load(self: &Arc<Self>) {
        // Whoever waits for the plugins must not wait for ever, whatever happens here.
        if AssertUnwindSafe(self.search_and_start()).catch_unwind().await.is_err() {
            tracing::error!("looking for plugins panicked; those that have started are used");
        }
        self.loaded.send_replace(true);
    }

    async fn search_and_start(self: &Arc<Self>) {
        let path = self.path.clone();
        let findings = tokio::task::spawn_blocking(move || search(&path)).await.unwrap_or_default();
        for (found, winner) in findings.shadowed {
            let reason = format!("`{}` has the same id and comes first", winner.display());
            self.add_row(&found, Status::Shadowed, reason, "remove one of the two folders".to_owned());
        }
        let mut usable = Vec::new();
        for found in findings.first {
            match &found.manifest {
                Err(problem) => {
                    self.add_row(&found, problem.status, problem.reason.clone(), problem.remedy.clone());
                }
                Ok(manifest) if self.disabled.contains(&manifest.id) => {
                    let remedy = "switch it on in the settings to use it".to_owned();
                    self.add_row(&found, Status::Disabled, "switched off in the settings".to_owned(), remedy);
                }
                Ok(manifest) => usable.push((found.clone(), manifest.clone())),
            }
        }
        let slots = self.slots.get_or_init(|| self.sort(usable));
        let starting = slots.iter().filter(|slot| slot.starts_with_the_daemon());
        join_all(starting.map(|slot| self.activate(slot))).await;
        let (loader, wanted) =
            (Arc::clone(&self.loader), slots.iter().map(|slot| slot.found.clone()).collect::<Vec<_>>());
        // Old copies are removed beside everything else; if that panicked they would only stay.
        let _ = tokio::task::spawn_blocking(move || loader.sweep(&wanted)).await;
    }

    /// Waits until [`Registry::load`] is done.
    pub async fn wait_until_loaded(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    /// Stops every plugin, dependents first, each with `grace` to make everything durable.
    pub async fn stop(&self, grace: Duration) {
        let mut unfinished = std::mem::take(&mut *lock(&self.activations));
        unfinished.shutdown().await;
        for slot in self.slots().iter().rev() {
            let Some(plugin) = slot.active() else { continue };
            let id = &slot.manifest.id;
            let (reason, remedy) = match timeout(grace + STOP_MARGIN, plugin.stop(grace)).await {
                Ok(Ok(())) => (String::new(), String::new()),
                Ok(Err(error)) => {
                    (format!("it stopped with an error: {error}"), error.help.unwrap_or_default())
                }
                Err(_) => (format!("it did not stop within {} s", grace.as_secs()), String::new()),
            };
            if !reason.is_empty() {
                tracing::warn!(plugin = %id, "{reason}");
            }
            slot.set(Status::Stopped, reason, remedy, None);
        }
        self.loader.expect_end();
    }

    /// Forgets that a plugin took an earlier life of the daemon down, so that it is loaded again. Whether there
    /// was anything to forget. Blocks on the file system for a moment.
    pub fn forgive(&self, id: &str) -> bool {
        self.loader.forgive(id)
    }

    /// Every plugin that was found, in start order, then those that never start.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.slots().iter().map(|slot| slot.row().clone()).collect();
        rows.extend(lock(&self.others).iter().cloned());
        rows
    }

    /// Kinds of environment there are providers for, in search order, without loading anything.
    pub fn env_kinds(&self) -> Vec<String> {
        let mut kinds = Vec::new();
        for provided in
            self.slots().iter().filter(|slot| slot.usable()).flat_map(|slot| &slot.manifest.provides)
        {
            if provided.capability == ENV_PROVIDER && !kinds.contains(&provided.name) {
                kinds.push(provided.name.clone());
            }
        }
        kinds
    }

    /// Every environment provider by its kind; loads those that were waiting for their first use.
    pub async fn env_providers(self: &Arc<Self>) -> BTreeMap<String, Arc<dyn EnvProvider>> {
        let mut providers = BTreeMap::new();
        for kind in self.env_kinds() {
            if let Ok(provider) = self.env_provider(&kind).await {
                providers.insert(kind, provider);
            }
        }
        providers
    }

    /// The environment provider of a kind; loads it if it was waiting for its first use.
    ///
    /// # Errors
    /// `Unavailable` says which plugin failed and why, or that there is none.
    pub async fn env_provider(self: &Arc<Self>, kind: &str) -> Result<Arc<dyn EnvProvider>, PluginError> {
        let mut failed = None;
        for slot in self.slots() {
            let provides = |it: &runtimed_plugin_api::manifest::Provides| {
                it.capability == ENV_PROVIDER && it.name == kind
            };
            if !slot.manifest.provides.iter().any(provides) {
                continue;
            }
            if let Some(plugin) = self.activate(slot).await
                && let Some(provider) = plugin.env_providers().into_iter().find(|it| it.info().kind == kind)
            {
                return Ok(provider);
            }
            let row = slot.row();
            failed
                .get_or_insert_with(|| PluginError::unavailable(row.reason.clone()).help(row.remedy.clone()));
        }
        Err(failed.unwrap_or_else(|| {
            PluginError::unavailable(format!("no plugin provides `{kind}` environments"))
                .help("see what there is with: runt plugins list")
        }))
    }

    /// The blob store, once it has started.
    pub fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        self.active().find_map(|plugin| plugin.blob_store())
    }

    /// The backend that runs kernels of `kind`, or any for an empty kind, once it has started.
    pub fn kernel_backend(&self, kind: &str) -> Option<Arc<dyn KernelBackend>> {
        // Manifests name backends, and kernel kinds are found out by asking a backend; so a kind that is
        // no backend's name goes to the first one.
        let named = |slot: &&Arc<Slot>| slot.manifest.provides.iter().any(|it| it.name == kind);
        let backend = |slot: &Arc<Slot>| slot.active()?.kernel_backends().into_iter().next();
        let slots = self.slots();
        slots.iter().filter(named).find_map(backend).or_else(|| slots.iter().find_map(backend))
    }

    /// The rooms, once they have started.
    pub fn rooms(&self) -> Option<Arc<dyn Rooms>> {
        self.active().find_map(|plugin| plugin.rooms())
    }

    fn slots(&self) -> &[Arc<Slot>] {
        self.slots.get().map_or(&[], Vec::as_slice)
    }

    fn active(&self) -> impl Iterator<Item = Arc<dyn Plugin>> {
        self.slots().iter().filter_map(|slot| slot.active())
    }

    fn add_row(&self, found: &Found, status: Status, reason: String, remedy: String) {
        if status == Status::Refused {
            tracing::warn!(plugin = %found.id(), "{reason}; {remedy}");
        }
        lock(&self.others).push(Row { reason, remedy, ..row(found, status) });
    }

    /// Puts usable plugins into start order, and refuses those that can never start.
    fn sort(&self, usable: Vec<(Found, Manifest)>) -> Vec<Arc<Slot>> {
        let manifests: Vec<&Manifest> = usable.iter().map(|(_, manifest)| manifest).collect();
        let (sorted, refused) = order(&manifests);
        for (at, problem) in refused {
            if let Some((found, _)) = usable.get(at) {
                self.add_row(found, problem.status, problem.reason, problem.remedy);
            }
        }
        let slots = sorted.into_iter().filter_map(|at| usable.get(at)).map(|(found, manifest)| {
            let row = Mutex::new(row(found, Status::NotLoaded));
            Arc::new(Slot { found: found.clone(), manifest: manifest.clone(), row, plugin: OnceCell::new() })
        });
        slots.collect()
    }

    /// Loads and starts a plugin, once; later calls get the same outcome. Who stops waiting stops nothing.
    /// Boxed, because what is needed may need something itself.
    fn activate(self: &Arc<Self>, slot: &Arc<Slot>) -> BoxFuture<'static, Option<Arc<dyn Plugin>>> {
        if let Some(made) = slot.plugin.get() {
            return Box::pin(ready(made.clone()));
        }
        let (registry, slot) = (Arc::clone(self), Arc::clone(slot));
        let (tell, told) = oneshot::channel();
        let mut activations = lock(&self.activations);
        while activations.try_join_next().is_some() {}
        activations.spawn(async move {
            // Fails if nobody waits any more.
            let _ = tell.send(registry.activate_now(&slot).await);
        });
        Box::pin(async move { told.await.ok().flatten() })
    }

    async fn activate_now(self: &Arc<Self>, slot: &Arc<Slot>) -> Option<Arc<dyn Plugin>> {
        let made = slot.plugin.get_or_init(|| async {
            match self.start(slot).await {
                Ok(Loaded { plugin, note }) => {
                    slot.started(note);
                    Some(plugin)
                }
                Err(problem) => {
                    self.report(slot, problem).await;
                    None
                }
            }
        });
        made.await.clone()
    }

    async fn start(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Loaded, Problem> {
        let manifest = &slot.manifest;
        for need in &manifest.needs.capabilities {
            // This ends, because circles have no slots.
            let mut there = false;
            for provider in self.slots().iter().filter(|provider| provider.manifest.provides(need)) {
                there |= Arc::ptr_eq(provider, slot) || self.activate(provider).await.is_some();
            }
            if !there {
                return Err(Problem::refused(
                    format!(
                        "plugin `{}` needs {need}, and no plugin that provides it could start",
                        manifest.id
                    ),
                    "see the other plugins in: runt plugins list",
                ));
            }
        }
        let host = Services {
            plugin: manifest.id.clone(),
            folder: slot.found.folder.clone(),
            context: self.context.clone(),
            registry: Arc::downgrade(self),
        };
        let poisoned = Arc::downgrade(slot);
        let on_panic = move |panicked: Panicked| {
            if let Some(slot) = poisoned.upgrade() {
                slot.poison(&panicked.message, &panicked.location);
            }
        };
        self.loader.load(slot.found.clone(), manifest.clone(), Arc::new(host), on_panic).await
    }

    /// Makes a failed activation visible: row, log, and the long form in a file.
    async fn report(&self, slot: &Slot, problem: Problem) {
        let Problem { status, reason, remedy, report } = problem;
        tracing::warn!(plugin = %slot.manifest.id, "{reason}; {remedy}");
        let file = match report {
            Some(text) => self.write_report(&slot.manifest.id, text).await,
            None => None,
        };
        slot.set(status, reason, remedy, file);
    }

    async fn write_report(&self, id: &str, text: String) -> Option<PathBuf> {
        let folder = self.context.directories.base.join(REPORTS);
        let file = folder.join(format!("{id}.txt"));
        let written = async {
            tokio::fs::create_dir_all(&folder).await?;
            tokio::fs::write(&file, text).await
        };
        match written.await {
            Ok(()) => Some(file),
            Err(error) => {
                tracing::warn!(
                    plugin = id,
                    "the report could not be written to `{}`: {error}",
                    file.display()
                );
                None
            }
        }
    }
}

impl Slot {
    fn row(&self) -> MutexGuard<'_, Row> {
        lock(&self.row)
    }

    /// The plugin, if it has started and was not stopped.
    fn active(&self) -> Option<Arc<dyn Plugin>> {
        let plugin = self.plugin.get()?.clone()?;
        matches!(self.row().status, Status::Ok | Status::Poisoned).then_some(plugin)
    }

    /// Whether it is at work or may still be.
    fn usable(&self) -> bool {
        matches!(self.row().status, Status::Ok | Status::Poisoned | Status::NotLoaded)
    }

    /// Environment providers can wait for their first use; the other capabilities are looked up by calls
    /// that cannot wait for a library, so whoever provides one of them starts with the daemon.
    fn starts_with_the_daemon(&self) -> bool {
        self.manifest.run.activate == Activate::Startup
            || self.manifest.provides.iter().any(|it| it.capability != ENV_PROVIDER)
    }

    fn set(&self, status: Status, reason: String, remedy: String, report: Option<PathBuf>) {
        let mut row = self.row();
        *row = Row { status, reason, remedy, report, ..row.clone() };
    }

    /// It is at work, perhaps with something to say; unless a panic came in between, which counts more.
    fn started(&self, note: Option<Note>) {
        let mut row = self.row();
        if row.status == Status::NotLoaded {
            row.status = Status::Ok;
            if let Some(note) = note {
                (row.reason, row.remedy) = (note.reason, note.remedy);
            }
        }
    }

    fn poison(&self, message: &str, location: &str) {
        let mut row = self.row();
        // Whoever failed or was stopped keeps saying so.
        if matches!(row.status, Status::Ok | Status::NotLoaded) {
            row.status = Status::Poisoned;
            row.reason = format!("it panicked at {location}: {message}");
            row.remedy =
                "save your work, restart the daemon and report this to the plugin's author".to_owned();
        }
    }
}

fn row(found: &Found, status: Status) -> Row {
    let mut row = Row {
        id: found.id(),
        name: String::new(),
        version: String::new(),
        abi: String::new(),
        carrier: String::new(),
        capabilities: Vec::new(),
        source: found.source,
        folder: found.folder.clone(),
        status,
        reason: String::new(),
        remedy: String::new(),
        report: None,
    };
    if let Ok(manifest) = &found.manifest {
        row.name = manifest.name.clone();
        row.version = manifest.version.to_string();
        row.abi = format!("{}.{}", manifest.abi.major, manifest.abi.min_minor);
        row.carrier = manifest.carrier().to_string();
        row.capabilities =
            manifest.provides.iter().map(|it| format!("{}:{}", it.capability, it.name)).collect();
    }
    row
}

/// Locks for a moment; what is behind is plain data, whole at all times.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
