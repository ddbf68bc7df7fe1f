//! Who holds the daemon's lock.
//!
//! For: finding a daemon that does not answer, or not where it is looked for.
//! Never: takes the lock; a daemon that starts just then would find it held.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::process::is_daemon;

/// The daemon that holds the lock at `path`. None without one, and where the system does not say (macOS).
pub(crate) fn holder(path: &Path) -> Option<u32> {
    let inode = fs::metadata(path).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holders(&locks, inode).find(|pid| is_daemon(*pid) && has_open(*pid, path))
}

/// Whether a process has this very file open. Others have its number on other disks.
fn has_open(pid: u32, path: &Path) -> bool {
    let Ok(file) = fs::metadata(path) else { return false };
    let opened = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    // By name first: to ask for a file on a disk that hangs, hangs.
    let named = opened
        .map(|it| it.path())
        .filter(|opened| fs::read_link(opened).is_ok_and(|opened| opened.file_name() == path.file_name()));
    named
        .filter_map(|opened| fs::metadata(opened).ok())
        .any(|it| (it.dev(), it.ino()) == (file.dev(), file.ino()))
}

/// Processes with a lock on a whole file with this number, as `/proc/locks` has them. Numbers are those of one disk, so
/// there may be others.
fn holders(locks: &str, inode: u64) -> impl Iterator<Item = u32> {
    locks.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // `1: FLOCK  ADVISORY  WRITE 18366 00:2f:1234 0 EOF`; who only waits has an arrow in the second place.
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = fields[..] else { return None };
        let same = file.rsplit(':').next()?.parse() == Ok(inode);
        pid.parse().ok().filter(|_| same)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_told_from_those_who_wait() {
        let locks = "1: FLOCK  ADVISORY  WRITE 18366 00:2f:1234 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 7 00:2f:1234 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 8 00:2f:1234 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:2f:12345 0 EOF\n";
        assert_eq!(holders(locks, 1234).collect::<Vec<_>>(), [18366]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn who_has_another_file_open_does_not_hold_this_one() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one/daemon.lock"), folder.path().join("other/daemon.lock"));
        for path in [&one, &other] {
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let _opened = fs::File::open(&one).unwrap();
        assert!(has_open(std::process::id(), &one));
        assert!(!has_open(std::process::id(), &other));
    }
}
