//! `env-provider.v1`, both ways.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{RString, Reply, TD_Opaque};

use super::Side;
use super::convert::{bounded_document, json, parse, parse_bounded, path};
use super::progress::{remote_task, serve_task};
use super::served::Served;
use crate::{
    EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, LaunchCommand, PackageIdentity,
    PluginError, Project, Result, Task,
};

pub(super) fn serve_env_provider(provider: Arc<dyn EnvProvider>, side: &Side) -> abi::EnvProviderObject {
    abi::EnvProvider_TO::from_value(Served::new(provider, side), TD_Opaque)
}

impl abi::EnvProvider for Served<dyn EnvProvider> {
    fn info(&self) -> RString {
        self.document(|it| it.info())
    }

    fn detect(&self, dir: RString) -> Reply {
        self.reply(|it| async move { it.detect(Path::new(dir.as_str())).await })
    }

    fn plan(&self, request: RString) -> Reply {
        self.reply(|it| async move { it.plan(parse(&request)?).await })
    }

    fn create(&self, plan: RString, prefix: RString, task: abi::ProgressSinkObject) -> Reply {
        self.reply(|it| async move {
            it.create(parse(&plan)?, Path::new(prefix.as_str()), remote_task(task)).await
        })
    }

    fn clone_env(&self, template: RString, prefix: RString, task: abi::ProgressSinkObject) -> Reply {
        self.reply(|it| async move {
            it.clone_env(&parse(&template)?, Path::new(prefix.as_str()), remote_task(task)).await
        })
    }

    fn install(&self, env: RString, packages: RString, task: abi::ProgressSinkObject) -> Reply {
        self.reply(|it| async move {
            it.install(&parse(&env)?, &parse::<Vec<String>>(&packages)?, remote_task(task)).await
        })
    }

    fn optimize(&self, env: RString) -> Reply {
        self.reply(|it| async move { it.optimize(&parse(&env)?).await })
    }

    fn verify(&self, env: RString) -> Reply {
        self.reply(|it| async move { it.verify(&parse(&env)?).await })
    }

    fn launch(&self, env: RString) -> Reply {
        self.reply(|it| async move { it.launch(&parse(&env)?).await })
    }

    fn identities(&self, request: RString) -> Reply {
        self.reply(|it| async move { it.identities(&parse(&request)?).await })
    }
}

pub(super) fn remote_env_provider(
    object: abi::EnvProviderObject,
    side: &Side,
) -> Result<Arc<dyn EnvProvider>> {
    let info = parse_bounded(&object.info()).map_err(|error| PluginError {
        message: format!("`EnvProvider::info` did not answer: {}", error.message),
        ..error
    })?;
    Ok(Arc::new(RemoteEnvProvider { object, side: side.clone(), info }))
}

struct RemoteEnvProvider {
    object: abi::EnvProviderObject,
    side: Side,
    info: EnvProviderInfo,
}

#[async_trait]
impl EnvProvider for RemoteEnvProvider {
    fn info(&self) -> EnvProviderInfo {
        self.info.clone()
    }

    async fn detect(&self, dir: &Path) -> Result<Option<Project>> {
        bounded_document(self.object.detect(path(dir)?)).await
    }

    async fn plan(&self, request: EnvRequest) -> Result<EnvPlan> {
        bounded_document(self.object.plan(json(&request)?)).await
    }

    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
        let task = serve_task(&task, &self.side);
        bounded_document(self.object.create(json(&plan)?, path(prefix)?, task)).await
    }

    async fn clone_env(&self, template: &Environment, prefix: &Path, task: Task) -> Result<Environment> {
        let task = serve_task(&task, &self.side);
        bounded_document(self.object.clone_env(json(template)?, path(prefix)?, task)).await
    }

    async fn install(&self, env: &Environment, packages: &[String], task: Task) -> Result<()> {
        let task = serve_task(&task, &self.side);
        bounded_document(self.object.install(json(env)?, json(packages)?, task)).await
    }

    async fn optimize(&self, env: &Environment) -> Result<()> {
        bounded_document(self.object.optimize(json(env)?)).await
    }

    async fn verify(&self, env: &Environment) -> Result<Health> {
        bounded_document(self.object.verify(json(env)?)).await
    }

    async fn launch(&self, env: &Environment) -> Result<LaunchCommand> {
        bounded_document(self.object.launch(json(env)?)).await
    }

    async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>> {
        bounded_document(self.object.identities(json(request)?)).await
    }
}
