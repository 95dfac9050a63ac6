//! The drain after a stop was asked for: it may take long, but it may not stand still for ever.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::RunError;
use crate::region::{Region, StageShared};

/// How long a stop waits for a sink that takes nothing, when a pond keeps what it has not taken.
const SINK_PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Drain {
    /// Results that stages had released when they were looked at last. What a restored stage repeats does not count, so one that
    /// fails again and again comes no further.
    released: u64,
    moved_at: Instant,
    /// Restarts of each node before the stop.
    restarts: Vec<u64>,
}

impl Drain {
    pub(crate) fn begin(region: &Region, now: Instant) -> Self {
        let restarts = (0..region.plan.nodes.len()).map(|node| restarts(region, node)).collect();
        Self { released: released(region), moved_at: now, restarts }
    }

    /// Looks at the drain. `Some` when nothing has moved for too long: with the reason why it can't come to its end, or with none when it
    /// need not, because a pond keeps what a sink does not take.
    pub(crate) fn stuck(
        &mut self,
        region: &Region,
        waiting_for: &BTreeSet<usize>,
        now: Instant,
    ) -> Option<Result<(), RunError>> {
        let released = released(region);
        // With nobody to wait for, the committer is at work.
        if released != self.released || waiting_for.is_empty() {
            (self.released, self.moved_at) = (released, now);
            return None;
        }
        let max = Duration::from_millis(region.config.drain_ms);
        let waits = |stage: &&Arc<StageShared>| waiting_for.contains(&stage.node) && stage.waits_for().is_some();
        let waits = region.stages.iter().find(waits).filter(|_| region.is_behind_ponds());
        let stood = now.duration_since(self.moved_at);
        if let Some(sink) = waits.filter(|_| stood >= max.min(SINK_PATIENCE)) {
            let (sink, cut) = (&region.node(sink.node).name, region.committed().last.cut);
            tracing::warn!(%sink, cut, "stopped while the sink waits: its pond keeps what it has not taken; what it took since its last cut comes again");
            return Some(Ok(()));
        }
        (stood >= max).then(|| Err(self.fault(region, waiting_for, max)))
    }

    fn fault(&self, region: &Region, waiting_for: &BTreeSet<usize>, max: Duration) -> RunError {
        let told: Vec<(String, bool)> = waiting_for.iter().map(|node| self.tell(region, *node)).collect();
        // Behind one that fails everything waits; name those with a reason of their own, if there are any.
        let any = told.iter().any(|(_, has_reason)| *has_reason);
        let named = told.into_iter().filter(|(_, has_reason)| *has_reason || !any).map(|(text, _)| text);
        RunError::Undrained {
            stages: named.collect::<Vec<_>>().join(", "),
            seconds: max.as_secs(),
            cut: region.committed().last.cut,
        }
    }

    /// A node that did not answer, and whether it is known why.
    fn tell(&self, region: &Region, node: usize) -> (String, bool) {
        let name = &region.node(node).name;
        let waits_for =
            region.stages.iter().find(|stage| stage.node == node).and_then(|stage| stage.waits_for().clone());
        let again = restarts(region, node).saturating_sub(self.restarts[node]);
        match (waits_for, again) {
            (Some(what), _) => (format!("`{name}` (it waits: {what})"), true),
            (None, 0) => (format!("`{name}`"), false),
            (None, again) => (format!("`{name}` (it failed {again} times since; the log says why)"), true),
        }
    }
}

fn released(region: &Region) -> u64 {
    region.stages.iter().map(|stage| stage.outlet.released()).sum()
}

fn restarts(region: &Region, node: usize) -> u64 {
    let stages = region.stages.iter().filter(|stage| stage.node == node).map(|stage| &stage.counters);
    let sources = region.sources.iter().filter(|source| source.node == node).map(|source| &source.counters);
    stages.chain(sources).map(|counters| counters.restarts.load(Ordering::Relaxed)).sum()
}
