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

/// Kernels other than Python's: one that ipykernel is the base of, and one that has nothing to do with it.
const KERNELS: &[&str] = &["bash_kernel==0.10.0", "deno==2.9.8"];

/// The client that a server for agents is tested with.
const MCP: &[&str] = &["mcp==2.3.0"];

/// Packages whose sources hold notebooks that other tools wrote, with the SHA-256 of each archive.
const NOTEBOOKS: &[(&str, &str)] = &[
    ("nbformat==5.11.1", "32d4521c68c6e7d5b29c76defaeed9f42ea733142b9b19f88277ce10390b9c4d"),
    ("nbconvert==7.17.2", "344a218e8595117ce37396ed025d994f146d076226ebac59255a2fa085ab24d8"),
    ("nbclient==0.11.0", "04a134a5b087f2c5887f228aca155db50169b8cd9334dee6942c8e927e56081a"),
    ("papermill==2.7.0", "ec10b37594a060662f57269e1ebd108c209d204450f00fdfeb70a1c7cfb7fbc8"),
    ("nbval==0.11.0", "77c95797607b0a968babd2597ee3494102d25c3ad37435debbdac0e46e379094"),
];

/// Unpacks the notebooks of source archives into a folder each. Arguments: from, to.
const UNPACK: &str = "
import pathlib, sys, tarfile
for archive in sorted(pathlib.Path(sys.argv[1]).glob('*.tar.gz')):
    with tarfile.open(archive) as members:
        for member in members:
            if member.isfile() and member.name.endswith('.ipynb'):
                target = pathlib.Path(sys.argv[2], member.name.replace('/', '__'))
                target.write_bytes(members.extractfile(member).read())
";

/// Paths of everything tests may use.
pub(crate) struct Tools {
    /// Python of a venv that has the unmodified PyPI client; none where there is no client for this system.
    pub(crate) client_python: Option<PathBuf>,
    /// Python of a venv that has ipykernel, jupyter_client and nbformat.
    pub(crate) kernel_python: PathBuf,
    /// Venv that has [`KERNELS`].
    kernels: PathBuf,
    /// Python of a venv that has [`MCP`].
    mcp_python: PathBuf,
    /// Folder that holds `uv`.
    pub(crate) uv_dir: PathBuf,
    /// One package cache for all daemons of all tests.
    pub(crate) uv_cache: PathBuf,
    /// The same for those that use pip.
    pip_cache: PathBuf,
    /// Folder with notebooks of many origins.
    notebooks: PathBuf,
    /// A conda channel made of this machine's Python; none where the script knows no way.
    conda_channel: Option<PathBuf>,
    /// rattler's cache of unpacked packages, for all tests.
    rattler_cache: PathBuf,
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
    let kernels = venv(folder.join("kernels-venv"), KERNELS)?;
    let mcp = venv(folder.join("mcp-venv"), MCP)?;
    let uv = venv(folder.join("uv-venv"), &[UV])?;
    Ok(Some(Tools {
        client_python: client,
        kernel_python: kernel.join("bin/python"),
        kernels,
        mcp_python: mcp.join("bin/python"),
        uv_dir: uv.join("bin"),
        uv_cache: folder.join("uv-cache"),
        pip_cache: folder.join("pip-cache"),
        notebooks: notebooks(folder.join("notebooks"))?,
        conda_channel: conda_channel(folder.join("conda-channel"))?,
        rattler_cache: folder.join("rattler-cache"),
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
            .env("RUNTIMED_TEST_KERNELS", &self.kernels)
            .env("RUNTIMED_TEST_MCP_PYTHON", &self.mcp_python)
            .env("RUNTIMED_TEST_NOTEBOOKS", &self.notebooks)
            .env("RATTLER_CACHE_DIR", &self.rattler_cache)
            .env("RUNTIMED_TEST_UV", self.uv_dir.join("uv"));
        if let Some(python) = &self.client_python {
            command.env("RUNTIMED_TEST_CLIENT_PYTHON", python);
        }
        if let Some(channel) = &self.conda_channel {
            command.env("CONDA_CHANNELS", channel).env("CONDA_DEFAULT_PYTHON", ">=3.9");
        }
        Ok(())
    }
}

/// A folder with the notebooks of [`NOTEBOOKS`], made again if a marker does not say that it is complete.
fn notebooks(folder: PathBuf) -> Result<PathBuf> {
    let marker = folder.join("complete");
    let wanted: String =
        NOTEBOOKS.iter().map(|(package, sha256)| format!("{package} --hash=sha256:{sha256}\n")).collect();
    if std::fs::read_to_string(&marker).is_ok_and(|have| have == wanted) {
        return Ok(folder);
    }
    // Put in place in one step: others may be at it as well.
    let making = tempfile::tempdir_in(workspace::target())?;
    let (list, archives, unpacked) =
        (making.path().join("list"), making.path().join("archives"), making.path().join("notebooks"));
    std::fs::write(&list, &wanted)?;
    std::fs::create_dir(&unpacked)?;
    workspace::run(
        workspace::command("python3")
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
            .args(["--no-binary", ":all:", "--require-hashes", "--dest"])
            .arg(&archives)
            .arg("--requirement")
            .arg(&list),
    )?;
    workspace::run(workspace::command("python3").args(["-I", "-c", UNPACK]).args([&archives, &unpacked]))?;
    std::fs::write(unpacked.join("complete"), wanted)?;
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::rename(&unpacked, &folder)?;
    Ok(folder)
}

/// A conda channel at `folder`, made again if a marker does not say that it is complete.
fn conda_channel(folder: PathBuf) -> Result<Option<PathBuf>> {
    if !cfg!(target_os = "linux") {
        eprintln!(
            "warning: the conda channel is made on Linux only; tests with conda environments are skipped"
        );
        return Ok(None);
    }
    let script = workspace::root().join("xtask/tools/conda-channel.py");
    let (marker, wanted) = (folder.join("complete"), std::fs::read_to_string(&script)?);
    if std::fs::read_to_string(&marker).is_ok_and(|have| have == wanted) {
        return Ok(Some(folder));
    }
    // Put in place in one step: others may be at it as well.
    let making = tempfile::tempdir_in(workspace::target().join("test-tools"))?;
    let made = making.path().join("channel");
    workspace::run(workspace::command("python3").arg(script).arg(&made))?;
    std::fs::write(made.join("complete"), wanted)?;
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::rename(&made, &folder)?;
    Ok(Some(folder))
}

/// A venv with `packages`, made again if a marker does not say that it is complete.
fn venv(folder: PathBuf, packages: &[&str]) -> Result<PathBuf> {
    let marker = folder.join("complete");
    let wanted = format!("{}\nwith bin and share", packages.join("\n"));
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
    // `--target` puts scripts and data, such as kernelspecs, into the target's own folders.
    for name in ["bin", "share"] {
        std::fs::create_dir_all(folder.join(name))?;
        let entries = std::fs::read_dir(PathBuf::from(site.trim()).join(name));
        for entry in entries.into_iter().flatten().flatten() {
            let link = folder.join(name).join(entry.file_name());
            if !link.exists() {
                // From wherever the folder is seen: worktrees share it.
                let target = entry.path();
                let below = target.strip_prefix(&folder).map(|path| Path::new("..").join(path));
                std::os::unix::fs::symlink(below.unwrap_or(target), link)?;
            }
        }
    }
    std::fs::write(marker, wanted)?;
    Ok(folder)
}
