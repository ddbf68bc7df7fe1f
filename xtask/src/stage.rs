//! Compiles everything and lays it out the way it is installed.
//!
//! Promises: `target/dist/bin/{runtimed,runt}` and `target/dist/lib/runt/plugins/<id>/` hold one build;
//! files are replaced by rename, so a daemon that runs from there keeps what it has mapped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::workspace;

/// Builds the workspace and stages it; returns `target/dist`.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    // What only the fuzzer needs would be built into the plugins with it.
    cargo.args(["build", "--workspace", "--exclude", "xtask", "--exclude", "runtimed-fuzz"]);
    if release {
        cargo.arg("--release");
    }
    workspace::run(&mut cargo)?;
    let built = workspace::target().join(if release { "release" } else { "debug" });
    let dist = workspace::target().join("dist");
    for binary in ["runtimed", "runt"] {
        replace(&built.join(binary), &dist.join("bin").join(binary))?;
    }
    for plugin in bundled_plugins()? {
        stage_plugin(&plugin, &built, &dist.join("lib/runt/plugins"))?;
    }
    Ok(dist)
}

/// Folders of the plugins that ship with the daemon: the workspace's members under `plugins/`.
fn bundled_plugins() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(workspace::root().join("plugins"))? {
        let folder = entry?.path();
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        if folder.join("plugin.toml").is_file() && manifest.contains("workspace = true") {
            found.push(folder);
        }
    }
    found.sort();
    Ok(found)
}

/// Lays out one plugin below `plugins`, in a folder named like its id, with the hashes of its files.
pub(crate) fn stage_plugin(folder: &Path, built: &Path, plugins: &Path) -> Result<()> {
    let source = folder.join("plugin.toml");
    let named = || format!("in {}", source.display());
    let mut manifest: toml::Table = fs::read_to_string(&source)?.parse().with_context(named)?;
    let id = manifest.get("id").and_then(|id| id.as_str()).context("no `id`").with_context(named)?.to_owned();
    let staged = plugins.join(&id);
    // Every target's library is listed; only the one that was built here can be staged and hashed.
    let libraries = manifest
        .get_mut("library")
        .and_then(|l| l.as_table_mut())
        .context("no [library]")
        .with_context(named)?;
    libraries.retain(|target, _| *target == this_target());
    let library = libraries
        .get_mut(&this_target())
        .and_then(|l| l.as_table_mut())
        .with_context(|| format!("no library for {}", this_target()))
        .with_context(named)?;
    stage_file(library, built, &staged)?;
    for file in manifest.get_mut("files").and_then(|f| f.as_array_mut()).into_iter().flatten() {
        stage_file(
            file.as_table_mut().context("[[files]] is not a table").with_context(named)?,
            built,
            &staged,
        )?;
    }
    let schema = folder.join("settings.schema.json");
    if schema.is_file() {
        replace(&schema, &staged.join("settings.schema.json"))?;
    }
    write(&staged.join("plugin.toml"), toml::to_string(&manifest)?.as_bytes(), 0o644)
}

/// Copies the file an entry names from the build and records its hash in the entry.
fn stage_file(entry: &mut toml::Table, built: &Path, staged: &Path) -> Result<()> {
    let path = entry.get("path").and_then(|path| path.as_str()).context("an entry has no `path`")?.to_owned();
    let name = Path::new(&path).file_name().context("a path has no file name")?;
    let bytes = replace(&built.join(name), &staged.join(&path))?;
    entry.insert("sha256".into(), hex::encode(Sha256::digest(&bytes)).into());
    Ok(())
}

/// This machine the way manifests name it: `linux-x86_64`, `macos-aarch64`.
fn this_target() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Copies `from` to `to` by rename and returns the bytes.
fn replace(from: &Path, to: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(from).with_context(|| format!("could not read {}", from.display()))?;
    let executable = from.extension().is_none();
    write(to, &bytes, if executable { 0o755 } else { 0o644 })?;
    Ok(bytes)
}

fn write(to: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = to.parent().context("no parent folder")?;
    fs::create_dir_all(folder)?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.persist(to).with_context(|| format!("could not write {}", to.display()))?;
    Ok(())
}
