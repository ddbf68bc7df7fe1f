//! pixi's command lines, and its answers.
//!
//! Promises: pure; a package is never read as an option; pixi asks nothing and draws nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtimed_plugin_api::{PluginError, ProcessSpec, Result, pypi};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Solving and downloading on a slow line. Source: the host gives a whole environment 900 s.
const LIMIT: Duration = Duration::from_secs(900);
/// Reading a manifest; pixi may look at the network for the user's configuration.
const INFO_LIMIT: Duration = Duration::from_secs(60);
/// Importing takes seconds from a cold disk. Source: the protocol.
const VALIDATION_LIMIT: Duration = Duration::from_secs(60);
/// A data science stack takes a minute or two of one core.
const COMPILATION_LIMIT: Duration = Duration::from_secs(900);

/// pixi's environment of a workspace that nobody chose another of.
const DEFAULT: &str = "default";
/// What no kernel starts without.
const KERNEL: &str = "ipykernel";
/// The variable that has pixi take its lock file as it is.
pub(crate) const FROZEN: &str = "PIXI_FROZEN";

/// Imports what a kernel needs, and what is nice to have imported once, so that its bytecode is there when the first
/// kernel starts; then says its version. Fails with the import error on stderr.
const VALIDATION: &str = "\
import importlib, sys, ipykernel, IPython
from ipykernel.kernelbase import Kernel
from ipykernel.ipkernel import IPythonKernel
for name in ('ipywidgets', 'anywidget', 'nbformat'):
    try: importlib.import_module(name)
    except Exception: pass
print('.'.join(map(str, sys.version_info[:3])))
";

/// One worker: this runs behind the user's back.
const COMPILATION: &str = "\
import compileall, sysconfig
compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, workers=1)
";

/// Installs what `manifest` says.
pub(crate) fn install(pixi: &Path, manifest: &Path) -> ProcessSpec {
    of_workspace(pixi, "install", manifest).timeout(LIMIT)
}

/// Adds `packages`, which are checked, to `manifest`, and installs them.
pub(crate) fn add(pixi: &Path, manifest: &Path, packages: &[String]) -> ProcessSpec {
    // What comes after is never read as an option.
    of_workspace(pixi, "add", manifest).arg("--").args(packages).timeout(LIMIT)
}

/// Asks what is in the environments of `manifest`.
pub(crate) fn info(pixi: &Path, manifest: &Path) -> ProcessSpec {
    of_workspace(pixi, "info", manifest).arg("--json").timeout(INFO_LIMIT)
}

/// Installs what `manifest` says, and asks for the variables of its default environment. `frozen`: as its lock file has
/// it, which needs no network if all of it is cached.
pub(crate) fn shell_hook(pixi: &Path, manifest: &Path, frozen: bool) -> ProcessSpec {
    let mut spec = of_workspace(pixi, "shell-hook", manifest).arg("--json").timeout(LIMIT);
    if frozen {
        spec.env.insert(FROZEN.to_owned(), "true".to_owned());
    }
    spec
}

fn of_workspace(pixi: &Path, command: &str, manifest: &Path) -> ProcessSpec {
    let mut spec = ProcessSpec::new(pixi).arg(command).arg("--manifest-path").arg(manifest);
    // Variables, because a pixi that does not know one of them still works.
    spec.env.insert("PIXI_COLOR".to_owned(), "never".to_owned());
    spec.env.insert("PIXI_NO_PROGRESS".to_owned(), "true".to_owned());
    spec.cwd = manifest.parent().map(Path::to_owned);
    spec
}

/// Proves that a kernel could start, and says the version of the interpreter.
pub(crate) fn validate(python: &Path) -> ProcessSpec {
    ProcessSpec::new(python).args(["-I", "-c", VALIDATION]).timeout(VALIDATION_LIMIT)
}

/// Compiles every module of the environment.
pub(crate) fn compile(python: &Path) -> ProcessSpec {
    ProcessSpec::new(python).args(["-I", "-c", COMPILATION]).timeout(COMPILATION_LIMIT)
}

/// The part of `pixi info --json` that is read. Whatever else it says is ignored.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    environments_info: Vec<EnvironmentInfo>,
}

/// One environment of a workspace.
#[derive(Deserialize)]
struct EnvironmentInfo {
    name: String,
    #[serde(default)]
    dependencies: Vec<String>,
    #[serde(default)]
    pypi_dependencies: Vec<String>,
}

/// Whether `answer`, of [`info`], has a kernel in the default environment.
///
/// # Errors
/// `Unsupported` for an answer that is none.
pub(crate) fn has_kernel(answer: &str) -> Result<bool> {
    let info: Info = understood("info", answer)?;
    let default = info.environments_info.iter().find(|environment| environment.name == DEFAULT);
    Ok(default.is_some_and(|it| {
        pypi::names(&it.dependencies, KERNEL) || pypi::names(&it.pypi_dependencies, KERNEL)
    }))
}

