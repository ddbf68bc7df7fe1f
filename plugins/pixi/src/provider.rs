//! The environment provider `pixi`.
//!
//! For: pooled environments, environments of notebooks with dependencies of their own, and projects.
//! Promises: an environment is returned as soon as a kernel can start in it; each of ours is a workspace of its own, below
//! its prefix whatever pixi's configuration says; equal requests get equal keys. Mirrors, proxies and credentials of the
//! user's pixi hold.
//! Never: pools, leases, trust decisions, or deleting a prefix; those are the host's. Changes a project but for packages
//! that a notebook adds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtimed_plugin_api::{
    EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, Host, LaunchCommand,
    PackageIdentity, PluginError, ProcessExit, ProcessLines, ProcessSpec, Project, Result, Task,
    async_trait, cache_key, pypi, read_text,
};
use serde_json::{Map, json};

use crate::packages::{self, FROM_INDEX, Wanted};
use crate::project::{MANIFEST, PYPROJECT};
use crate::tool::Surroundings;
use crate::{commands, errors, manifest, project};

/// Key in settings, metadata and labels.
const KIND: &str = "pixi";

/// What a kernel and its widgets need, and pip for installing from a cell.
const BASE: [&str; 4] = ["ipykernel", "ipywidgets", "anywidget", "pip"];
/// What most notebooks import.
const DATA: [&str; 5] = ["pandas", "polars", "matplotlib", "plotly", "altair"];
/// What outputs need, unless the notebook asks for versions of its own.
const TAIL: [&str; 2] = ["nbformat", "pyarrow>=14"];
/// Where packages come from if nobody says.
const CHANNEL: &str = "conda-forge";

/// Where pixi keeps the environment of a workspace.
const INSIDE: &str = ".pixi/envs/default";
/// The workspace's own configuration.
const CONFIG: &str = ".pixi/config.toml";
/// Without it a user's `detached-environments` would put the environment where the host does not delete it.
const CONFIGURATION: &str = "detached-environments = false\n";

/// [`Environment::extra`] of a project: its file.
const PROJECT_FILE: &str = "project_file";
/// [`Environment::extra`] of a project: where its environment lies.
const PREFIX: &str = "prefix";
/// [`Environment::extra`] of a project: what its interpreter is started with.
const VARIABLES: &str = "variables";

/// Niceness of work nobody waits for: a notebook that is being opened needs both cores of a small machine.
const BACKGROUND: u8 = 10;

/// Builds environments with pixi.
pub struct PixiProvider {
    host: Host,
    surroundings: Surroundings,
}

impl PixiProvider {
    /// A provider that runs its processes on `host` and looks for pixi in `surroundings`.
    pub fn new(host: Host, surroundings: Surroundings) -> Self {
        Self { host, surroundings }
    }

    async fn pixi(&self) -> Result<PathBuf> {
        let surroundings = self.surroundings.clone();
        let found = tokio::task::spawn_blocking(move || surroundings.pixi()).await;
        found.map_err(|error| PluginError::internal(format!("work on files was lost: {error}")))?
    }

    async fn build(
        &self,
        pixi: &Path,
        request: EnvRequest,
        prefix: &Path,
        task: &Task,
    ) -> Result<Environment> {
        // Plans are documents: this one need not be as `plan` left it.
        let wanted = Wanted::by(&request)?;
        let nice = if request.background { BACKGROUND } else { 0 };
        let channels = match request.channels.is_empty() {
            true => vec![CHANNEL.to_owned()],
            false => request.channels,
        };
        let name = prefix.file_name().unwrap_or_default().to_string_lossy();
        let text = manifest::text(&name, &channels, &wanted).map_err(|error| {
            PluginError::internal(format!("pixi.toml could not be written: {error}"))
        })?;
        let file = prefix.join(MANIFEST);
        write(&prefix.join(CONFIG), CONFIGURATION).await?;
        write(&file, &text).await?;

        task.report(
            "solving",
            json!({ "spec_count": wanted.conda.len() + wanted.from_index.len() }),
        );
        let install = ProcessSpec { nice, ..commands::install(pixi, &file) };
        self.step("Installing packages", "Failed to install packages", install).await?;

        let python = prefix.join(INSIDE).join("bin/python");
        let validate = ProcessSpec { nice, ..commands::validate(&python) };
        let exit = self.run("Pixi runtime validation", validate).await?;
        if !exit.success() {
            return Err(errors::validation_failed(&exit));
        }
        let version = exit.stdout.lines().last().map(|line| line.trim().to_owned());
        Ok(Environment {
            python,
            python_version: version.filter(|version| !version.is_empty()),
            ..Environment::at(prefix, KIND, request.packages)
        })
    }

