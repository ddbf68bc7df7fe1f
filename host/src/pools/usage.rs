//! What folders take on disk.
//!
//! For: `runt env`, and the budget of environments.
//! Promises: blocks that are really there; a file with several names counts once in a folder and once in the sum. Blocks
//! that file systems share in other ways count for each file.
//! Blocks: call it from the blocking pool.

use std::collections::{HashMap, HashSet};
use std::fs::{Metadata, symlink_metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Unit of a file's blocks, whatever the file system's own is (POSIX leaves it open; Linux and macOS use this).
const BLOCK: u64 = 512;

/// What one folder takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Bytes of everything in it.
    pub(crate) bytes: u64,
    /// Bytes of what has no name elsewhere: deleting it frees them.
    pub(crate) own: u64,
}

/// What was measured last: a data science stack has twenty thousand files, and most of the time nothing has changed.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// What was measured, and what tells when it is another.
    of: Vec<Stamp>,
    sizes: Vec<Size>,
    sum: u64,
}

/// A folder, when it was used last, and when something was put directly into it. Whatever is installed while somebody uses an
/// environment counts once it is given back, which is noted in it; what one of them shares with others changes when
/// one comes or goes.
type Stamp = (PathBuf, i64, Option<SystemTime>);

impl Measured {
    /// Measures the folders, each with the time of its last use, if one of them is another than the last time.
    pub(crate) fn measure(&mut self, folders: Vec<(PathBuf, i64)>) -> (Vec<Size>, u64) {
        let changed = |folder: &Path| symlink_metadata(folder).and_then(|about| about.modified()).ok();
        let stamp = |(folder, used): (PathBuf, i64)| {
            let changed = changed(&folder);
            (folder, used, changed)
        };
        let of: Vec<Stamp> = folders.into_iter().map(stamp).collect();
        if of != self.of {
            let folders: Vec<PathBuf> = of.iter().map(|(folder, ..)| folder.clone()).collect();
            let (sizes, sum) = measure(&folders);
            *self = Self { of, sizes, sum };
        }
        (self.sizes.clone(), self.sum)
    }
}

/// Measures each folder, and all of them together. What vanishes meanwhile counts for nothing.
fn measure(folders: &[PathBuf]) -> (Vec<Size>, u64) {
    let mut seen = HashSet::new();
    let mut sum = 0;
    let measured = folders.iter().map(|folder| {
        let mut size = Size::default();
        for (file, (names, about)) in files(folder) {
            let bytes = about.blocks() * BLOCK;
            size.bytes += bytes;
            if names >= about.nlink() || about.is_dir() {
                size.own += bytes;
            }
            if seen.insert(file) {
                sum += bytes;
            }
        }
        size
    });
    (measured.collect(), sum)
}

/// Everything in a folder by device and number, and how many names it has there.
fn files(folder: &Path) -> HashMap<(u64, u64), (u64, Metadata)> {
    let mut files = HashMap::new();
    let mut paths = vec![folder.to_path_buf()];
    while let Some(path) = paths.pop() {
        let Ok(about) = symlink_metadata(&path) else { continue };
        if about.is_dir() {
            paths.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        files.entry((about.dev(), about.ino())).or_insert((0, about)).0 += 1;
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_it_was_is_not_measured_again() {
        let dir = tempfile::tempdir().unwrap();
        let (env, deep) = (dir.path().join("env"), dir.path().join("env/lib"));
        std::fs::create_dir_all(&deep).unwrap();
        let mut measured = Measured::default();
        let mut bytes = |used| measured.measure(vec![(env.clone(), used)]).1;
        let empty = bytes(1);
        std::fs::write(deep.join("module.py"), vec![1; 100_000]).unwrap();
        assert_eq!(bytes(1), empty);
        assert!(bytes(2) >= empty + 100_000);
        std::fs::remove_dir_all(&deep).unwrap();
        assert!(bytes(2) < empty, "its folder is another");
    }

    #[test]
    fn a_file_with_two_names_counts_once_and_is_nobodys_own() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let empty = {
            std::fs::create_dir_all(&a).unwrap();
            std::fs::create_dir_all(&b).unwrap();
            measure(std::slice::from_ref(&a)).0[0].bytes
        };
        std::fs::write(a.join("both"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(a.join("both"), b.join("both")).unwrap();
        std::fs::write(b.join("one"), vec![1; 50_000]).unwrap();
        std::fs::hard_link(b.join("one"), b.join("same")).unwrap();
        std::os::unix::fs::symlink("/usr", b.join("link")).unwrap();
        let (sizes, sum) = measure(&[a.clone(), b, dir.path().join("gone")]);
        assert_eq!((sizes[0].own, sizes[2]), (empty, Size::default()));
        assert!(sizes[0].bytes >= 100_000 && sizes[1].bytes >= 150_000 && sizes[1].bytes < 250_000);
        assert!(sizes[1].own >= 50_000 && sizes[1].own < 100_000, "{:?}", sizes[1]);
        assert_eq!(sum, sizes[0].bytes + sizes[1].own);
        // Holes take nothing.
        std::fs::File::create(a.join("hole")).unwrap().set_len(1 << 40).unwrap();
        assert!(measure(&[a]).0[0].bytes < 1 << 20);
    }
}
