//! Processes that somebody started for a plugin and that are still there.
//!
//! For: finding orphans, whoever their parent is by now.
//! Promises: finds every process of our user that inherited the mark from one that was given it.
//! Only Linux shows a process's variables, so elsewhere nothing is found.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Variable that marks every process of one test host.
pub(crate) const VARIABLE: &str = "RUNTIMED_TESTKIT_MARK";
/// How often [`until_gone`] looks.
const LOOK: Duration = Duration::from_millis(5);

/// A process that should be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its number.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` (process {})", self.command, self.pid)
    }
}

/// A mark of this process: the one it was given itself, or a new one.
pub(crate) fn new_mark() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    std::env::var(VARIABLE).unwrap_or_else(|_| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        format!("{}-{}-{now:x}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
    })
}

/// Every living process with `mark` among its variables, but for this one.
pub(crate) fn find(mark: &str) -> Vec<Leftover> {
    let mark = format!("{VARIABLE}={mark}");
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let marked = pids.filter(|pid| *pid != std::process::id()).filter_map(|pid| {
        let folder = Path::new("/proc").join(pid.to_string());
        // What cannot be read belongs to somebody else or has just ended. A zombie has no variables.
        let variables = std::fs::read(folder.join("environ")).ok()?;
        variables.split(|byte| *byte == 0).any(|one| one == mark.as_bytes()).then_some(())?;
        let command = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
        Some(Leftover { pid, command })
    });
    marked.collect()
}

/// Ends a leftover that was reported, so that nobody else is blamed for it.
pub(crate) fn end(leftover: &Leftover) {
    let pid = i32::try_from(leftover.pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // Fails when it has ended by itself, which is as good.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Waits until nothing with `mark` is left but `own`, at most for `limit`; returns what is left then.
pub(crate) async fn until_gone(mark: &str, own: &[u32], limit: Duration) -> Vec<Leftover> {
    let end = std::time::Instant::now() + limit;
    loop {
        let mut left = find(mark);
        left.retain(|one| !own.contains(&one.pid));
        if left.is_empty() || std::time::Instant::now() >= end {
            return left;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_grandchild_that_lost_its_parent_is_found() {
        let mark = format!("test-{}", new_mark());
        let script = "sleep 600 > /dev/null 2>&1 & echo $!";
        let output = tokio::process::Command::new("sh").args(["-c", script]).env(VARIABLE, &mark).output();
        let pid: u32 = String::from_utf8(output.await.unwrap().stdout).unwrap().trim().parse().unwrap();
        // A process has no variables for the instant in which it becomes another program.
        let found = loop {
            match find(&mark) {
                none if none.is_empty() => tokio::time::sleep(LOOK).await,
                found => break found,
            }
        };
        assert_eq!(found.iter().map(|one| one.pid).collect::<Vec<_>>(), [pid]);
        found.iter().for_each(end);
        assert_eq!(until_gone(&mark, &[], Duration::from_secs(20)).await, []);
    }
}
