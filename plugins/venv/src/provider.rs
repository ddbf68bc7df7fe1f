//! The environment provider `venv`.
//!
//! For: pooled environments and environments of notebooks with dependencies of their own.
//! Promises: an environment is returned as soon as a kernel can start in it; equal requests get equal
//! keys; pip.conf, the `PIP_` variables, proxies and certificates of the daemon's environment hold.
//! Never: pools, leases, trust decisions, or deleting a prefix; those are the host's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{
    EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, Host, LaunchCommand,
    NoLines, PackageIdentity, ProcessExit, ProcessLines, ProcessSpec, Result, Task, async_trait,
    clone_venv, pypi,
};
use serde_json::json;

use crate::errors;
use crate::pip::{self, Compile};
use crate::python::{self, Wish};

/// Key in settings, metadata and labels.
const KIND: &str = "venv";

/// What a kernel and its widgets need. pip is in every environment already.
const BASE: [&str; 3] = ["ipykernel", "ipywidgets", "anywidget"];

/// What most notebooks import.
const DATA: [&str; 5] = ["pandas", "polars", "matplotlib", "plotly", "altair"];

/// What outputs need, unless the notebook asks for versions of its own.
const TAIL: [&str; 2] = ["nbformat", "pyarrow>=14"];

/// Niceness of work nobody waits for: a notebook that is being opened needs both cores of a small machine.
const BACKGROUND: u8 = 10;

/// Copying the interpreter and unpacking pip.
const VENV_LIMIT: Duration = Duration::from_secs(120);

/// Builds environments with venv and pip.
pub struct VenvProvider {
    host: Host,
}

impl VenvProvider {
    /// A provider that runs its processes on `host`.
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// The interpreter the user chose in the settings.
    fn chosen_python(&self) -> Option<String> {
        let settings = self.host.settings().values;
        let chosen = settings.pointer("/venv/python")?.as_str()?.trim();
        (!chosen.is_empty()).then(|| chosen.to_owned())
    }

    async fn install_with(
        &self,
        env: &Environment,
        packages: &[String],
        compile: Compile,
        nice: u8,
        task: &Task,
    ) -> Result<()> {
        task.report("installing_packages", json!({ "packages": packages }));
        let spec = ProcessSpec { nice, ..pip::install(env, packages, compile) };
        let lines = Arc::new(pip::Lines::new(task.clone()));
        let exit = self.step("Installing packages", spec, lines).await?;
        if exit.success() { Ok(()) } else { Err(errors::install_failed(&exit)) }
    }

    async fn step(
        &self,
        step: &str,
        spec: ProcessSpec,
        lines: Arc<dyn ProcessLines>,
    ) -> Result<ProcessExit> {
        let exit = self.host.run_process(spec, lines).await;
        exit.map_err(|error| errors::step_failed(error, step))
    }
}

#[async_trait]
impl EnvProvider for VenvProvider {
    fn info(&self) -> EnvProviderInfo {
        EnvProviderInfo {
            kind: KIND.to_owned(),
            label: "venv".to_owned(),
            base_packages: BASE.map(str::to_owned).to_vec(),
            data_packages: DATA.map(str::to_owned).to_vec(),
            tail_packages: TAIL.map(str::to_owned).to_vec(),
            ..EnvProviderInfo::default()
        }
    }

    async fn plan(&self, mut request: EnvRequest) -> Result<EnvPlan> {
        Wish::read(request.python.as_deref())?;
        request.packages = pypi::checked(&request.packages)?;
        let missing = BASE.iter().filter(|base| !pypi::names(&request.packages, base));
        let missing: Vec<String> = missing.map(|&base| base.to_owned()).collect();
        request.packages.splice(0..0, missing);
        // A notebook's own environment outlives a change of the settings.
        let chosen = if request.env_id.is_none() { self.chosen_python() } else { None };
        Ok(EnvPlan::keyed(request, chosen.as_deref().as_slice()))
    }

    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
        task.report("starting", json!({ "env_hash": plan.key }));
        let request = plan.request;
        let nice = if request.background { BACKGROUND } else { 0 };
        let wish = Wish::read(request.python.as_deref())?;
        let chosen = self.chosen_python();
        let python = python::choose(&self.host, chosen.as_deref(), wish.as_ref()).await?;
        tracing::info!(
            python = %python.executable.display(), version = python.version, prefix = %prefix.display(),
            "creating an environment"
        );

        task.phase("creating_venv");
        let spec = ProcessSpec::new(&python.executable).args(["-I", "-m", "venv"]).arg(prefix);
        let spec = ProcessSpec { nice, ..spec.timeout(VENV_LIMIT) };
        let exit = self.step("Creating the virtual environment", spec, Arc::new(NoLines)).await?;
        if !exit.success() {
            return Err(errors::venv_failed(&exit));
        }

        let env = Environment {
            python_version: Some(python.version),
            ..Environment::at(prefix, KIND, request.packages)
        };
        self.install_with(&env, &env.packages, Compile::Later, nice, &task).await?;

        let spec = ProcessSpec { nice, ..pip::validate(&env.python) };
        let exit = self.step("venv runtime validation", spec, Arc::new(NoLines)).await?;
        if !exit.success() {
            return Err(errors::validation_failed(&exit));
        }
        task.report("ready", json!({ "env_path": env.prefix, "python_path": env.python }));
        Ok(env)
    }

    async fn clone_env(
        &self,
        template: &Environment,
        prefix: &Path,
        task: Task,
    ) -> Result<Environment> {
        task.phase("creating_venv");
        clone_venv(template, prefix).await
    }

    async fn install(&self, env: &Environment, packages: &[String], task: Task) -> Result<()> {
        let packages = pypi::checked(packages)?;
        if packages.is_empty() {
            return Ok(());
        }
        self.install_with(env, &packages, Compile::Now, 0, &task).await
    }

    async fn optimize(&self, env: &Environment) -> Result<()> {
        let spec = ProcessSpec { nice: BACKGROUND, ..pip::compile(&env.python) };
        let exit = self.step("Compiling", spec, Arc::new(NoLines)).await?;
        if !exit.success() {
            // Modules for other Pythons are common and harmless.
            tracing::debug!(stderr = %exit.stderr, "not every module could be compiled");
        }
        Ok(())
    }

    async fn verify(&self, env: &Environment) -> Result<Health> {
        let exists = async |path: &Path| tokio::fs::try_exists(path).await.unwrap_or(false);
        // Follows the link, so it also notices that the interpreter behind it was uninstalled.
        if !exists(&env.python).await {
            let reason = format!("the interpreter `{}` is gone", env.python.display());
            return Ok(Health::Broken { reason });
        }
        if let Some(packages) = site_packages(env)
            && !exists(&packages.join("ipykernel/__init__.py")).await
        {
            let reason = format!("ipykernel is not installed in `{}`", env.prefix.display());
            return Ok(Health::Broken { reason });
        }
        Ok(Health::Usable)
    }

    async fn launch(&self, env: &Environment) -> Result<LaunchCommand> {
        Ok(LaunchCommand::of_venv(env))
    }

    async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>> {
        let packages = pypi::checked(&request.packages)?;
        Ok(packages.iter().map(|package| pypi::identity(package)).collect())
    }
}

/// Where packages of `env` lie, if its Python version is known.
fn site_packages(env: &Environment) -> Option<PathBuf> {
    let mut parts = env.python_version.as_deref()?.split('.');
    let (major, minor) = (parts.next()?, parts.next()?);
    Some(env.prefix.join(format!("lib/python{major}.{minor}/site-packages")))
}
