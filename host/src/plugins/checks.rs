//! What can be known about a plugin's files without running a line of them.
//!
//! For: never handing the dynamic loader something that somebody else could have put there, or that would
//! take the daemon down. Cheap checks first.
//! Never: loads anything. All of it blocks on the file system.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::{Architecture, Object, ObjectKind, ObjectSegment, ReadCache};
use runtimed_plugin_api::adapter::{ABI_MAJOR, ABI_MINOR};
use runtimed_plugin_api::manifest::{FILE_NAME, File, Manifest, this_target};
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
    check_file(&File { path: FILE_NAME.into(), sha256: None }, folder)?;
    for file in &manifest.files {
        check_file(file, folder)?;
    }
    let (path, opened, found) = check_file(library, folder)?;
    check_sanity(&path, &opened, found.len())?;
    check_unchanged(&path, &found)?;
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

/// Checks place, permissions and hash of a file. Returns where it is, the open file, and how it was found.
fn check_file(file: &File, folder: &Path) -> Result<(PathBuf, fs::File, Metadata), Problem> {
    let named = folder.join(&file.path);
    let unreadable = |error: io::Error| {
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
    // Asked before it is opened: opening a pipe waits for a writer, for ever.
    if !fs::metadata(&path).map_err(unreadable)?.is_file() {
        return Err(Problem::refused(format!("`{}` is not a file", path.display()), "reinstall the plugin"));
    }
    let mut opened = fs::File::open(&path).map_err(unreadable)?;
    let found = opened.metadata().map_err(unreadable)?;
    if let Some(expected) = &file.sha256 {
        let mut digest = Sha256::new();
        io::copy(&mut opened, &mut digest).map_err(unreadable)?;
        let found = hex::encode(digest.finalize());
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
    Ok((path, opened, found))
}

/// What the loader will open by its name is what was read here: an update that replaced or rewrote the file
/// meanwhile is noticed. Whoever could do so in the moment that is left is us or root, as was checked.
fn check_unchanged(path: &Path, found: &Metadata) -> Result<(), Problem> {
    let identity = |it: &Metadata| (it.dev(), it.ino(), it.size(), it.ctime(), it.ctime_nsec());
    match fs::symlink_metadata(path) {
        Ok(now) if identity(&now) == identity(found) => Ok(()),
        _ => Err(Problem::refused(
            format!("`{}` changed while it was being checked", path.display()),
            "restart the daemon when the update is done",
        )),
    }
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
fn check_sanity(path: &Path, file: &fs::File, length: u64) -> Result<(), Problem> {
    let broken = |what: String| {
        Problem::refused(
            format!("`{}` is not a usable library: {what}", path.display()),
            "reinstall the plugin",
        )
    };
    let content = ReadCache::new(file);
    let library = object::File::parse(&content).map_err(|error| broken(error.to_string()))?;
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
    for segment in library.segments() {
        let (start, size) = segment.file_range();
        if start.checked_add(size).is_none_or(|end| end > length) {
            return Err(broken("it is cut short".to_owned()));
        }
    }
    Ok(())
}
