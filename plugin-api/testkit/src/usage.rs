//! What this process, and every process that a test host's plugin has, takes from the system.
//!
//! Never: guesses. Where there is no `/proc`, nothing is said.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::TestHost;

/// How often [`settled`] looks.
const LOOK: Duration = Duration::from_millis(10);

/// Threads, open descriptors and the processor time of all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    /// Since each of them was started.
    pub(crate) processor: Duration,
}

impl Usage {
    /// What is taken now.
    pub(crate) fn now(host: &TestHost) -> Option<Self> {
        let mut usage = Self::of("self")?;
        for process in host.leftovers() {
            // Those that have just ended take nothing.
            let more = Self::of(&process.pid.to_string()).unwrap_or_default();
            usage.threads += more.threads;
            usage.descriptors += more.descriptors;
            usage.processor += more.processor;
        }
        Some(usage)
    }

    fn of(process: &str) -> Option<Self> {
        let folder = Path::new("/proc").join(process);
        let count = |what| fs::read_dir(folder.join(what)).ok().map(Iterator::count);
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        // The name, which is in brackets, may hold anything; times in user and in kernel mode come 11 fields after it.
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|time| time.parse::<u64>().ok()).sum();
        let second = rustix::param::clock_ticks_per_second();
        let processor = Duration::from_millis(ticks * 1000 / second.max(1));
        Some(Self { threads: count("task")?, descriptors: count("fd")?, processor })
    }
}

/// Waits until what is taken `fits`, at most for `limit`; returns what is taken then. Threads end after whoever told
/// them to, and nobody says when.
pub(crate) async fn settled(
    host: &TestHost,
    limit: Duration,
    fits: impl Fn(&Usage) -> bool,
) -> Option<Usage> {
    let end = Instant::now() + limit;
    loop {
        let now = Usage::now(host)?;
        if fits(&now) || Instant::now() >= end {
            return Some(now);
        }
        tokio::time::sleep(LOOK).await;
    }
}
