//! Whether anything can be heard of producers, and by what clocks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemill_core::Idle;
use tokio::time::Instant;

use super::Coordinator;
use crate::clocks::Passed;
use crate::region::SourceShared;

/// For longer than this nothing can be heard of producers, or between two ticks the process was paused: their leases
/// begin anew.
const DEAF: Duration = Duration::from_secs(2);

impl Coordinator {
    /// Leases of producers do not run while nothing can be heard of them for long: sources wait or fail, or may not
    /// read, which is borne for as long as a silent partition is, or the process itself was paused, or the machine
    /// suspended. When the wall clock is set, they go on as if it were not.
    pub(super) fn listen(&mut self) {
        let now = Instant::now();
        let Passed { running, suspended, step_ms } = self.ticked.pass(&*self.region.config.host);
        let was_paused = running > DEAF || suspended > DEAF;
        if step_ms != 0 {
            tracing::warn!(region = %self.region.name, step_ms, "the wall clock was set");
            self.cut_progress.shift(step_ms);
            self.region.progress().shift(step_ms);
            let shifted = |since: i64| Some(since.saturating_add(step_ms));
            let _ = self.region.listens_since.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shifted);
        }
        if was_paused || step_ms != 0 {
            // What was proven then says nothing of what has come meanwhile, or by another clock.
            self.region.sources.iter().for_each(|source| source.state().idle = Idle::default());
        }
        let waits = |source: &Arc<SourceShared>| {
            let state = source.state();
            state.positions.is_none() || state.waits_for.is_some() || !state.fails_for.is_zero()
        };
        let is_deaf = self.region.must_wait() || self.region.sources.iter().any(waits);
        self.deaf_since = if is_deaf { self.deaf_since.or(Some(now)) } else { None };
        let hold = Duration::from_millis(self.region.plan.limits.hold_at_most_ms.unsigned_abs());
        let deaf_for = self.deaf_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        if was_paused || (deaf_for > DEAF && deaf_for < hold) {
            self.region.listens_since.store(self.region.config.host.now_ms(), Ordering::Relaxed);
        }
    }
}
