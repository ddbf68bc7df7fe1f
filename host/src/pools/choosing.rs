//! What a notebook gets, and what is to be said about it.
//!
//! For: `environments.rs`.
//! Promises: finds out what there is and leaves the decision to `labels.rs`, `trust.rs` and `drift.rs`; builds
//! nothing.

use std::sync::Arc;

use runtimed_plugin_api::{
    EnvNeed, EnvProvider, EnvRequest, ErrorCode, PackageIdentity, PluginError, Project, Result, Running,
    TrustVerdict, cache_key,
};
use serde_json::{Value, json};

use super::PoolsByKind;
use super::captured::{self, Kept};
use super::drift::{self, Wanted};
use super::environments::{EnvironmentService, blocking};
use super::labels::{self, Choice, Facts, Wish};
use super::projects::{self, Detector, Found};
use super::script::Script;
use super::trust::Declared;

impl EnvironmentService {
    /// What the notebook gets.
    ///
    /// # Errors
    /// When that cannot be had, or not be found out.
    pub(super) async fn choose(&self, need: &EnvNeed, pools: &PoolsByKind) -> Result<Choice> {
        let wish = Wish::of(&need.source)?;
        let kinds: Vec<String> = pools.keys().cloned().collect();
        let ignores_projects = need.environment_mode.as_deref() == Some("notebook");
        let project = match &wish {
            Wish::Automatic | Wish::Family(_) if ignores_projects => None,
            wish => match self.nearest_project(need, pools, |kind| wish.takes_project_of(kind)).await? {
                Some(found) => found.project.map_err(|(_, error)| error)?,
                None => None,
            },
        };
        labels::choose(
            &wish,
            Facts {
                metadata: &need.metadata,
                kinds: &kinds,
                default_kind: &self.default_kind(),
                project,
                captured: self.captured(need, &kinds, |kind| wish.takes_captured_of(kind)).await?,
                script: Script::read(&need.script_blocks),
            },
        )
    }

    /// The kind of the environment that the notebook had before, of the kinds that count.
    async fn captured(
        &self,
        need: &EnvNeed,
        kinds: &[String],
        counts: impl Fn(&str) -> bool,
    ) -> Result<Option<String>> {
        let mut ordered = labels::in_project_order(kinds);
        ordered.retain(|kind| counts(kind));
        let ordered: Vec<String> = ordered.into_iter().map(str::to_owned).collect();
        Ok(self.kept(need, ordered).await?.map(|kept| kept.record.environment.kind))
    }

    /// The environment that the notebook had before, of one of `kinds`.
    ///
    /// # Errors
    /// When it cannot be looked for.
    pub(super) async fn kept(&self, need: &EnvNeed, kinds: Vec<String>) -> Result<Option<Kept>> {
        if need.notebook_path.is_none() {
            return Ok(None);
        }
        let (envs, need) = (self.pools.envs().to_owned(), need.clone());
        blocking(move || Ok(captured::find(&envs, &kinds, &need))).await
    }

    /// What is to be said about what the notebook declares.
    ///
    /// # Errors
    /// Of the providers and the file system.
    pub(super) async fn verdict(&self, need: &EnvNeed, pools: &PoolsByKind) -> Result<TrustVerdict> {
        let script_kind = labels::script_kind(&self.default_kind());
        let folder = projects::start(need);
        let declared =
            Declared { metadata: &need.metadata, scripts: &need.script_blocks, script_kind, folder };
        let mut verdict = self.trust.verdict(&declared, &providers(pools)).await?;
        let found = self.nearest_project(need, pools, |_| true).await?;
        verdict.project_context = projects::context(found.as_ref(), projects::start(need));
        verdict.project_asks = self.asked_for(found.as_ref(), pools).await.unwrap_or_default();
        if let Some(running) = &need.running {
            self.know_again(need, running, pools).await;
            let kind = running.source.split(':').next().unwrap_or_default();
            self.capture(&running.lease, need, drift::installed(running, kind)).await;
        }
        verdict.drift = need.running.as_ref().map(|running| {
            let project = found.as_ref().and_then(|found| found.project.as_ref().ok()?.as_ref());
            difference(need, running, project, pools)
        });
        verdict.project_files = found.map(|found| found.candidates).unwrap_or_default();
        Ok(verdict)
    }

