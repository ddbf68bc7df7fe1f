//! A complete environment provider: `python3 -m venv`, then pip.
//!
//! Change `KIND`, `info`, `create` and the id in the last line, and it is yours.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{
    EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, Host, LaunchCommand, NoLines,
    PackageIdentity, Plugin, PluginError, ProcessSpec, Result, Task, async_trait, export_plugin,
};
use sha2::{Digest, Sha256};

/// The provider's name in settings, notebook metadata and labels.
const KIND: &str = "venv";

/// Longest run of one command. Downloads on a slow line take minutes.
const LIMIT: Duration = Duration::from_secs(600);

/// The plugin: one provider.
pub struct VenvPlugin(Arc<Venv>);

#[async_trait]
impl Plugin for VenvPlugin {
    fn create(host: Host) -> Result<Self> {
        Ok(Self(Arc::new(Venv { host })))
    }

    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        vec![self.0.clone()]
    }
}

/// Builds environments. The host pools them, leases them and deletes them.
pub struct Venv {
    host: Host,
}

impl Venv {
    /// Runs a command; the host kills it when the call is dropped or takes too long.
    async fn run(&self, argv: &[&str]) -> Result<()> {
        let argv = argv.iter().map(|&part| part.to_owned()).collect();
        let spec = ProcessSpec { argv, timeout: Some(LIMIT), ..ProcessSpec::default() };
        let exit = self.host.run_process(spec, Arc::new(NoLines)).await?;
        if exit.success() {
            return Ok(());
        }
        Err(PluginError::internal(exit.stderr.trim()).help("Check the package names and the network."))
    }

    async fn pip(&self, python: &Path, packages: &[String], task: &Task) -> Result<()> {
        if packages.is_empty() {
            return Ok(());
        }
        task.phase("installing_packages");
        let python = python.display().to_string();
        // What comes after `--` is never read as an option, whatever a notebook asks for.
        let mut argv = vec![python.as_str(), "-m", "pip", "install", "--quiet", "--"];
        argv.extend(packages.iter().map(String::as_str));
        self.run(&argv).await
    }
}

#[async_trait]
impl EnvProvider for Venv {
    fn info(&self) -> EnvProviderInfo {
        EnvProviderInfo {
            kind: KIND.to_owned(),
            label: "venv".to_owned(),
            markers: Vec::new(),
            base_packages: vec!["ipykernel".to_owned()],
            data_packages: Vec::new(),
            tail_packages: Vec::new(),
            default_channels: Vec::new(),
        }
    }

    async fn plan(&self, request: EnvRequest) -> Result<EnvPlan> {
        if let Some(python) = &request.python {
            return Err(PluginError::unsupported(format!("venv cannot choose Python {python}"))
                .help("Leave the version out, or use another provider."));
        }
        let mut parts = request.packages.clone();
        parts.sort();
        parts.extend(request.env_id.clone());
        let digest = Sha256::digest(parts.join("\n"));
        let key = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(EnvPlan { key, request })
    }

    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
        task.phase("creating_venv");
        self.run(&["python3", "-m", "venv", &prefix.display().to_string()]).await?;
        let python = prefix.join("bin/python");
        self.pip(&python, &plan.request.packages, &task).await?;
        Ok(Environment {
            kind: KIND.to_owned(),
            prefix: prefix.to_owned(),
            python,
            python_version: None,
            packages: plan.request.packages,
            extra: Default::default(),
        })
    }

    async fn install(&self, env: &Environment, packages: &[String], task: Task) -> Result<()> {
        self.pip(&env.python, packages, &task).await
    }

    async fn verify(&self, env: &Environment) -> Result<Health> {
        if env.python.exists() {
            return Ok(Health::Usable);
        }
        Ok(Health::Broken { reason: format!("`{}` is gone", env.python.display()) })
    }

    async fn launch(&self, env: &Environment) -> Result<LaunchCommand> {
        Ok(LaunchCommand {
            argv: vec![env.python.display().to_string()],
            path: vec![env.prefix.join("bin")],
            ..LaunchCommand::default()
        })
    }

    async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>> {
        let base = self.info().base_packages;
        let declared = request.packages.iter().filter(|package| !base.contains(package));
        Ok(declared.map(|package| identity(package)).collect())
    }
}

/// The name trust knows a requirement by. One that installs from a URL or a path is only itself.
fn identity(package: &str) -> PackageIdentity {
    let name = match package.contains(['@', '/']) {
        true => package.to_owned(),
        false => {
            let name = package.split([' ', '[', '<', '>', '=', '!', '~', ';']).next().unwrap_or(package);
            name.to_lowercase().replace(['_', '.'], "-")
        }
    };
    PackageIdentity { ecosystem: "pypi".to_owned(), name }
}

export_plugin!(VenvPlugin, id = "org.example.venv");
