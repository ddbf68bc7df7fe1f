//! The environment service of the rooms.
//!
//! For: plugins, through `HostServices::environments`.
//! Promises: nothing a notebook declares is built before it is trusted; an environment that is waited
//! for shows its progress; a leased prefix stays until it is released.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use runtimed_plugin_api::{
    EnvNeed, EnvProvider, EnvRequest, Environment, Environments, ErrorCode, Lease, PluginError, Progress,
    ProgressSink, Release, Result, Task, TrustVerdict, async_trait,
};
use serde_json::{Value, json};

use super::Pools;
use super::captured::{self, Captured};
use super::declared::{Declaration, DeclaredEnvs};
use super::drift;
use super::labels::{self, Choice};
use super::packages::bare_name;
use super::pool::Pool;
use super::projects;
use super::record::{self, Record};
use super::relative::absolute;
use super::taken::Taken;
use super::trust::{self, TrustStore};
use super::usage::Measured;
use crate::settings::Settings;

/// Implements [`Environments`] on top of the pools. Cheap to clone.
#[derive(Clone)]
pub struct EnvironmentService {
    pub(super) pools: Pools,
    pub(super) settings: Settings,
    pub(super) trust: TrustStore,
    pub(super) declared: DeclaredEnvs,
    /// Stands for projects whose environments are elsewhere; has those that have no place of their own.
    pub(super) project_envs: PathBuf,
    /// The user's home, which is nobody's project.
    pub(super) home: Option<PathBuf>,
    leases: Arc<Mutex<BTreeMap<String, Leased>>>,
    /// How the ids of all leases begin that this daemon gives.
    pub(super) instance: String,
    /// What environments took on disk when somebody looked last. Locked while they are measured.
    pub(super) measured: Arc<Mutex<Measured>>,
}

/// What a lease stands for.
#[derive(Clone)]
pub(super) struct Leased {
    pub(super) pool: Arc<Pool>,
    pub(super) environment: Environment,
    pub(super) whose: Whose,
    /// What is noted about whose it is.
    pub(super) captured: Option<Captured>,
    /// The notebook's folder.
    pub(super) folder: Option<PathBuf>,
    /// It waits for a notebook.
    pub(super) spare: Option<Spare>,
}

/// What becomes of an environment that is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The notebook's alone.
    Own,
    /// Other notebooks may use it too: it is kept for the next that declares the same.
    Shared,
    /// The project's, whose packages are those of its file.
    Project,
}

/// A lease that is nobody's yet.
#[derive(Clone)]
pub(super) struct Spare {
    lease: Lease,
    /// The pool's when it was taken.
    revision: u64,
}

impl Leased {
    /// A lease that nothing else is known about yet.
    pub(super) fn new(pool: Arc<Pool>, environment: Environment, whose: Whose) -> Self {
        Self { pool, environment, whose, captured: None, folder: None, spare: None }
    }
}

impl EnvironmentService {
    /// The service for `pools`, which keeps what it builds in the folder `base`.
    pub fn new(
        pools: Pools,
        settings: Settings,
        trust: TrustStore,
        base: &Path,
        home: Option<PathBuf>,
    ) -> Self {
        let declared = DeclaredEnvs::new(base.join("inline-envs"));
        let project_envs = base.join("project-envs");
        let (leases, measured) = Default::default();
        let instance = format!("{}/", uuid::Uuid::new_v4().simple());
        Self { pools, settings, trust, declared, project_envs, home, leases, instance, measured }
    }

    /// Prefixes that are leased now.
    pub fn leased(&self) -> Vec<PathBuf> {
        self.leases().values().map(|leased| leased.environment.prefix.clone()).collect()
    }

