//! Pauses between restarts: exponential, with full jitter, back to the start after a quiet minute.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Backoff {
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// The pause after a failure at `now`: a random part of 10 ms, 20 ms, 40 ms, ... 10 s.
    pub(crate) fn next(&mut self, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now.duration_since(last) > QUIET) {
            self.failures = 0;
        }
        self.last = Some(now);
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        let random = RandomState::new().build_hasher().finish();
        ceiling.mul_f64(random as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_below_a_ceiling_that_doubles_and_starts_over_after_a_quiet_minute() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        for failure in 0..20 {
            let ceiling = Duration::from_millis(10 << failure.min(16)).min(LONGEST);
            assert!(backoff.next(start) <= ceiling);
        }
        assert!(backoff.next(start + Duration::from_secs(61)) <= FIRST);
    }
}
