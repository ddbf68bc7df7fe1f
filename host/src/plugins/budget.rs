//! How often a plugin's process may die. Pure.
//!
//! For: the supervisor, which starts a process again when the next call comes.
//! Promises: one that dies now and then is back at once, one that dies all the time costs nothing after a
//! while, and nobody is given up for good.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Restarts within [`WINDOW`] before it is left alone (our choice: a plugin that fails so often fails always).
pub(super) const RESTARTS: usize = 5;
/// Deaths longer ago than this are forgotten (our choice).
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Pause before the second start; doubles with each death within [`WINDOW`] (our choice: not felt once, and
/// long enough for whatever was short to recover).
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// How long it is left alone then (our choice: a network or a disk that was full may be well again).
pub(super) const COOL_DOWN: Duration = Duration::from_secs(300);

/// The deaths that still count.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Oldest first.
    deaths: VecDeque<Instant>,
    /// When it had died too often.
    spent: Option<Instant>,
}

/// Whether a process may be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// After this pause, which is often zero.
    After(Duration),
    /// Not before this much time has passed.
    Spent(Duration),
}

impl Budget {
    /// A process has died at `now`.
    pub(super) fn died(&mut self, now: Instant) {
        self.forget(now);
        self.deaths.push_back(now);
        if self.deaths.len() > RESTARTS {
            self.spent = Some(now);
        }
    }

    /// What holds at `now`.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        if let Some(spent) = self.spent {
            let left = (spent + COOL_DOWN).saturating_duration_since(now);
            return if left.is_zero() { Verdict::After(Duration::ZERO) } else { Verdict::Spent(left) };
        }
        let recent = self.deaths.iter().filter(|death| now.saturating_duration_since(**death) < WINDOW);
        let due = self.deaths.back().zip(doublings(recent.count()));
        Verdict::After(due.map_or(Duration::ZERO, |(last, doublings)| {
            (*last + FIRST_PAUSE * 2u32.saturating_pow(doublings)).saturating_duration_since(now)
        }))
    }

    fn forget(&mut self, now: Instant) {
        if self.spent.is_some_and(|spent| now.saturating_duration_since(spent) >= COOL_DOWN) {
            *self = Self::default();
        }
        while self.deaths.front().is_some_and(|death| now.saturating_duration_since(*death) >= WINDOW) {
            self.deaths.pop_front();
        }
    }
}

/// How often the first pause has doubled after so many deaths; none without any.
fn doublings(deaths: usize) -> Option<u32> {
    u32::try_from(deaths.checked_sub(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_until_it_is_left_alone_and_then_it_may_try_again() {
        let (mut budget, mut now) = (Budget::default(), Instant::now());
        assert_eq!(budget.verdict(now), Verdict::After(Duration::ZERO));
        let mut pauses = Vec::new();
        for _ in 0..RESTARTS {
            budget.died(now);
            let Verdict::After(pause) = budget.verdict(now) else { panic!("{budget:?}") };
            pauses.push(pause.as_millis());
            assert_eq!(budget.verdict(now + pause), Verdict::After(Duration::ZERO));
            now += SECOND;
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000]);
        budget.died(now);
        assert_eq!(budget.verdict(now + SECOND), Verdict::Spent(COOL_DOWN - SECOND));
        now += COOL_DOWN;
        assert_eq!(budget.verdict(now), Verdict::After(Duration::ZERO));
        budget.died(now);
        assert_eq!(budget.verdict(now), Verdict::After(FIRST_PAUSE));
    }

    #[test]
    fn who_dies_seldom_is_always_back_at_once() {
        let (mut budget, mut now) = (Budget::default(), Instant::now());
        for _ in 0..3 * RESTARTS {
            budget.died(now);
            now += WINDOW;
            assert_eq!(budget.verdict(now), Verdict::After(Duration::ZERO));
        }
    }
}
