//! Everything a kernel has started, directly or not.
//!
//! For: a kernel's end that leaves nothing behind, whatever session and group its children have moved to.
//! Promises: what loses its parent becomes ours (Linux), is buried when it ends, and is killed once the kernel has
//! ended; takes no exit status of the kernel itself.
//! Limit: elsewhere than on Linux only the kernel's process group is known.

#[cfg(target_os = "linux")]
pub(crate) use linux::{adopt, outlive};
#[cfg(not(target_os = "linux"))]
pub(crate) use others::{adopt, outlive};

#[cfg(target_os = "linux")]
mod linux {
    use std::time::{Duration, Instant};

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    use nix::unistd::Pid;

    use crate::run::note;

    /// How long killing may take. A killed process is gone in milliseconds, unless it hangs in a device.
    const LIMIT: Duration = Duration::from_secs(1);
    /// Time between two looks at processes that were killed.
    const AGAIN: Duration = Duration::from_millis(1);

    /// From now on processes below this one that lose their parent become its children.
    pub(crate) fn adopt() {
        let own = Some(rustix::process::getpid());
        if let Err(error) = rustix::process::set_child_subreaper(own) {
            note(format_args!("processes that leave the kernel's group may outlive it: {error}"));
        }
    }

    /// Waits for the end of `kernel`, and ends what it leaves behind. Its exit status is still to be taken: that
    /// frees its number.
    pub(crate) fn outlive(kernel: i32) {
        let kernel = Pid::from_raw(kernel);
        loop {
            match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Ok(ended) => match ended.pid() {
                    Some(pid) if pid != kernel => bury(pid),
                    _ => break,
                },
                Err(Errno::EINTR) => {}
                // There are ends that nix cannot name: by a real-time signal. Only the kernel's own is the end.
                Err(_) if is_alive(kernel) => children().filter(|child| *child != kernel).for_each(bury),
                Err(_) => break,
            }
        }
        let end = Instant::now() + LIMIT;
        loop {
            let left: Vec<Pid> = children().filter(|child| *child != kernel).collect();
            if left.is_empty() {
                return;
            }
            for child in &left {
                // It may have ended meanwhile. Its own children are ours, and found in the next round.
                let _ = kill(*child, Signal::SIGKILL);
                bury(*child);
            }
            if Instant::now() > end {
                return note(format_args!("{} process(es) of the kernel did not end", left.len()));
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn is_alive(kernel: Pid) -> bool {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(kernel), look) == Ok(WaitStatus::StillAlive)
    }

    /// Takes the exit status of a child, if it has one.
    fn bury(child: Pid) {
        // One that is not done is looked at again.
        let _ = waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
    }

    /// Our children, ended or not.
    fn children() -> impl Iterator<Item = Pid> {
        let own = std::process::id();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(move |number| parent(*number) == Some(own)).map(Pid::from_raw)
    }

    /// The parent of a process: field 4 of `stat`, the second one after the name, which may hold anything.
    fn parent(process: i32) -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod others {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

    /// Nothing can be adopted.
    pub(crate) fn adopt() {}

    /// Waits for the end of `kernel`. Its exit status is still to be taken: that frees its number.
    pub(crate) fn outlive(kernel: i32) {
        let Some(kernel) = Pid::from_raw(kernel) else { return };
        while waitid(WaitId::Pid(kernel), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .is_err_and(|error| error == rustix::io::Errno::INTR)
        {}
    }
}
