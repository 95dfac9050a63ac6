//! Pauses between restarts: exponential, with full jitter, back to the start after a quiet minute.

use std::time::Duration;

use tokio::time::Instant;

use crate::host::Host;

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
    /// The pause after a failure now: a random part of 10 ms, 20 ms, 40 ms, ... 10 s. The whole of it when there is no random number.
    pub(crate) fn next(&mut self, host: &dyn Host) -> Duration {
        self.after(Instant::now(), host.random().unwrap_or(u64::MAX))
    }

    fn after(&mut self, now: Instant, random: u64) -> Duration {
        if self.last.is_some_and(|last| now.duration_since(last) > QUIET) {
            self.failures = 0;
        }
        self.last = Some(now);
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        Duration::from_millis((ceiling.as_millis() as f64 * (random as f64 / u64::MAX as f64)) as u64)
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
            assert_eq!(backoff.after(start, u64::MAX), ceiling);
        }
        assert!(backoff.after(start + Duration::from_secs(61), u64::MAX / 2) <= FIRST);
    }
}
