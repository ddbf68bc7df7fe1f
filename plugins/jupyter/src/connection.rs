//! Where a kernel and we meet: a private folder with the connection file and the sockets.
//!
//! For: telling the kernel which sockets to open and with which key to sign.
//! Promises: nobody but our user can enter the folder; it goes away with the value.
//! Never: opens a socket.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use runtimed_plugin_api::{Channel, ErrorCode, PluginError, Result};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

/// Longest path of a Unix socket in bytes: `sun_path` holds 108 with the final zero (man 7 unix).
const SOCKET_PATH_BYTES: usize = 107;

/// The folder below the host's runtime directory that holds one folder per kernel.
pub(crate) fn folder_of_kernels(runtime: &Path) -> PathBuf {
    runtime.join("kernels")
}

/// A kernel's folder, its connection file and its key. Dropping it deletes the folder.
pub(crate) struct Connection {
    folder: TempDir,
    /// What both sides sign with.
    pub(crate) key: String,
}

impl Connection {
    /// Makes the folder and writes the connection file for a kernel of `kind`.
    ///
    /// # Errors
    /// `Invalid` when socket paths there would be too long or not UTF-8; `Denied` or `Internal` when the
    /// folder cannot be written.
    pub(crate) fn create(runtime: &Path, kind: &str) -> Result<Self> {
        let parent = folder_of_kernels(runtime);
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
        let connection = Self { folder, key: Uuid::new_v4().to_string() };
        let document = connection.document(kind)?;
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(connection.file()).map_err(failed)?;
        file.write_all(document.as_bytes()).map_err(failed)?;
        Ok(connection)
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The connection file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder().join("connection.json")
    }

    /// The socket the kernel opens for `channel`: ZeroMQ puts `-<port>` behind the address.
    pub(crate) fn socket(&self, channel: Channel) -> PathBuf {
        self.folder().join(format!("s-{}", port(channel)))
    }

    fn document(&self, kind: &str) -> Result<String> {
        let address = self.folder().join("s");
        let bytes = self.socket(Channel::Shell).as_os_str().len();
        if bytes > SOCKET_PATH_BYTES {
            return Err(PluginError::invalid(format!(
                "the kernel's socket path `{}` has {bytes} bytes; the system allows {SOCKET_PATH_BYTES}",
                self.socket(Channel::Shell).display()
            ))
            .help("Nothing was started. Set XDG_RUNTIME_DIR to a folder with a shorter path."));
        }
        let Some(address) = address.to_str() else {
            return Err(PluginError::invalid(format!("the folder `{}` is not UTF-8", address.display()))
                .help("Nothing was started. Set XDG_RUNTIME_DIR to a folder with a plain name."));
        };
        let document = json!({
            "transport": "ipc",
            "ip": address,
            "shell_port": port(Channel::Shell),
            "iopub_port": port(Channel::Iopub),
            "stdin_port": port(Channel::Stdin),
            "control_port": port(Channel::Control),
            "hb_port": 5,
            "key": self.key,
            "signature_scheme": "hmac-sha256",
            "kernel_name": kind,
        });
        Ok(serde_json::to_string_pretty(&document)?)
    }
}

/// The number that stands in for a port with ipc sockets.
fn port(channel: Channel) -> u8 {
    match channel {
        Channel::Shell => 1,
        Channel::Iopub => 2,
        Channel::Stdin => 3,
        Channel::Control => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_private_and_goes_with_its_owner() {
        let runtime = tempfile::tempdir().unwrap();
        let connection = Connection::create(runtime.path(), "python3").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(connection.folder()), 0o700);
        assert_eq!(mode(&connection.file()), 0o600);
        let document: serde_json::Value =
            serde_json::from_slice(&std::fs::read(connection.file()).unwrap()).unwrap();
        let shell = format!("{}-{}", document["ip"].as_str().unwrap(), document["shell_port"]);
        assert_eq!(Path::new(&shell), connection.socket(Channel::Shell));
        let folder = connection.folder().to_owned();
        drop(connection);
        assert!(!folder.exists());
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused_by_name() {
        let runtime = tempfile::tempdir().unwrap();
        let long = runtime.path().join("x".repeat(100));
        let error = Connection::create(&long, "python3").err().unwrap();
        assert_eq!(error.code, ErrorCode::Invalid);
        assert!(error.message.contains("107"), "{error}");
        assert_eq!(std::fs::read_dir(folder_of_kernels(&long)).unwrap().count(), 0);
    }
}
