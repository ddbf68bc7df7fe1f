//! The environment service of the rooms.
//!
//! For: plugins, through `HostServices::environments`.
//! Promises: nothing a notebook declares is built before it is trusted; an environment that is waited
//! for shows its progress; a leased prefix stays until it is released.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use runtimed_plugin_api::{
    EnvNeed, EnvProvider, Environment, Environments, ErrorCode, Health, Lease, PluginError, Release, Result,
    Task, TrustVerdict, async_trait,
};
use serde_json::{Map, Value, json};

use super::build::{build_verified, write_record};
use super::derive::derive;
use super::labels::{Choice, choose, section};
use super::packages::{add_unnamed, bare_name};
use super::pool::Pool;
use super::record::{self, Record};
use super::taken::Taken;
use super::trust::{self, TrustStore};
use super::{Pools, PoolsByKind};
use crate::disk;
use crate::settings::Settings;

/// Implements [`Environments`] on top of the pools. Cheap to clone.
#[derive(Clone)]
pub struct EnvironmentService {
    pub(super) pools: Pools,
    pub(super) settings: Settings,
    trust: TrustStore,
    /// Environments built for declarations, by key.
    pub(super) inline_envs: PathBuf,
    leases: Arc<Mutex<BTreeMap<String, Leased>>>,
    /// One build at a time for each key, so that equal notebooks share instead of racing.
    building: Arc<Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>>,
}

/// What a lease stands for.
#[derive(Clone)]
struct Leased {
    pool: Arc<Pool>,
    environment: Environment,
    /// Other notebooks may use it too.
    shared: bool,
    /// It waits for a notebook.
    spare: Option<Spare>,
}

/// A lease that is nobody's yet.
#[derive(Clone)]
struct Spare {
    lease: Lease,
    /// The pool's when it was taken.
    revision: u64,
}

impl EnvironmentService {
    /// The service for `pools`.
    pub fn new(pools: Pools, settings: Settings, trust: TrustStore, inline_envs: PathBuf) -> Self {
        Self { pools, settings, trust, inline_envs, leases: Arc::default(), building: Arc::default() }
    }

    /// Prefixes that are leased now.
    pub fn leased(&self) -> Vec<PathBuf> {
        self.leases().values().map(|leased| leased.environment.prefix.clone()).collect()
    }

    async fn pooled(&self, pool: Arc<Pool>, need: &EnvNeed, label: &str, task: &Task) -> Result<Lease> {
        if let Some(lease) = self.preferred(&pool, need).await? {
            return Ok(lease);
        }
        let ready = match need.spare {
            true => pool.take_spare().await.map(|(ready, revision)| (ready, Some(revision))),
            false => pool.take_or_wait(task).await.map(|ready| (ready, None)),
        };
        let (ready, spare) = ready.map_err(|mut error| {
            error.message = format!("Failed to acquire prewarmed environment for {label}. {}", error.message);
            error
        })?;
        // Given back if this call is dropped or fails from here on.
        let taken = Taken::new(&pool, ready.clone());
        taken.lease(&need.room).await?;
        let base = pool.provider()?.info().base_packages;
        let base: Vec<String> = base.iter().map(|name| bare_name(name)).collect();
        let prewarmed: Vec<String> =
            ready.packages.iter().filter(|package| !base.contains(&bare_name(package))).cloned().collect();
        let config = json!({ "prewarmed_packages": prewarmed });
        let lease = self.lease(pool, ready.environment, false, label, config).await?;
        taken.keep();
        let lease = Lease { prewarmed_packages: prewarmed, ..lease };
        if let (Some(revision), Some(leased)) = (spare, self.leases().get_mut(&lease.id)) {
            leased.spare = Some(Spare { lease: lease.clone(), revision });
        }
        Ok(lease)
    }

    /// The lease that `need` would rather have, if it is still a spare one and as good as a new one of `pool`.
    async fn preferred(&self, pool: &Arc<Pool>, need: &EnvNeed) -> Result<Option<Lease>> {
        // Whoever comes first has it, and it is nobody's spare one again: one that is not as good is of no use.
        let spare = need.prefer.as_ref().and_then(|lease| {
            let mut leases = self.leases();
            let leased = leases.get_mut(lease).filter(|leased| Arc::ptr_eq(&leased.pool, pool))?;
            Some((leased.spare.take()?, leased.environment.clone()))
        });
        let Some((spare, environment)) = spare.filter(|(spare, _)| spare.revision == pool.revision()) else {
            return Ok(None);
        };
        let room = need.room.clone();
        let kept = blocking(move || {
            let usable = record::is_usable(&environment);
            if usable {
                record::lease(&environment.prefix, &room)?;
            }
            Ok(usable)
        });
        Ok(kept.await?.then_some(spare.lease))
    }

