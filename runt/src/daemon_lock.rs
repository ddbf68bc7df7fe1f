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
    holders(&fs::read_to_string("/proc/locks").ok()?, inode).find(|pid| is_daemon(*pid))
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
}
