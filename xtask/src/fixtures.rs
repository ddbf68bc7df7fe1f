//! Compiles a small plugin and a small host against every released ABI and against what must be refused.
//!
//! For: the tests that load each of them in each host; plugin-api/fixtures/README.md has the list.
//! Promises: under `target/abi-fixtures`, made again only when something it is made of has changed.
//! Nothing but our own few files is compiled: the dependencies are those of the daemon's build.

mod variants;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::workspace;
use variants::Variant;

/// The package whose dependencies the fixtures need.
const ABI: &str = "runtimed-plugin-abi";
/// Where the fixtures' own sources are.
const SOURCES: &str = "plugin-api/fixtures";
/// What every compilation is told. Nobody steps through a fixture, and nobody waits for one.
const FLAGS: &[&str] =
    &["--edition=2024", "--cap-lints=allow", "-Copt-level=0", "-Cdebuginfo=0", "-Cstrip=symbols"];

/// Compiles what is missing and returns the folder.
pub(crate) fn build() -> Result<PathBuf> {
    let folder = workspace::target().join("abi-fixtures");
    let compiler = Compiler::new()?;
    let variants = variants::all()?;
    thread::scope(|scope| {
        let running: Vec<_> = variants
            .iter()
            .map(|variant| {
                scope.spawn(|| make(variant, &folder, &compiler).with_context(|| variant.name.clone()))
            })
            .collect();
        let ends =
            running.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a compilation panicked")));
        ends.collect::<Result<Vec<()>>>()
    })?;
    Ok(folder)
}

/// One variant's library, and its host if it has one.
fn make(variant: &Variant, folder: &Path, compiler: &Compiler) -> Result<()> {
    let name = &variant.name;
    let plugin = folder.join(format!("plugin-{name}.so"));
    let probe = variant.probe.then(|| folder.join(format!("probe-{name}")));
    let work = folder.join("build").join(name);
    let sources = sources(variant)?;

    let mut hash = Sha256::new();
    hash.update(format!("{:?} {FLAGS:?} {:?} {compiler:?}", variant.abi.version, variant.flags));
    for (path, text) in &sources {
        hash.update(format!("{path}\n{text}"));
    }
    let (stamp, hash) = (work.join("stamp"), hex::encode(hash.finalize()));
    let there = plugin.is_file() && probe.as_ref().is_none_or(|probe| probe.is_file());
    if there && fs::read_to_string(&stamp).is_ok_and(|old| old == hash) {
        return Ok(());
    }

    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    for (path, text) in &sources {
        let path = work.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&work))?;
        fs::write(path, text)?;
    }
    let abi = work.join("libruntimed_plugin_abi.rlib");
    compiler.compile(variant, &work.join("src/lib.rs"), "rlib", "runtimed_plugin_abi", &abi)?;
    compiler.compile(variant, &work.join("plugin.rs"), "cdylib", "plugin", &plugin)?;
    if let Some(probe) = probe {
        compiler.compile(variant, &work.join("probe.rs"), "bin", "probe", &probe)?;
    }
    fs::write(stamp, hash)?;
    Ok(())
}

/// The variant's files, edited: path below its folder, and text.
fn sources(variant: &Variant) -> Result<Vec<(String, String)>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(variant.abi.folder.join("src"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        sources.push((format!("src/{name}"), fs::read_to_string(&path)?));
    }
    for name in ["plugin.rs", "probe.rs"] {
        sources.push((name.to_owned(), fs::read_to_string(workspace::root().join(SOURCES).join(name))?));
    }
    sources.sort();
    for edit in variant.edits {
        let file = sources.iter_mut().find(|(path, _)| path == edit.file());
        let (_, text) = file.with_context(|| format!("there is no {}", edit.file()))?;
        *text = edit.apply(text)?;
    }
    Ok(sources)
}

/// The compiler of the daemon's build, and the libraries it made.
#[derive(Debug)]
struct Compiler {
    program: std::ffi::OsString,
    version: String,
    /// `NAME=FILE` for each dependency of the ABI crate.
    externs: Vec<String>,
    /// Folder of what they depend on themselves.
    libraries: PathBuf,
}

impl Compiler {
    fn new() -> Result<Self> {
        let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let version = workspace::output(workspace::command(&program).arg("--version"))?.trim().to_owned();
        let mut metadata = workspace::cargo();
        // What other systems need may not be there, and is not wanted.
        metadata.args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            &workspace::host()?,
        ]);
        let metadata = workspace::output(&mut metadata)?;
        let metadata: Value = serde_json::from_str(&metadata)?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let packages = list(&metadata["packages"]);
        let abi = packages.iter().find(|package| package["name"] == ABI).context("no ABI crate")?;
        let nodes = list(&metadata["resolve"]["nodes"]);
        let abi =
            nodes.iter().find(|node| node["id"] == abi["id"]).context("the ABI crate is not resolved")?;

        // The build has been made before; asking again tells where everything is.
        let mut build = workspace::cargo();
        build.args(["build", "--workspace", "--exclude=xtask", "--quiet", "--message-format=json"]);
        let messages = workspace::output(&mut build)?;
        let built = messages.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let mut externs = Vec::new();
        let mut libraries = None;
        for dependency in list(&abi["deps"]) {
            let name = dependency["name"].as_str().unwrap_or_default();
            let artifact = built.iter().filter(|it| it["package_id"] == dependency["pkg"]);
            let files = artifact.flat_map(|it| list(&it["filenames"]));
            let mut files = files.filter_map(|file| file.as_str().map(PathBuf::from));
            let file = files.find(|file| file.extension().is_some_and(|it| it == "rlib"));
            let file = file.with_context(|| format!("{ABI} needs {name}, which was not built"))?;
            externs.push(format!("{name}={}", file.display()));
            libraries = file.parent().map(Path::to_path_buf);
        }
        Ok(Self { program, version, externs, libraries: libraries.context("no dependencies")? })
    }

    /// Compiles `source`, which may use the ABI crate beside it once that is there.
    fn compile(&self, variant: &Variant, source: &Path, kind: &str, name: &str, to: &Path) -> Result<()> {
        let (major, minor) = variant.abi.version;
        let mut rustc = workspace::command(&self.program);
        rustc.args(FLAGS).args(variant.flags).args(["--crate-type", kind, "--crate-name", name]);
        rustc.arg("-o").arg(to).arg(source);
        rustc.arg("-L").arg(format!("dependency={}", self.libraries.display()));
        for one in &self.externs {
            rustc.args(["--extern", one]);
        }
        if kind != "rlib" {
            let abi = source.with_file_name("libruntimed_plugin_abi.rlib");
            rustc.arg("--extern").arg(format!("runtimed_plugin_abi={}", abi.display()));
        }
        rustc
            .env("CARGO_PKG_NAME", ABI)
            .env("CARGO_PKG_VERSION", format!("{major}.{minor}.0"))
            .env("CARGO_PKG_VERSION_MAJOR", major.to_string())
            .env("CARGO_PKG_VERSION_MINOR", minor.to_string())
            .env("CARGO_PKG_VERSION_PATCH", "0")
            .env("RUNTIMED_PLUGIN_RUSTC", &self.version)
            .env("FIXTURE_ID", format!("fixture-{}", variant.name));
        workspace::output(&mut rustc).map(drop)
    }
}