    async fn inline(&self, pool: Arc<Pool>, need: &EnvNeed, label: &str, task: Task) -> Result<Lease> {
        let empty = Map::new();
        let section = section(&need.metadata, &pool.kind).unwrap_or(&empty);
        let mut request = trust::request(section);
        let dependencies = request.packages.clone();
        let provider = pool.provider()?;
        let info = provider.info();
        let mut packages = info.base_packages;
        packages.retain(|base| !dependencies.iter().any(|named| bare_name(named) == bare_name(base)));
        packages.extend(dependencies.iter().cloned());
        add_unnamed(&mut packages, &info.tail_packages);
        request.packages = packages;
        if request.channels.is_empty() {
            request.channels = info.default_channels;
        }
        let channels = request.channels.clone();
        let plan = provider.plan(request.clone()).await?;
        let environment = self.declared(&pool, &*provider, folder_name(&plan.key)?, request, &task).await?;
        task.report("ready", json!({ "env_path": environment.prefix, "python_path": environment.python }));
        let mut config = json!({ format!("{}_deps", pool.kind): dependencies });
        if !channels.is_empty() {
            config[format!("{}_channels", pool.kind)] = json!(channels);
        }
        self.lease(pool, environment, true, label, config).await
    }

    /// An environment for `key`: a whole one that is there, or a new one in a folder that nobody uses. The
    /// first folder is `<key>`, the next `<key>-2`: what a notebook installs into its running environment
    /// makes that one useless to others, and it must not be rebuilt under the kernel.
    async fn declared(
        &self,
        pool: &Pool,
        provider: &dyn EnvProvider,
        key: &str,
        request: runtimed_plugin_api::EnvRequest,
        task: &Task,
    ) -> Result<Environment> {
        let mut folder = key.to_owned();
        let mut number = 1;
        loop {
            let prefix = self.inline_envs.join(&folder);
            let one_at_a_time = self.build_lock(&prefix);
            let _building = one_at_a_time.lock().await;
            let cached = self.cached(provider, &prefix, task).await?;
            if cached.is_some() || !self.leased().contains(&prefix) {
                let environment = match cached {
                    Some(environment) => {
                        task.report("cache_hit", json!({ "env_path": prefix }));
                        environment
                    }
                    None => self.build(pool, provider, request, &prefix, task.clone()).await?,
                };
                // Before anybody else may have it: what was just used is not collected.
                blocking(move || record::touch(&prefix)).await?;
                return Ok(environment);
            }
            number += 1;
            folder = format!("{key}-{number}");
        }
    }

    /// The environment at `prefix`, if a former build left a whole one there. A broken one is built anew.
    async fn cached(
        &self,
        provider: &dyn EnvProvider,
        prefix: &Path,
        task: &Task,
    ) -> Result<Option<Environment>> {
        let path = prefix.to_path_buf();
        let (found, was_there) =
            blocking(move || Ok((Record::read(&path), record::is_recorded(&path)))).await?;
        let health = match &found {
            Some(record) => provider.verify(&record.environment).await?,
            None => Health::Broken { reason: "its interpreter is gone".to_owned() },
        };
        match health {
            Health::Usable => return Ok(found.map(|record| record.environment)),
            Health::Broken { reason } if was_there => {
                tracing::warn!("`{}` is broken and is rebuilt: {reason}", prefix.display());
                task.report("rebuilding", json!({ "env_path": prefix, "reason": reason }));
            }
            Health::Broken { .. } => {}
        }
        Ok(None)
    }

    async fn build(
        &self,
        pool: &Pool,
        provider: &dyn EnvProvider,
        request: runtimed_plugin_api::EnvRequest,
        prefix: &Path,
        task: Task,
    ) -> Result<Environment> {
        let (path, within) = (prefix.to_path_buf(), self.inline_envs.clone());
        blocking(move || {
            std::fs::create_dir_all(&within)?;
            disk::remove_tree(&path, &within)
        })
        .await?;
        let packages = request.packages.clone();
        // A dropped call leaves a folder without a record, which the next build removes.
        let built = match derive(pool, &request, prefix, &task).await {
            Some(environment) => Ok(environment),
            None => {
                let (path, within) = (prefix.to_path_buf(), self.inline_envs.clone());
                blocking(move || disk::remove_tree(&path, &within)).await?;
                build_verified(provider, request, prefix, task).await
            }
        };
        match built {
            Ok(environment) => {
                Ok(write_record(Record { environment, packages, optimized: false, template_key: None })
                    .await?
                    .environment)
            }
            Err(error) => {
                let (path, within) = (prefix.to_path_buf(), self.inline_envs.clone());
                blocking(move || disk::remove_tree(&path, &within)).await.ok();
                Err(PluginError {
                    message: format!("Failed to prepare inline environment: {}", error.message),
                    ..error
                })
            }
        }
    }

