//! Copies a plugin to where it can be tried out, and knows every byte of it.
//!
//! Promises: what is hashed is what is written; the copy's manifest names the hash of every file, and nothing
//! but this machine's library; nobody else can write to the copy.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use runtimed_plugin_api::manifest::{FILE_NAME, Manifest, this_target};
use sha2::{Digest, Sha256};

use super::origin::{Origin, OriginFile};
use super::user_folder::create_private;

/// A copied plugin.
pub(crate) struct Staged {
    /// Named like the plugin.
    pub(crate) folder: PathBuf,
    /// As it is in the copy.
    pub(crate) manifest: Manifest,
    /// SHA-256 in lower-case hex of every file, the manifest included, by path below the folder.
    pub(crate) files: BTreeMap<PathBuf, String>,
}

/// Copies a plugin into `<into>/<id>`.
///
/// # Errors
/// For a file that cannot be copied, or is not what the manifest says.
pub(crate) fn stage(origin: &Origin, into: &Path) -> anyhow::Result<Staged> {
    let folder = into.join(&origin.manifest.id);
    create_private(&folder)?;
    let mut files = BTreeMap::new();
    for file in &origin.files {
        let hash = copy(file, &folder.join(&file.path))
            .with_context(|| format!("`{}` could not be copied", file.at.display()))?;
        if let Some(expected) = file.sha256.as_ref().filter(|expected| **expected != hash) {
            bail!(
                "`{}` is not the file its manifest describes: expected SHA-256 {expected}, found {hash}; get the \
                 plugin again, or correct the manifest if you built it yourself",
                file.at.display()
            );
        }
        files.insert(file.path.clone(), hash);
    }
    let mut table = origin.table.clone();
    fill_in(&mut table, &files);
    let text = toml::to_string(&table)?;
    let file = folder.join(FILE_NAME);
    let manifest = Manifest::parse(&text, &file)?;
    let mut out = File::create(&file)?;
    out.write_all(text.as_bytes())?;
    finish(&out, false)?;
    files.insert(FILE_NAME.into(), hex::encode(Sha256::digest(&text)));
    Ok(Staged { folder, manifest, files })
}

/// SHA-256 of a file in lower-case hex.
///
/// # Errors
/// Those of the file system.
pub(crate) fn sha256(file: &Path) -> io::Result<String> {
    // Asked before it is opened: opening a pipe waits for a writer, for ever.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut digest = Sha256::new();
    io::copy(&mut File::open(file)?, &mut digest)?;
    Ok(hex::encode(digest.finalize()))
}

/// Writes the hashes into the manifest, and leaves the other machines' libraries out: they are not there.
fn fill_in(manifest: &mut toml::Table, files: &BTreeMap<PathBuf, String>) {
    let fill = |entry: &mut toml::Value| {
        let hash =
            entry.get("path").and_then(|path| path.as_str()).and_then(|path| files.get(Path::new(path)));
        if let (Some(hash), Some(entry)) = (hash.cloned(), entry.as_table_mut()) {
            entry.insert("sha256".to_owned(), hash.into());
        }
    };
    if let Some(libraries) = manifest.get_mut("library").and_then(|it| it.as_table_mut()) {
        libraries.retain(|target, _| *target == this_target());
        libraries.iter_mut().for_each(|(_, entry)| fill(entry));
    }
    manifest.get_mut("files").and_then(|it| it.as_array_mut()).into_iter().flatten().for_each(fill);
}

/// Copies a file to a new place and returns the hash of what was written.
fn copy(file: &OriginFile, to: &Path) -> anyhow::Result<String> {
    if let Some(folder) = to.parent() {
        create_private(folder)?;
    }
    let (mut from, mut out) = (File::open(&file.at)?, File::create_new(to)?);
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        digest.update(bytes);
        out.write_all(bytes)?;
    }
    finish(&out, from.metadata()?.permissions().mode() & 0o111 != 0)?;
    Ok(hex::encode(digest.finalize()))
}

/// Makes a copied file durable. Everybody may read it, nobody else may write it.
fn finish(file: &File, executable: bool) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "manifest_version = 1\nid = \"x.y\"\nname = \"X\"\nversion = \"1.0.0\"\nabi = { major = 1 }\n\
                            later = \"kept\"\n[library]\nLINE\nplan9-mips = { path = \"other.so\" }\n\
                            [[files]]\npath = \"bin/tool\"\n";

    fn origin(folder: &Path, extra: &str) -> Origin {
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::write(folder.join("libx.so"), "library").unwrap();
        fs::write(folder.join("bin/tool"), "tool").unwrap();
        fs::write(folder.join("notes.txt"), "not named").unwrap();
        fs::set_permissions(folder.join("bin/tool"), Permissions::from_mode(0o777)).unwrap();
        let library = format!("{} = {{ path = \"libx.so\"{extra} }}", this_target());
        fs::write(folder.join(FILE_NAME), MANIFEST.replace("LINE", &library)).unwrap();
        Origin::of_folder(folder).unwrap()
    }

    #[test]
    fn a_copy_is_complete_pinned_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let (from, into) = (folder.path().join("from"), folder.path().join("into"));
        let staged = stage(&origin(&from, ""), &into).unwrap();
        assert_eq!(staged.folder, into.join("x.y"));
        let paths: Vec<_> = staged.files.keys().map(|path| path.display().to_string()).collect();
        assert_eq!(paths, ["bin/tool", "libx.so", "plugin.toml"]);
        for (path, hash) in &staged.files {
            assert_eq!(sha256(&staged.folder.join(path)).unwrap(), *hash);
        }
        let mode = |path: &str| fs::metadata(staged.folder.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("bin/tool"), mode("libx.so"), mode("bin"), mode("")), (0o755, 0o644, 0o700, 0o700));
        assert_eq!(staged.manifest.library.len(), 1);
        let library = staged.manifest.library_for_this_target().unwrap();
        assert_eq!(library.sha256.as_ref(), staged.files.get(Path::new("libx.so")));
        assert!(fs::read_to_string(staged.folder.join(FILE_NAME)).unwrap().contains("later = \"kept\""));
        assert!(!staged.folder.join("notes.txt").exists());
    }

    #[test]
    fn a_file_that_is_not_what_its_manifest_says_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let wrong = "0".repeat(64);
        let origin = origin(&folder.path().join("from"), &format!(", sha256 = \"{wrong}\""));
        let error = stage(&origin, folder.path()).map(|_| ()).unwrap_err().to_string();
        let right = sha256(&folder.path().join("from/libx.so")).unwrap();
        assert!(error.contains(&wrong) && error.contains(&right), "{error}");
    }
}
