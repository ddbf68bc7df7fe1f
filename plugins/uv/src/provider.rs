//! The environment provider `uv`.
//!
//! For: pooled environments, environments of notebooks with dependencies of their own, and projects.
//! Promises: an environment is returned as soon as a kernel can start in it; equal requests get equal
//! keys.
//! Never: pools, leases, trust decisions, or deleting a prefix; those are the host's.

use std::path::{Path, PathBuf};

use runtimed_plugin_api::{
    EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, Host, LaunchCommand,
    PackageIdentity, PluginError, Project, Result, Task, async_trait, clone_venv, pypi, read_text,
};
use serde_json::{Map, Value, json};

use crate::build::{self, BACKGROUND, Build};
use crate::commands::{self, InstallOptions, Source};
use crate::key::{KeyParts, cache_key, hex_digits};
use crate::origins::Origins;
use crate::project;
use crate::tool::{Surroundings, Tool};

/// Key in settings, metadata and labels.
const KIND: &str = "uv";

/// What a kernel and its widgets need, and uv for installing from a cell. Not part of a key.
const BASE: [&str; 4] = ["ipykernel", "ipywidgets", "anywidget", "uv"];

/// What most notebooks import.
const DATA: [&str; 5] = ["pandas", "polars", "matplotlib", "plotly", "altair"];

/// What outputs need, unless the notebook asks for versions of its own.
const TAIL: [&str; 2] = ["nbformat", "pyarrow>=14"];

/// [`Environment::extra`]: the options that the notebook asked for, which later packages are installed with as well.
const OPTIONS: &str = "options";
/// [`Environment::extra`] of a project: its file.
const PROJECT_FILE: &str = "project_file";
/// [`Environment::extra`] of a project: whether its index was out of reach.
const OFFLINE: &str = "offline";

/// Builds environments with uv.
pub struct UvProvider {
    host: Host,
    tool: Tool,
}

impl UvProvider {
    /// A provider that looks for uv in `surroundings`.
    pub fn new(host: Host, surroundings: Surroundings) -> Self {
        Self { tool: Tool::new(host.clone(), surroundings), host }
    }

    /// The user's choice of Python in the settings.
    fn preferred_python(&self) -> Option<String> {
        self.host.settings().values.pointer("/uv/python")?.as_str().map(str::to_owned)
    }

    async fn build(&self, uv: &Path, request: EnvRequest, prefix: &Path, task: &Task) -> Result<Environment> {
        // Plans are documents: this one need not be as `plan` left it.
        let packages = pypi::checked(&request.packages)?;
        let parent = prefix.parent().unwrap_or(prefix);
        make_folder(parent).await?;
        let nice = if request.background { BACKGROUND } else { 0 };
        let build = Build { host: &self.host, uv, cwd: parent, task, nice };
        let wish = blank_is_none(request.python.clone()).or_else(|| self.preferred_python());
        let (python, python_version) = build.venv(prefix, wish.as_deref()).await?;
        let origins = Origins::of(&request.options)?;
        let options = InstallOptions { prerelease: prerelease(&request.options), origins: Some(&origins) };
        let sources = [Source::Cache, Source::Index, Source::FreshIndex];
        build.install(&python, &packages, &options, &sources).await?;
        build.validate(&python).await?;
        let mut extra = Map::new();
        if !request.options.is_empty() {
            extra.insert(OPTIONS.to_owned(), request.options.into());
        }
        Ok(Environment { python, python_version, extra, ..Environment::at(prefix, KIND, packages) })
    }

    /// A project keeps its environment itself; `prefix` only stands for it.
    async fn prepare(
        &self,
        uv: &Path,
        project: &Project,
        packages: &[String],
        prefix: &Path,
        task: &Task,
    ) -> Result<Environment> {
        make_folder(prefix).await?;
        let packages = pypi::checked(packages)?;
        let cwd = project.file.parent().unwrap_or(&project.file);
        let build = Build { host: &self.host, uv, cwd, task, nice: 0 };
        if !packages.is_empty() {
            build.add(&packages).await?;
        }
        let (python, offline) = build.project(&project.file).await?;
        let extra = [(PROJECT_FILE.to_owned(), json!(project.file)), (OFFLINE.to_owned(), json!(offline))];
        Ok(Environment {
            python,
            extra: Map::from_iter(extra),
            ..Environment::at(prefix, KIND, project.dependencies.clone())
        })
    }
}

#[async_trait]
impl EnvProvider for UvProvider {
    fn info(&self) -> EnvProviderInfo {
        EnvProviderInfo {
            kind: KIND.to_owned(),
            label: "UV".to_owned(),
            markers: vec![project::MARKER.to_owned()],
            base_packages: owned(&BASE),
            data_packages: owned(&DATA),
            tail_packages: owned(&TAIL),
            default_channels: Vec::new(),
            script_packages: None,
        }
    }

