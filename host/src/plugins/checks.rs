//! What can be known about a plugin's files without running a line of them.
//!
//! For: never handing the dynamic loader something that somebody else could have put there, or that would
//! take the daemon down. Cheap checks first.
//! Never: loads anything. All of it blocks on the file system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::{Architecture, Object, ObjectKind, ObjectSegment};
use runtimed_plugin_api::adapter::{ABI_MAJOR, ABI_MINOR};
use runtimed_plugin_api::manifest::{File, Manifest, this_target};
use sha2::{Digest, Sha256};

use super::row::Problem;

/// Mode bit: others may write.
const WRITABLE_BY_OTHERS: u32 = 0o002;
/// Mode bit: the group may write.
const WRITABLE_BY_GROUP: u32 = 0o020;
/// Mode bit: in this folder only owners remove or replace what is theirs, as in /tmp.
const STICKY: u32 = 0o1000;

/// Runs every check on the plugin in `folder` and returns its library's path, absolute and resolved.
pub(super) fn check(manifest: &Manifest, folder: &Path) -> Result<PathBuf, Problem> {
    check_abi(manifest)?;
    let library = manifest.library_for_this_target().ok_or_else(|| {
        Problem::refused(
            format!("plugin `{}` has no library for {}", manifest.id, this_target()),
            "install a build of the plugin for this machine",
        )
    })?;
    let (path, bytes) = check_file(library, folder)?;
    check_sanity(&path, &bytes)?;
    for file in &manifest.files {
        check_file(file, folder)?;
    }
    Ok(path)
}

fn check_abi(manifest: &Manifest) -> Result<(), Problem> {
    let (major, minor) = (manifest.abi.major, manifest.abi.min_minor);
    let newer = (major, minor) > (ABI_MAJOR, ABI_MINOR);
    if major == ABI_MAJOR && !newer {
        return Ok(());
    }
    Err(Problem::refused(
        format!(
            "plugin `{}` needs ABI {major}.{minor}, this daemon has {ABI_MAJOR}.{ABI_MINOR}",
            manifest.id
        ),
        if newer { "update runtimed" } else { "update the plugin" },
    ))
}

/// Checks place, permissions and hash of a file, and returns where it is and what is in it.
fn check_file(file: &File, folder: &Path) -> Result<(PathBuf, Vec<u8>), Problem> {
    let named = folder.join(&file.path);
    let unreadable = |error: std::io::Error| {
        Problem::refused(format!("`{}` could not be read: {error}", named.display()), "reinstall the plugin")
    };
    let path = named.canonicalize().map_err(unreadable)?;
    if !path.starts_with(folder) {
        return Err(Problem::refused(
            format!("`{}` leads out of the plugin's folder, to `{}`", named.display(), path.display()),
            "replace the link by the file itself",
        ));
    }
    check_permissions(&path)?;
    let bytes = fs::read(&path).map_err(unreadable)?;
    if let Some(expected) = &file.sha256 {
        let found = hex::encode(Sha256::digest(&bytes));
        if found != *expected {
            return Err(Problem {
                report: Some(format!("{}\nexpected {expected}\nfound    {found}\n", path.display())),
                ..Problem::refused(
                    format!("`{}` is not the file its manifest describes", path.display()),
                    "reinstall the plugin",
                )
            });
        }
    }
    Ok((path, bytes))
}

/// Nobody but us, root and administrators may be able to change the file or any folder on the way to it.
fn check_permissions(path: &Path) -> Result<(), Problem> {
    let us = rustix::process::geteuid().as_raw();
    for place in path.ancestors() {
        let metadata = fs::symlink_metadata(place).map_err(|error| {
            Problem::refused(
                format!("`{}` could not be examined: {error}", place.display()),
                "reinstall the plugin",
            )
        })?;
        let (owner, group, mode) = (metadata.uid(), metadata.gid(), metadata.mode());
        if owner != us && owner != 0 {
            return Err(Problem::refused(
                format!("`{}` belongs to another user (uid {owner})", place.display()),
                format!("if you trust it: chown {us} '{}'", place.display()),
            ));
        }
        let sticky = metadata.is_dir() && mode & STICKY != 0;
        if mode & WRITABLE_BY_OTHERS != 0 && !sticky {
            return Err(Problem::refused(
                format!("everybody can write to `{}`", place.display()),
                format!("chmod o-w '{}'", place.display()),
            ));
        }
        if mode & WRITABLE_BY_GROUP != 0 && !sticky && !is_private_group(owner, group) {
            return Err(Problem::refused(
                format!("the group {group} can write to `{}`", place.display()),
                format!("chmod g-w '{}'", place.display()),
            ));
        }
    }
    Ok(())
}

/// Whether a group has no members but the owner: by convention it then has the owner's number.
/// On macOS the administrators' group, who can become root anyway, owns /Applications.
fn is_private_group(owner: u32, group: u32) -> bool {
    const MACOS_ADMIN: u32 = 80;
    owner == group || (cfg!(target_os = "macos") && group == MACOS_ADMIN)
}

/// A library for this machine, whole. The loader maps segments without asking whether the file has them,
/// and the process dies of SIGBUS when it has not.
fn check_sanity(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let broken = |what: String| {
        Problem::refused(
            format!("`{}` is not a usable library: {what}", path.display()),
            "reinstall the plugin",
        )
    };
    let library = object::File::parse(bytes).map_err(|error| broken(error.to_string()))?;
    if library.kind() != ObjectKind::Dynamic {
        return Err(broken("it is not a dynamic library".to_owned()));
    }
    let expected = match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        other => return Err(broken(format!("plugins for {other} are not supported yet"))),
    };
    if library.architecture() != expected {
        return Err(broken(format!("it is for {:?}, this machine is {expected:?}", library.architecture())));
    }
    let length = bytes.len() as u64;
    for segment in library.segments() {
        let (start, size) = segment.file_range();
        if start.checked_add(size).is_none_or(|end| end > length) {
            return Err(broken("it is cut short".to_owned()));
        }
    }
    Ok(())
}
