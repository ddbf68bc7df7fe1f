//! When to make a kernel look again for an interrupt.
//!
//! For: interrupts that CPython overlooks. Its signal handler leaves a note, which is read between two steps of the
//! program; one that comes after the last look and before `sleep` or another wait begins is read when the wait is over.
//! A second interrupt would reach a program that is cleaning up after the first. So this sends SIGWINCH, which means
//! nothing to a process without a terminal and is ignored unless somebody catches it; our Python kernels do, and any
//! signal that is caught ends the wait and has the note read.
//! Promises: pure; a few times after the last interrupt, then no more.

use std::time::{Duration, Instant};

/// How long after an interrupt. Too soon, and a busy machine has not let the program go on to its wait yet.
const AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// The nudges that are still to come, the next one last.
#[derive(Debug, Default)]
pub(crate) struct Nudges(Vec<Instant>);

impl Nudges {
    /// The kernel was interrupted.
    pub(crate) fn interrupted(&mut self, now: Instant) {
        self.0 = AFTER.iter().rev().map(|after| now + *after).collect();
    }

    /// When [`Nudges::is_due`] says so next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.last().copied()
    }

    /// Whether the time of the next one has come, which is then taken as sent.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.0.pop_if(|at| *at <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_is_followed_by_two_and_a_later_one_begins_anew() {
        let now = Instant::now();
        let later = |ms| now + Duration::from_millis(ms);
        let mut nudges = Nudges::default();
        assert_eq!((nudges.deadline(), nudges.is_due(now)), (None, false));
        nudges.interrupted(now);
        assert_eq!((nudges.deadline(), nudges.is_due(later(99))), (Some(later(100)), false));
        assert!(nudges.is_due(later(100)) && !nudges.is_due(later(100)));
        nudges.interrupted(later(500));
        assert!(nudges.is_due(later(600)) && nudges.is_due(later(1500)));
        assert_eq!(nudges.deadline(), None);
    }
}
