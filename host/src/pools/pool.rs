//! One pool: its state, shared between the keeper that fills it and the rooms that empty it.
//!
//! For: `keeper.rs`, `environments.rs` and the pool channel.
//! Promises: an environment that is handed out can start a kernel as far as the disk can tell; the lock
//! is held for single decisions only.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use runtimed_plugin_api::{EnvProvider, PluginError, Progress, Result, Task};
use runtimed_protocol::pool::PoolStatus;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Published;
use super::packages::Recipe;
use super::record;
use super::state::{Next, Place, PoolState, Ready};
use super::template::Template;
use super::trash::Trash;
use crate::plugins::Provided;
use crate::shutdown::Shutdown;

/// The pool of one provider kind.
pub struct Pool {
    /// Key in settings and labels.
    pub kind: String,
    /// Builds its environments; none while no plugin provides the kind any more.
    provider: watch::Sender<Option<Provided>>,
    /// Where its environments are.
    pub(super) envs: PathBuf,
    state: Mutex<PoolState>,
    /// Wakes the keeper.
    wake: Notify,
    /// Whether the keeper has looked at what a former daemon left.
    recovered: watch::Sender<bool>,
    /// What the running build is at, for those who wait for it.
    progress: watch::Sender<Option<Progress>>,
    published: Published,
    trash: Trash,
    shutdown: Shutdown,
}