/// The part of `pixi shell-hook --json` that is read.
#[derive(Deserialize)]
struct Hook {
    environment_variables: Map<String, Value>,
}

/// What a workspace's interpreter is started with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Activation {
    /// Where its environment lies.
    pub(crate) prefix: PathBuf,
    /// Its variables.
    pub(crate) variables: BTreeMap<String, String>,
}

/// What `answer`, of [`shell_hook`], says.
///
/// # Errors
/// `Unsupported` for an answer that is none, or that names no environment.
pub(crate) fn activation(answer: &str) -> Result<Activation> {
    let hook: Hook = understood("shell-hook", answer)?;
    let text = |(name, value): (String, Value)| Some((name, value.as_str()?.to_owned()));
    let variables: BTreeMap<_, _> =
        hook.environment_variables.into_iter().filter_map(text).collect();
    let prefix = variables.get("CONDA_PREFIX").map(PathBuf::from).filter(|path| path.is_absolute());
    let prefix = prefix.ok_or_else(|| unknown("shell-hook", "it names no environment"))?;
    Ok(Activation { prefix, variables })
}

fn understood<'a, T: Deserialize<'a>>(command: &str, answer: &'a str) -> Result<T> {
    serde_json::from_str(answer).map_err(|error| unknown(command, &error.to_string()))
}

fn unknown(command: &str, why: &str) -> PluginError {
    PluginError::unsupported(format!(
        "`pixi {command} --json` answered what is not understood: {why}"
    ))
    .help("Update pixi (`pixi self-update`), or runtimed. The project was not changed.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIXI: &str = "/opt/pixi";

    fn line(spec: &ProcessSpec) -> String {
        assert_eq!(spec.cwd.as_deref(), Some(Path::new("/p")));
        assert_eq!((&*spec.env["PIXI_COLOR"], &*spec.env["PIXI_NO_PROGRESS"]), ("never", "true"));
        assert!(spec.timeout.is_some());
        spec.argv.join(" ")
    }

    #[test]
    fn command_lines() {
        let (pixi, manifest) = (Path::new(PIXI), Path::new("/p/pixi.toml"));
        let on = "--manifest-path /p/pixi.toml";
        assert_eq!(line(&install(pixi, manifest)), format!("{PIXI} install {on}"));
        assert_eq!(line(&info(pixi, manifest)), format!("{PIXI} info {on} --json"));
        let packages = ["six>=1".to_owned(), "a::b".to_owned()];
        assert_eq!(
            line(&add(pixi, manifest, &packages)),
            format!("{PIXI} add {on} -- six>=1 a::b")
        );
        let hook = shell_hook(pixi, manifest, false);
        assert_eq!(line(&hook), format!("{PIXI} shell-hook {on} --json"));
        assert!(!hook.env.contains_key(FROZEN));
        assert_eq!(shell_hook(pixi, manifest, true).env[FROZEN], "true");
    }

    /// Shape of pixi 0.67.
    #[test]
    fn a_kernel_counts_where_the_default_environment_has_it() {
        let info = |conda: &str, pypi: &str, name: &str| {
            format!(
                r#"{{"platform": "linux-64", "version": "0.67.1", "project_info": {{"name": "lab"}},
                "environments_info": [
                {{"name": "docs", "dependencies": ["ipykernel"], "pypi_dependencies": []}},
                {{"name": "{name}", "features": ["default"], "dependencies": [{conda}],
                "pypi_dependencies": [{pypi}], "prefix": "/p/.pixi/envs/default"}}]}}"#
            )
        };
        assert!(has_kernel(&info("\"python\", \"ipykernel\"", "", DEFAULT)).unwrap());
        assert!(has_kernel(&info("\"python\"", "\"IPyKernel\"", DEFAULT)).unwrap());
        assert!(!has_kernel(&info("\"python\"", "", DEFAULT)).unwrap());
        assert!(!has_kernel(&info("\"ipykernel\"", "", "other")).unwrap());
        assert!(!has_kernel("{}").unwrap(), "outside of a workspace");
        assert!(
            has_kernel("no JSON").unwrap_err().message.starts_with("`pixi info --json` answered")
        );
    }

    #[test]
    fn an_activation_is_a_place_and_variables() {
        let answer = r#"{"environment_variables": {"CONDA_PREFIX": "/p/.pixi/envs/default",
            "PATH": "/p/.pixi/envs/default/bin:/bin", "ODD": null}}"#;
        let activation = activation(answer).unwrap();
        assert_eq!(activation.prefix, Path::new("/p/.pixi/envs/default"));
        assert_eq!(activation.variables.keys().collect::<Vec<_>>(), ["CONDA_PREFIX", "PATH"]);
        for answer in ["", "{}", r#"{"environment_variables": {"PATH": "/bin"}}"#] {
            assert!(super::activation(answer).is_err(), "{answer}");
        }
    }
}
