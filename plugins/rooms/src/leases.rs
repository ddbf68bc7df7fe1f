//! Who has a notebook's file open, of all daemons of a user.
//!
//! For: two daemons that would write one file.
//! Promises: one daemon at a time holds the lease of a file, until its room has ended or it has died, however
//! it died; whoever does not get it is told who has it.
//! Never: keeps anybody from opening a file because leases cannot be had at all.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Where the leases of all daemons of a user are, whatever their homes and environments.
const ROOT: &str = "/tmp";

/// How often a lease is tried for that ended, or began, just then.
const TRIES: u32 = 100;
/// How long to wait in between: our own room that ends just then takes no longer to let go, nor does whoever
/// sweeps up after a daemon that was killed.
const PAUSE: Duration = Duration::from_millis(10);

/// The leases of this daemon.
pub(crate) struct Leases {
    /// Names this daemon to others.
    base: PathBuf,
    folder: PathBuf,
    /// A std mutex: held on blocking threads only.
    held: Mutex<BTreeMap<PathBuf, Weak<Lease>>>,
}

/// The right to write a file. Given up when dropped, or when the process ends.
pub(crate) struct Lease {
    /// The lock is on this.
    _file: File,
    at: PathBuf,
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Process of the daemon.
    pub(crate) pid: u32,
    /// The daemon's folder.
    pub(crate) base: PathBuf,
}

impl Leases {
    /// None held yet. `base` is the daemon's folder.
    pub(crate) fn new(base: &Path) -> Self {
        let user = rustix::process::geteuid().as_raw();
        Self::in_folder(base, Path::new(ROOT).join(format!("runt-{user}")).join("leases"))
    }

    fn in_folder(base: &Path, folder: PathBuf) -> Self {
        Self { base: base.to_owned(), folder, held: Mutex::default() }
    }

