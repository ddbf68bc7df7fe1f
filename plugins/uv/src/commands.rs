//! The command lines this provider runs.
//!
//! Promises: pure; a value that comes from a notebook is never read as an option, because options
//! that take one are written `--option=value` and packages are checked before they get here.

use std::path::Path;

use crate::origins::Origins;

/// For every uv command: its output is parsed and shown, so no colors and no moving bars.
const PLAIN: [&str; 3] = ["--color", "never", "--no-progress"];

/// What the kernel and the widgets need to load, and what is nice to have loaded once, so that its
/// bytecode is there when the first kernel starts.
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
compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, workers=1)
";

/// Where an installation may get its packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// uv's cache alone. Quick either way, and all there is without a network.
    Cache,
    /// The cache and the index.
    Index,
    /// The index, and nothing believed that the cache says about it.
    FreshIndex,
}

fn argv(program: &Path, arguments: &[&str]) -> Vec<String> {
    let program = program.display().to_string();
    std::iter::once(program).chain(arguments.iter().map(|argument| (*argument).to_owned())).collect()
}

fn uv(uv: &Path, arguments: &[&str]) -> Vec<String> {
    argv(uv, &[arguments, &PLAIN].concat())
}

/// Asks uv for its version.
pub(crate) fn version(uv: &Path) -> Vec<String> {
    argv(uv, &["--version"])
}

/// Lists interpreters on this machine as JSON.
pub(crate) fn list_pythons(uv_path: &Path) -> Vec<String> {
    uv(uv_path, &["python", "list", "--only-installed", "--output-format", "json"])
}

/// Makes an empty environment; `python` is a path, a version or a constraint.
pub(crate) fn venv(uv_path: &Path, prefix: &Path, python: &str) -> Vec<String> {
    // --no-project: a pyproject.toml above the cache directory is none of our business.
    let python = format!("--python={python}");
    uv(uv_path, &["venv", &prefix.display().to_string(), &python, "--no-project"])
}

/// What a notebook says about an installation beside the packages.
#[derive(Debug, Default)]
pub(crate) struct InstallOptions<'a> {
    /// uv's prerelease mode.
    pub(crate) prerelease: Option<&'a str>,
    /// Other places that packages come from.
    pub(crate) origins: Option<&'a Origins>,
}

/// Installs `packages` into the environment of the interpreter `python`.
pub(crate) fn install(
    uv_path: &Path,
    python: &Path,
    packages: &[String],
    options: &InstallOptions<'_>,
    source: Source,
) -> Vec<String> {
    let python = format!("--python={}", python.display());
    let mut command = uv(uv_path, &["pip", "install", "--link-mode", "hardlink", &python]);
    command.extend(options.prerelease.map(|mode| format!("--prerelease={mode}")));
    command.extend(options.origins.iter().flat_map(|origins| origins.arguments()));
    match source {
        Source::Cache => command.push("--offline".to_owned()),
        Source::Index => {}
        Source::FreshIndex => command.push("--refresh".to_owned()),
    }
    command.extend_from_slice(packages);
    command
}

/// Imports what a kernel needs; fails with the import error on stderr.
/// Isolated, so that the daemon's own `PYTHONPATH` cannot stand in for a missing package.
pub(crate) fn validate(python: &Path) -> Vec<String> {
    argv(python, &["-I", "-c", VALIDATION])
}

/// Compiles every module of the environment.
pub(crate) fn compile(python: &Path) -> Vec<String> {
    argv(python, &["-I", "-c", COMPILATION])
}

/// Adds packages to the file of the project in `folder`. The environment follows with the next run.
pub(crate) fn add_to_project(uv_path: &Path, folder: &Path, packages: &[String]) -> Vec<String> {
    let folder = format!("--project={}", folder.display());
    let mut command = uv(uv_path, &["add", "--no-sync", &folder]);
    command.extend_from_slice(packages);
    command
}

/// Runs the Python of the project in `folder` with what a kernel needs on top, wherever it is started.
pub(crate) fn project_python(uv_path: &Path, folder: &Path) -> Vec<String> {
    let folder = format!("--project={}", folder.display());
    argv(uv_path, &["run", &folder, "--with", "ipykernel", "--with", "uv", "python"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installation_commands() {
        let packages = ["ipykernel".to_owned(), "six>=1".to_owned()];
        let command = |prerelease, source| {
            let options = InstallOptions { prerelease, origins: None };
            install(Path::new("/t/uv"), Path::new("/e/bin/python"), &packages, &options, source).join(" ")
        };
        let common =
            "/t/uv pip install --link-mode hardlink --python=/e/bin/python --color never --no-progress";
        assert_eq!(command(None, Source::Cache), format!("{common} --offline ipykernel six>=1"));
        assert_eq!(command(None, Source::Index), format!("{common} ipykernel six>=1"));
        assert_eq!(
            command(Some("allow"), Source::FreshIndex),
            format!("{common} --prerelease=allow --refresh ipykernel six>=1")
        );
    }

    #[test]
    fn packages_go_into_a_projects_file() {
        let command = add_to_project(Path::new("uv"), Path::new("/p"), &["six>=1".to_owned()]);
        assert_eq!(command.join(" "), "uv add --no-sync --project=/p --color never --no-progress six>=1");
    }

    #[test]
    fn a_python_request_is_never_an_option() {
        let command = venv(Path::new("uv"), Path::new("/e"), "--seed");
        assert_eq!(command[..4], ["uv", "venv", "/e", "--python=--seed"]);
    }
}