    async fn detect(&self, dir: &Path) -> Result<Option<Project>> {
        let file = dir.join(project::MARKER);
        let path = file.clone();
        let read = tokio::task::spawn_blocking(move || read_text(&path)).await;
        match read.unwrap_or_else(|error| Err(error.into())) {
            Ok(text) => project::declared(&text, &file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PluginError::invalid(format!("`{}` cannot be read: {error}", file.display()))),
        }
    }

    async fn plan(&self, request: EnvRequest) -> Result<EnvPlan> {
        plan(request, self.preferred_python())
    }

    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
        task.report("starting", json!({ "env_hash": plan.key }));
        let uv = self.tool.path(&task).await?;
        let environment = match &plan.request.project {
            Some(project) => self.prepare(&uv, project, &plan.request.packages, prefix, &task).await?,
            None => self.build(&uv, plan.request, prefix, &task).await?,
        };
        tracing::info!(
            prefix = %environment.prefix.display(),
            python = environment.python_version.as_deref().unwrap_or("the project's"),
            "environment ready"
        );
        task.report("ready", json!({ "env_path": environment.prefix, "python_path": environment.python }));
        Ok(environment)
    }

    async fn clone_env(&self, template: &Environment, prefix: &Path, task: Task) -> Result<Environment> {
        if project_file(template).is_some() {
            return Err(PluginError::unsupported("a project keeps its environment itself"));
        }
        task.phase("creating_venv");
        clone_venv(template, prefix).await
    }

    async fn install(&self, env: &Environment, packages: &[String], task: Task) -> Result<()> {
        let packages = pypi::checked(packages)?;
        if packages.is_empty() {
            return Ok(());
        }
        let uv = self.tool.path(&task).await?;
        let project = project_file(env);
        let inside = project.as_deref().unwrap_or(&env.prefix);
        let cwd = inside.parent().unwrap_or(inside);
        let build = Build { host: &self.host, uv: &uv, cwd, task: &task, nice: 0 };
        if project.is_some() {
            return build.add(&packages).await;
        }
        // From where the rest of it came: elsewhere the same name may be another package.
        let none = Map::new();
        let options = env.extra.get(OPTIONS).and_then(|options| options.as_object()).unwrap_or(&none);
        let origins = Origins::of(options)?;
        let options = InstallOptions { prerelease: prerelease(options), origins: Some(&origins) };
        build.install(&env.python, &packages, &options, &[Source::Cache, Source::Index]).await
    }

    async fn optimize(&self, env: &Environment) -> Result<()> {
        match project_file(env) {
            Some(_) => Ok(()),
            None => build::compile(&self.host, &env.python).await,
        }
    }

    async fn verify(&self, env: &Environment) -> Result<Health> {
        let exists = async |path: PathBuf| tokio::fs::try_exists(path).await.unwrap_or(false);
        let broken = |reason: String| Ok(Health::Broken { reason });
        if let Some(file) = project_file(env) {
            return match exists(file.clone()).await {
                true => Ok(Health::Usable),
                false => broken(format!("the project file `{}` is gone", file.display())),
            };
        }
        // Follows the link, so it also notices that the interpreter behind it was uninstalled.
        if !exists(env.python.clone()).await {
            return broken(format!("the interpreter `{}` is gone", env.python.display()));
        }
        if let Some(packages) = site_packages(env)
            && !exists(packages.join("ipykernel/__init__.py")).await
        {
            return broken(format!("ipykernel is not installed in `{}`", env.prefix.display()));
        }
        Ok(Health::Usable)
    }

    async fn launch(&self, env: &Environment) -> Result<LaunchCommand> {
        let Some(file) = project_file(env) else {
            return Ok(LaunchCommand::of_venv(env));
        };
        let uv = self.tool.path(&Task::silent()).await?;
        let offline = env.extra.get(OFFLINE).and_then(|value| value.as_bool()).unwrap_or_default();
        Ok(LaunchCommand {
            argv: commands::project_python(&uv, file.parent().unwrap_or(&file)),
            env: offline.then(|| ("UV_OFFLINE".to_owned(), "1".to_owned())).into_iter().collect(),
            ..LaunchCommand::default()
        })
    }

    async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>> {
        // What a project's own file names is not asked about, as the protocol has it.
        let mut identities: Vec<_> =
            declared(&pypi::checked(&request.packages)?).map(|package| pypi::identity(package)).collect();
        identities.extend(Origins::of(&request.options)?.identities());
        identities.sort();
        identities.dedup();
        Ok(identities)
    }
}

