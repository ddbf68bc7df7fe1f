//! Whether the system killed processes of ours for lack of memory.
//!
//! For: the exit report of a kernel that was killed and that nobody here killed.
//! Promises: a number that grows with each such kill; none where the system does not say.
//! Limit: the count covers our whole control group (or machine), so another process's end since the
//! kernel's start counts too.

/// Kills for lack of memory so far, in our control group if it counts them, else on this machine.
pub(crate) fn kills() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok();
    let group = own.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::")));
    let in_group = group.and_then(|group| count(&format!("/sys/fs/cgroup{group}/memory.events")));
    in_group.or_else(|| count("/proc/vmstat"))
}

fn count(file: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}
