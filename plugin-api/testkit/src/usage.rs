//! What this process, and every process that a test host's plugin has, takes from the system.
//!
//! Never: guesses. Where there is no `/proc`, nothing is said.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::TestHost;

/// How often [`settled`] looks.
const LOOK: Duration = Duration::from_millis(10);

/// Threads and open descriptors of all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
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
        }
        Some(usage)
    }

    fn of(process: &str) -> Option<Self> {
        let count =
            |what| fs::read_dir(Path::new("/proc").join(process).join(what)).ok().map(Iterator::count);
        Some(Self { threads: count("task")?, descriptors: count("fd")? })
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
