//! The unix socket clients connect to.
//!
//! For: `daemon.rs`, which holds the lock of its base when it binds. With `--socket`, daemons of two bases
//! may still want the same path.
//! Promises: mode 0600; removed when dropped, if it is still ours. One that the service manager opened stays, for
//! clients of the next daemon.
//! Never: replaces anything that is not a socket, or one that somebody listens on; serves another user.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Only the user may connect.
const SOCKET_MODE: u32 = 0o600;
/// Longest path of a socket, in bytes: `sun_path` without its last byte.
const MAX_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// Only the user may look into the daemon's directory.
pub const DIRECTORY_MODE: u32 = 0o700;
/// A second socket that old daemons made; it would only mislead.
const OBSOLETE_SOCKET: &str = "runtimed-sync.sock";

/// A bound socket.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    /// The file we made; none if the service manager made it.
    made: Option<Made>,
}

/// A socket's file.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    /// Device and inode, so that a successor's is left alone.
    identity: (u64, u64),
}

impl Socket {
    /// Binds `path`.
    ///
    /// # Errors
    /// When something that is not a socket is there, or one in use, or the system refuses.
    pub async fn bind(path: &Path) -> io::Result<Self> {
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "its path has {length} bytes, and a socket's has at most {MAX_PATH}. Name a shorter one with \
                     RUNTIMED_SOCKET_PATH, for clients as well"
                ),
            ));
        }
        if let Some(directory) = path.parent() {
            create_private(directory)?;
            remove_socket(&directory.join(OBSOLETE_SOCKET)).ok();
        }
        refuse_if_in_use(path).await?;
        remove_socket(path)?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        let metadata = std::fs::symlink_metadata(path)?;
        let made = Made { path: path.to_path_buf(), identity: (metadata.dev(), metadata.ino()) };
        Ok(Self { listener, made: Some(made) })
    }

    /// Takes over what the service manager listens on, which must be `path`.
    ///
    /// # Errors
    /// When it is another place: clients look at `path`.
    pub fn adopt(listener: std::os::unix::net::UnixListener, path: &Path) -> io::Result<Self> {
        let bound = listener.local_addr()?;
        if bound.as_pathname() != Some(path) {
            let bound = bound.as_pathname().unwrap_or(Path::new("no path")).display();
            return Err(io::Error::other(format!(
                "the service manager listens on `{bound}`. Run 'runt daemon doctor --fix' to write its unit anew."
            )));
        }
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, made: None })
    }

    /// Waits for the next connection of the user this daemon runs for; others are dropped.
    ///
    /// # Errors
    /// Those of `accept`; most pass with time (too many open files).
    pub async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == rustix::process::geteuid().as_raw() => return Ok(stream),
                Ok(peer) => tracing::warn!("refused a connection of user {}", peer.uid()),
                Err(error) => tracing::warn!("refused a connection of an unknown user: {error}"),
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(Made { path, identity }) = &self.made else { return };
        let ours = std::fs::symlink_metadata(path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == *identity);
        if ours {
            std::fs::remove_file(path).ok();
        }
    }
}

/// Makes `directory` and what leads to it, as far as it is not there: for the user alone, whatever the umask is.
///
/// # Errors
/// Those of the file system.
pub fn create_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)
}

/// Makes `directory` readable by its owner alone.
///
/// # Errors
/// When it is not ours.
pub fn make_private(directory: &Path) -> io::Result<()> {
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(DIRECTORY_MODE))
}

/// Tells a living socket from one whose daemon was killed.
async fn refuse_if_in_use(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path).await {
        // A listener whose queue is full lives, too.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there. It was left alone. Stop it, or choose another path with --socket.",
        )),
    }
}

fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "`{}` is not a socket. It was left as it is. Move it away, or choose another path with --socket.",
                path.display()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_ours_is_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = Socket::bind(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let second = Socket::bind(&path).await.unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = Socket::bind(&path).await.unwrap_err();
        assert!(error.to_string().contains("is not a socket"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