    /// A project keeps its environment itself; `prefix` only stands for it.
    async fn prepare(
        &self,
        pixi: &Path,
        project: &Project,
        packages: &[String],
        prefix: &Path,
        task: &Task,
    ) -> Result<Environment> {
        make_folder(prefix).await?;
        self.add(pixi, &project.file, packages, task).await?;
        task.report(
            "project_preparing",
            json!({ "source": "pixi:toml", "project_path": project.file }),
        );
        let info = commands::info(pixi, &project.file);
        let info = self.step("Reading the project", "Failed to read the project", info).await?;
        if !commands::has_kernel(&info.stdout)? {
            return Err(errors::no_kernel(&project.file));
        }
        let mut frozen = false;
        let mut exit = self.hook(pixi, project, frozen).await?;
        if !exit.success() && errors::is_network(&exit) {
            // What is cached may be all that is needed.
            let again = self.hook(pixi, project, true).await?;
            if again.success() {
                (exit, frozen) = (again, true);
            }
        }
        if !exit.success() {
            return Err(errors::failed("pixi shell-hook failed", &exit));
        }
        let mut activation = commands::activation(&exit.stdout)?;
        if frozen {
            activation.variables.insert(commands::FROZEN.to_owned(), "true".to_owned());
        }
        let python = activation.prefix.join("bin/python");
        let extra = [
            (PROJECT_FILE.to_owned(), json!(project.file)),
            (PREFIX.to_owned(), json!(activation.prefix)),
            (VARIABLES.to_owned(), json!(activation.variables)),
        ];
        Ok(Environment {
            python,
            extra: Map::from_iter(extra),
            ..Environment::at(prefix, KIND, project.dependencies.clone())
        })
    }

    async fn hook(&self, pixi: &Path, project: &Project, frozen: bool) -> Result<ProcessExit> {
        self.run("Preparing the project", commands::shell_hook(pixi, &project.file, frozen)).await
    }

    async fn add(&self, pixi: &Path, file: &Path, packages: &[String], task: &Task) -> Result<()> {
        let packages = pypi::checked(packages)?;
        if packages.is_empty() {
            return Ok(());
        }
        packages.iter().try_for_each(|package| packages::CondaSpec::read(package).map(drop))?;
        task.report("installing_packages", json!({ "packages": packages }));
        let add = commands::add(pixi, file, &packages);
        self.step("Adding packages", "Failed to add packages to the project", add).await.map(drop)
    }

    /// Runs a command of pixi that must succeed.
    async fn step(&self, step: &str, failure: &str, spec: ProcessSpec) -> Result<ProcessExit> {
        let exit = self.run(step, spec).await?;
        if exit.success() { Ok(exit) } else { Err(errors::failed(failure, &exit)) }
    }

    async fn run(&self, step: &str, spec: ProcessSpec) -> Result<ProcessExit> {
        let exit = self.host.run_process(spec, Arc::new(Logged)).await;
        exit.map_err(|error| errors::step_failed(error, step))
    }
}

#[async_trait]
impl EnvProvider for PixiProvider {
    fn info(&self) -> EnvProviderInfo {
        let owned = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect();
        EnvProviderInfo {
            kind: KIND.to_owned(),
            label: "Pixi".to_owned(),
            markers: owned(&[MANIFEST, PYPROJECT]),
            base_packages: owned(&BASE),
            data_packages: owned(&DATA),
            tail_packages: owned(&TAIL),
            default_channels: owned(&[CHANNEL]),
            script_packages: Some(FROM_INDEX.to_owned()),
        }
    }

