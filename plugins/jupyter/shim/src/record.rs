//! The record by which a kernel is found again, and processes that are known by more than a number.
//!
//! For: the shim, which writes it, and the daemon, which reads it.
//! Promises: a record is whole or not there; a process is told apart from a later one with the same number.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::PROTOCOL;

/// Name of the record in a kernel's folder.
const FILE: &str = "record.json";

/// What is known about a kernel without asking its shim. Fields are added, never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Protocol of the shim.
    pub protocol: u32,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// UUID of the kernel.
    pub kernel: String,
    /// The shim.
    pub shim: Process,
    /// The kernel.
    pub process: Process,
    /// [`Launch::label`](crate::protocol::Launch::label).
    #[serde(default)]
    pub label: Value,
}

/// A process, told apart from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Start time in clock ticks since boot, where the system tells it.
    pub started: Option<u64>,
}

impl Record {
    /// A record of a kernel of this shim.
    pub(crate) fn new(kernel: &str, process: u32, label: Value) -> Self {
        Self {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: kernel.to_owned(),
            shim: Process::now(std::process::id()),
            process: Process::now(process),
            label,
        }
    }

    /// Writes the record into a kernel's folder.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let new = folder.join("record.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        drop(file);
        fs::rename(new, folder.join(FILE))
    }

    /// The record in a kernel's folder.
    ///
    /// # Errors
    /// The system's, and `InvalidData` for what is no record.
    pub fn read(folder: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(folder.join(FILE))?)?)
    }
}

impl Process {
    /// The process that has this number now.
    pub fn now(pid: u32) -> Self {
        Self { pid, started: start_time(pid) }
    }

    /// Whether it is there. Never, where the system does not tell when a process was started.
    pub fn is_alive(self) -> bool {
        self.started.is_some() && start_time(self.pid) == self.started
    }

    /// Kills the process and the group it leads, if it is this one.
    pub fn kill(self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).filter(|_| self.is_alive());
        if let Some(pid) = pid {
            // Fails when it has ended by itself, which is as good.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Field 22 of `/proc/<pid>/stat` (man 5 proc_pid_stat). The second field may hold spaces and parentheses. None for
/// a process that has ended and was not waited for.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    #[test]
    fn only_the_recorded_process_is_killed() {
        let sleeper = || Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let (mut ours, mut other) = (sleeper(), sleeper());
        let folder = tempfile::tempdir().unwrap();
        Record::new("k", ours.id(), Value::Null).write(folder.path()).unwrap();
        let record = Record::read(folder.path()).unwrap();
        let now = Process::now(other.id());
        let reused = Process { started: now.started.map(|time| time - 1), ..now };
        assert!(record.process.is_alive() && !reused.is_alive());

        record.process.kill();
        reused.kill();

        assert_eq!(ours.wait().unwrap().signal(), Some(9));
        assert_eq!(other.try_wait().unwrap(), None);
        assert!(!record.process.is_alive());
        now.kill();
        other.wait().unwrap();
    }
}