    /// The lease of the file at `path`, which is canonical and need not be there; none if leases cannot be had
    /// here. A daemon that has it already shares it with itself. Blocks on the file system.
    ///
    /// # Errors
    /// Another daemon has it.
    pub(crate) fn take(&self, path: &Path) -> Result<Option<Arc<Lease>>, Holder> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, lease| lease.strong_count() > 0);
        if let Some(lease) = held.get(path).and_then(Weak::upgrade) {
            return Ok(Some(lease));
        }
        match self.lock(path) {
            Ok(Ok(lease)) => {
                let lease = Arc::new(lease);
                held.insert(path.to_owned(), Arc::downgrade(&lease));
                Ok(Some(lease))
            }
            Ok(Err(holder)) => Err(holder),
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "other daemons cannot be told which files are open here");
                Ok(None)
            }
        }
    }

    /// Removes what daemons that were killed left behind. Blocks on the file system.
    pub(crate) fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let at = entry.path();
            let flags = OFlags::NOFOLLOW.bits().cast_signed();
            let Ok(file) = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&at) else {
                continue;
            };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_at(&file, &at) {
                drop(Lease { _file: file, at });
            }
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Result<Lease, Holder>> {
        make_private(&self.folder)?;
        let at = self.folder.join(hex::encode(Sha256::digest(path.as_os_str().as_encoded_bytes())));
        let mut last = None;
        for _ in 0..TRIES {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&at)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The one before takes its file along: a lock on that is worth nothing.
                Ok(()) if !is_at(&file, &at) => {}
                Ok(()) => {
                    let holder = Holder { pid: std::process::id(), base: self.base.clone() };
                    file.set_len(0)?;
                    file.rewind()?;
                    file.write_all(&serde_json::to_vec(&holder)?)?;
                    return Ok(Ok(Lease { _file: file, at }));
                }
                Err(Errno::WOULDBLOCK) => {
                    let mut text = Vec::new();
                    file.read_to_end(&mut text)?;
                    match serde_json::from_slice::<Holder>(&text) {
                        Ok(holder) if holder.is_another() => return Ok(Err(holder)),
                        // A room of ours that ends just then, somebody who has not said yet who they are, or
                        // who removes what a daemon left that was killed.
                        said => {
                            last = said.ok();
                            std::thread::sleep(PAUSE);
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Not seen from here, as from within a container, but there.
        last.filter(|holder| holder.pid != std::process::id())
            .map_or_else(|| Err(io::ErrorKind::ResourceBusy.into()), |holder| Ok(Err(holder)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // While the lock is held, so that it is ours. One that stays is no more than a few bytes.
        let _ = fs::remove_file(&self.at);
    }
}

impl Holder {
    /// Whether it is another process than ours, and there.
    fn is_another(&self) -> bool {
        let process = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        self.pid != std::process::id()
            && process.is_some_and(|it| rustix::process::test_kill_process(it) != Err(Errno::SRCH))
    }

    /// The report for somebody who wants `path`.
    pub(crate) fn report(&self, path: &Path) -> String {
        format!(
            "Cannot access notebook '{}': it is open in another daemon (process {}, `{}`)\n\
             Kept: the file is as it is, and so is the notebook that is open there.\n\
             Next: go on in a program that uses that daemon, or end that daemon and open it again here.",
            path.display(),
            self.pid,
            self.base.display(),
        )
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    let (ours, there) = (file.metadata().map(identity).ok(), fs::symlink_metadata(path).map(identity).ok());
    ours.is_some() && ours == there
}

/// Makes a folder and its parent ours alone, or finds that they are.
fn make_private(folder: &Path) -> io::Result<()> {
    for folder in folder.parent().into_iter().chain([folder]) {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Not through a link: what it points to may be anybody's.
        let found = fs::symlink_metadata(folder)?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0
        {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("`{}` is not a private folder of this user", folder.display()),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_lease_is_shared_within_a_daemon_and_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("mine/leases");
        let leases = Leases::in_folder(Path::new("/base"), folder.clone());
        let file = Path::new("/lab/a.ipynb");
        let first = leases.take(file).unwrap().unwrap();
        let again = leases.take(file).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = leases.take(Path::new("/lab/b.ipynb")).unwrap().unwrap();
        fs::write(folder.join("of-a-daemon-that-was-killed"), "{}").unwrap();
        leases.sweep();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        let said: Holder = serde_json::from_slice(&fs::read(&first.at).unwrap()).unwrap();
        assert_eq!(said, Holder { pid: std::process::id(), base: "/base".into() });
        drop((first, again, other));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert!(leases.take(file).unwrap().is_some());
    }

    /// The first daemon after one that was killed, whose own sweep has the lock for a moment.
    #[test]
    fn a_lease_of_a_daemon_that_is_gone_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let leases = Leases::in_folder(Path::new("/base"), root.path().join("mine/leases"));
        let file = Path::new("/lab/a.ipynb");
        let at = leases.take(file).unwrap().unwrap().at.clone();
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        let holder = Holder { pid: gone.id(), base: "/base".into() };
        gone.wait().unwrap();
        fs::write(&at, serde_json::to_vec(&holder).unwrap()).unwrap();
        let swept = File::open(&at).unwrap();
        flock(&swept, FlockOperation::LockExclusive).unwrap();
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| leases.take(file).map(|lease| lease.is_some()));
            drop(swept);
            assert_eq!(taken.join().unwrap(), Ok(true));
        });

        // One that stays locked is somebody's, whom we cannot see.
        fs::write(&at, serde_json::to_vec(&holder).unwrap()).unwrap();
        let hidden = File::open(&at).unwrap();
        flock(&hidden, FlockOperation::LockExclusive).unwrap();
        assert_eq!(leases.take(file).map(|_| ()), Err(holder));
    }

    #[test]
    fn a_folder_that_others_can_write_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        symlink(root.path(), root.path().join("link")).unwrap();
        for parent in ["open", "link"] {
            let leases = Leases::in_folder(Path::new("/base"), root.path().join(parent).join("leases"));
            assert!(leases.take(Path::new("/lab/a.ipynb")).unwrap().is_none(), "{parent}");
        }
    }
}
