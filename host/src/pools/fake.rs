//! A provider that makes folders instead of environments, for tests of the pools.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use runtimed_plugin_api::{
    EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, LaunchCommand, PackageIdentity,
    PluginError, Project, Result, Task, async_trait,
};
use tokio::sync::Semaphore;

/// Makes a folder with an empty interpreter.
pub(super) struct FakeProvider {
    kind: &'static str,
    /// What the next builds fail with, first one first.
    failures: Mutex<Vec<PluginError>>,
    /// Each build takes a permit to end; none are needed without it.
    pub(super) gate: Option<Semaphore>,
    /// Builds begun so far.
    pub(super) creating: AtomicUsize,
    /// Builds so far.
    pub(super) built: AtomicUsize,
    /// Whether it can copy.
    clones: bool,
    /// What the next copies fail with, first one first.
    pub(super) clone_failures: Mutex<Vec<PluginError>>,
    /// Copies so far.
    pub(super) cloned: AtomicUsize,
    /// Environments made faster so far.
    pub(super) optimized: AtomicUsize,
}

impl FakeProvider {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            failures: Mutex::default(),
            gate: None,
            creating: AtomicUsize::new(0),
            built: AtomicUsize::new(0),
            clones: false,
            clone_failures: Mutex::default(),
            cloned: AtomicUsize::new(0),
            optimized: AtomicUsize::new(0),
        }
    }

    /// Copies environments, too.
    pub(super) fn cloning(kind: &'static str) -> Self {
        Self { clones: true, ..Self::new(kind) }
    }

    pub(super) fn failing(kind: &'static str, failures: Vec<PluginError>) -> Self {
        Self { failures: Mutex::new(failures), ..Self::new(kind) }
    }

    /// The next build fails.
    pub(super) fn fail(&self, failure: PluginError) {
        self.failures.lock().unwrap().push(failure);
    }

    /// Builds end when the gate gets permits.
    pub(super) fn gated(kind: &'static str) -> Self {
        Self { gate: Some(Semaphore::new(0)), ..Self::new(kind) }
    }
}

#[async_trait]
impl EnvProvider for FakeProvider {
    fn info(&self) -> EnvProviderInfo {
        EnvProviderInfo {
            kind: self.kind.into(),
            label: self.kind.to_uppercase(),
            markers: vec![format!("{}.project", self.kind)],
            base_packages: vec!["ipykernel".into()],
            data_packages: vec!["pandas".into()],
            tail_packages: vec!["nbformat".into()],
            default_channels: Vec::new(),
            script_packages: None,
        }
    }

    /// A project's file is a list of packages.
    async fn detect(&self, dir: &Path) -> Result<Option<Project>> {
        let file = dir.join(format!("{}.project", self.kind));
        let text = std::fs::read_to_string(&file).unwrap();
        if text == "broken" {
            return Err(PluginError::invalid("this is no project"));
        }
        Ok(Some(Project {
            kind: format!("{}_project", self.kind),
            file,
            dependencies: text.split_whitespace().map(str::to_owned).collect(),
            dev_dependencies: Vec::new(),
            requires_python: None,
            extra: serde_json::Map::new(),
        }))
    }

    async fn plan(&self, request: EnvRequest) -> Result<EnvPlan> {
        let key = crate::pools::packages::packages_hash(self.kind, &request.packages)[..16].to_owned();
        Ok(EnvPlan { key, request })
    }

    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
        task.phase("creating_venv");
        self.creating.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        std::fs::create_dir_all(prefix).map_err(|error| PluginError::internal(error.to_string()))?;
        let mut failures = self.failures.lock().unwrap();
        if !failures.is_empty() {
            return Err(failures.remove(0));
        }
        self.built.fetch_add(1, Ordering::SeqCst);
        let python = prefix.join("python");
        std::fs::write(&python, "").unwrap();
        Ok(Environment {
            kind: self.kind.into(),
            prefix: prefix.to_path_buf(),
            python,
            python_version: None,
            packages: plan.request.packages,
            extra: serde_json::Map::new(),
        })
    }

    async fn clone_env(&self, template: &Environment, prefix: &Path, _: Task) -> Result<Environment> {
        if !self.clones {
            return Err(PluginError::unsupported("no copies here"));
        }
        std::fs::create_dir(prefix).map_err(|error| PluginError::internal(error.to_string()))?;
        let mut failures = self.clone_failures.lock().unwrap();
        if !failures.is_empty() {
            return Err(failures.remove(0));
        }
        self.cloned.fetch_add(1, Ordering::SeqCst);
        let mut copy =
            Environment { prefix: prefix.to_path_buf(), python: prefix.join("python"), ..template.clone() };
        copy.set_in_background(false);
        std::fs::copy(&template.python, &copy.python)
            .map_err(|error| PluginError::internal(error.to_string()))?;
        Ok(copy)
    }

    async fn optimize(&self, _: &Environment) -> Result<()> {
        self.optimized.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn install(&self, _: &Environment, _: &[String], _: Task) -> Result<()> {
        Ok(())
    }

    async fn verify(&self, env: &Environment) -> Result<Health> {
        Ok(match env.python.exists() {
            true => Health::Usable,
            false => Health::Broken { reason: "the interpreter is gone".into() },
        })
    }

    async fn launch(&self, env: &Environment) -> Result<LaunchCommand> {
        Ok(LaunchCommand { argv: vec![env.python.display().to_string()], ..LaunchCommand::default() })
    }

    async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>> {
        let identity = |ecosystem: &'static str| {
            move |name: &String| PackageIdentity { ecosystem: ecosystem.into(), name: name.clone() }
        };
        let of_project = request.project.iter().flat_map(|project| &project.dependencies);
        let channels = request.channels.iter().map(identity("conda-channel"));
        Ok(request.packages.iter().chain(of_project).map(identity("pypi")).chain(channels).collect())
    }
}
