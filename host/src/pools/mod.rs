//! Environments: pools that keep them ready, and the service that gives them to notebooks.
//!
//! For: rooms (through the environment service), the pool channel, the pool document.
//! Promises: keyed by provider kind, whatever kinds plugins bring; a provider that fails, hangs or
//! panics costs its own pool and nothing else.
//!
//! Map: `state` decides and is pure, `keeper` acts: `build` makes one environment, `template` is what it copies.
//! `labels` decides which environment a notebook gets, of what `choosing` finds (`projects`, `script`), `trust` whether
//! it may, `drift` how it differs from what is declared; `environments`, `declared`, `keeping` and `project_env` bring it
//! about, `known_again` after a restart; `record` is what is on disk, `captured` whose it is, `forsaken` when nobody's any more.

mod build;
mod captured;
mod choosing;
mod collect;
mod declared;
mod derive;
mod drift;
mod environments;
mod failure;
#[cfg(test)]
mod fake;
mod forsaken;
mod in_use;
mod keeper;
mod keeping;
mod known_again;
mod labels;
mod packages;
mod pool;
mod project_env;
mod projects;
mod record;
mod relative;
mod script;
mod state;
mod taken;
mod template;
mod trash;
mod trust;
mod upkeep;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{Result, Task};
use runtimed_protocol::pool::{PoolStatus, TakenEnv};
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep, timeout};

pub use environments::EnvironmentService;
pub use pool::Pool;
pub use state::Ready;
pub use trust::TrustStore;

use crate::plugins::Providers;
use crate::settings::Settings;
use crate::shutdown::Shutdown;
use keeper::Keeper;
use taken::Taken;
use trash::Trash;

/// Longest wait of a client that takes an environment (wire contract, section 5.3).
const TAKE_LIMIT: Duration = Duration::from_secs(120);
/// Pause before a keeper that panicked starts again, so that a panic in a loop costs little.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Whom a lease names when a client took the environment for itself.
const CLIENT: &str = "client";

/// The pools by provider kind.
pub type PoolsByKind = BTreeMap<String, Arc<Pool>>;
/// What clients see of all pools.
type Published = watch::Sender<BTreeMap<String, PoolStatus>>;

/// All pools. Cheap to clone.
#[derive(Clone)]
pub struct Pools(Arc<Shared>);

struct Shared {
    envs: PathBuf,
    settings: Settings,
    /// Sizes the command line sets, by kind.
    sizes: BTreeMap<String, usize>,
    shutdown: Shutdown,
    published: Published,
    /// One for each kind there ever was a provider for; none until the plugins are loaded.
    pools: watch::Sender<Option<Arc<PoolsByKind>>>,
}

impl Pools {
    /// Pools that wait for their providers; those of a kind in `sizes` have that size, whatever the settings say.
    pub fn new(
        envs: PathBuf,
        settings: Settings,
        sizes: BTreeMap<String, usize>,
        shutdown: Shutdown,
    ) -> Self {
        let (published, pools) = (watch::Sender::default(), watch::Sender::new(None));
        Self(Arc::new(Shared { envs, settings, sizes, shutdown, published, pools }))
    }

