//! When a notebook saves itself.
//!
//! For: files that follow the document soon after the user pauses, and often enough when they do not.
//! Promises: a change is due for saving 2 s after the last one and 10 s after the first, whichever is
//! sooner; no change is forgotten while a save runs or after one failed.

use std::time::Duration;

use super::moment::Moment;

/// Saving starts this long after the last change. Source: the protocol's users expect it (2 s measured).
const QUIET: Duration = Duration::from_secs(2);
/// Saving starts at the latest this long after the first unsaved change. Source: as above.
const LONGEST: Duration = Duration::from_secs(10);
/// A failed save is tried again after this long: often enough to catch a remounted disk, rarely enough
/// not to fill the log.
const RETRY: Duration = Duration::from_secs(10);

/// The unsaved changes of a document, as moments.
#[derive(Default)]
pub(crate) struct Autosave {
    /// First and last change since the last snapshot was taken.
    unsaved: Option<(Moment, Moment)>,
}

impl Autosave {
    /// The document changed.
    pub(crate) fn changed(&mut self, now: Moment) {
        let (_, last) = self.unsaved.get_or_insert((now, now));
        *last = (*last).max(now);
    }

    /// A snapshot with every change so far is being saved. Says whether there was any.
    pub(crate) fn take(&mut self) -> bool {
        self.unsaved.take().is_some()
    }

    /// That snapshot did not reach the file.
    pub(crate) fn failed(&mut self, now: Moment) {
        self.unsaved = Some((now, now + (RETRY - QUIET)));
    }

    /// Whether the file lacks a change.
    pub(crate) fn is_dirty(&self) -> bool {
        self.unsaved.is_some()
    }

    /// When to save.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.unsaved.map(|(first, last)| (last + QUIET).min(first + LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn a_pause_saves_after_two_seconds_and_steady_typing_after_ten() {
        let mut autosave = Autosave::default();
        assert_eq!(autosave.deadline(), None);
        autosave.changed(at(100));
        assert_eq!(autosave.deadline(), Some(at(102)));
        (101..120).for_each(|second| autosave.changed(at(second)));
        assert_eq!(autosave.deadline(), Some(at(110)));
    }

    #[test]
    fn a_failed_save_is_tried_again_in_ten_seconds() {
        let mut autosave = Autosave::default();
        autosave.changed(at(1));
        assert!(autosave.take());
        assert!(!autosave.is_dirty());
        autosave.failed(at(4));
        assert_eq!(autosave.deadline(), Some(at(14)));
    }
}
