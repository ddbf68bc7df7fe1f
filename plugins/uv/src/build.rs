//! The steps of a build, one process each.
//!
//! Promises: every process has a time limit and dies with the dropped future; what was downloaded stays
//! in uv's cache for the next attempt.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{Host, NoLines, PluginError, ProcessExit, ProcessLines, ProcessSpec, Result, Task};
use serde_json::json;

use crate::commands::{self, InstallOptions, Source};
use crate::errors;
use crate::progress::InstallLines;
use crate::python::{self, Choice, Installed};

/// Looking for interpreters starts each of them once.
const LIST_LIMIT: Duration = Duration::from_secs(60);
/// Making an environment from an interpreter that is here. Source: the wire contract.
const VENV_LIMIT: Duration = Duration::from_secs(60);
/// The same, when uv may have to download the interpreter (30 MiB).
const VENV_DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);
/// Linking from the cache; copying where the file systems differ.
const CACHE_LIMIT: Duration = Duration::from_secs(120);
/// Downloading and perhaps building packages on a slow line. uv itself ends a stalled connection.
/// Source: the reference gives a whole environment 900 s.
const INDEX_LIMIT: Duration = Duration::from_secs(900);
/// Importing what a kernel needs. Source: the wire contract.
const VALIDATION_LIMIT: Duration = Duration::from_secs(60);
/// Byte compilation behind the user's back; a data science stack takes a minute or two of one core.
const COMPILATION_LIMIT: Duration = Duration::from_secs(900);
/// Niceness of background work: a notebook that is being opened needs both cores of a small machine.
pub(crate) const BACKGROUND: u8 = 10;

/// Runs steps with one uv in one working directory.
pub(crate) struct Build<'a> {
    pub(crate) host: &'a Host,
    pub(crate) uv: &'a Path,
    /// Where uv looks for its configuration, upward from here.
    pub(crate) cwd: &'a Path,
    pub(crate) task: &'a Task,
    /// Niceness of every step, 0 to 19.
    pub(crate) nice: u8,
}

