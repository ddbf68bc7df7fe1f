//! What a daemon uses: memory, descriptors, threads, processes, disk.
//!
//! For: seeing that what was taken is given back.
//! Never: counts what a process has that is just ending.

use std::fmt::{Display, Formatter, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use super::size;
use crate::support::{Daemon, PATIENCE};

/// Folders of the daemon's base that are to grow: environments, which are kept for the next one, blobs and records of
/// executions, which stay for 30 days. Caches of package managers are elsewhere.
const KEPT: [&str; 4] = ["envs", "tools", "blobs", "executions"];

/// What is used at a moment. The daemon's own, but for processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// KiB.
    pub(crate) resident: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    /// The daemon, and everything that it or its kernels have started.
    pub(crate) processes: u64,
    /// KiB of what it keeps, but for [`KEPT`].
    pub(crate) disk: u64,
    /// Milliseconds of processor time so far.
    pub(crate) busy: u64,
}

impl Figures {
    pub(crate) fn of(daemon: &Daemon) -> Self {
        let process = PathBuf::from(format!("/proc/{}", daemon.pid()));
        let status = fs::read_to_string(process.join("status")).unwrap();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Self {
            resident: number("VmRSS:"),
            descriptors: fs::read_dir(process.join("fd")).unwrap().count() as u64,
            threads: number("Threads:"),
            processes: processes(daemon.home.path()),
            disk: kept(&daemon.base()),
            busy: busy(&process),
        }
    }

    /// Looks until it is as it `should` be; else as it is after [`PATIENCE`]: what is given back is given back in a moment.
    pub(crate) fn settled(daemon: &Daemon, should: impl Fn(&Self) -> bool) -> Self {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = Self::of(daemon);
            if should(&now) || Instant::now() > end {
                return now;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Those when nothing is under way: descriptors, threads and processes do not become fewer for some seconds. Threads for
    /// blocking work end after 10 s without any.
    pub(crate) fn at_rest(daemon: &Daemon) -> Self {
        let mut least = Self::of(daemon);
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_secs(size(2, 12)) {
            thread::sleep(Duration::from_millis(200));
            let now = Self::of(daemon);
            let fewer = now.descriptors < least.descriptors
                || now.threads < least.threads
                || now.processes < least.processes;
            if fewer {
                since = Instant::now();
            }
            least = Self {
                descriptors: now.descriptors.min(least.descriptors),
                threads: now.threads.min(least.threads),
                processes: now.processes.min(least.processes),
                ..now
            };
        }
        least
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self { resident, descriptors, threads, processes, disk, .. } = self;
        let resident = *resident as f64 / 1024.0;
        write!(
            f,
            "{resident:.1} MiB, {descriptors} descriptors, {threads} threads, {processes} processes, {disk} KiB kept"
        )
    }
}

/// How many processes have this home.
fn processes(home: &Path) -> u64 {
    let home = format!("HOME={}\0", home.display()).into_bytes();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let environments = all.filter_map(|it| fs::read(it.path().join("environ")).ok());
    environments.filter(|it| it.windows(home.len()).any(|part| part == home)).count() as u64
}

fn kept(base: &Path) -> u64 {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    entries
        .filter(|it| !KEPT.contains(&&*it.file_name().to_string_lossy()))
        .map(|it| bytes(&it.path()))
        .sum::<u64>()
        / 1024
}

fn bytes(path: &Path) -> u64 {
    // What is removed meanwhile is not there.
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    match metadata.is_dir() {
        true => fs::read_dir(path).into_iter().flatten().flatten().map(|it| bytes(&it.path())).sum(),
        false => metadata.len(),
    }
}

/// Time in user and system mode; a tick is 10 ms on Linux.
fn busy(process: &Path) -> u64 {
    let stat = fs::read_to_string(process.join("stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    [11, 12].map(|field| fields[field].parse::<u64>().unwrap()).iter().sum::<u64>() * 10
}
