//! The environment of a project.
//!
//! For: `environments.rs`.
//! Promises: what the notebook adds to a project is trusted first; an environment is built or added to once the user has
//! allowed what the project's file names, if its provider wants that asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtimed_plugin_api::{EnvNeed, EnvRequest, ErrorCode, Lease, PluginError, Project, Result, Task};
use serde_json::{Value, json};

use super::build::build_verified;
use super::declared::folder_name;
use super::drift;
use super::environments::{EnvironmentService, Whose};
use super::pool::Pool;
use super::projects::{self, unnamed};
use super::relative::absolute;

/// nteract's kind whose errors are known by a reason of their own.
const ENVIRONMENT_YML: &str = "environment_yml";
/// nteract's kind whose errors name its label.
const PIXI_TOML: &str = "pixi_toml";
/// The reason of an error that is a whole sentence already: the project has no kernel.
const MISSING_IPYKERNEL: &str = "missing_ipykernel";

impl EnvironmentService {
    /// The environment of `project`, with what the notebook declares beside it.
    ///
    /// # Errors
    /// `Denied` when something is not trusted yet; those of the provider.
    pub(super) async fn project(
        &self,
        pool: Arc<Pool>,
        project: Project,
        need: &EnvNeed,
        label: &str,
        task: Task,
    ) -> Result<Lease> {
        let provider = pool.provider()?;
        let packages = unnamed(&project, &need.metadata, &pool.kind);
        let added = EnvRequest { packages, ..EnvRequest::default() };
        let added = absolute(added, projects::start(need));
        self.permit(&*provider, &added).await?;
        let request = EnvRequest { project: Some(project.clone()), ..EnvRequest::default() };
        // Also of an environment that is there: what its file names by now is added to it.
        if !self.trust.allows(&provider.identities(&request).await?) {
            return Err(awaits_build(&project));
        }
        let request = EnvRequest { packages: added.packages, ..request };
        let key = provider.plan(request.clone()).await?.key;
        let prefix = self.project_envs.join(folder_name(&key)?);
        let folder = project.file.parent().map(Path::to_path_buf).unwrap_or_default();
        let one_at_a_time = self.declared.build_lock(&PathBuf::from(&project.file));
        let building = one_at_a_time.lock().await;
        let environment = build_verified(&*provider, request, &prefix, task).await;
        drop(building);
        let environment =
            environment.map_err(|error| explained(error, &provider.info().label, label, &project))?;
        // As it is with what was added.
        let project = provider.detect(&folder).await?.unwrap_or(project);
        let beside = unnamed(&project, &need.metadata, &pool.kind);
        let config = drift::project_config(&project, beside);
        self.lease(pool, environment, Whose::Project, label, config).await
    }
}

/// `error` of the provider called `name`, in nteract's words for the project labelled `label`.
fn explained(mut error: PluginError, name: &str, label: &str, project: &Project) -> PluginError {
    if error.detail.get("error_reason").is_some_and(|reason| reason == MISSING_IPYKERNEL) {
        return error;
    }
    if project.kind != ENVIRONMENT_YML {
        let what = if project.kind == PIXI_TOML { label.to_owned() } else { format!("{name} project") };
        error.message = format!("Failed to prepare {what} environment: {}", error.message);
        return error;
    }
    if !error.detail.is_object() {
        error.detail = json!({});
    }
    if error.detail.get("error_reason").is_none() {
        error.detail["error_reason"] = "conda_env_build_failed".into();
    }
    error
}

/// Why the environment of a project is not built.
fn awaits_build(project: &Project) -> PluginError {
    let text = |key: &str| project.extra.get(key).and_then(Value::as_str);
    let name = project.file.file_name().unwrap_or_default().to_string_lossy();
    let what = match (project.kind.as_str(), text("label")) {
        (ENVIRONMENT_YML, Some(label)) => format!("{name} declares conda env '{label}', which"),
        _ => format!("{name} declares an environment that"),
    };
    let why = match (project.extra.get("built"), text("build_command")) {
        (Some(Value::Bool(true)), _) => "may lack something of it.".to_owned(),
        (_, Some(command)) => format!("is not built on this machine. Run: {command}"),
        (_, None) => "is not built on this machine.".to_owned(),
    };
    PluginError::new(ErrorCode::Denied, format!("{what} {why}"))
        .help("Or review the file and approve it here. Some of what it names is not trusted yet; nothing was installed.")
        .detail(json!({ "awaiting": "env_build", "error_reason": "conda_env_yml_missing" }))
}
