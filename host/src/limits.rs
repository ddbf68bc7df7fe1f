//! How many files this process may have open.
//!
//! For: `daemon.rs`, at its start: each window, kernel and journal is a file, and 1,024 are soon used up.
//! Promises: connections leave enough of them for what those work with who are there.
//! Never: fails; with fewer files the daemon works as well, for fewer notebooks.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// macOS refuses more than this (`OPEN_MAX`), whatever the hard limit says.
const MACOS_MAX: u64 = 10_240;

/// Raises the limit on open files to what this user may have. Returns the limit.
pub fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = if cfg!(target_os = "macos") {
        Some(maximum.map_or(MACOS_MAX, |maximum| maximum.min(MACOS_MAX)))
    } else {
        maximum
    };
    // None is no limit.
    let (Some(now), wanted) = (current, wanted) else { return None };
    if wanted.is_some_and(|wanted| wanted <= now) {
        return Some(now);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum }) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!("no more than {now} files can be open at a time: {error}");
            Some(now)
        }
    }
}

/// How many connections there may be at a time: half of the files. The others are for what they want: notebooks, journals,
/// kernels, environments.
pub fn connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / 2).unwrap_or(usize::MAX)
}
