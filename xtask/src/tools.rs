//! The tools tests and benchmarks need, under `target/test-tools`.
//!
//! Promises: made once and kept; everything comes from the Python package index through `python3 -m pip`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::workspace;

/// Version of uv that tests use; any recent one will do.
const UV: &str = "uv>=0.8";

/// What a bare kernel needs, for the floor under every execution figure and for kernel tests.
const KERNEL: &[&str] = &["ipykernel", "jupyter_client", "nbformat"];

/// Paths of everything tests may use.
pub(crate) struct Tools {
    /// Python of a venv that has the unmodified PyPI client; none where there is no client for this system.
    pub(crate) client_python: Option<PathBuf>,
    /// Python of a venv that has ipykernel, jupyter_client and nbformat.
    pub(crate) kernel_python: PathBuf,
    /// Folder that holds `uv`.
    pub(crate) uv_dir: PathBuf,
    /// One package cache for all daemons of all tests.
    pub(crate) uv_cache: PathBuf,
    /// The same for those that use pip.
    pip_cache: PathBuf,
}

/// Makes what is missing. None, with a warning, if the package index cannot be reached: the tests that
/// need the tools say that they are skipped, then.
pub(crate) fn prepare() -> Result<Option<Tools>> {
    let folder = workspace::target().join("test-tools");
    std::fs::create_dir_all(&folder)?;
    let client = match client(&folder.join("client-venv"))? {
        Client::Ready(python) => Some(python),
        Client::NotForThisSystem => None,
        Client::Unreachable => {
            eprintln!(
                "warning: the package index cannot be reached; tests with kernels and clients are skipped"
            );
            return Ok(None);
        }
    };
    let kernel = venv(folder.join("kernel-venv"), KERNEL)?;
    let uv = venv(folder.join("uv-venv"), &[UV])?;
    Ok(Some(Tools {
        client_python: client,
        kernel_python: kernel.join("bin/python"),
        uv_dir: uv.join("bin"),
        uv_cache: folder.join("uv-cache"),
        pip_cache: folder.join("pip-cache"),
    }))
}

/// What became of the PyPI client.
enum Client {
    Ready(PathBuf),
    /// The venv script knows Linux only.
    NotForThisSystem,
    Unreachable,
}

fn client(folder: &Path) -> Result<Client> {
    if !cfg!(target_os = "linux") {
        eprintln!("warning: the PyPI client is set up on Linux only; its tests are skipped");
        return Ok(Client::NotForThisSystem);
    }
    let made = workspace::output(workspace::command("sh").arg("xtask/tools/real-client.sh").arg(folder));
    match made {
        Ok(_) => Ok(Client::Ready(folder.join("bin/python"))),
        // The script's own words.
        Err(error) if error.to_string().contains("cannot be reached") => Ok(Client::Unreachable),
        Err(error) => Err(error.context("could not make a venv with the PyPI client")),
    }
}

impl Tools {
    /// Tells a test runner or a daemon where the tools are.
    pub(crate) fn apply(&self, command: &mut Command) -> Result<()> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.uv_dir.clone()).chain(std::env::split_paths(&path));
        command
            .env("PATH", std::env::join_paths(path)?)
            .env("UV_CACHE_DIR", &self.uv_cache)
            .env("PIP_CACHE_DIR", &self.pip_cache)
            .env("RUNTIMED_TEST_KERNEL_PYTHON", &self.kernel_python)
            .env("RUNTIMED_TEST_UV", self.uv_dir.join("uv"));
        if let Some(python) = &self.client_python {
            command.env("RUNTIMED_TEST_CLIENT_PYTHON", python);
        }
        Ok(())
    }
}

/// A venv with `packages`, made again if a marker does not say that it is complete.
fn venv(folder: PathBuf, packages: &[&str]) -> Result<PathBuf> {
    let marker = folder.join("complete");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&marker).is_ok_and(|have| have == wanted) {
        return Ok(folder);
    }
    // Without its own pip, a venv needs no ensurepip, which Debian packages apart.
    workspace::run(
        workspace::command("python3").args(["-m", "venv", "--without-pip", "--clear"]).arg(&folder),
    )?;
    let site = workspace::output(workspace::command(folder.join("bin/python")).args([
        "-I",
        "-c",
        "import sysconfig; print(sysconfig.get_path('platlib'))",
    ]))?;
    workspace::run(
        workspace::command("python3")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", site.trim()])
            .args(packages),
    )?;
    // `--target` puts scripts into the target's bin folder.
    for entry in std::fs::read_dir(PathBuf::from(site.trim()).join("bin")).into_iter().flatten().flatten() {
        let link = folder.join("bin").join(entry.file_name());
        if !link.exists() {
            std::os::unix::fs::symlink(entry.path(), link)?;
        }
    }
    std::fs::write(marker, wanted)?;
    Ok(folder)
}
