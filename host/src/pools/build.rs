//! Building one environment: from packages, or as a copy of a template.
//!
//! For: keepers, and the environments of notebooks that declare packages.
//! Promises: what is returned was verified by its provider, and for pools is recorded on disk; everything has a time limit.
//! Never: deletes what it leaves behind when it fails; whoever named the prefix does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{
    EnvPlan, EnvProvider, EnvRequest, Environment, ErrorCode, Health, PluginError, Progress, ProgressSink,
    Result, Task,
};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::environments::blocking;
use super::packages::Recipe;
use super::pool::Pool;
use super::record::Record;
use super::state::Ready;
use super::template::{self, Template};
use crate::plugins::Provided;

/// Longest build (environments contract, section 2.5).
const BUILD_LIMIT: Duration = Duration::from_secs(900);
/// Changes [`BUILD_LIMIT`], in whole seconds.
const BUILD_LIMIT_VARIABLE: &str = "RUNTIMED_WARM_ENV_TIMEOUT_SECS";

/// How an environment came about, in the log.
pub(super) const COPIED: &str = "copied";
/// The other way.
const INSTALLED: &str = "installed";

/// What a pool wants an environment with `packages` to be. `background` says that nobody waits for it.
pub(super) fn request(provider: &dyn EnvProvider, packages: &[String], background: bool) -> EnvRequest {
    EnvRequest {
        packages: packages.to_vec(),
        channels: provider.info().default_channels,
        background,
        ..EnvRequest::default()
    }
}

/// How an attempt to build for a pool ended.
pub(super) enum Attempt {
    /// Well, in this way: [`COPIED`] or [`INSTALLED`].
    Built(Ready, &'static str),
    /// There can be no copy, for that reason.
    NoCopy(PluginError),
    /// The template is for something else.
    Outdated,
}

/// Builds an environment for the pool at `prefix`, as a copy if there is a template. While nobody waits it is nice.
///
/// # Errors
/// Those of the provider, but for copies.
pub(super) async fn attempt(pool: &Arc<Pool>, provided: Provided, prefix: &Path) -> Result<Attempt> {
    let Provided { provider, edition } = provided;
    let (Recipe { packages, settings }, background) = (pool.recipe(), !pool.is_waited_for());
    let task = Task::new(Arc::new(ShowProgress(Arc::clone(pool))));
    let plan = provider.plan(request(&*provider, &packages, background)).await?;
    let key = template::key(&plan, &edition);
    let Some(template) = pool.template() else {
        let environment = create(&*provider, plan, prefix, task).await?;
        let record = Record { environment, packages, settings, optimized: false, template_key: Some(key) };
        return Ok(Attempt::Built(ready(record).await?, INSTALLED));
    };
    if template.key != key {
        return Ok(Attempt::Outdated);
    }
    let copy = async {
        intact(&template).await?;
        let environment = duplicate(&*provider, &template.environment, prefix, background, task).await?;
        let optimized = template.optimized;
        ready(Record { environment, packages, settings, optimized, template_key: None }).await
    };
    match copy.await {
        Ok(ready) => Ok(Attempt::Built(ready, COPIED)),
        Err(error) if error.code == ErrorCode::Cancelled => Err(error),
        Err(error) => Ok(Attempt::NoCopy(error)),
    }
}

/// Whether a template is still what it was when it was made.
///
/// # Errors
/// `Conflict` if not.
pub(super) async fn intact(template: &Template) -> Result<()> {
    let template = template.clone();
    let check = tokio::task::spawn_blocking(move || template.check());
    let check = check.await.unwrap_or_else(|error| Err(error.to_string()));
    check.map_err(|reason| PluginError::new(ErrorCode::Conflict, reason))
}

/// Plans, creates and verifies an environment within the time limit.
pub(super) async fn build_verified(
    provider: &dyn EnvProvider,
    request: EnvRequest,
    prefix: &Path,
    task: Task,
) -> Result<Environment> {
    let plan = provider.plan(request).await?;
    create(provider, plan, prefix, task).await
}

async fn create(provider: &dyn EnvProvider, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
    within_limit(provider, async {
        let parent = prefix.parent().map(PathBuf::from).unwrap_or_default();
        tokio::fs::create_dir_all(&parent).await.map_err(|error| {
            PluginError::internal(format!("could not make `{}`: {error}", parent.display()))
        })?;
        // The environment of a project is where the project keeps it.
        let place = plan.request.project.is_none().then_some(prefix);
        verified(provider, provider.create(plan, prefix, task).await?, place).await
    })
    .await
}

/// A verified copy of `environment` at `prefix`.
pub(super) async fn duplicate(
    provider: &dyn EnvProvider,
    environment: &Environment,
    prefix: &Path,
    background: bool,
    task: Task,
) -> Result<Environment> {
    let mut original = environment.clone();
    original.set_in_background(background);
    within_limit(provider, async {
        verified(provider, provider.clone_env(&original, prefix, task).await?, Some(prefix)).await
    })
    .await
}

async fn verified(
    provider: &dyn EnvProvider,
    environment: Environment,
    place: Option<&Path>,
) -> Result<Environment> {
    let kind = provider.info().kind;
    if place.is_some_and(|place| environment.prefix != place) || environment.kind != kind {
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
}

async fn within_limit<T>(provider: &dyn EnvProvider, work: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = build_limit();
    timeout(limit, work).await.unwrap_or_else(|_| {
        let (kind, seconds) = (provider.info().kind, limit.as_secs());
        let text = format!("building a {kind} environment took longer than {seconds} s");
        Err(PluginError::new(ErrorCode::Timeout, text))
    })
}

async fn ready(record: Record) -> Result<Ready> {
    Ok(write_record(record).await?.into_ready(Instant::now()))
}

/// Writes a record on the blocking pool.
pub(super) async fn write_record(record: Record) -> Result<Record> {
    blocking(move || record.write().map(|()| record)).await.map_err(|error| {
        PluginError::internal(format!("could not record a built environment: {}", error.message))
    })
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
