//! What a process of a plugin may use.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit};

/// What a process, and each one that it starts, may use. None means as much as the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Bytes of address space, which is more than what is really used: threads and libraries reserve. Less than
    /// 512 MiB stops most plugins from starting.
    pub memory: Option<u64>,
    /// Processor time in whole seconds, of all its threads and since it was started.
    pub cpu: Option<Duration>,
    /// Open files.
    pub files: Option<u64>,
    /// By how much it gives way to the daemon and to kernels when processors are scarce: 0 to 19, as niceness.
    pub nice: u8,
}

impl ProcessLimits {
    /// Sets all but the niceness on `process`, or on this one. A limit that is wider than this process's own
    /// changes nothing. A process that was just started has none before it is here, and only Linux can limit
    /// another process at all: elsewhere nothing happens to it.
    pub(crate) fn set_on(&self, process: Option<Pid>) -> io::Result<()> {
        let limits = [
            (Resource::As, self.memory),
            (Resource::Cpu, self.cpu.map(|cpu| cpu.as_secs().max(1))),
            (Resource::Nofile, self.files),
        ];
        for (resource, limit) in limits {
            let Some(limit) = limit else { continue };
            let now = rustix::process::getrlimit(resource);
            let limit = now.maximum.map_or(limit, |maximum| limit.min(maximum));
            let current = Some(now.current.map_or(limit, |current| limit.min(current)));
            // The maximum of processor time is a second later: at the soft limit the signal says what it was for.
            let spare = if matches!(resource, Resource::Cpu) { limit.saturating_add(1) } else { limit };
            let maximum = Some(now.maximum.map_or(spare, |maximum| spare.min(maximum)));
            set(process, resource, Rlimit { current, maximum })?;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn set(process: Option<Pid>, resource: Resource, limit: Rlimit) -> io::Result<()> {
    rustix::process::prlimit(process, resource, limit)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn set(process: Option<Pid>, resource: Resource, limit: Rlimit) -> io::Result<()> {
    if process.is_none() {
        rustix::process::setrlimit(resource, limit)?;
    }
    Ok(())
}
