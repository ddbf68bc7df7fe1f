//! The environment provider `conda`.
//!
//! For: pooled environments, environments of notebooks with dependencies of their own, and projects.
//! Promises: an environment is returned as soon as a kernel can start in it; equal requests get equal keys; solving and
//! installing happen in a process that ends with the work.
//! Never: pools, leases, trust decisions, or deleting a prefix; those are the host's.

use std::path::{Path, PathBuf};

use runtimed_conda_builder::SavedNames;
use runtimed_plugin_api::{
    EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, Host, LaunchCommand,
    PackageIdentity, PluginError, Project, Result, Task, async_trait,
};
use serde_json::{Value, json};

use crate::build::{self, Build, Target, Wanted, site_packages};
use crate::environment_yml::MARKERS;
use crate::packages::{self, channel_identity, checked, identities};
use crate::plan::{self, BASE, DATA, Preferences, TAIL, blank_is_none, owned};
use crate::project;
use crate::surroundings::Surroundings;

/// Key in settings, metadata and labels.
pub(crate) const KIND: &str = "conda";

/// [`Environment::extra`]: the channels it came from.
const CHANNELS: &str = "channels";

/// Builds environments with conda packages.
pub struct CondaProvider {
    host: Host,
    surroundings: Surroundings,
}

impl CondaProvider {
    /// A provider for a user with these `surroundings`.
    pub fn new(host: Host, surroundings: Surroundings) -> Self {
        Self { host, surroundings }
    }

    /// What the settings say, and conda's own variables where those say nothing.
    fn preferences(&self) -> Preferences {
        let settings = self.host.settings().values;
        let python = settings.pointer("/conda/python").and_then(Value::as_str).map(str::to_owned);
        let channels = settings.pointer("/conda").and_then(Value::as_object);
        let mut channels = channels.map(|section| project::strings(section, CHANNELS)).unwrap_or_default();
        if channels.is_empty() {
            channels.clone_from(&self.surroundings.channels);
        }
        let python = blank_is_none(python).or_else(|| blank_is_none(self.surroundings.python.clone()));
        Preferences { python, channels }
    }

    async fn build(&self, build: &Build<'_>, request: EnvRequest, prefix: &Path) -> Result<Environment> {
        // Plans are documents: this one need not be as `plan` left it.
        let packages = checked(&request.packages)?;
        let preferred = self.preferences();
        let channels = match request.channels.is_empty() {
            true => plan::channels(&preferred),
            false => request.channels,
        };
        let python = blank_is_none(request.python).or(preferred.python);
        project::make_folder(prefix.parent().unwrap_or(prefix)).await?;
        let wanted = Wanted {
            packages: &packages,
            python: python.as_deref(),
            channels: &channels,
            folder: prefix.parent().unwrap_or(prefix),
        };
        let done = build.create(Target { prefix, home: None, saved: false }, &wanted).await?;
        let environment = Environment {
            python_version: done.python_version,
            extra: [(CHANNELS.to_owned(), json!(channels))].into_iter().collect(),
            ..Environment::at(prefix, KIND, packages)
        };
        build.validate(&environment.python).await?;
        Ok(environment)
    }

    /// The channels that `env` came from, or those of the settings.
    fn channels_of(&self, env: &Environment) -> Vec<String> {
        let channels = project::strings(&env.extra, CHANNELS);
        if channels.is_empty() { plan::channels(&self.preferences()) } else { channels }
    }
}

#[async_trait]
impl EnvProvider for CondaProvider {
    fn info(&self) -> EnvProviderInfo {
        EnvProviderInfo {
            kind: KIND.to_owned(),
            label: "Conda".to_owned(),
            markers: owned(&MARKERS),
            base_packages: owned(&BASE),
            data_packages: owned(&DATA),
            tail_packages: owned(&TAIL),
            // Those of the settings; see `plan`.
            default_channels: Vec::new(),
            script_packages: None,
        }
    }

    async fn detect(&self, dir: &Path) -> Result<Option<Project>> {
        let (dir, base) = (dir.to_owned(), self.host.directories().base);
        let surroundings = self.surroundings.clone();
        blocking(move || project::detect(&dir, &base, &surroundings)).await?
    }

