//! A limit on how often something may happen, with room for a burst.
//!
//! For: log lines and progress of a child, which could otherwise keep the daemon busy.
//! Promises: what is left out is counted, and told once for each time the bucket has run dry.

use std::time::{Duration, Instant};

/// Lets `burst` pass at once and `per_second` in the long run. Once dry, it stays closed until a quarter of the
/// burst has come back, so that there is one gap to tell of and not one before each.
#[derive(Debug)]
pub(super) struct Bucket {
    burst: f64,
    per_second: f64,
    tokens: f64,
    filled: Option<Instant>,
    /// How many were left out since the bucket ran dry.
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
        let least = if self.left_out > 0 { (self.burst / 4.0).max(1.0) } else { 1.0 };
        if self.tokens < least {
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
        let mut bucket = Bucket::new(8, 2);
        let passed = |bucket: &mut Bucket, now| (0..10).filter(|_| bucket.pass(now).is_some()).count();
        assert_eq!(passed(&mut bucket, start), 8);
        assert_eq!(
            passed(&mut bucket, start + Duration::from_millis(600)),
            0,
            "closed until a quarter is back"
        );
        let later = start + Duration::from_millis(1100);
        assert_eq!((bucket.pass(later), bucket.pass(later), bucket.pass(later)), (Some(12), Some(0), None));
        assert_eq!(passed(&mut bucket, start + Duration::from_secs(3600)), 8, "no more than a burst");
    }
}
