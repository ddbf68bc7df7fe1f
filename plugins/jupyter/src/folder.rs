//! Where a kernel, its shim and daemons meet: a private folder for each kernel.
//!
//! Promises: nobody but our user can enter it; sockets in it have names that the system takes.
//! It belongs to the shim, which deletes it at its end.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use runtimed_kernel_shim::protocol::SOCKET;
use runtimed_plugin_api::{ErrorCode, PluginError, Result};
use tempfile::TempDir;

/// Longest path of a Unix socket in bytes: `sun_path` holds 108 with the final zero (man 7 unix).
const SOCKET_PATH_BYTES: usize = 107;

/// The folder below the host's runtime directory that holds one folder per kernel.
pub(crate) fn of_kernels(runtime: &Path) -> PathBuf {
    runtime.join("kernels")
}

/// The folders that are there now.
pub(crate) fn all(runtime: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of_kernels(runtime)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Makes a folder for a kernel. Dropping it deletes it.
///
/// # Errors
/// `Invalid` when socket paths there would be too long or not UTF-8; `Denied` or `Internal` when it cannot be made.
pub(crate) fn create(runtime: &Path) -> Result<TempDir> {
    let parent = of_kernels(runtime);
    let failed = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied => ErrorCode::Denied,
            _ => ErrorCode::Internal,
        };
        PluginError::new(
            code,
            format!("could not make a folder for a kernel in `{}`: {error}", parent.display()),
        )
        .help("Nothing was started. Make the folder writable for you and start the kernel again.")
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&parent).map_err(failed)?;
    let folder = tempfile::Builder::new()
        .prefix("")
        .rand_bytes(8)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .map_err(failed)?;
    // The longest name there is.
    let socket = folder.path().join(SOCKET);
    let bytes = socket.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES {
        let socket = socket.display();
        return Err(PluginError::invalid(format!(
            "the kernel's socket path `{socket}` has {bytes} bytes; the system allows {SOCKET_PATH_BYTES}"
        ))
        .help("Nothing was started. Set XDG_RUNTIME_DIR to a folder with a shorter path."));
    }
    if socket.to_str().is_none() {
        return Err(PluginError::invalid(format!("the folder `{}` is not UTF-8", folder.path().display()))
            .help("Nothing was started. Set XDG_RUNTIME_DIR to a folder with a plain name."));
    }
    Ok(folder)
}

/// Makes the folder in that of a kernel that the kernel is started in instead of `cwd`, with a `deno.json` of this text.
/// It lies so deep that a way up that stays on the disk from `cwd` stays in the kernel's folder from there: what such a way
/// is made to mean for Deno is then nobody else's.
///
/// # Errors
/// `Internal` when it cannot be made.
pub(crate) fn configured(folder: &Path, cwd: &Path, configuration: &str) -> Result<PathBuf> {
    let place = cwd.components().fold(folder.to_owned(), |place, _| place.join("d"));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&place);
    made.and_then(|()| fs::write(place.join("deno.json"), configuration)).map_err(|error| {
        PluginError::internal(format!("could not write a deno.json in `{}`: {error}", place.display()))
            .help("Nothing was started. Free some space and start the kernel again.")
    })?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_private_and_goes_with_its_owner() {
        let runtime = tempfile::tempdir().unwrap();
        let folder = create(runtime.path()).unwrap();
        assert_eq!(folder.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(all(runtime.path()), [folder.path()]);
        drop(folder);
        assert!(all(runtime.path()).is_empty());
    }

    #[test]
    fn a_configured_folder_is_as_deep_as_the_one_it_stands_for() {
        let folder = tempfile::tempdir().unwrap();
        let place = configured(folder.path(), Path::new("/a/b"), "{}").unwrap();
        assert_eq!(place, folder.path().join("d/d/d"));
        assert_eq!(fs::read_to_string(place.join("deno.json")).unwrap(), "{}");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused_by_name() {
        let runtime = tempfile::tempdir().unwrap();
        let long = runtime.path().join("x".repeat(100));
        let error = create(&long).err().unwrap();
        assert_eq!(error.code, ErrorCode::Invalid);
        assert!(error.message.contains("107"), "{error}");
        assert!(all(&long).is_empty());
    }
}