    /// One of the pool.
    ///
    /// # Errors
    /// Of the build that was waited for.
    pub(super) async fn pooled(
        &self,
        pool: Arc<Pool>,
        need: &EnvNeed,
        label: &str,
        task: &Task,
    ) -> Result<Lease> {
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
        let lease = self.lease(pool, ready.environment, Whose::Own, label, config).await?;
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

    /// An environment for what the notebook declares, if that is trusted.
    async fn declared(&self, pool: Arc<Pool>, declaration: Declaration, task: &Task) -> Result<Lease> {
        let provider = pool.provider()?;
        self.permit(&*provider, &declaration.located()).await?;
        let is_used = |prefix: &Path| self.leased().iter().any(|leased| leased == prefix);
        let environment = self.declared.get(&pool, &*provider, &declaration, is_used, task).await?;
        let EnvRequest { packages, mut channels, .. } = declaration.request;
        if channels.is_empty() {
            channels = provider.info().default_channels;
        }
        let mut config = json!({
            drift::deps_key(&pool.kind): declaration.named.unwrap_or(packages),
            drift::fixed_key(&pool.kind): declaration.fixed,
        });
        if !channels.is_empty() {
            config[drift::channels_key(&pool.kind)] = json!(channels);
        }
        self.lease(pool, environment, Whose::Shared, &declaration.label, config).await
    }

    /// Asks trust about everything that `request` wants of `provider`.
    ///
    /// # Errors
    /// `Denied` unless all of it is allowed.
    pub(super) async fn permit(&self, provider: &dyn EnvProvider, request: &EnvRequest) -> Result<()> {
        // A channel alone needs no approval to be declared, but one to be installed from.
        match self.trust.allows(&provider.identities(request).await?) {
            true => Ok(()),
            false => Err(untrusted()),
        }
    }

    /// Makes a lease of an environment that is there. `config` is added to what clients see of it.
    ///
    /// # Errors
    /// Of the provider, which says how its interpreter is started.
    pub(super) async fn lease(
        &self,
        pool: Arc<Pool>,
        environment: Environment,
        whose: Whose,
        label: &str,
        config: Value,
    ) -> Result<Lease> {
        let launch = pool.provider()?.launch(&environment).await?;
        let id = format!("{}{}", self.instance, uuid::Uuid::new_v4());
        let mut launched_config = json!({
            "venv_path": environment.prefix,
            "python_path": environment.python,
            "launch_id": uuid::Uuid::new_v4().to_string(),
        });
        if let Some(version) = &environment.python_version {
            launched_config["python_version"] = json!(version);
        }
        if let (Value::Object(all), Value::Object(config)) = (&mut launched_config, config) {
            all.extend(config);
        }
        self.leases().insert(id.clone(), Leased::new(pool, environment.clone(), whose));
        Ok(Lease {
            id,
            source: label.to_owned(),
            environment,
            launch,
            launched_config,
            prewarmed_packages: Vec::new(),
        })
    }

    fn find(&self, lease: &str) -> Result<Leased> {
        let unknown = || PluginError::not_found(format!("there is no environment lease `{lease}`"));
        self.leases().get(lease).cloned().ok_or_else(unknown)
    }

    /// Every lease, by id. For a moment: never across an await.
    pub(super) fn leases(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Leased>> {
        self.leases.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[async_trait]
impl Environments for EnvironmentService {
    async fn acquire(&self, need: EnvNeed, task: Task) -> Result<Lease> {
        let pools = self.pools.by_kind().await?;
        let choice = self.choose(&need, &pools).await?;
        let label = choice.label();
        let missing = || PluginError::internal(format!("the pool for {label} is gone"));
        let pool = pools.get(choice.kind()).cloned().ok_or_else(missing)?;
        let task = of_kind(&pool.kind, &task);
        let folder = projects::start(&need).map(Path::to_path_buf);
        let lease = match choice {
            Choice::Pooled(_) => self.prewarmed(pool, &need, &label, &task).await,
            Choice::Inline(kind) => {
                let section = labels::section(&need.metadata, &kind);
                let request = section.map(trust::request).unwrap_or_default();
                let declaration = Declaration {
                    fixed: drift::fixed(&request),
                    request,
                    folder: folder.clone(),
                    label,
                    name: "inline",
                    place: format!("the notebook's dependencies (`{kind}`)"),
                    named: None,
                };
                self.declared(pool, declaration, &task).await
            }
            Choice::Script(kind, script) => {
                let declaration = Declaration {
                    request: script.request(&pool.provider()?.info()),
                    folder: folder.clone(),
                    fixed: drift::fixed(&script.beside(&kind)),
                    label,
                    name: "PEP 723",
                    place: format!("the script block of cell {}", script.cell),
                    named: Some(script.dependencies),
                };
                self.declared(pool, declaration, &task).await
            }
            Choice::Project(_, project) => self.project(pool, *project, &need, &label, task).await,
        }?;
        if let Some(leased) = self.leases().get_mut(&lease.id) {
            leased.folder = folder;
        }
        Ok(lease)
    }

    async fn install(&self, lease: &str, packages: Vec<String>, task: Task) -> Result<()> {
        let leased = self.find(lease)?;
        let provider = leased.pool.provider()?;
        let request = EnvRequest { packages, ..EnvRequest::default() };
        let request = absolute(request, leased.folder.as_deref());
        self.permit(&*provider, &request).await?;
        let mut former = None;
        if leased.whose == Whose::Shared {
            // It stops being what its key says, so nobody new may get it.
            let prefix = leased.environment.prefix.clone();
            former = blocking(move || {
                let record = Record::read(&prefix);
                Record::forget(&prefix).map(|()| record)
            })
            .await?;
        }
        let task = of_kind(&leased.pool.kind, &task);
        let installed = provider.install(&leased.environment, &request.packages, task).await;
        if let (Err(error), Some(record)) = (&installed, former)
            && error.code == ErrorCode::Unsupported
        {
            // A provider that cannot has changed nothing.
            blocking(move || record.write()).await?;
        }
        installed
    }

    async fn release(&self, lease: &str, how: Release) -> Result<()> {
        let leased = self.find(lease)?;
        self.leases().remove(lease);
        let prefix = &leased.environment.prefix;
        match (leased.whose, how) {
            (Whose::Project, _) => {}
            (Whose::Shared, Release::Keep) => {
                let prefix = prefix.clone();
                blocking(move || record::touch(&prefix)).await?;
            }
            // Whoever wants the same gets a new one.
            (Whose::Shared, Release::Delete) => {
                let prefix = prefix.clone();
                blocking(move || Record::forget(&prefix)).await?;
            }
            (Whose::Own, Release::Delete) => {
                // It may take a while until it is gone, and must not be found until then.
                let doomed = prefix.clone();
                blocking(move || captured::forget(&doomed).and_then(|()| Record::forget(&doomed))).await.ok();
                leased.pool.discard(prefix);
            }
            (Whose::Own, Release::Keep) => {
                let kept = prefix.clone();
                if leased.captured.is_some() {
                    blocking(move || record::end_lease(&kept)).await?;
                }
                // What no notebook keeps is collected by the next start of the daemon.
                leased.pool.release(prefix);
            }
        }
        Ok(())
    }

    async fn trust(&self, need: EnvNeed) -> Result<TrustVerdict> {
        let pools = self.pools.by_kind().await?;
        self.verdict(&need, &pools).await
    }

    async fn approve(&self, need: EnvNeed) -> Result<TrustVerdict> {
        let pools = self.pools.by_kind().await?;
        match need.about_project {
            true => self.approve_project(&need, &pools).await?,
            false => self.approve_declared(&need, &pools).await?,
        }
        self.verdict(&need, &pools).await
    }
}

/// `task` for work of `kind`, which its progress says.
fn of_kind(kind: &str, task: &Task) -> Task {
    struct OfKind(String, Task);
    impl ProgressSink for OfKind {
        fn progress(&self, mut progress: Progress) {
            progress.fields.insert("env_type".to_owned(), self.0.clone().into());
            self.1.sink().progress(progress);
        }
    }
    Task::new(Arc::new(OfKind(kind.to_owned(), task.clone())))
}

/// Why something is not installed.
fn untrusted() -> PluginError {
    PluginError::new(
        ErrorCode::Denied,
        "The notebook declares packages that are not trusted yet. Nothing was installed.",
    )
    .help("Review the packages and approve them, then run again.")
}

/// Runs file work on the blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    let failed = |error: &dyn std::fmt::Display| PluginError::internal(format!("file error: {error}"));
    done.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}
