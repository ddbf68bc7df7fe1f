//! Keeps one pool full.
//!
//! For: `Pools::run`, which runs one keeper for each kind and restarts it if it panics.
//! Promises: one build at a time; a build that fails, hangs or is given up leaves no folder; settings
//! are followed while a build runs; what nobody waits for gives way at once; a provider that is replaced ends the build it
//! has begun, one that is gone leaves nothing behind that nobody uses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{Environment, ErrorCode, PluginError, Result, SettingsView, Task};
use serde_json::Map;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::build::{Attempt, COPIED, attempt, duplicate, write_record};
use super::captured::is_captured;
use super::environments::blocking;
use super::in_use::in_use;
use super::packages::Recipe;
use super::pool::{Pool, stopping};
use super::record::{self, Record, pool_folder};
use super::state::{Next, PoolState, Ready};
use super::template::{self, Template};
use crate::plugins::Provided;
use crate::settings;
use crate::shutdown::Shutdown;

/// Optimizing is a courtesy and must not run for ever (our choice).
const OPTIMIZE_LIMIT: Duration = Duration::from_secs(300);

/// What a keeper needs besides its pool.
#[derive(Clone)]
pub(super) struct Keeper {
    /// The pool it keeps.
    pub pool: Arc<Pool>,
    /// Decides about target and packages.
    pub settings: watch::Receiver<SettingsView>,
    /// What the command line says of how many; the settings do otherwise.
    pub size: Option<usize>,
    /// Ends it.
    pub shutdown: Shutdown,
    /// Whether it was said that copies cannot be made, since one was made.
    pub said: bool,
}

impl Keeper {
    /// Adopts what a former daemon left and no process uses, then keeps the pool full until the daemon stops.
    /// The pool is to be configured before.
    pub(super) async fn run(mut self) {
        self.recover().await;
        self.pool.set_recovered();
        let mut providers = self.pool.watch_provider();
        while !self.shutdown.has_begun() {
            if providers.has_changed().unwrap_or(false) {
                providers.mark_unchanged();
                self.configure();
            }
            self.pool.keep(|state| state.expire(Instant::now()));
            match (self.pool.provided().ok(), self.pool.next()) {
                (Some(provided), Next::Build) => self.build(provided, &mut providers).await,
                (Some(provided), Next::MakeTemplate(ready)) => self.make_template(&provided, *ready).await,
                (Some(provided), Next::OptimizeTemplate(template)) => {
                    self.optimize_template(&provided, *template).await;
                }
                (Some(provided), Next::Renew(ready)) => self.renew(provided, &ready.environment.prefix).await,
                (Some(provided), Next::Optimize(ready)) => self.optimize(&provided, *ready).await,
                (provided, next) => {
                    let longest = match next {
                        Next::Wait(Some(longest)) if provided.is_some() => longest,
                        _ => Duration::MAX,
                    };
                    tokio::select! {
                        () = self.shutdown.begun() => {}
                        () = self.pool.woken() => {}
                        Ok(()) = self.settings.changed() => self.configure(),
                        Ok(()) = providers.changed() => self.configure(),
                        () = sleep(longest) => {}
                    }
                }
            }
        }
    }

    /// Takes settings and provider over as they are now.
    pub(super) fn configure(&mut self) {
        let view = self.settings.borrow_and_update().clone();
        let empty = Map::new();
        let values = view.values.as_object().unwrap_or(&empty);
        let (target, recipe) = match self.pool.provider() {
            Ok(provider) => {
                let setting = || usize::try_from(settings::pool_size(values, &self.pool.kind)).unwrap_or(0);
                (self.size.unwrap_or_else(setting), Recipe::of(&provider.info(), values))
            }
            // Nobody could use what is ready.
            Err(_) => (0, self.pool.recipe()),
        };
        self.pool.keep(|state| state.configure(target, &recipe));
    }

