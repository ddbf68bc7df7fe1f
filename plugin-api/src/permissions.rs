//! Who else could have written a file.
//!
//! For: the daemon, which runs nothing that another user of the machine put there, and the command line, which
//! says so before the daemon does.
//! Promises: the file itself and every folder on the way to it are looked at.
//! Never: changes anything.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Mode bit: others may write.
const WRITABLE_BY_OTHERS: u32 = 0o002;
/// Mode bit: the group may write.
const WRITABLE_BY_GROUP: u32 = 0o020;
/// Mode bit: in this folder only owners remove or replace what is theirs, as in /tmp.
const STICKY: u32 = 0o1000;

/// Somebody else may write to a file, or put another one in its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Exposed {
    /// One sentence that names the place.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// Checks that nobody but the user with the number `us`, root and administrators can change the file at `path`
/// or any folder on the way to it. `path` is absolute and has no links in it. Blocks on the file system.
///
/// # Errors
/// [`Exposed`] for the first place, seen from the file, that somebody else can change or that cannot be examined.
pub fn check(path: &Path, us: u32) -> Result<(), Exposed> {
    for place in path.ancestors() {
        let shown = place.display();
        let exposed = |problem: String, remedy: String| Err(Exposed { problem, remedy });
        let metadata = match fs::symlink_metadata(place) {
            Ok(metadata) => metadata,
            Err(error) => {
                let problem = format!("`{shown}` could not be examined: {error}");
                return exposed(problem, "reinstall the plugin".to_owned());
            }
        };
        let (owner, group, mode) = (metadata.uid(), metadata.gid(), metadata.mode());
        if owner != us && owner != 0 {
            let problem = format!("`{shown}` belongs to another user (uid {owner})");
            return exposed(problem, format!("if you trust it: chown {us} '{shown}'"));
        }
        let sticky = metadata.is_dir() && mode & STICKY != 0;
        if mode & WRITABLE_BY_OTHERS != 0 && !sticky {
            return exposed(format!("everybody can write to `{shown}`"), format!("chmod o-w '{shown}'"));
        }
        if mode & WRITABLE_BY_GROUP != 0 && !sticky && !is_private_group(owner, group) {
            let problem = format!("the group {group} can write to `{shown}`");
            return exposed(problem, format!("chmod g-w '{shown}'"));
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