impl Pool {
    /// An empty pool that keeps nothing yet.
    pub(super) fn new(
        kind: String,
        provider: Provided,
        envs: PathBuf,
        published: Published,
        trash: Trash,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            kind,
            provider: watch::Sender::new(Some(provider)),
            envs,
            state: Mutex::default(),
            wake: Notify::new(),
            recovered: watch::Sender::new(false),
            progress: watch::Sender::new(None),
            published,
            trash,
            shutdown,
        }
    }

    /// Builds its environments. Keep what this returns for the whole of one piece of work: the plugin may be
    /// replaced meanwhile, and what one version has begun it also ends.
    ///
    /// # Errors
    /// `Unavailable` while no plugin provides the kind any more.
    pub fn provider(&self) -> Result<Arc<dyn EnvProvider>> {
        self.provided().map(|provided| provided.provider)
    }

    /// The same, and which edition of it that is.
    pub(super) fn provided(&self) -> Result<Provided> {
        self.provider.borrow().clone().ok_or_else(|| self.gone())
    }

    /// Whether some plugin provides the kind.
    pub(super) fn is_open(&self) -> bool {
        self.provider.borrow().is_some()
    }

    /// Whether nothing is left of it: no plugin provides the kind, and nobody has an environment of it.
    pub(super) fn is_gone(&self) -> bool {
        !self.is_open() && self.state().leased().next().is_none()
    }

    /// Hears when the provider is replaced, goes or comes back.
    pub(super) fn watch_provider(&self) -> watch::Receiver<Option<Provided>> {
        self.provider.subscribe()
    }

    /// Uses `provider` from the next piece of work on; with none, whoever waits hears that it is gone.
    pub(super) fn set_provider(&self, provider: Option<Provided>) {
        let same = match (&*self.provider.borrow(), &provider) {
            (Some(old), Some(new)) => Arc::ptr_eq(&old.provider, &new.provider),
            (old, new) => old.is_none() && new.is_none(),
        };
        if !same {
            self.provider.send_replace(provider);
            self.state().provider_changed();
            self.publish();
            self.wake.notify_one();
        }
    }

    /// Hands out a ready environment, if there is one.
    pub fn take(&self) -> Option<Ready> {
        self.usable(PoolState::take)
    }

    fn usable(&self, take: impl Fn(&mut PoolState) -> Option<Ready>) -> Option<Ready> {
        loop {
            let ready = self.change(&take)?;
            if record::is_usable(&ready.environment) {
                return Some(ready);
            }
            tracing::warn!("`{}` is broken and is rebuilt", ready.environment.prefix.display());
            self.discard(&ready.environment.prefix);
        }
    }

    /// Hands out an environment, waiting for the next one if none is ready. Progress goes to `task`.
    ///
    /// # Errors
    /// Of the first build that fails while we wait; `Unavailable` when no plugin provides the kind any more;
    /// `Cancelled` when the daemon stops. Cancel-safe.
    pub async fn take_or_wait(&self, task: &Task) -> Result<Ready> {
        let mut provider = self.watch_provider();
        self.provider()?;
        if let Some(ready) = self.take() {
            return Ok(ready);
        }
        let (mut changes, mut progress) = (self.published.subscribe(), self.progress.subscribe());
        let failed_before = self.state().failures().0;
        let _waiting = Waiting::begin(self, PoolState::wait_started, PoolState::wait_ended);
        loop {
            if let Some(ready) = self.take() {
                return Ok(ready);
            }
            let (failed, error) = {
                let state = self.state();
                let (failed, failure) = state.failures();
                (failed, failure.map(|failure| failure.error.clone()))
            };
            if let Some(error) = error.filter(|_| failed > failed_before) {
                return Err(error);
            }
            let step = progress.borrow_and_update().clone();
            if let Some(step) = step {
                task.sink().progress(step);
            }
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| stopping())?,
                changed = progress.changed() => changed.map_err(|_| stopping())?,
                _ = provider.wait_for(Option::is_none) => return Err(self.gone()),
                () = self.shutdown.begun() => return Err(stopping()),
            }
        }
    }

    /// Hands out an environment beyond those it keeps ready, waiting for one, and its [`revision`](Self::revision).
    ///
    /// # Errors
    /// `Unavailable` when no plugin provides the kind any more; `Cancelled` when the daemon stops. Cancel-safe.
    pub(super) async fn take_spare(&self) -> Result<(Ready, u64)> {
        let (mut provider, mut changes) = (self.watch_provider(), self.published.subscribe());
        let _waiting = Waiting::begin(self, PoolState::spare_wait_started, PoolState::spare_wait_ended);
        loop {
            let revision = self.revision();
            if let Some(ready) = self.usable(PoolState::take_spare) {
                return Ok((ready, revision));
            }
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| stopping())?,
                _ = provider.wait_for(Option::is_none) => return Err(self.gone()),
                () = self.shutdown.begun() => return Err(stopping()),
            }
        }
    }

    /// Changes when what it offers does: an environment of another revision is as good as none.
    pub(super) fn revision(&self) -> u64 {
        self.state().revision()
    }

    /// Takes back an environment that nobody has used.
    pub fn give_back(&self, ready: Ready) {
        if let Err(error) = record::end_lease(&ready.environment.prefix) {
            tracing::warn!("could not end the lease of `{}`: {error}", ready.environment.prefix.display());
        }
        if let Some(surplus) = self.change(|state| state.give_back(ready)) {
            self.trash.put(&surplus);
        }
    }

    /// A notebook takes the environment at `prefix` again, which it had before.
    pub(super) fn adopt(&self, prefix: &Path) {
        self.change(|state| state.adopt(prefix.to_path_buf()));
    }

    /// Its owner is done with the environment at `prefix`. Returns whether it was taken from here.
    pub fn release(&self, prefix: &Path) -> bool {
        self.change(|state| state.release(prefix))
    }

    /// Deletes an environment that was taken from here.
    pub fn discard(&self, prefix: &Path) {
        self.release(prefix);
        self.trash.put(prefix);
    }

    /// Empties the pool and lets it fill again.
    pub fn flush(&self) {
        self.change(PoolState::flush).into_iter().for_each(|prefix| self.trash.put(&prefix));
    }

    /// Where it has the environment at `prefix`, if it is one of its own.
    pub(super) fn place(&self, prefix: &Path) -> Option<Place> {
        self.state().place(prefix)
    }

    /// Builds the environment at `prefix` anew elsewhere, if it is ready or the template. Whether it was.
    pub(super) fn replace(&self, prefix: &Path) -> bool {
        let replaced = self.change(|state| state.remove(prefix));
        if replaced {
            self.trash.put(prefix);
        }
        replaced
    }

    /// What clients see, at this moment.
    pub fn status(&self) -> PoolStatus {
        self.state().status(Instant::now())
    }

    /// How many environments it keeps ready.
    pub fn target(&self) -> usize {
        self.state().target()
    }

    /// Prefixes that were taken and not released.
    pub fn leased(&self) -> Vec<PathBuf> {
        self.state().leased().cloned().collect()
    }

    /// Whether the environment at `prefix` was taken from here.
    pub fn has_leased(&self, prefix: &Path) -> bool {
        self.state().leased().any(|leased| leased == prefix)
    }

    /// What a fresh environment of this pool is made of.
    pub(super) fn recipe(&self) -> Recipe {
        self.state().recipe().clone()
    }

    /// The keeper has looked at what a former daemon left.
    pub(super) fn set_recovered(&self) {
        self.recovered.send_replace(true);
    }

    /// Waits for that.
    ///
    /// # Errors
    /// `Cancelled` when the daemon stops before it.
    pub(super) async fn recovered(&self) -> Result<()> {
        let mut recovered = self.recovered.subscribe();
        tokio::select! {
            biased;
            Ok(_) = recovered.wait_for(|recovered| *recovered) => Ok(()),
            () = self.shutdown.begun() => Err(stopping()),
        }
    }

    /// What fresh environments are copies of, if there is a template.
    pub(super) fn template(&self) -> Option<Template> {
        self.state().template().cloned()
    }

    /// Whether somebody waits for an environment of it now.
    pub(super) fn is_waited_for(&self) -> bool {
        self.state().is_waited_for()
    }

    /// What the keeper should do now.
    pub(super) fn next(&self) -> Next {
        self.state().next(Instant::now())
    }

    /// Resolves once somebody changed the pool.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Shows the progress of the running build to those who wait.
    pub(super) fn show(&self, progress: Option<Progress>) {
        self.progress.send_replace(progress);
    }

    /// Changes the state on behalf of the keeper, who is not woken by it; deletes what is left over.
    pub(super) fn keep(&self, change: impl FnOnce(&mut PoolState) -> Vec<PathBuf>) {
        let left_over = change(&mut self.state());
        self.publish();
        left_over.into_iter().for_each(|prefix| self.trash.put(&prefix));
    }

    /// Changes the state on behalf of anybody else.
    fn change<T>(&self, change: impl FnOnce(&mut PoolState) -> T) -> T {
        let result = change(&mut self.state());
        self.publish();
        self.wake.notify_one();
        result
    }

    fn publish(&self) {
        let status = self.status();
        self.published.send_if_modified(|all| match self.is_gone() {
            true => all.remove(&self.kind).is_some(),
            false => all.insert(self.kind.clone(), status.clone()) != Some(status),
        });
    }

    fn gone(&self) -> PluginError {
        let kind = &self.kind;
        PluginError::unavailable(format!(
            "The plugin that provides `{kind}` environments was removed or switched off."
        ))
        .help("See what there is with `runt plugins list`.")
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A taker that waits. Dropping it gives its claim up.
struct Waiting<'a> {
    pool: &'a Pool,
    end: fn(&mut PoolState),
}

impl<'a> Waiting<'a> {
    fn begin(pool: &'a Pool, begin: fn(&mut PoolState), end: fn(&mut PoolState)) -> Self {
        pool.change(begin);
        Self { pool, end }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pool.change(self.end);
    }
}

/// The error of whoever waits while the daemon stops.
pub(super) fn stopping() -> PluginError {
    PluginError::new(runtimed_plugin_api::ErrorCode::Cancelled, "The daemon is stopping.")
}