    async fn plan(&self, request: EnvRequest) -> Result<EnvPlan> {
        match request.project.clone() {
            Some(project) => project::plan(request, &project),
            None => plan::plan(request, &self.preferences()),
        }
    }

    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
        task.report("starting", json!({ "env_hash": plan.key }));
        let EnvPlan { request, .. } = plan;
        let build = Build { host: &self.host, task: &task, background: request.background };
        let environment = match &request.project {
            Some(project) => project::prepare(&build, &request, project, prefix).await?,
            None => self.build(&build, request, prefix).await?,
        };
        tracing::info!(
            prefix = %environment.prefix.display(),
            python = environment.python_version.as_deref().unwrap_or("unknown"),
            "environment ready"
        );
        task.report(
            "ready",
            json!({ "env_path": real_prefix(&environment), "python_path": environment.python }),
        );
        Ok(environment)
    }

    async fn clone_env(&self, template: &Environment, prefix: &Path, task: Task) -> Result<Environment> {
        if project_file(template).is_some() {
            return Err(PluginError::unsupported("the environment of a project is not copied"));
        }
        project::make_folder(prefix.parent().unwrap_or(prefix)).await?;
        let build = Build { host: &self.host, task: &task, background: template.in_background() };
        let channels = self.channels_of(template);
        let folder = prefix.parent().unwrap_or(prefix);
        let wanted = Wanted { packages: &[], python: None, channels: &channels, folder };
        build.copy(&template.prefix, prefix, &wanted).await?;
        Ok(Environment {
            python_version: template.python_version.clone(),
            extra: [(CHANNELS.to_owned(), json!(channels))].into_iter().collect(),
            ..Environment::at(prefix, KIND, template.packages.clone())
        })
    }

    async fn install(&self, env: &Environment, packages: &[String], task: Task) -> Result<()> {
        if project_file(env).is_some() {
            return Err(PluginError::unsupported("a project's packages come from its environment file")
                .help("Add the packages there and restart the kernel."));
        }
        let packages = checked(packages)?;
        if packages.is_empty() {
            return Ok(());
        }
        let build = Build { host: &self.host, task: &task, background: false };
        let channels = self.channels_of(env);
        let folder = env.prefix.parent().unwrap_or(&env.prefix);
        let wanted = Wanted { packages: &packages, python: None, channels: &channels, folder };
        build.add(&env.prefix, &wanted).await.map(drop)
    }

    async fn optimize(&self, env: &Environment) -> Result<()> {
        match project_file(env) {
            Some(_) => Ok(()),
            None => build::compile(&self.host, &env.python).await,
        }
    }

    async fn verify(&self, env: &Environment) -> Result<Health> {
        let env = env.clone();
        let reason = blocking(move || broken(&env)).await?;
        Ok(reason.map_or(Health::Usable, |reason| Health::Broken { reason }))
    }

    async fn launch(&self, env: &Environment) -> Result<LaunchCommand> {
        let prefix = real_prefix(env);
        Ok(LaunchCommand {
            argv: vec![env.python.display().to_string()],
            env: [("CONDA_PREFIX".to_owned(), prefix.display().to_string())].into(),
            path: vec![prefix.join("bin")],
            cwd: None,
        })
    }

    async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>> {
        let mut found = Vec::new();
        let mut packages = request.packages.clone();
        if let Some(project) = &request.project {
            found.extend(project::sources(project)?);
            packages.extend(project.dependencies.iter().cloned());
            found.extend(project::named_place(project).map(|place| packages::place_identity(&place)));
        }
        found.extend(request.channels.iter().map(|channel| channel_identity(channel)));
        for package in checked(&packages)?.iter().filter(|package| !BASE.contains(&package.as_str())) {
            found.extend(identities(package)?);
        }
        found.sort();
        found.dedup();
        Ok(found)
    }
}

/// Why no kernel could start in `env`. Reads folders.
fn broken(env: &Environment) -> Option<String> {
    let prefix = real_prefix(env);
    if let Some(file) = project_file(env).filter(|file| !file.exists()) {
        return Some(format!("the environment file `{}` is gone", file.display()));
    }
    if !env.python.exists() {
        return Some(format!("the interpreter `{}` is gone", env.python.display()));
    }
    if let Some(packages) = site_packages(&prefix, env.python_version.as_deref())
        && !packages.join("ipykernel/__init__.py").exists()
    {
        return Some(format!("ipykernel is not installed in `{}`", prefix.display()));
    }
    let records = std::fs::read_dir(prefix.join("conda-meta")).into_iter().flatten().flatten();
    let records: Vec<_> = records.map(|record| record.file_name()).collect();
    let gone = SavedNames::read(&prefix)?
        .records()
        .find(|record| !records.iter().any(|it| it == record.as_str()))?;
    let package = gone.strip_suffix(".json").unwrap_or(&gone);
    Some(format!("the package `{package}` was removed from `{}`", prefix.display()))
}

/// Where the packages of `env` are: of a project at a place of its own.
fn real_prefix(env: &Environment) -> PathBuf {
    let place = project_file(env).and_then(|_| env.extra.get(project::PREFIX)?.as_str().map(PathBuf::from));
    place.unwrap_or_else(|| env.prefix.clone())
}

fn project_file(env: &Environment) -> Option<PathBuf> {
    env.extra.get(project::PROJECT_FILE)?.as_str().map(PathBuf::from)
}

/// Runs work on files where it holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| PluginError::internal(format!("work on files was lost: {error}")))
}
