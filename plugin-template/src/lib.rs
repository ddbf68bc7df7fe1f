//! A complete environment provider: `python3 -m venv`, then pip.
//!
//! The host keeps a pool of what this builds, asks users what to trust, leases and deletes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{
    EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, Host, LaunchCommand,
    PackageIdentity, Plugin, PluginError, ProcessSpec, Result, Task, async_trait, export_plugin,
    pypi,
};

/// The provider's name in settings, notebook metadata and labels.
const KIND: &str = "venv";

/// Longest run of one command. Downloads on a slow line take minutes.
const LIMIT: Duration = Duration::from_secs(600);

/// The plugin, which is its only provider.
#[derive(Clone)]
pub struct Provider {
    host: Host,
}

#[async_trait]
impl Plugin for Provider {
    fn create(host: Host) -> Result<Self> {
        Ok(Self { host })
    }

    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        vec![Arc::new(self.clone())]
    }
}

#[async_trait]
impl EnvProvider for Provider {
    fn info(&self) -> EnvProviderInfo {
        EnvProviderInfo {
            kind: KIND.to_owned(),
            label: KIND.to_owned(),
            base_packages: vec!["ipykernel".to_owned()],
            ..EnvProviderInfo::default()
        }
    }

    async fn plan(&self, request: EnvRequest) -> Result<EnvPlan> {
        if let Some(python) = &request.python {
            let message = format!("{KIND} cannot choose Python {python}");
            return Err(PluginError::unsupported(message)
                .help("Leave the version out, or use another provider."));
        }
        pypi::checked(&request.packages)?;
        Ok(EnvPlan::keyed(request, &[]))
    }

    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
        task.phase("creating_venv");
        let venv = ProcessSpec::new("python3").args(["-m", "venv"]).arg(prefix);
        self.host.run(venv.timeout(LIMIT)).await?;
        let env = Environment::at(prefix, KIND, plan.request.packages);
        self.install(&env, &env.packages, task).await?;
        Ok(env)
    }

    async fn install(&self, env: &Environment, packages: &[String], task: Task) -> Result<()> {
        let packages = pypi::checked(packages)?;
        if packages.is_empty() {
            return Ok(());
        }
        task.phase("installing_packages");
        let pip = ProcessSpec::new(&env.python).args(["-m", "pip", "install", "--quiet"]);
        self.host.run(pip.args(packages).timeout(LIMIT)).await?;
        Ok(())
    }

    async fn verify(&self, env: &Environment) -> Result<Health> {
        if env.python.exists() {
            return Ok(Health::Usable);
        }
        Ok(Health::Broken { reason: format!("`{}` is gone", env.python.display()) })
    }

    async fn launch(&self, env: &Environment) -> Result<LaunchCommand> {
        Ok(LaunchCommand::of_venv(env))
    }

    async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>> {
        Ok(request.packages.iter().map(|package| pypi::identity(package)).collect())
    }
}

export_plugin!(Provider, id = "org.example.venv");
