//! Who else could have written a plugin's file, as a reason not to run it.

use std::path::Path;

use runtimed_plugin_api::permissions;

use super::row::Problem;

/// Nobody but us, root and administrators may be able to change the file or any folder on the way to it.
/// `path` is absolute and has no links in it.
pub(super) fn check_permissions(path: &Path) -> Result<(), Problem> {
    permissions::check(path, rustix::process::geteuid().as_raw())
        .map_err(|exposed| Problem::refused(exposed.problem, exposed.remedy))
}