    /// Allows what the notebook declares.
    ///
    /// # Errors
    /// When that could not be recorded.
    pub(super) async fn approve_declared(&self, need: &EnvNeed, pools: &PoolsByKind) -> Result<()> {
        let script_kind = labels::script_kind(&self.default_kind());
        let folder = projects::start(need);
        let declared =
            Declared { metadata: &need.metadata, scripts: &need.script_blocks, script_kind, folder };
        self.trust.approve_all(&declared, &providers(pools)).await
    }

    /// Allows what the project round the notebook declares.
    ///
    /// # Errors
    /// `NotFound` without a project; when that could not be recorded.
    pub(super) async fn approve_project(&self, need: &EnvNeed, pools: &PoolsByKind) -> Result<()> {
        let none = || {
            PluginError::not_found("There is no project file at or above the notebook. Nothing was approved.")
                .help("Put one there, or declare the packages in the notebook.")
        };
        let found = self.nearest_project(need, pools, |_| true).await?.ok_or_else(none)?;
        let (kind, project) = found.project.map_err(|(_, error)| error)?.ok_or_else(none)?;
        let provider = pools.get(&kind).ok_or_else(none)?.provider()?;
        let request = EnvRequest { project: Some(project), ..EnvRequest::default() };
        let identities = provider.identities(&request).await?;
        if !need.project_asks.is_empty() && need.project_asks != asks_for(&identities) {
            let message =
                "The project around the notebook changed while the dialog was open. Review before approving.";
            return Err(PluginError::new(ErrorCode::Conflict, message));
        }
        self.trust.approve(identities, "project_env_dialog").await
    }

    /// Names what trust must allow before the environment of the project that was found is built.
    async fn asked_for(&self, found: Option<&Found>, pools: &PoolsByKind) -> Option<String> {
        let (kind, project) = found?.project.as_ref().ok()?.as_ref()?;
        let request = EnvRequest { project: Some(project.clone()), ..EnvRequest::default() };
        let provider = pools.get(kind)?.provider().ok()?;
        Some(asks_for(&provider.identities(&request).await.ok()?))
    }

    /// The project round the notebook, of the kinds that count. None if the notebook has no place.
    async fn nearest_project(
        &self,
        need: &EnvNeed,
        pools: &PoolsByKind,
        counts: impl Fn(&str) -> bool,
    ) -> Result<Option<Found>> {
        let Some(start) = projects::start(need) else { return Ok(None) };
        let kinds: Vec<String> = pools.keys().filter(|kind| counts(kind)).cloned().collect();
        let ordered = labels::in_project_order(&kinds).into_iter();
        let providers = ordered.filter_map(|kind| pools.get(kind)?.provider().ok());
        let detectors: Vec<Detector> =
            providers.map(|provider| Detector { info: provider.info(), provider }).collect();
        projects::nearest(start, self.home.as_deref(), &detectors).await.map(Some)
    }

    /// The user's setting.
    fn default_kind(&self) -> String {
        let settings = self.settings.view();
        settings.values.get("default_python_env").and_then(Value::as_str).unwrap_or("uv").to_owned()
    }
}

/// A name for `identities`, in whatever order.
fn asks_for(identities: &[PackageIdentity]) -> String {
    let mut names: Vec<_> = identities.iter().map(|one| [&one.ecosystem, &one.name]).collect();
    names.sort_unstable();
    names.dedup();
    cache_key(&json!(names).to_string())
}

fn difference(
    need: &EnvNeed,
    running: &Running,
    project: Option<&(String, Project)>,
    pools: &PoolsByKind,
) -> runtimed_plugin_api::Drift {
    let kind = running.source.split(':').next().unwrap_or_default();
    let provider = pools.get(kind).and_then(|pool| pool.provider().ok());
    let default_channels = provider.map(|provider| provider.info().default_channels).unwrap_or_default();
    let script = Script::read(&need.script_blocks).ok().flatten();
    let wanted = Wanted {
        metadata: &need.metadata,
        script: script.as_ref(),
        project,
        default_channels: &default_channels,
    };
    drift::drift(running, &wanted)
}

fn providers(pools: &PoolsByKind) -> Vec<Arc<dyn EnvProvider>> {
    pools.values().filter_map(|pool| pool.provider().ok()).collect()
}