    async fn detect(&self, dir: &Path) -> Result<Option<Project>> {
        for marker in [MANIFEST, PYPROJECT] {
            let file = dir.join(marker);
            let path = file.clone();
            let read = tokio::task::spawn_blocking(move || read_text(&path)).await;
            let found = match read.unwrap_or_else(|error| Err(error.into())) {
                Ok(text) => project::declared(&text, &file)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => {
                    let message = format!("`{}` cannot be read: {error}", file.display());
                    return Err(PluginError::invalid(message));
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    async fn plan(&self, mut request: EnvRequest) -> Result<EnvPlan> {
        if let Some(project) = &request.project {
            return Ok(EnvPlan {
                key: cache_key(&format!("project:{}", project.file.display())),
                request,
            });
        }
        request.packages = pypi::checked(&request.packages)?;
        let wanted = Wanted::by(&request)?;
        let missing = BASE.iter().filter(|base| !wanted.names(base));
        let missing: Vec<String> = missing.map(|&base| base.to_owned()).collect();
        request.packages.splice(0..0, missing);
        Ok(EnvPlan::keyed(request, &[]))
    }

    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
        task.report("starting", json!({ "env_hash": plan.key }));
        let pixi = self.pixi().await?;
        tracing::info!(pixi = %pixi.display(), prefix = %prefix.display(), "preparing an environment");
        let environment = match &plan.request.project {
            Some(project) => {
                self.prepare(&pixi, project, &plan.request.packages, prefix, &task).await?
            }
            None => self.build(&pixi, plan.request, prefix, &task).await?,
        };
        task.report(
            "ready",
            json!({ "env_path": real_prefix(&environment), "python_path": environment.python }),
        );
        Ok(environment)
    }

    async fn install(&self, env: &Environment, packages: &[String], task: Task) -> Result<()> {
        let Some(file) = path(env, PROJECT_FILE) else {
            // One that was made for a script block would be given channels' packages for the index's.
            return Err(PluginError::unsupported(
                "pixi does not install into an environment that is in use",
            )
            .help("Restart the kernel: it gets an environment with everything that is declared."));
        };
        self.add(&self.pixi().await?, &file, packages, &task).await
    }

    async fn optimize(&self, env: &Environment) -> Result<()> {
        if path(env, PROJECT_FILE).is_some() {
            return Ok(());
        }
        let compile = ProcessSpec { nice: BACKGROUND, ..commands::compile(&env.python) };
        let exit = self.run("Compiling", compile).await?;
        if !exit.success() {
            // Modules for other Pythons are common and harmless.
            tracing::debug!(stderr = %exit.stderr, "not every module could be compiled");
        }
        Ok(())
    }

    async fn verify(&self, env: &Environment) -> Result<Health> {
        let exists = async |path: &Path| tokio::fs::try_exists(path).await.unwrap_or(false);
        let broken = |reason: String| Ok(Health::Broken { reason });
        if let Some(file) = path(env, PROJECT_FILE)
            && !exists(&file).await
        {
            return broken(format!("the project file `{}` is gone", file.display()));
        }
        if !exists(&env.python).await {
            return broken(format!("the interpreter `{}` is gone", env.python.display()));
        }
        if let Some(packages) = site_packages(env)
            && !exists(&packages.join("ipykernel/__init__.py")).await
        {
            return broken(format!("ipykernel is not installed in `{}`", env.prefix.display()));
        }
        Ok(Health::Usable)
    }

    async fn launch(&self, env: &Environment) -> Result<LaunchCommand> {
        let argv = vec![env.python.display().to_string()];
        let prefix = real_prefix(env);
        let path_folders = vec![prefix.join("bin")];
        let Some(file) = path(env, PROJECT_FILE) else {
            let variables = [("CONDA_PREFIX".to_owned(), prefix.display().to_string())].into();
            return Ok(LaunchCommand { argv, env: variables, path: path_folders, cwd: None });
        };
        let variables = env.extra.get(VARIABLES).cloned().unwrap_or_default();
        Ok(LaunchCommand {
            argv,
            env: serde_json::from_value(variables).unwrap_or_default(),
            path: path_folders,
            cwd: file.parent().map(Path::to_owned),
        })
    }

    async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>> {
        // What a project's own file names is not asked about, as the protocol has it.
        packages::identities(request, &BASE)
    }
}

/// Writes what pixi says into the daemon's log.
struct Logged;

impl ProcessLines for Logged {
    fn line(&self, _: bool, line: &str) {
        tracing::debug!("{line}");
    }
}

/// Where the packages of `env` are.
fn real_prefix(env: &Environment) -> PathBuf {
    path(env, PREFIX).unwrap_or_else(|| env.prefix.join(INSIDE))
}

fn path(env: &Environment, name: &str) -> Option<PathBuf> {
    env.extra.get(name)?.as_str().map(PathBuf::from)
}

/// Where Python packages of `env` lie, if its Python version is known.
fn site_packages(env: &Environment) -> Option<PathBuf> {
    let mut parts = env.python_version.as_deref()?.split('.');
    let (major, minor) = (parts.next()?, parts.next()?);
    Some(real_prefix(env).join(format!("lib/python{major}.{minor}/site-packages")))
}

async fn write(file: &Path, text: &str) -> Result<()> {
    make_folder(file.parent().unwrap_or(file)).await?;
    tokio::fs::write(file, text).await.map_err(|error| errors::disk(file, &error))
}

async fn make_folder(folder: &Path) -> Result<()> {
    tokio::fs::create_dir_all(folder).await.map_err(|error| errors::disk(folder, &error))
}
