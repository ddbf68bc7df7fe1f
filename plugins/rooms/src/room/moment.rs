//! Time as a room sees it.
//!
//! For: deadlines in a core that has no clock: the shell brings the moment along with each event.

use std::ops::Add;
use std::time::Duration;

/// Time since the room was opened. Never goes back, and does not count on the calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) Duration);

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

/// The earliest of some deadlines, if there is any.
pub(crate) fn earliest(deadlines: impl IntoIterator<Item = Option<Moment>>) -> Option<Moment> {
    deadlines.into_iter().flatten().min()
}
