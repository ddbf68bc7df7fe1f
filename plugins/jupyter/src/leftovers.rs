//! Kernels and folders that a killed daemon left behind.
//!
//! For: a clean start. A kernel normally notices by itself that its daemon is gone (`JPY_PARENT_PID`); one
//! that is stuck in native code does not, and is ended here, at the next start.
//! Promises: only a process whose id and start time are both on record is signalled.
//! Relies on: the host lets one daemon at a time use its runtime directory, so whatever is there at start,
//! before the first launch, has no owner.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::connection::{Connection, folder_of_kernels};
use crate::process::signal_group;

/// Name of the record in a kernel's folder.
const RECORD: &str = "process.json";

/// A process, told apart from a later one with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ProcessRecord {
    pid: u32,
    /// Start time in clock ticks since boot, where the system tells it.
    started: Option<u64>,
}

/// Notes in the kernel's folder which process it is.
pub(crate) fn record(connection: &Connection, pid: u32) -> io::Result<()> {
    let record = ProcessRecord { pid, started: start_time(pid) };
    fs::write(connection.folder().join(RECORD), serde_json::to_vec(&record)?)
}

/// The folders that are there now; to be called before the first launch.
pub(crate) fn find(runtime: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder_of_kernels(runtime)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Ends the processes recorded in `folders` and deletes the folders.
pub(crate) fn clean(folders: Vec<PathBuf>) {
    for folder in folders {
        if let Some(group) = live_process(&folder) {
            tracing::info!(
                pid = group.as_raw_nonzero().get(),
                "ending a kernel that a killed daemon left behind"
            );
            signal_group(group, Signal::KILL);
        }
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "could not delete an old kernel's folder");
        }
    }
}

fn live_process(folder: &Path) -> Option<Pid> {
    let record: ProcessRecord = serde_json::from_slice(&fs::read(folder.join(RECORD)).ok()?).ok()?;
    let same = record.started.is_some() && start_time(record.pid) == record.started;
    Pid::from_raw(i32::try_from(record.pid).ok()?).filter(|_| same)
}

/// Field 22 of `/proc/<pid>/stat` (man 5 proc_pid_stat). The second field may hold spaces and parentheses.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    #[test]
    fn only_the_recorded_process_is_ended() {
        let runtime = tempfile::tempdir().unwrap();
        let sleeper = || Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let (mut ours, mut other) = (sleeper(), sleeper());
        let old = Connection::create(runtime.path(), "python3").unwrap();
        record(&old, ours.id()).unwrap();
        let reused = Connection::create(runtime.path(), "python3").unwrap();
        let stale = ProcessRecord { pid: other.id(), started: start_time(other.id()).map(|time| time - 1) };
        fs::write(reused.folder().join(RECORD), serde_json::to_vec(&stale).unwrap()).unwrap();

        clean(find(runtime.path()));

        assert_eq!(ours.wait().unwrap().signal(), Some(9));
        assert_eq!(other.try_wait().unwrap(), None);
        assert!(find(runtime.path()).is_empty());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