    async fn lease(
        &self,
        pool: Arc<Pool>,
        environment: Environment,
        shared: bool,
        label: &str,
        config: Value,
    ) -> Result<Lease> {
        let launch = pool.provider()?.launch(&environment).await?;
        let id = uuid::Uuid::new_v4().to_string();
        let mut launched_config = json!({
            "venv_path": environment.prefix,
            "python_path": environment.python,
            "launch_id": uuid::Uuid::new_v4().to_string(),
        });
        if let (Value::Object(all), Value::Object(config)) = (&mut launched_config, config) {
            all.extend(config);
        }
        let leased = Leased { pool, environment: environment.clone(), shared, spare: None };
        self.leases().insert(id.clone(), leased);
        Ok(Lease {
            id,
            source: label.to_owned(),
            environment,
            launch,
            launched_config,
            prewarmed_packages: Vec::new(),
        })
    }

    /// Who has this may build, change or delete the environment at `prefix`.
    pub(super) fn build_lock(&self, prefix: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut building = self.building.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        building.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(building.entry(prefix.to_path_buf()).or_default())
    }

    fn find(&self, lease: &str) -> Result<Leased> {
        let unknown = || PluginError::not_found(format!("there is no environment lease `{lease}`"));
        self.leases().get(lease).cloned().ok_or_else(unknown)
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Leased>> {
        self.leases.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[async_trait]
impl Environments for EnvironmentService {
    async fn acquire(&self, need: EnvNeed, task: Task) -> Result<Lease> {
        let pools = self.pools.by_kind().await?;
        let kinds: Vec<String> = pools.keys().cloned().collect();
        let settings = self.settings.view();
        let default_kind = settings.values.get("default_python_env").and_then(Value::as_str).unwrap_or("uv");
        let choice = choose(&need.source, &need.metadata, &kinds, default_kind)?;
        let label = choice.label();
        let missing = || PluginError::internal(format!("the pool for {label} is gone"));
        let pool = pools.get(choice.kind()).cloned().ok_or_else(missing)?;
        match choice {
            Choice::Pooled(_) => self.pooled(pool, &need, &label, &task).await,
            Choice::Inline(_) => {
                let verdict = self.trust.verdict(&need.metadata, &providers(&pools)).await?;
                // A channel alone needs no approval to be declared, but one to be installed from.
                if verdict.needs_approval || !self.trust.covers(&need.metadata, &*pool.provider()?).await? {
                    return Err(PluginError::new(
                        ErrorCode::Denied,
                        "The notebook declares packages that are not trusted yet. Nothing was installed.",
                    )
                    .help("Review the packages and approve them, then run again."));
                }
                self.inline(pool, &need, &label, task).await
            }
        }
    }

    async fn install(&self, lease: &str, packages: Vec<String>, task: Task) -> Result<()> {
        let leased = self.find(lease)?;
        if leased.shared {
            // It stops being what its key says, so nobody new may get it.
            let prefix = leased.environment.prefix.clone();
            blocking(move || Record::forget(&prefix)).await?;
        }
        leased.pool.provider()?.install(&leased.environment, &packages, task).await
    }

    async fn release(&self, lease: &str, how: Release) -> Result<()> {
        let leased = self.find(lease)?;
        self.leases().remove(lease);
        let prefix = &leased.environment.prefix;
        match (leased.shared, how) {
            // Kept for the next notebook that declares the same.
            (true, _) => {}
            (false, Release::Delete) => leased.pool.discard(prefix),
            // The next start of the daemon collects it.
            (false, Release::Keep) => {
                leased.pool.release(prefix);
            }
        }
        Ok(())
    }

    async fn trust(&self, need: EnvNeed) -> Result<TrustVerdict> {
        let pools = self.pools.by_kind().await?;
        self.trust.verdict(&need.metadata, &providers(&pools)).await
    }

    async fn approve(&self, need: EnvNeed) -> Result<TrustVerdict> {
        let pools = self.pools.by_kind().await?;
        let providers = providers(&pools);
        self.trust.approve_all(&need.metadata, &providers).await?;
        self.trust.verdict(&need.metadata, &providers).await
    }
}

fn providers(pools: &PoolsByKind) -> Vec<Arc<dyn EnvProvider>> {
    pools.values().filter_map(|pool| pool.provider().ok()).collect()
}

/// A key is a folder's name, so it must not be a path.
fn folder_name(key: &str) -> Result<&str> {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    plain.then_some(key).ok_or_else(|| PluginError::internal(format!("`{key}` cannot name an environment")))
}

/// Runs file work on the blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    let failed = |error: &dyn std::fmt::Display| PluginError::internal(format!("file error: {error}"));
    done.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}
