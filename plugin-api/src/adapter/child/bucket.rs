//! A limit on how often something may happen, with room for a burst.
//!
//! For: log lines and progress of a child, which could otherwise keep the daemon busy.
//! Promises: nothing allowed is lost silently: what was left out is counted and told once.

use std::time::{Duration, Instant};

/// Lets `burst` pass at once and `per_second` in the long run.
#[derive(Debug)]
pub(super) struct Bucket {
    burst: f64,
    per_second: f64,
    tokens: f64,
    filled: Option<Instant>,
    left_out: u64,
}

impl Bucket {
    pub(super) const fn new(burst: u32, per_second: u32) -> Self {
        Self {
            burst: burst as f64,
            per_second: per_second as f64,
            tokens: burst as f64,
            filled: None,
            left_out: 0,
        }
    }

    /// Whether one more may pass at `now`; if so, how many were left out before it.
    pub(super) fn pass(&mut self, now: Instant) -> Option<u64> {
        let since = self.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        self.filled = Some(now);
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_second).min(self.burst);
        if self.tokens < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, 2);
        let passed = (0..10).filter(|_| bucket.pass(start).is_some()).count();
        assert_eq!(passed, 3);
        let later = start + Duration::from_millis(600);
        assert_eq!((bucket.pass(later), bucket.pass(later)), (Some(7), None));
        let much_later = start + Duration::from_secs(3600);
        assert_eq!(bucket.pass(much_later), Some(1));
        assert_eq!((0..10).filter(|_| bucket.pass(much_later).is_some()).count(), 2, "no more than a burst");
    }
}