    async fn recover(&self) {
        self.pool.keep(|state| {
            state.abandon_builds();
            Vec::new()
        });
        let (envs, kind) = (self.pool.envs.clone(), self.pool.kind.clone());
        let found = tokio::task::spawn_blocking(move || {
            let mut found = BTreeMap::new();
            // What a notebook keeps is neither the pool's nor left over.
            for prefix in record::pooled(&envs, &kind).into_iter().filter(|prefix| !is_captured(prefix)) {
                let record = Record::read(&prefix).filter(|_| !record::is_leased(&prefix));
                found.insert(prefix, record);
            }
            let taken = found.iter().filter(|(_, record)| record.is_none());
            let used = in_use(taken.map(|(prefix, _)| prefix.clone()).collect());
            (found, used, Template::find(&envs, &kind))
        });
        let (found, used, (template, left_over)) = found.await.unwrap_or_default();
        self.pool.keep(|state| {
            let mut gone: Vec<_> =
                left_over.into_iter().filter(|prefix| state.place(prefix).is_none()).collect();
            if let Some(template) = template.filter(|it| state.place(&it.environment.prefix).is_none()) {
                let age = template.age();
                gone.extend(state.template_made(template, age, Instant::now()));
            }
            gone
        });
        for (prefix, record) in found {
            let ready = record.map(|record| record.into_ready(Instant::now()));
            self.pool.keep(|state| match ready {
                // A keeper that is started again finds its own.
                _ if state.place(&prefix).is_some() => Vec::new(),
                Some(ready) => state.recover(ready).into_iter().collect(),
                // A kernel or a build of a former daemon that has not ended yet; the next start sees to it.
                None if used.contains(&prefix) => Vec::new(),
                None => vec![prefix],
            });
        }
    }

    async fn build(&mut self, provided: Provided, providers: &mut watch::Receiver<Option<Provided>>) {
        let (prefix, started) = (self.begin(), Instant::now());
        let pool = Arc::clone(&self.pool);
        let mut attempt = std::pin::pin!(attempt(&pool, provided, &prefix));
        let ended = loop {
            tokio::select! {
                biased;
                () = self.shutdown.begun() => break Err(stopping()),
                Ok(()) = providers.changed() => {
                    self.configure();
                    if !self.pool.is_open() {
                        break Err(given_up(&self.pool.kind));
                    }
                }
                Ok(()) = self.settings.changed() => self.configure(),
                ended = &mut attempt => break ended,
            }
        };
        self.pool.show(None);
        match ended {
            Ok(Attempt::Built(ready, how)) => {
                self.say_ready(&prefix, how, started);
                self.pool.keep(|state| state.build_succeeded(ready));
            }
            other => self.not_built(&prefix, other),
        }
    }

    /// Ends an attempt without an environment.
    fn not_built(&mut self, prefix: &Path, ended: Result<Attempt>) {
        match ended {
            Ok(Attempt::NoCopy(reason)) => self.no_copy(prefix, &reason),
            Ok(Attempt::Outdated) => {
                tracing::info!("the template of {} environments is outdated", self.pool.kind);
                self.give_up(prefix);
                self.pool.keep(|state| state.drop_template().into_iter().collect());
            }
            Ok(Attempt::Built(..)) => self.give_up(prefix),
            Err(error) if error.code == ErrorCode::Cancelled => self.give_up(prefix),
            Err(error) => {
                tracing::warn!("could not build a {} environment: {error}", self.pool.kind);
                self.pool.keep(|state| {
                    state.build_failed(prefix, error, Instant::now());
                    vec![prefix.to_path_buf()]
                });
            }
        }
    }

    /// Makes a template of an environment that nobody has, unless somebody takes it meanwhile.
    async fn make_template(&mut self, provided: &Provided, ready: Ready) {
        let (provider, prefix) = (&*provided.provider, template::folder(&self.pool.envs, &self.pool.kind));
        let key = ready.template_key.unwrap_or_default();
        let work = async {
            let copied = duplicate(provider, &ready.environment, &prefix, true, Task::silent()).await?;
            blocking(move || {
                record::strip(&copied.prefix)?;
                Template::record(copied, key)
            })
            .await
        };
        match self.aside(work).await {
            Some(Ok(template)) => {
                tracing::info!(prefix = %prefix.display(), "fresh {} environments are copies now", self.pool.kind);
                self.pool.keep(|state| state.template_made(template, Duration::ZERO, Instant::now()));
            }
            Some(Err(mut error)) => {
                // There is no template yet that could be to blame.
                if error.code == ErrorCode::Conflict {
                    error.code = ErrorCode::Internal;
                }
                self.no_copy(&prefix, &error);
            }
            None => self.give_up(&prefix),
        }
    }

