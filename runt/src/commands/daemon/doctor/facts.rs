//! What can be seen from here of the daemon and of the places it needs.
//!
//! Promises: changes nothing but for a file it writes to find out whether there is room, which has no name.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use runtimed_client::protocol::pool::{DaemonInfo, PoolStats};
use runtimed_client::{Client, ClientError, Places};
use tokio::process::Command;

use crate::plugins::check::daemon_binary;
use crate::plugins::rows;
use crate::service::Service;
use crate::{daemon_lock, tail};

/// Bytes written to find out whether there is room: more than a file system keeps beside its blocks.
const PROBE: usize = 64 * 1024;
/// In the last line of a log: how its daemon ended.
const EXITED: &str = "[STARTUP] Daemon exited: ";

/// Everything that was seen.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) has_home: bool,
    /// This user's number.
    pub(super) user: u32,
    pub(super) places: Places,
    /// Whether `RUNTIMED_SOCKET_PATH` named the socket.
    pub(super) names_socket: bool,
    pub(super) socket: SocketFile,
    pub(super) daemon: Daemon,
    /// The process that holds the lock; none where it is free or the system does not say.
    pub(super) holder: Option<u32>,
    pub(super) has_lock_file: bool,
    pub(super) room: Room,
    /// Free bytes on the disk of caches, where the system says.
    pub(super) free: Option<u64>,
    pub(super) runtime: RuntimeFolder,
    pub(super) service: Option<ServiceFacts>,
    /// Version of the daemon beside this program, or why there is none.
    pub(super) bundled: Result<String, String>,
    /// How the last daemon ended, if that was no clean end.
    pub(super) last_words: Option<String>,
}

/// What is in the socket's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketFile {
    NoFolder,
    Missing,
    NotASocket,
    /// The system does not let us look.
    Hidden,
    /// One of another user.
    OfUser(u32),
    Ours,
}

/// What the daemon says.
#[derive(Debug)]
pub(super) enum Daemon {
    Answers {
        info: Box<DaemonInfo>,
        /// Kinds of environments that cannot be built, and why.
        failing: Vec<(String, String)>,
        /// How many plugins have problems, essential ones that are missing included.
        plugins: usize,
    },
    /// Nobody listens: what the system says.
    Down(String),
    /// Somebody listens and does not answer.
    Silent(String),
}

/// Whether caches can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Room {
    Writable,
    ReadOnly,
    Full,
    /// It belongs to this user.
    Denied(u32),
    Other(String),
}

/// Where sockets of kernels go, by `XDG_RUNTIME_DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RuntimeFolder {
    Unset,
    Missing(PathBuf),
    OfUser(PathBuf, u32),
    Good(PathBuf),
}

/// The service.
#[derive(Debug)]
pub(super) struct ServiceFacts {
    pub(super) definition: PathBuf,
    pub(super) is_installed: bool,
    /// Whether the definition is what this version writes.
    pub(super) is_current: bool,
    pub(super) binary: PathBuf,
    /// None where there is no such program.
    pub(super) version: Option<String>,
    /// Process of the daemon that the manager started.
    pub(super) process: Option<u32>,
    /// Why what is installed is not this daemon's service, and is left alone.
    pub(super) of_another: Option<String>,
    /// Why no service can be installed or started here.
    pub(super) unavailable: Option<String>,
}

impl Facts {
    /// Looks.
    pub(super) async fn gather() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let (places, client) = (Places::of_this_process(), Client::discover());
        let user = rustix::process::geteuid().as_raw();
        let bundled = match daemon_binary() {
            Ok(binary) => version(&binary).await.ok_or_else(|| format!("{} does not run", binary.display())),
            Err(error) => Err(format!("{error:#}")),
        };
        Self {
            has_home: set("HOME").is_some(),
            user,
            names_socket: set("RUNTIMED_SOCKET_PATH").is_some(),
            // First, for it may start the daemon of a service.
            daemon: daemon(&client).await,
            socket: socket_file(&places.socket, user),
            holder: daemon_lock::holder(&places.lock()),
            has_lock_file: places.lock().exists(),
            room: room(&places.base),
            free: free(&places.base),
            runtime: runtime_folder(set("XDG_RUNTIME_DIR").map(PathBuf::from), user),
            service: service().await,
            last_words: last_words(&places.log()),
            bundled,
            places,
        }
    }
}