    /// Keeps a pool full for each kind there is a provider for, as `providers` come, are replaced and go, until
    /// the daemon stops. Run it once.
    ///
    /// A new kind gets a pool at once. A replaced provider is used from the next build on. The pool of a kind
    /// that is gone gives up what it is building, deletes what nobody has taken, and is not shown any more once
    /// everything that was taken has been released.
    pub async fn run(&self, mut providers: watch::Receiver<Option<Arc<Providers>>>) {
        let shared = &self.0;
        let (trash, emptying) = Trash::new(shared.envs.clone());
        let envs = shared.envs.clone();
        let mut janitor = JoinSet::new();
        janitor.spawn(async move {
            tokio::task::spawn_blocking(move || trash::empty_at_start(&envs)).await.ok();
            emptying.await;
        });
        let mut keepers = Keepers::default();
        providers.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = shared.shutdown.begun() => break,
                Ok(()) = providers.changed() => {
                    let now = providers.borrow_and_update().clone();
                    if let Some(now) = now {
                        self.follow(&now, &trash, &mut keepers);
                    }
                }
                Some(()) = keepers.one_ended() => {}
            }
        }
        while keepers.one_ended().await.is_some() {}
        // Whatever is still to be deleted is found at the next start.
        janitor.shutdown().await;
    }

    /// Brings the pools in line with the providers there are now.
    fn follow(&self, providers: &Providers, trash: &Trash, keepers: &mut Keepers) {
        let shared = &self.0;
        let mut pools = PoolsByKind::clone(&self.loaded());
        for (kind, pool) in &pools {
            pool.set_provider(providers.get(kind).cloned());
        }
        for (kind, provider) in providers {
            if pools.contains_key(kind) {
                continue;
            }
            let (envs, published) = (shared.envs.clone(), shared.published.clone());
            let (trash, shutdown) = (trash.clone(), shared.shutdown.clone());
            let pool = Arc::new(Pool::new(kind.clone(), provider.clone(), envs, published, trash, shutdown));
            let mut keeper = Keeper {
                pool: Arc::clone(&pool),
                settings: shared.settings.watch(),
                size: shared.sizes.get(kind).copied(),
                shutdown: shared.shutdown.clone(),
                said: false,
            };
            keeper.configure();
            keepers.start(keeper, Duration::ZERO);
            pools.insert(kind.clone(), pool);
        }
        shared.pools.send_replace(Some(Arc::new(pools)));
    }

    /// The pools whose kind some plugin provides, once the plugins are loaded.
    ///
    /// # Errors
    /// `Cancelled` when the daemon stops before that.
    pub async fn by_kind(&self) -> Result<PoolsByKind> {
        let mut pools = self.0.pools.subscribe();
        let open = |pools: &PoolsByKind| {
            let open = pools.iter().filter(|(_, pool)| pool.is_open());
            open.map(|(kind, pool)| (kind.clone(), Arc::clone(pool))).collect()
        };
        tokio::select! {
            biased;
            loaded = pools.wait_for(Option::is_some) => match loaded.as_deref() {
                Ok(Some(pools)) => Ok(open(pools)),
                _ => Err(pool::stopping()),
            },
            () = self.0.shutdown.begun() => Err(pool::stopping()),
        }
    }

    /// Hears whenever the status of a pool changes.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<String, PoolStatus>> {
        self.0.published.subscribe()
    }

    /// What clients see, at this moment.
    pub fn status(&self) -> BTreeMap<String, PoolStatus> {
        let pools = self.loaded();
        let shown = pools.iter().filter(|(_, pool)| !pool.is_gone());
        shown.map(|(kind, pool)| (kind.clone(), pool.status())).collect()
    }

    /// Empties all pools and lets them fill again.
    pub fn flush(&self) {
        self.loaded().values().for_each(|pool| pool.flush());
    }

    /// Gives a client an environment of `kind` for its own use. None if that pool keeps none, or none
    /// could be had in time.
    pub async fn take(&self, kind: &str) -> Option<TakenEnv> {
        let pools = self.by_kind().await.ok()?;
        let pool = pools.get(kind).filter(|pool| pool.target() > 0)?;
        let ready = timeout(TAKE_LIMIT, pool.take_or_wait(&Task::silent())).await.ok()?.ok()?;
        let taken = Taken::new(pool, ready.clone());
        if let Err(error) = taken.lease(CLIENT).await {
            tracing::warn!("a client did not get an environment: {error}");
            return None;
        }
        taken.keep();
        Some(TakenEnv {
            env_type: kind.to_owned(),
            venv_path: ready.environment.prefix.to_string_lossy().into_owned(),
            python_path: ready.environment.python.to_string_lossy().into_owned(),
            prewarmed_packages: ready.packages,
        })
    }

    /// Takes back what a client took. False if no client took it from here, and then nothing is touched.
    pub async fn give_back(&self, env: &TakenEnv) -> bool {
        let prefix = PathBuf::from(&env.venv_path);
        let Some(pool) = self.loaded().get(&env.env_type).cloned().filter(|pool| pool.has_leased(&prefix))
        else {
            return false;
        };
        let path = prefix.clone();
        let checked = tokio::task::spawn_blocking(move || {
            // What a room has taken is not a client's to return: a kernel may run in it.
            record::is_leased_to(&path, CLIENT).then(|| record::Record::read(&path))
        });
        match checked.await.ok().flatten() {
            None => return false,
            Some(Some(record)) => {
                // Whatever the client did with it, no other environment is to be made of it.
                let ready = record.into_ready(tokio::time::Instant::now());
                pool.give_back(Ready { template_key: None, ..ready });
            }
            Some(None) => pool.discard(&prefix),
        }
        true
    }

    /// Builds what the pool of `kind` keeps ready anew. False if there is no such pool.
    pub fn flush_kind(&self, kind: &str) -> bool {
        let pools = self.loaded();
        let pool = pools.get(kind).filter(|pool| pool.is_open());
        pool.map(|pool| pool.flush()).is_some()
    }

    /// Builds one environment anew that is ready or a template. False if there is no such.
    pub fn replace(&self, prefix: &Path) -> bool {
        self.loaded().values().any(|pool| pool.replace(prefix))
    }

    /// The kinds that have a pool.
    pub fn kinds(&self) -> Vec<String> {
        self.loaded().iter().filter(|(_, pool)| pool.is_open()).map(|(kind, _)| kind.clone()).collect()
    }

    /// Waits until every pool knows what a former daemon left.
    ///
    /// # Errors
    /// `Cancelled` when the daemon stops before that.
    async fn recovered(&self) -> Result<()> {
        for pool in self.by_kind().await?.values() {
            pool.recovered().await?;
        }
        Ok(())
    }

    /// Where a pool has the environment at `prefix`, if it is one of its own.
    fn place(&self, prefix: &Path) -> Option<state::Place> {
        self.loaded().values().find_map(|pool| pool.place(prefix))
    }

    /// Prefixes that were handed out.
    pub fn leased(&self) -> Vec<PathBuf> {
        self.loaded().values().flat_map(|pool| pool.leased()).collect()
    }

    /// Where the pools keep their environments.
    pub fn envs(&self) -> &Path {
        &self.0.envs
    }

    fn loaded(&self) -> Arc<PoolsByKind> {
        self.0.pools.borrow().clone().unwrap_or_default()
    }
}

/// The keepers at work.
#[derive(Default)]
struct Keepers {
    tasks: JoinSet<()>,
    /// Who does what, to start a keeper again that panicked.
    by_task: HashMap<Id, Keeper>,
}

impl Keepers {
    fn start(&mut self, keeper: Keeper, pause: Duration) {
        let copy = keeper.clone();
        let work = async move {
            sleep(pause).await;
            keeper.run().await;
        };
        self.by_task.insert(self.tasks.spawn(work).id(), copy);
    }

    /// Waits until a keeper has ended; one that panicked is started again. None if there is none.
    async fn one_ended(&mut self) -> Option<()> {
        let (id, panic) = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), error.is_panic().then_some(error)),
        };
        if let (Some(keeper), Some(error)) = (self.by_task.remove(&id), panic) {
            tracing::error!(
                "the keeper of the {} pool panicked and is started again: {error}",
                keeper.pool.kind
            );
            self.start(keeper, RESTART_PAUSE);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
