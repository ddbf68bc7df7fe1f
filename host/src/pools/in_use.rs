//! Which environments living processes use.
//!
//! For: recovery, which must not delete an environment under a process that a former daemon started.
//! Promises: looks and touches nothing; where there is no `/proc`, nothing counts as used.
//! Blocks: call it from the blocking pool.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Those of `prefixes` that a process runs a program of, or names in its command line.
pub(super) fn in_use(prefixes: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    if prefixes.is_empty() {
        return prefixes;
    }
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let paths: Vec<PathBuf> = processes.flat_map(|process| paths_of(&process.path())).collect();
    prefixes.into_iter().filter(|prefix| paths.iter().any(|path| path.starts_with(prefix))).collect()
}

/// The program and the absolute paths in the command line of a process. An interpreter of a virtual
/// environment is a link, so only the command line tells which one it is.
fn paths_of(process: &Path) -> Vec<PathBuf> {
    let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let arguments = arguments.split(|byte| *byte == 0).filter(|argument| argument.starts_with(b"/"));
    let arguments = arguments.map(|argument| PathBuf::from(OsStr::from_bytes(argument)));
    arguments.chain(std::fs::read_link(process.join("exe"))).collect()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn an_interpreter_that_is_a_link_counts_for_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let (used, free) = (dir.path().join("used"), dir.path().join("us"));
        std::fs::create_dir_all(&used).unwrap();
        let python = used.join("python");
        std::os::unix::fs::symlink("/bin/cat", &python).unwrap();
        let mut command = Command::new(&python);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // A process that has only just begun has no command line yet; one that answers has.
        process.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        process.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let found = in_use([used.clone(), free].into());
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(found, [used.clone()].into());
        assert!(in_use([used].into()).is_empty());
    }
}