async fn daemon(client: &Client) -> Daemon {
    let info = match client.daemon_info().await {
        Ok(info) => Box::new(info),
        Err(ClientError::Connect(error)) => return Daemon::Down(error.to_string()),
        Err(error) => return Daemon::Silent(error.to_string()),
    };
    let pools = client.status().await.ok();
    let failing = pools.iter().flat_map(PoolStats::pools);
    let failing = failing.filter_map(|(kind, pool)| Some((kind.to_owned(), pool.error.clone()?))).collect();
    let plugins = client.list_plugins().await.unwrap_or_default();
    let problems = plugins.iter().filter(|row| rows::is_problem(row)).count() + rows::missing(&plugins).len();
    Daemon::Answers { info, failing, plugins: problems }
}

async fn service() -> Option<ServiceFacts> {
    let service = Service::of_this_user().ok()?;
    let binary = service.binary();
    let of_another = service.check_meant().err().map(|error| error.to_string());
    let is_installed = service.is_installed() && of_another.is_none();
    Some(ServiceFacts {
        of_another,
        definition: service.definition(),
        is_current: is_installed && service.is_current(),
        is_installed,
        version: version(&binary).await,
        binary,
        process: if is_installed { service.main_process().await } else { None },
        unavailable: service.check().await.err().map(|error| error.to_string()),
    })
}

/// What a daemon's program says of itself.
async fn version(binary: &Path) -> Option<String> {
    let mut command = Command::new(binary);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let said = String::from_utf8(command.output().await.ok()?.stdout).ok()?;
    Some(said.trim().strip_prefix("runtimed ")?.to_owned())
}

fn socket_file(path: &Path, user: u32) -> SocketFile {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => SocketFile::NotASocket,
        Ok(metadata) if metadata.uid() != user => SocketFile::OfUser(metadata.uid()),
        Ok(_) => SocketFile::Ours,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => SocketFile::Hidden,
        Err(_) if path.parent().is_none_or(Path::is_dir) => SocketFile::Missing,
        Err(_) => SocketFile::NoFolder,
    }
}

/// The folder itself, or the first above it that is there.
fn existing(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| fs::symlink_metadata(folder).is_ok()).unwrap_or(folder)
}

fn room(folder: &Path) -> Room {
    let folder = existing(folder);
    let write = || -> io::Result<()> {
        let mut file = tempfile::tempfile_in(folder)?;
        file.write_all(&[0; PROBE])?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Room::Writable,
        Err(error) => match error.kind() {
            ErrorKind::ReadOnlyFilesystem => Room::ReadOnly,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Room::Full,
            ErrorKind::PermissionDenied => {
                Room::Denied(fs::metadata(folder).map_or(0, |metadata| metadata.uid()))
            }
            _ => Room::Other(error.to_string()),
        },
    }
}

fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(existing(folder)).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn runtime_folder(named: Option<PathBuf>, user: u32) -> RuntimeFolder {
    let Some(folder) = named.filter(|folder| folder.is_absolute()) else { return RuntimeFolder::Unset };
    match fs::metadata(&folder) {
        Ok(metadata) if metadata.uid() != user => RuntimeFolder::OfUser(folder, metadata.uid()),
        Ok(_) => RuntimeFolder::Good(folder),
        Err(_) => RuntimeFolder::Missing(folder),
    }
}

/// How the last daemon ended, by its log, if that was no clean end.
pub(crate) fn last_words(log: &Path) -> Option<String> {
    let last = tail::of_file(log, 1).ok()?;
    let last = String::from_utf8_lossy(&last);
    let (_, words) = last.split_once(EXITED)?;
    let words = words.trim().trim_end_matches('.');
    (!words.starts_with("Ok")).then(|| words.to_owned())
}
