//! Keeps one pool full.
//!
//! For: `Pools::run`, which runs one keeper for each kind and restarts it if it panics.
//! Promises: one build at a time; a build that fails, hangs or is given up leaves no folder; settings
//! are followed while a build runs; a provider that is replaced ends the build it has begun, one that is gone
//! leaves nothing behind that nobody uses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{
    EnvProvider, EnvRequest, Environment, ErrorCode, Health, PluginError, Progress, ProgressSink, Result,
    SettingsView, Task,
};
use serde_json::{Map, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::in_use::in_use;
use super::packages::pool_packages;
use super::pool::{Pool, stopping};
use super::record::{self, Record, pool_folder};
use super::state::{Next, PoolState, Ready};
use crate::settings;
use crate::shutdown::Shutdown;

/// Longest build (environments contract, section 2.5).
const BUILD_LIMIT: Duration = Duration::from_secs(900);
/// Changes [`BUILD_LIMIT`], in whole seconds.
const BUILD_LIMIT_VARIABLE: &str = "RUNTIMED_WARM_ENV_TIMEOUT_SECS";
/// Optimizing is a courtesy and must not run for ever (our choice).
const OPTIMIZE_LIMIT: Duration = Duration::from_secs(300);

/// What a keeper needs besides its pool.
#[derive(Clone)]
pub(super) struct Keeper {
    /// The pool it keeps.
    pub pool: Arc<Pool>,
    /// Decides about target and packages.
    pub settings: watch::Receiver<SettingsView>,
    /// The command line switched this pool off.
    pub disabled: bool,
    /// Ends it.
    pub shutdown: Shutdown,
}

impl Keeper {
    /// Adopts what a former daemon left and no process uses, then keeps the pool full until the daemon stops.
    /// The pool is to be configured before.
    pub(super) async fn run(mut self) {
        self.recover().await;
        let mut providers = self.pool.watch_provider();
        while !self.shutdown.has_begun() {
            if providers.has_changed().unwrap_or(false) {
                providers.mark_unchanged();
                self.configure();
            }
            self.pool.keep(|state| state.expire(Instant::now()));
            match (self.pool.provider().ok(), self.pool.next()) {
                (Some(provider), Next::Build) => self.build(provider, &mut providers).await,
                (Some(provider), Next::Optimize(ready)) => self.optimize(&*provider, *ready).await,
                (provider, next) => {
                    let longest = match next {
                        Next::Wait(Some(longest)) if provider.is_some() => longest,
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
        let (target, packages) = match self.pool.provider() {
            Ok(provider) => {
                let wanted = settings::pool_size(values, &self.pool.kind);
                let target = if self.disabled { 0 } else { usize::try_from(wanted).unwrap_or(0) };
                (target, pool_packages(&provider.info(), values))
            }
            // Nobody could use what is ready.
            Err(_) => (0, self.pool.packages()),
        };
        self.pool.keep(|state| state.configure(target, &packages));
    }

    async fn recover(&self) {
        self.pool.keep(|state| {
            state.abandon_builds();
            Vec::new()
        });
        let (envs, kind) = (self.pool.envs.clone(), self.pool.kind.clone());
        let found = tokio::task::spawn_blocking(move || {
            let mut found = BTreeMap::new();
            for prefix in record::pooled(&envs, &kind) {
                let record = Record::read(&prefix).filter(|_| !record::is_leased(&prefix));
                found.insert(prefix, record);
            }
            let taken = found.iter().filter(|(_, record)| record.is_none());
            let used = in_use(taken.map(|(prefix, _)| prefix.clone()).collect());
            (found, used)
        });
        let (found, used) = found.await.unwrap_or_default();
        for (prefix, record) in found {
            let ready = record.map(|record| Ready {
                environment: record.environment,
                packages: record.packages,
                optimized: record.optimized,
                since: Instant::now(),
            });
            self.pool.keep(|state| match ready {
                // A keeper that is started again finds its own.
                _ if state.tracks(&prefix) => Vec::new(),
                Some(ready) => state.recover(ready).into_iter().collect(),
                // A kernel or a build of a former daemon that has not ended yet; the next start sees to it.
                None if used.contains(&prefix) => Vec::new(),
                None => vec![prefix],
            });
        }
    }

    async fn build(
        &mut self,
        provider: Arc<dyn EnvProvider>,
        providers: &mut watch::Receiver<Option<Arc<dyn EnvProvider>>>,
    ) {
        let folder = format!("{}{}", pool_folder(&self.pool.kind), uuid::Uuid::new_v4());
        let prefix = self.pool.envs.join(folder);
        let packages = self.pool.packages();
        self.pool.keep(|state| {
            state.build_started(&prefix);
            Vec::new()
        });
        let pool = Arc::clone(&self.pool);
        let mut build = std::pin::pin!(build(&pool, provider, &prefix, packages));
        let built = loop {
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
                built = &mut build => break built,
            }
        };
        self.pool.show(None);
        match built {
            Ok(ready) => self.pool.keep(|state| state.build_succeeded(ready)),
            Err(error) if error.code == ErrorCode::Cancelled => self.pool.keep(|state| {
                state.build_cancelled(&prefix);
                vec![prefix.clone()]
            }),
            Err(error) => {
                tracing::warn!("could not build a {} environment: {error}", self.pool.kind);
                self.pool.keep(|state| {
                    state.build_failed(&prefix, error, Instant::now());
                    vec![prefix.clone()]
                });
            }
        }
    }

    /// Gives way at once when somebody changes the pool: refilling comes first.
    async fn optimize(&mut self, provider: &dyn EnvProvider, ready: Ready) {
        let Ready { environment, packages, .. } = ready;
        tokio::select! {
            biased;
            () = self.shutdown.begun() => return,
            () = self.pool.woken() => return,
            result = timeout(OPTIMIZE_LIMIT, provider.optimize(&environment)) => match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("could not optimize a {} environment: {error}", self.pool.kind),
                Err(_) => tracing::debug!("optimizing a {} environment took too long", self.pool.kind),
            }
        }
        let prefix = environment.prefix.clone();
        write_record(Record { environment, packages, optimized: true }).await.ok();
        self.pool.keep(|state: &mut PoolState| {
            state.optimized(&prefix);
            Vec::new()
        });
    }
}

/// Builds one environment with `packages` at `prefix` and proves that it works.
async fn build(
    pool: &Arc<Pool>,
    provider: Arc<dyn EnvProvider>,
    prefix: &Path,
    packages: Vec<String>,
) -> Result<Ready> {
    let task = Task::new(Arc::new(ShowProgress(Arc::clone(pool))));
    let request = EnvRequest {
        packages: packages.clone(),
        channels: provider.info().default_channels,
        background: true,
        ..EnvRequest::default()
    };
    let environment = build_verified(&*provider, &pool.kind, request, prefix, task).await?;
    let record = Record { environment, packages, optimized: false };
    let record = write_record(record).await?;
    Ok(Ready {
        environment: record.environment,
        packages: record.packages,
        optimized: false,
        since: Instant::now(),
    })
}

/// Plans, creates and verifies an environment within the time limit.
pub(super) async fn build_verified(
    provider: &dyn EnvProvider,
    kind: &str,
    request: EnvRequest,
    prefix: &Path,
    task: Task,
) -> Result<Environment> {
    let work = async {
        let plan = provider.plan(request).await?;
        let parent = prefix.parent().map(PathBuf::from).unwrap_or_default();
        tokio::fs::create_dir_all(&parent).await.map_err(|error| {
            PluginError::internal(format!("could not make `{}`: {error}", parent.display()))
        })?;
        let environment = provider.create(plan, prefix, task).await?;
        if environment.prefix != prefix || environment.kind != kind {
            return Err(PluginError::internal(format!(
                "the {kind} provider built something else than it was asked for"
            )));
        }
        match provider.verify(&environment).await? {
            Health::Usable => Ok(environment),
            Health::Broken { reason } => {
                Err(PluginError::internal(reason).detail(json!({ "error_kind": "import_error" })))
            }
        }
    };
    let limit = build_limit();
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(PluginError::new(
            ErrorCode::Timeout,
            format!("building a {kind} environment took longer than {} s", limit.as_secs()),
        ))
    })
}

/// Writes a record on the blocking pool.
pub(super) async fn write_record(record: Record) -> Result<Record> {
    let written = tokio::task::spawn_blocking(move || record.write().map(|()| record));
    let failed = |error: &dyn std::fmt::Display| {
        PluginError::internal(format!("could not record a built environment: {error}"))
    };
    written.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

/// Why a build ends whose provider is gone.
fn given_up(kind: &str) -> PluginError {
    PluginError::new(ErrorCode::Cancelled, format!("no plugin provides {kind} environments any more"))
}

fn build_limit() -> Duration {
    let seconds = std::env::var(BUILD_LIMIT_VARIABLE).ok().and_then(|text| text.parse().ok());
    seconds.filter(|seconds| *seconds > 0).map_or(BUILD_LIMIT, Duration::from_secs)
}

/// Shows a build's progress to those who wait for the pool.
struct ShowProgress(Arc<Pool>);

impl ProgressSink for ShowProgress {
    fn progress(&self, progress: Progress) {
        self.0.show(Some(progress));
    }
}