    /// Makes the template faster. What was done before it had to give way need not be done again.
    async fn optimize_template(&mut self, provided: &Provided, mut template: Template) {
        if self.optimized(provided, &template.environment).await {
            template.optimized = true;
            blocking(move || template.write()).await.ok();
            self.pool.keep(|state: &mut PoolState| {
                state.template_optimized();
                Vec::new()
            });
        }
    }

    /// Puts a copy of the template in the place of an environment, so that it need not be optimized itself.
    async fn renew(&mut self, provided: Provided, old: &Path) {
        let (prefix, started) = (self.begin(), Instant::now());
        let pool = Arc::clone(&self.pool);
        match self.aside(attempt(&pool, provided, &prefix)).await {
            Some(Ok(Attempt::Built(copy, how))) => {
                self.say_ready(&prefix, how, started);
                self.pool.keep(|state| vec![state.renewed(old, copy)]);
            }
            Some(other) => self.not_built(&prefix, other),
            None => self.give_up(&prefix),
        }
    }

    async fn optimize(&mut self, provided: &Provided, ready: Ready) {
        if !self.optimized(provided, &ready.environment).await {
            return;
        }
        let prefix = ready.environment.prefix.clone();
        write_record(Record { optimized: true, ..ready.into() }).await.ok();
        self.pool.keep(|state: &mut PoolState| {
            state.optimized(&prefix);
            Vec::new()
        });
    }

    /// Makes an environment faster. False if that gave way to something else.
    async fn optimized(&mut self, provided: &Provided, environment: &Environment) -> bool {
        let kind = self.pool.kind.clone();
        match self.aside(timeout(OPTIMIZE_LIMIT, provided.provider.optimize(environment))).await {
            None => return false,
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => tracing::debug!("could not optimize a {kind} environment: {error}"),
            Some(Err(_)) => tracing::debug!("optimizing a {kind} environment took too long"),
        }
        true
    }

    /// Does what nobody waits for. None if it had to give way, because somebody changed the pool or the settings, or
    /// the daemon stops.
    async fn aside<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.shutdown.begun() => None,
            () = self.pool.woken() => None,
            Ok(()) = self.settings.changed() => {
                self.configure();
                None
            }
            done = work => Some(done),
        }
    }

    /// Begins a build at the prefix that this returns.
    fn begin(&self) -> PathBuf {
        let folder = format!("{}{}", pool_folder(&self.pool.kind), uuid::Uuid::new_v4());
        let prefix = self.pool.envs.join(folder);
        self.pool.keep(|state| {
            state.build_started(&prefix);
            Vec::new()
        });
        prefix
    }

    /// Ends it without an environment.
    fn give_up(&self, prefix: &Path) {
        self.pool.keep(|state| {
            state.build_cancelled(prefix);
            vec![prefix.to_path_buf()]
        });
    }

    /// Ends it because no copy can be made, and does without copies: until another template is made if it is the template
    /// that is to blame.
    fn no_copy(&mut self, prefix: &Path, reason: &PluginError) {
        let kind = &self.pool.kind;
        let ever = reason.code == ErrorCode::Unsupported;
        match reason.code {
            ErrorCode::Unsupported => {
                tracing::debug!("{kind} environments are installed one by one: {reason}");
            }
            ErrorCode::Conflict => {
                tracing::warn!("the template of {kind} environments is made anew: {reason}");
            }
            _ if self.said => {}
            _ => {
                tracing::warn!("{kind} environments are installed, as they could not be copied: {reason}");
                self.said = true;
            }
        }
        self.give_up(prefix);
        self.pool.keep(|state| {
            let template = match reason.code {
                ErrorCode::Conflict => state.drop_template(),
                _ => state.copying_failed(ever),
            };
            template.into_iter().collect()
        });
    }

    fn say_ready(&mut self, prefix: &Path, how: &str, started: Instant) {
        self.said &= how != COPIED;
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(prefix = %prefix.display(), how, ms, "a {} environment is ready", self.pool.kind);
    }
}

/// Why a build ends whose provider is gone.
fn given_up(kind: &str) -> PluginError {
    PluginError::new(ErrorCode::Cancelled, format!("no plugin provides {kind} environments any more"))
}
