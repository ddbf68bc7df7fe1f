//! Processes by their number.

use std::time::Duration;

/// Pause before looking again. The system tells nobody but the parent when a process ends.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until a process has ended; false if it is there after `limit`.
pub(crate) async fn gone(pid: u32, limit: Duration) -> bool {
    let wait = async {
        while is_alive(pid) {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(limit, wait).await.is_ok()
}

/// Whether a process runs. One that has ended and only waits for its parent to notice does not.
fn is_alive(pid: u32) -> bool {
    let known = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let exists =
        known.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
    // Linux only; elsewhere there is no such file. The state follows the name, which is in parentheses.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    exists && state != Some("Z")
}
