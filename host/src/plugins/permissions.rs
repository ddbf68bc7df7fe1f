//! Who else could have written a file.
//!
//! For: never running what another user of the machine put there.
//! Promises: the file itself and every folder on the way to it are looked at.
//! Never: changes anything.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::row::Problem;

/// Mode bit: others may write.
const WRITABLE_BY_OTHERS: u32 = 0o002;
/// Mode bit: the group may write.
const WRITABLE_BY_GROUP: u32 = 0o020;
/// Mode bit: in this folder only owners remove or replace what is theirs, as in /tmp.
const STICKY: u32 = 0o1000;

/// Nobody but us, root and administrators may be able to change the file or any folder on the way to it.
/// `path` is absolute and has no links in it.
pub(super) fn check_permissions(path: &Path) -> Result<(), Problem> {
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
