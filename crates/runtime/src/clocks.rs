//! What passes by the clocks of the machine. The wall clock may be set; while the machine is suspended, it goes on,
//! and the one that counts time stands still.

use std::time::Duration;

use tokio::time::Instant;

use crate::host::Host;

/// A difference between the clocks that nobody has to set them for.
const STEP_MIN: Duration = Duration::from_secs(1);

/// The clocks as they were when they were looked at last.
pub(crate) struct Clocks {
    at: Instant,
    wall_ms: i64,
    suspended: Duration,
}

/// What has passed between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// While the process ran, or could have run.
    pub(crate) running: Duration,
    /// While the machine was suspended.
    pub(crate) suspended: Duration,
    /// By how much the wall clock was set forward (or back) besides, in milliseconds; 0 for what is less than a second.
    pub(crate) step_ms: i64,
}

impl Clocks {
    pub(crate) fn now(host: &dyn Host) -> Self {
        Self { at: Instant::now(), wall_ms: host.now_ms(), suspended: host.suspended() }
    }

    /// Looks again.
    pub(crate) fn pass(&mut self, host: &dyn Host) -> Passed {
        let before = std::mem::replace(self, Self::now(host));
        before.until(self)
    }

    fn until(&self, now: &Self) -> Passed {
        let running = now.at.duration_since(self.at);
        let suspended = now.suspended.saturating_sub(self.suspended);
        let passed_ms = i64::try_from((running + suspended).as_millis()).unwrap_or(i64::MAX);
        let step_ms = now.wall_ms.saturating_sub(self.wall_ms).saturating_sub(passed_ms);
        let is_step = u128::from(step_ms.unsigned_abs()) >= STEP_MIN.as_millis();
        Passed { running, suspended, step_ms: if is_step { step_ms } else { 0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_told_from_a_pause_and_from_a_suspended_machine() {
        let begin = Clocks { at: Instant::now(), wall_ms: 1_000_000, suspended: Duration::from_secs(5) };
        let passed = |running: u64, suspended: u64, wall_ms: i64| {
            let now = Clocks {
                at: begin.at + Duration::from_secs(running),
                wall_ms: begin.wall_ms + wall_ms,
                suspended: begin.suspended + Duration::from_secs(suspended),
            };
            let Passed { running, suspended, step_ms } = begin.until(&now);
            (running.as_secs(), suspended.as_secs(), step_ms)
        };
        assert_eq!(passed(3, 0, 3_400), (3, 0, 0));
        assert_eq!(passed(3, 3_600, 3_603_000), (3, 3_600, 0));
        assert_eq!(passed(3, 0, 603_000), (3, 0, 600_000));
        assert_eq!(passed(3, 3_600, 3_000), (3, 3_600, -3_600_000));
        assert_eq!(passed(0, 0, -60_000), (0, 0, -60_000));
    }
}
