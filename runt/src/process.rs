//! Processes by their number.

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

/// Pause before looking again. The system tells nobody but the parent when a process ends.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until a process has ended; false if it is there after `limit`.
pub(crate) async fn gone(pid: u32, limit: Duration) -> bool {
    let wait = async {
        while is_alive(pid) {
            tokio::time::sleep(PAUSE).await;
        }
    };
    timeout(limit, wait).await.is_ok()
}

/// How long a socket may take to accept. Source: what clients of protocol v4 use.
pub(crate) const ACCEPT_LIMIT: Duration = Duration::from_secs(2);
/// Name of the daemon's program.
const DAEMON: &str = "runtimed";

/// The daemon that listens on a socket, whether or not it answers. None where another program does, such as a service
/// manager on its behalf.
pub(crate) async fn listener(socket: &Path) -> Option<u32> {
    let stream = timeout(ACCEPT_LIMIT, UnixStream::connect(socket)).await.ok()?.ok()?;
    let pid = u32::try_from(stream.peer_cred().ok()?.pid()?).ok()?;
    is_daemon(pid).then_some(pid)
}

/// Whether a process is a daemon, by its name.
pub(crate) fn is_daemon(pid: u32) -> bool {
    let pid = sysinfo::Pid::from_u32(pid);
    let mut system = sysinfo::System::new();
    system.refresh_processes_specifics(
        sysinfo::ProcessesToUpdate::Some(&[pid]),
        true,
        sysinfo::ProcessRefreshKind::nothing().without_tasks(),
    );
    system.process(pid).is_some_and(|process| process.name() == DAEMON)
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
