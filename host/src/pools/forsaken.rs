//! Environments whose notebook is gone for good.
//!
//! For: the care of the disk, since what a notebook keeps is left alone otherwise.
//! Promises: a notebook that is back for a moment is not gone, and its days count from the beginning.
//! Blocks: call it from the blocking pool.

use std::io;
use std::path::Path;

use super::captured::{Captured, remove_if_there};
use crate::disk;

/// On how many days the notebook was not there, and the last of them.
const GONE_FILE: &str = "notebook-gone";
/// On so many days, a notebook that is not there has not moved or is not on a disk that is away just now: it is gone. As long
/// as journals of notebooks stay that nobody opens.
const GONE_DAYS: u32 = 30;
/// Environments are the user's own.
const FILE_MODE: u32 = 0o600;

/// Whether the notebook that keeps the environment at `prefix` is gone for good, as of `today`: its file was not there on
/// [`GONE_DAYS`] days on which somebody looked. Counts days, so that a clock that jumps counts as one.
pub(super) fn is_forsaken(prefix: &Path, today: &str) -> bool {
    let Some(notebook) = Captured::notebook_of(prefix) else { return false };
    let marker = prefix.join(GONE_FILE);
    if !matches!(notebook.try_exists(), Ok(false)) {
        // If it cannot be removed, the count goes on from there when the notebook is gone again.
        let _ = found(prefix);
        return false;
    }
    let before = std::fs::read_to_string(&marker).unwrap_or_default();
    let (days, last) = before.split_once(' ').unwrap_or_default();
    let days = days.parse().unwrap_or(0_u32);
    if last == today {
        return days >= GONE_DAYS;
    }
    let days = days.saturating_add(1);
    // Not written is not counted.
    disk::replace(&marker, format!("{days} {today}").as_bytes(), FILE_MODE).is_ok() && days >= GONE_DAYS
}

/// The notebook that keeps the environment at `prefix` is there.
///
/// # Errors
/// Those of the file system.
pub(super) fn found(prefix: &Path) -> io::Result<()> {
    remove_if_there(&prefix.join(GONE_FILE))
}

#[cfg(test)]
mod tests {
    use runtimed_plugin_api::EnvNeed;

    use super::*;

    #[test]
    fn a_notebook_is_gone_for_good_once_it_was_not_there_on_many_days() {
        let dir = tempfile::tempdir().unwrap();
        let (prefix, notebook) = (dir.path().join("env"), dir.path().join("a.ipynb"));
        std::fs::create_dir(&prefix).unwrap();
        let need = EnvNeed { notebook_path: Some(notebook.clone()), ..EnvNeed::default() };
        let captured = Captured::by(&need, "uv", Vec::new()).unwrap();
        captured.write(&prefix).unwrap();
        let forsaken =
            |days: u32| (0..days).fold(false, |_, day| is_forsaken(&prefix, &format!("day {day}")));
        assert!(!forsaken(GONE_DAYS - 1));
        assert!(!is_forsaken(&prefix, &format!("day {}", GONE_DAYS - 2)), "the same day counts once");
        std::fs::write(&notebook, "").unwrap();
        assert!(!is_forsaken(&prefix, "it is back"));
        std::fs::remove_file(&notebook).unwrap();
        assert!(!forsaken(GONE_DAYS - 1) && forsaken(GONE_DAYS));
        captured.write(&prefix).unwrap();
        assert!(!is_forsaken(&prefix, "used again"));
        assert!(!is_forsaken(dir.path(), "nobody's"));
    }
}