/// Decides what `request` means. `preferred` is the Python of the settings.
fn plan(mut request: EnvRequest, preferred: Option<String>) -> Result<EnvPlan> {
    if let Some(project) = &request.project {
        return Ok(EnvPlan { key: hex_digits(&format!("project:{}", project.file.display()), 16), request });
    }
    let packages = pypi::checked(&request.packages)?;
    let preferred = blank_is_none(preferred);
    request.python = blank_is_none(request.python);
    // The user's own may be a program.
    if let Some(python) = request.python.as_deref().filter(|python| preferred.as_deref() != Some(*python)) {
        pypi::python_constraint(python)?;
    }
    let mut deps: Vec<String> = declared(&packages).cloned().collect();
    if request.env_id.is_some() {
        // The key of a notebook's own environment has what the notebook declares and nothing else.
        // The settings take no part either, so that a change there does not rebuild every notebook.
        deps.retain(|dep| !TAIL.contains(&dep.as_str()));
    } else {
        deps.extend(unnamed(&TAIL, &deps));
        request.python = request.python.or(preferred);
    }
    let key = cache_key(&KeyParts {
        deps: &deps,
        python: request.python.as_deref(),
        prerelease: prerelease(&request.options),
        env_id: request.env_id.as_deref(),
        origins: &Origins::of(&request.options)?.key(),
    });
    request.packages = unnamed(&BASE, &deps);
    request.packages.append(&mut deps);
    let tail = unnamed(&TAIL, &request.packages);
    request.packages.extend(tail);
    Ok(EnvPlan { key, request })
}

/// uv's prerelease mode, as the notebook has it.
fn prerelease(options: &Map<String, Value>) -> Option<&str> {
    options.get("prerelease").and_then(|mode| mode.as_str())
}

/// The packages that are not simply those every environment has.
fn declared(packages: &[String]) -> impl Iterator<Item = &String> {
    packages.iter().filter(|package| !BASE.contains(&package.as_str()))
}

/// The items whose package `list` does not name.
fn unnamed(items: &[&str], list: &[String]) -> Vec<String> {
    owned(items).into_iter().filter(|item| !pypi::names(list, item)).collect()
}

fn owned(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn blank_is_none(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn project_file(env: &Environment) -> Option<PathBuf> {
    env.extra.get(PROJECT_FILE)?.as_str().map(PathBuf::from)
}

/// Where packages of `env` lie, if its Python version is known.
fn site_packages(env: &Environment) -> Option<PathBuf> {
    let mut parts = env.python_version.as_deref()?.split('.');
    let (major, minor) = (parts.next()?, parts.next()?);
    Some(env.prefix.join(format!("lib/python{major}.{minor}/site-packages")))
}

async fn make_folder(path: &Path) -> Result<()> {
    tokio::fs::create_dir_all(path).await.map_err(|error| {
        PluginError::internal(format!("could not create `{}`: {error}", path.display()))
            .help("Make the folder writable or free some space, and try again.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(packages: &[&str]) -> EnvRequest {
        EnvRequest { packages: owned(packages), ..EnvRequest::default() }
    }

    #[test]
    fn a_plan_adds_what_every_notebook_needs() {
        let mut wanted = request(&["cowsay"]);
        wanted.python = Some(" >=3.13 ".to_owned());
        let plan = plan(wanted, Some("3.12".to_owned())).unwrap();
        assert_eq!(plan.key, "62acbb1939191ac0");
        assert_eq!(plan.request.python.as_deref(), Some(">=3.13"));
        assert_eq!(
            plan.request.packages,
            ["ipykernel", "ipywidgets", "anywidget", "uv", "cowsay", "nbformat", "pyarrow>=14"]
        );
    }

    #[test]
    fn a_plan_respects_the_versions_a_notebook_names() {
        let plan = plan(request(&["ipykernel", "PyArrow==15", "IPyKernel<7"]), None).unwrap();
        assert_eq!(
            plan.request.packages,
            ["ipywidgets", "anywidget", "uv", "PyArrow==15", "IPyKernel<7", "nbformat"]
        );
    }

    #[test]
    fn a_plan_planned_again_is_the_same() {
        for env_id in [None, Some("c398c4f5-41f2-4f22-8c58-b6d3635bf239".to_owned())] {
            let wanted = EnvRequest { env_id, ..request(&DATA) };
            let once = plan(wanted, None).unwrap();
            assert_eq!(plan(once.request.clone(), None).unwrap(), once);
        }
    }

    #[test]
    fn the_key_of_a_notebooks_own_environment() {
        let env_id = Some("c398c4f5-41f2-4f22-8c58-b6d3635bf239".to_owned());
        let bare = plan(EnvRequest { env_id: env_id.clone(), ..request(&DATA) }, Some("3.12".to_owned()));
        assert_eq!(bare.unwrap().key, "686fca7ee44c0aa0");
        let full = [&BASE[..], &DATA, &TAIL].concat();
        assert_eq!(plan(EnvRequest { env_id, ..request(&full) }, None).unwrap().key, "686fca7ee44c0aa0");
    }

    #[test]
    fn the_python_of_the_settings_counts_where_nothing_is_asked_for() {
        let with = |preferred: Option<&str>| plan(request(&["six"]), preferred.map(str::to_owned)).unwrap();
        assert_eq!(with(Some("3.12")).request.python.as_deref(), Some("3.12"));
        assert_eq!(with(Some(" ")), with(None));
        assert_ne!(with(Some("3.12")).key, with(None).key);
    }
}
