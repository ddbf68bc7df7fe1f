//! A provider of the plugin, and what cases do with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtimed_plugin_api::{
    EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, HostServices, LaunchCommand,
    NoLines, ProcessExit, ProcessSpec, Task,
};

use crate::bench::{Bench, answered, built, lock, small};
use crate::case::{Stop, Verdict, require};
use crate::report::Fault;

/// One provider of a plugin that has started.
pub(super) struct Tested<'a> {
    pub(super) bench: &'a Bench,
    pub(super) provider: Arc<dyn EnvProvider>,
    pub(super) info: EnvProviderInfo,
}

/// Runs a case on each provider of the plugin.
pub(super) async fn each(bench: &Bench, test: impl AsyncFn(&Tested<'_>) -> Verdict) -> Verdict {
    let plugin = bench.start().await?;
    let (providers, _) = bench.at_once("Plugin::env_providers", || plugin.env_providers())?;
    require(!providers.is_empty(), || {
        Fault::new("the plugin has no environment provider", "return it from `env_providers`")
    })?;
    for provider in providers {
        let (info, _) = bench.at_once("EnvProvider::info", || provider.info())?;
        test(&Tested { bench, provider, info }).await?;
    }
    Ok(())
}

impl Tested<'_> {
    /// A request for the base packages and `packages`.
    pub(super) fn request(&self, packages: &[&str]) -> EnvRequest {
        let more = packages.iter().map(|&package| package.to_owned());
        EnvRequest {
            packages: self.info.base_packages.iter().cloned().chain(more).collect(),
            ..EnvRequest::default()
        }
    }

    /// A plan for a request that is in order.
    pub(super) async fn plan(&self, request: EnvRequest) -> Result<EnvPlan, Stop> {
        let plan = self.bench.call("EnvProvider::plan", self.provider.plan(request)).await?;
        let plan = answered("EnvProvider::plan", plan, "plan every request whose packages are in order")?;
        small("EnvProvider::plan", &plan)?;
        Ok(plan)
    }

    /// A folder of this case that holds environments and nothing else.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf, Stop> {
        let folder = self.bench.folder.join(&self.info.kind).join(name);
        make_folder(&folder)?;
        Ok(folder)
    }

    /// The same, but it outlives the case.
    pub(super) fn lasting_folder(&self, name: &str) -> Result<PathBuf, Stop> {
        // The number of the process: one that ended early has left its own behind.
        let folder = format!("environments/{}/{}/{name}", std::process::id(), self.info.kind);
        let folder = self.bench.session.scratch.join(folder);
        make_folder(&folder)?;
        Ok(folder)
    }

    /// Builds a plan that can be built.
    pub(super) async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment, Stop> {
        let creating = self.provider.create(plan, prefix, task);
        let env = self.bench.build("EnvProvider::create", creating).await?;
        let env = built(
            "EnvProvider::create",
            env,
            "build every plan of your own, with the base packages at least",
        )?;
        small("EnvProvider::create", &env)?;
        Ok(env)
    }

    /// An environment with the base packages, built once for all cases. Do not change it.
    pub(super) async fn shared(&self) -> Result<Environment, Stop> {
        let there =
            lock(&self.bench.session.environments).iter().find(|it| it.kind == self.info.kind).cloned();
        if let Some(env) = there {
            return Ok(env);
        }
        let prefix = self.lasting_folder("shared")?.join("a");
        let env = self.create(self.plan(self.request(&[])).await?, &prefix, self.bench.task().0).await?;
        lock(&self.bench.session.environments).push(env.clone());
        Ok(env)
    }

    /// An environment with the base packages that may be spoilt.
    pub(super) async fn spare(&self) -> Result<Environment, Stop> {
        let there = {
            let mut spare = lock(&self.bench.session.spare);
            spare.iter().position(|it| it.kind == self.info.kind).map(|at| spare.remove(at))
        };
        if let Some(env) = there {
            return Ok(env);
        }
        let prefix = self.lasting_folder("spare")?.join("a");
        self.create(self.plan(self.request(&[])).await?, &prefix, self.bench.task().0).await
    }

    /// What the provider says about an environment.
    pub(super) async fn verify(&self, env: &Environment) -> Result<Health, Stop> {
        let health = self.bench.call("EnvProvider::verify", self.provider.verify(env)).await?;
        answered("EnvProvider::verify", health, "answer `Broken` when something is missing, not an error")
    }

    /// Fails unless a kernel could start in it.
    pub(super) async fn require_usable(&self, env: &Environment) -> Verdict {
        match self.verify(env).await? {
            Health::Usable => Ok(()),
            Health::Broken { reason } => Err(Fault::new(
                format!("`EnvProvider::verify` calls an environment broken that was just built: {reason}"),
                "return from `create` when a kernel can start, and let `verify` agree",
            )
            .into()),
        }
    }

    /// How to start its interpreter.
    pub(super) async fn launch(&self, env: &Environment) -> Result<LaunchCommand, Stop> {
        let launch = self.bench.call("EnvProvider::launch", self.provider.launch(env)).await?;
        let launch = answered(
            "EnvProvider::launch",
            launch,
            "say how the interpreter of a usable environment is started",
        )?;
        small("EnvProvider::launch", &launch)?;
        require(!launch.argv.is_empty(), || {
            Fault::new("`EnvProvider::launch` names no program", "put the interpreter's path into `argv`")
        })?;
        Ok(launch)
    }

    /// Runs code with the environment's interpreter.
    pub(super) async fn python(&self, env: &Environment, code: &str) -> Result<ProcessExit, Stop> {
        let LaunchCommand { mut argv, mut env, path, cwd } = self.launch(env).await?;
        let program = argv.first().cloned().unwrap_or_default();
        argv.extend(["-c".to_owned(), code.to_owned()]);
        let rest = std::env::var_os("PATH").unwrap_or_default();
        if let Ok(path) = std::env::join_paths(path.into_iter().chain(std::env::split_paths(&rest))) {
            env.insert("PATH".to_owned(), path.to_string_lossy().into_owned());
        }
        let spec = ProcessSpec { argv, env, cwd, ..ProcessSpec::default() };
        let run = self.bench.build("the interpreter that `EnvProvider::launch` names", async {
            self.bench.host.run_process(spec, Arc::new(NoLines)).await
        });
        run.await?.map_err(|error| {
            Fault::new(
                format!(
                    "`EnvProvider::launch` names `{program}`, which cannot be started: {}",
                    error.message
                ),
                "put the path of an interpreter that is there into `argv`",
            )
            .into()
        })
    }
}

/// What lies in a folder, sorted.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

/// Fails if something lies beside the prefixes in their folder.
pub(super) fn nothing_beside(folder: &Path, prefixes: &[&Path]) -> Verdict {
    let strangers: Vec<_> =
        entries(folder).into_iter().filter(|it| !prefixes.contains(&it.as_path())).collect();
    require(strangers.is_empty(), || {
        Fault::new(
            format!(
                "`EnvProvider::create` left `{}` beside its prefix",
                strangers.first().map_or_else(Default::default, |it| it.display().to_string())
            ),
            "write below the prefix only: the host deletes that and nothing else",
        )
        .detail(strangers.iter().map(|it| it.display().to_string()).collect::<Vec<_>>().join("\n"))
    })
}

fn make_folder(folder: &Path) -> Verdict {
    std::fs::create_dir_all(folder)
        .map_err(|error| Stop::skipped(format!("`{}` could not be made: {error}", folder.display())))
}