impl Build<'_> {
    /// Makes an empty environment at `prefix` and returns its interpreter and that one's version.
    pub(crate) async fn venv(&self, prefix: &Path, wish: Option<&str>) -> Result<(PathBuf, Option<String>)> {
        let choice = match python::choose(wish, &[]) {
            Choice::Wish(wish) => Choice::Wish(wish),
            _ => python::choose(None, &self.installed().await?),
        };
        tracing::info!(python = %choice, prefix = %prefix.display(), "creating an environment");
        self.task.report("creating_venv", json!({ "python": choice.to_string() }));
        let limit = match choice {
            Choice::Installed { .. } => VENV_LIMIT,
            Choice::Wish(_) | Choice::Download => VENV_DOWNLOAD_LIMIT,
        };
        let argv = commands::venv(self.uv, prefix, choice.request());
        let exit = self.run(argv, limit, "uv venv", Arc::new(NoLines)).await?;
        if !exit.success() {
            let installed = python::versions(&self.installed().await.unwrap_or_default());
            return Err(errors::venv_failed(&exit, choice.request(), &installed));
        }
        let configuration = tokio::fs::read_to_string(prefix.join("pyvenv.cfg")).await.unwrap_or_default();
        Ok((prefix.join("bin/python"), python::version_in(&configuration)))
    }

    async fn installed(&self) -> Result<Vec<Installed>> {
        let argv = commands::list_pythons(self.uv);
        let exit = self.run(argv, LIST_LIMIT, "uv python list", Arc::new(NoLines)).await?;
        if !exit.success() {
            let message = format!("could not list the installed Pythons: {}", exit.stderr.trim());
            return Err(PluginError::internal(message).help("Choose one in the setting `uv.python`."));
        }
        Ok(serde_json::from_str(&exit.stdout)?)
    }

    /// Installs `packages` for `python` from the first of `sources` that can.
    pub(crate) async fn install(
        &self,
        python: &Path,
        packages: &[String],
        options: &InstallOptions<'_>,
        sources: &[Source],
    ) -> Result<()> {
        self.task.report("installing_packages", json!({ "packages": packages }));
        let mut last = PluginError::internal("no package source was tried");
        for source in sources {
            let limit = if *source == Source::Cache { CACHE_LIMIT } else { INDEX_LIMIT };
            let argv = commands::install(self.uv, python, packages, options, *source);
            let lines = Arc::new(InstallLines::new(self.task.clone()));
            let exit = self.run(argv, limit, "Installing packages", lines).await?;
            if exit.success() {
                if *source == Source::Cache {
                    self.task.phase("offline_hit");
                }
                return Ok(());
            }
            last = errors::install_failed(&exit);
            tracing::debug!(?source, error = %last.message, "uv pip install failed");
            // Without room no source helps, and what the next one said of a torn package would hide why.
            if errors::is_full(&exit.stderr) || *source != Source::Cache && last.detail["network"] == true {
                break;
            }
        }
        Err(last)
    }

    /// Proves that a kernel could start.
    pub(crate) async fn validate(&self, python: &Path) -> Result<()> {
        let argv = commands::validate(python);
        let exit = self.run(argv, VALIDATION_LIMIT, "UV runtime validation", Arc::new(NoLines)).await?;
        if exit.success() { Ok(()) } else { Err(errors::validation_failed(&exit)) }
    }

    /// Prepares the project in the working directory and returns its interpreter, and whether that only
    /// works offline.
    pub(crate) async fn project(&self, file: &Path) -> Result<(PathBuf, bool)> {
        self.task.report("project_preparing", json!({ "source": "uv:pyproject", "project_path": file }));
        let mut argv = commands::project_python(self.uv, self.cwd);
        argv.extend(["-c", "import ipykernel, sys; print(sys.executable)"].map(str::to_owned));
        let mut exit = self.project_probe(&argv).await?;
        let offline = !exit.success() && errors::is_network(&exit.stderr);
        if offline {
            argv.splice(2..2, ["--offline".to_owned()]);
            let again = self.project_probe(&argv).await?;
            if again.success() {
                exit = again;
            }
        }
        if !exit.success() {
            return Err(errors::project_failed(&exit));
        }
        let python = exit.stdout.lines().last().unwrap_or_default().trim();
        Ok((PathBuf::from(python), offline))
    }

    /// Adds packages to the file of the project in the working directory.
    pub(crate) async fn add(&self, packages: &[String]) -> Result<()> {
        self.task.report("installing_packages", json!({ "packages": packages }));
        let argv = commands::add_to_project(self.uv, self.cwd, packages);
        let exit = self.run(argv, INDEX_LIMIT, "Adding packages to the project", Arc::new(NoLines)).await?;
        if exit.success() { Ok(()) } else { Err(errors::add_failed(&exit, self.cwd)) }
    }

    async fn project_probe(&self, argv: &[String]) -> Result<ProcessExit> {
        self.run(argv.to_vec(), INDEX_LIMIT, "Preparing the project", Arc::new(NoLines)).await
    }

    async fn run(
        &self,
        argv: Vec<String>,
        limit: Duration,
        step: &str,
        lines: Arc<dyn ProcessLines>,
    ) -> Result<ProcessExit> {
        let cwd = Some(self.cwd.to_owned());
        let (timeout, nice) = (Some(limit), self.nice);
        let spec = ProcessSpec { argv, cwd, timeout, nice, ..ProcessSpec::default() };
        let exit = self.host.run_process(spec, lines).await;
        exit.map_err(|error| errors::step_failed(error, step, limit.as_secs()))
    }
}

/// Compiles every module of the environment of `python`, out of the user's way.
pub(crate) async fn compile(host: &Host, python: &Path) -> Result<()> {
    let argv = commands::compile(python);
    let timeout = Some(COMPILATION_LIMIT);
    let spec = ProcessSpec { argv, timeout, nice: BACKGROUND, ..ProcessSpec::default() };
    let exit = host.run_process(spec, Arc::new(NoLines)).await?;
    if !exit.success() {
        // Modules for other Pythons are common and harmless.
        tracing::debug!(stderr = %exit.stderr, "not every module could be compiled");
    }
    Ok(())
}
