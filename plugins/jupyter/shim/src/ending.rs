//! How a kernel is ended: politely, then by force.
//!
//! Promises: pure; one end at a time, the first way it was asked for counts.

use std::time::{Duration, Instant};

/// How long a process may live after it has closed one of its sockets. One that ends by itself needs
/// milliseconds.
const CLOSED_GRACE: Duration = Duration::from_secs(2);

/// The end of a kernel, as far as it is under way.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    requested: bool,
    /// Nobody asked for the end, and it did not come by itself.
    forced: bool,
    next: Option<(Instant, Step)>,
}

/// What to do to the process. `Terminate` holds the time until `Kill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Interrupt it, so that a busy kernel listens, and ask it to shut down.
    Ask,
    /// SIGTERM.
    Terminate(Duration),
    /// SIGKILL.
    Kill,
}

impl Ending {
    /// Whether somebody asked for the end.
    pub(crate) fn requested(&self) -> bool {
        self.requested
    }

    /// Whether it had to be ended because it had closed a socket.
    pub(crate) fn forced(&self) -> bool {
        self.forced
    }

    /// Somebody asks for the end within `grace`: after two fifths of it comes SIGTERM, at its end SIGKILL (2 s and
    /// 3 s of the reference's 5 s). No time at all means SIGKILL, also while a gentler end is under way.
    pub(crate) fn request(&mut self, grace: Duration, now: Instant) -> Option<Step> {
        let first = !std::mem::replace(&mut self.requested, true);
        if grace.is_zero() {
            self.next = None;
            return Some(Step::Kill);
        }
        if !first {
            return None;
        }
        let polite = grace * 2 / 5;
        self.next = Some((now + polite, Step::Terminate(grace.saturating_sub(polite))));
        Some(Step::Ask)
    }

    /// The kernel has closed one of its sockets: it has to end soon.
    pub(crate) fn socket_closed(&mut self, now: Instant) {
        if self.next.is_none() {
            self.next = Some((now + CLOSED_GRACE, Step::Terminate(CLOSED_GRACE)));
        }
    }

    /// When [`Ending::due`] has something.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// The step whose time has come.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Step> {
        let (_, step) = self.next.take_if(|(at, _)| *at <= now)?;
        self.forced |= !self.requested;
        if let Step::Terminate(rest) = step {
            self.next = Some((now + rest, Step::Kill));
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_gets_harder_with_time_and_force_comes_at_once() {
        let now = Instant::now();
        let later = |ms| now + Duration::from_millis(ms);
        let mut ending = Ending::default();
        assert_eq!(ending.request(Duration::from_secs(5), now), Some(Step::Ask));
        assert_eq!(ending.request(Duration::from_secs(1), now), None);
        assert_eq!(ending.due(later(1999)), None);
        assert_eq!(ending.due(later(2000)), Some(Step::Terminate(Duration::from_secs(3))));
        assert_eq!(ending.due(later(4999)), None);
        assert_eq!(ending.due(later(5000)), Some(Step::Kill));
        assert_eq!((ending.deadline(), ending.requested(), ending.forced()), (None, true, false));

        let mut ending = Ending::default();
        ending.socket_closed(now);
        assert_eq!((ending.requested(), ending.forced()), (false, false));
        assert_eq!(ending.due(later(2000)), Some(Step::Terminate(CLOSED_GRACE)));
        assert_eq!(ending.request(Duration::ZERO, later(2001)), Some(Step::Kill));
        assert_eq!((ending.deadline(), ending.forced()), (None, true));
    }
}
