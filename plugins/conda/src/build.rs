//! The steps of a build, one process each.
//!
//! Promises: every process has a time limit and dies with the dropped future.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtimed_conda_builder::{Done, Job, Work};
use runtimed_plugin_api::{Host, NoLines, ProcessExit, ProcessSpec, Result, Task};

use crate::key::is_free_threaded;
use crate::{errors, packages, program};

/// The Python of an environment when nobody asks for one. Source: the wire contract.
const PYTHON: &str = ">=3.13";
/// Marks a Python without a global interpreter lock, as a package.
const FREE_THREADING: &str = "python-freethreading";
/// Keeps a Python from being such a one. Channels that have only the usual one need not have it.
const GIL: &str = "python-gil";
/// Niceness of background work: a notebook that is being opened needs both cores of a small machine.
const BACKGROUND: u8 = 10;
/// Importing what a kernel needs. Source: the wire contract.
const VALIDATION_LIMIT: Duration = Duration::from_secs(60);
/// Downloading and perhaps building pip's packages on a slow line.
const PIP_LIMIT: Duration = Duration::from_secs(900);
/// Byte compilation behind the user's back; a data science stack takes a minute or two of one core.
const COMPILATION_LIMIT: Duration = Duration::from_secs(900);

/// What the kernel and the widgets need to load, and what is nice to have loaded once, so that its bytecode is there
/// when the first kernel starts.
const VALIDATION: &str = "\
import importlib, ipykernel, IPython
from ipykernel.kernelbase import Kernel
from ipykernel.ipkernel import IPythonKernel
for name in ('ipywidgets', 'anywidget', 'nbformat'):
    try: importlib.import_module(name)
    except Exception: pass
";
/// One worker: this runs behind the user's back.
const COMPILATION: &str = "\
import compileall, sysconfig
compileall.compile_dir(sysconfig.get_path('stdlib'), quiet=2, workers=1)
";

/// Where a new environment goes.
pub(crate) struct Target<'a> {
    /// Where it is made.
    pub(crate) prefix: &'a Path,
    /// Where it is moved to afterwards, if it is.
    pub(crate) home: Option<&'a Path>,
    /// Whether `home` holds an environment of ours, whose saved solve may be used again.
    pub(crate) saved: bool,
}

/// What an environment must hold.
pub(crate) struct Wanted<'a> {
    pub(crate) packages: &'a [String],
    pub(crate) python: Option<&'a str>,
    pub(crate) channels: &'a [String],
    /// Where relative paths of channels start.
    pub(crate) folder: &'a Path,
}

/// Runs steps.
pub(crate) struct Build<'a> {
    pub(crate) host: &'a Host,
    pub(crate) task: &'a Task,
    /// Nobody waits for it.
    pub(crate) background: bool,
}

impl Build<'_> {
    /// Makes an environment.
    pub(crate) async fn create(&self, target: Target<'_>, wanted: &Wanted<'_>) -> Result<Done> {
        let python = wanted.python.unwrap_or(PYTHON);
        let free_threaded = is_free_threaded(python);
        let mut specs = vec![packages::python(python)];
        specs.extend(free_threaded.then(|| FREE_THREADING.to_owned()));
        specs.extend_from_slice(wanted.packages);
        let optional = if free_threaded { Vec::new() } else { vec![GIL.to_owned()] };
        let home = target.home.map(Path::to_owned);
        let saved = home.as_deref().filter(|_| target.saved);
        let saved = saved.map(|home| home.join(runtimed_conda_builder::SAVED_SOLVE));
        self.run(Work::Create { prefix: target.prefix.to_owned(), home, specs, optional, saved }, wanted)
            .await
    }

    /// Adds packages to the environment at `prefix`.
    pub(crate) async fn add(&self, prefix: &Path, wanted: &Wanted<'_>) -> Result<Done> {
        let (prefix, specs) = (prefix.to_owned(), wanted.packages.to_vec());
        self.run(Work::Install { prefix, specs }, wanted).await
    }

    /// Makes an environment with the packages of the one at `template`.
    pub(crate) async fn copy(&self, template: &Path, prefix: &Path, wanted: &Wanted<'_>) -> Result<Done> {
        let (template, prefix) = (template.to_owned(), prefix.to_owned());
        self.run(Work::Copy { template, prefix }, wanted).await
    }

    async fn run(&self, work: Work, wanted: &Wanted<'_>) -> Result<Done> {
        let job = Job { work, channels: wanted.channels.to_vec(), folder: wanted.folder.to_owned() };
        program::run(self.host, &job, self.nice(), self.task).await
    }

    /// Proves that a kernel could start.
    pub(crate) async fn validate(&self, python: &Path) -> Result<()> {
        // Isolated, so that the daemon's own `PYTHONPATH` cannot stand in for a missing package.
        let spec = ProcessSpec::new(python).args(["-I", "-c", VALIDATION]);
        let exit = self.python(spec, VALIDATION_LIMIT, "Conda runtime validation").await?;
        if exit.success() { Ok(()) } else { Err(errors::validation_failed(&exit)) }
    }

    /// Installs pip's packages with the environment's own pip; relative paths start at `folder`.
    pub(crate) async fn pip(&self, python: &Path, packages: &[String], folder: &Path) -> Result<()> {
        if packages.is_empty() {
            return Ok(());
        }
        self.task.report("installing_packages", serde_json::json!({ "packages": packages }));
        let pip = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--"];
        let spec =
            ProcessSpec { cwd: Some(folder.to_owned()), ..ProcessSpec::new(python).args(pip).args(packages) };
        let exit = self.python(spec, PIP_LIMIT, "pip").await?;
        if exit.success() { Ok(()) } else { Err(errors::pip_failed(&exit)) }
    }

    async fn python(&self, spec: ProcessSpec, limit: Duration, step: &str) -> Result<ProcessExit> {
        let spec = ProcessSpec { timeout: Some(limit), nice: self.nice(), ..spec };
        let exit = self.host.run_process(spec, Arc::new(NoLines)).await;
        exit.map_err(|error| errors::step_failed(error, step, limit.as_secs()))
    }

    fn nice(&self) -> u8 {
        if self.background { BACKGROUND } else { 0 }
    }
}

/// Compiles every module of the environment of `python`, out of the user's way.
pub(crate) async fn compile(host: &Host, python: &Path) -> Result<()> {
    let spec = ProcessSpec::new(python).args(["-I", "-c", COMPILATION]).timeout(COMPILATION_LIMIT);
    let exit = host.run_process(ProcessSpec { nice: BACKGROUND, ..spec }, Arc::new(NoLines)).await?;
    if !exit.success() {
        // Modules for other Pythons are common and harmless.
        tracing::debug!(stderr = %exit.stderr, "not every module could be compiled");
    }
    Ok(())
}

/// Where packages of the environment at `prefix` lie, if its Python's version is known.
pub(crate) fn site_packages(prefix: &Path, python_version: Option<&str>) -> Option<PathBuf> {
    let mut parts = python_version?.split('.');
    let (major, minor) = (parts.next()?, parts.next()?);
    Some(prefix.join(format!("lib/python{major}.{minor}/site-packages")))
}
