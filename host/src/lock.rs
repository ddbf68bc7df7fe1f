//! The singleton lock: one daemon per base directory.
//!
//! For: `daemon.rs`, which takes it before it touches anything else.
//! Promises: held until the value is dropped or the process is gone, whatever kills it.
//! Never: removes the file; a lock on an unlinked file would let two daemons in.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// How long a lock that somebody else holds is waited for: a daemon that is just going holds it to its last moment, and
/// a child that it was just starting until that has begun its own program.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause before trying again; the system tells nobody when a lock is free unless one waits for ever.
const PAUSE: Duration = Duration::from_millis(20);

/// Proof that this process is the daemon of its base.
#[derive(Debug)]
pub struct DaemonLock {
    /// Dropping it lets the lock go.
    _file: File,
}

impl DaemonLock {
    /// Takes the lock, or returns none when somebody else still holds it after a while. Blocks.
    ///
    /// # Errors
    /// Those of [`DaemonLock::take`].
    pub fn take_soon(path: &Path) -> io::Result<Option<Self>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::take(path)? {
                None if Instant::now() < deadline => sleep(PAUSE),
                taken => return Ok(taken),
            }
        }
    }

    /// Takes the lock, or returns none while somebody else holds it.
    ///
    /// # Errors
    /// When the file cannot be opened or the file system knows no locks.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_gets_nothing_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.lock");
        let first = DaemonLock::take(&path).unwrap();
        assert!(first.is_some());
        assert!(DaemonLock::take(&path).unwrap().is_none());
        drop(first);
        assert!(DaemonLock::take(&path).unwrap().is_some());
        let (path, held) = (&path, DaemonLock::take(&path).unwrap());
        assert!(held.is_some());
        std::thread::scope(|scope| {
            let next = scope.spawn(|| DaemonLock::take_soon(path).unwrap());
            drop(held);
            assert!(next.join().unwrap().is_some());
        });
        assert_eq!(std::fs::metadata(path).unwrap().len(), 0);
    }
}
