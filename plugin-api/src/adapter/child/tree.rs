//! The processes of a child: itself, its group, and who left the group.
//!
//! Promises: [`Tree::bury`] ends all of them. Who left the group is found by a mark in its environment, on Linux
//! only, because only there can it be read; one that wiped its environment as well is beyond reach.

use std::ffi::OsStr;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Mutex;

use rustix::process::{Pid, Signal};

use super::locked;

/// The variable that marks everything a child starts.
pub(super) const MARK: &str = crate::CHILD_MARK;

/// A child's mark that no other process has.
pub(super) fn new_mark() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

/// The processes of one child.
pub(super) struct Tree {
    mark: String,
    /// The group's leader, until it has been waited for and its group was killed.
    leader: Mutex<Option<Pid>>,
}

impl Tree {
    /// The tree of a process that was started with a group of its own and with `mark` in its environment.
    pub(super) fn new(leader: Option<u32>, mark: String) -> Self {
        let leader = leader.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        Self { mark, leader: Mutex::new(leader) }
    }

    /// Kills the child and its group, without waiting for anybody.
    pub(super) fn kill_group(&self) {
        if let Some(leader) = *locked(&self.leader) {
            // Fails when nobody is left, which is what we want.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }

    /// Kills everything. To be called once the child has been waited for: its number may be another's later.
    /// Reads `/proc` on Linux, which takes some milliseconds.
    pub(super) fn bury(&self) {
        self.kill_group();
        locked(&self.leader).take();
        kill_marked(&self.mark);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if locked(&self.leader).is_some() {
            self.kill_group();
            kill_marked(&self.mark);
        }
    }
}

/// Ends the group of this process, which it leads, with itself, and what it started that left the group.
pub(super) fn end_own() {
    if let Some(mark) = std::env::var_os(MARK).as_deref().and_then(OsStr::to_str) {
        kill_marked(mark);
    }
    // Never another's group: a child that does not lead one ends alone.
    let own = rustix::process::getpid();
    if rustix::process::getpgrp() == own {
        let _ = rustix::process::kill_process_group(own, Signal::KILL);
    }
}

/// Kills every other process that carries `mark`.
#[cfg(target_os = "linux")]
fn kill_marked(mark: &str) {
    use std::thread::sleep;
    use std::time::Duration;

    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

    /// Whoever forks faster than this many looks is bounded by its limits, not by us.
    const LOOKS: usize = 8;
    /// A process has no environment for the moment in which it becomes another program. Much longer than that.
    const EXEC: Duration = Duration::from_millis(5);

    let variable = format!("{MARK}={mark}");
    let carries =
        |environment: &[u8]| environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes());
    let own = rustix::process::getpid();
    let mut waited = false;
    for _ in 0..LOOKS {
        let (mut found, mut unclear) = (false, false);
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            let Some(pid) = pid.filter(|pid| *pid != own) else { continue };
            // Opened before the look, so that it is the process looked at that is killed.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
            unclear |= environment.is_empty();
            found |= carries(&environment) && pidfd_send_signal(process, Signal::KILL).is_ok();
        }
        if !found {
            if waited || !unclear {
                return;
            }
            waited = true;
            sleep(EXEC);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn kill_marked(_: &str) {}
