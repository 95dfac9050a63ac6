//! Which partitions of a source that fails again and again do not get on, and for how long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{Idle, PartitionPosition};
use tokio::time::Instant;

/// A source that has not failed for so long is well. Longer than the pauses between failures, and what an attempt takes; a process that was frozen
/// begins anew.
const WELL_AFTER: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Default)]
pub(crate) struct Stuck {
    since: Option<Instant>,
    failed_at: Option<Instant>,
    /// Position of each partition, and since when it is there, since the first failure.
    partitions: BTreeMap<Arc<str>, (u64, Instant)>,
}

impl Stuck {
    /// The source has failed, at these positions, when these partitions were proven to have nothing.
    pub(crate) fn failed(&mut self, positions: &BTreeMap<Arc<str>, PartitionPosition>, idle: &Idle, now: Instant) {
        if self.failed_at.is_none_or(|failed_at| now.duration_since(failed_at) > WELL_AFTER) {
            (self.since, self.partitions) = (Some(now), BTreeMap::new());
        }
        self.failed_at = Some(now);
        for (partition, position) in positions {
            let known = self.partitions.entry(partition.clone()).or_insert((position.next, now));
            if known.0 != position.next || idle.of(partition).is_some() {
                *known = (position.next, now);
            }
        }
    }

    /// For how long it has failed, as of the last failure.
    pub(crate) fn fails_for(&self) -> Duration {
        let both = self.failed_at.zip(self.since);
        both.map_or(Duration::ZERO, |(failed_at, since)| failed_at.duration_since(since))
    }

    /// For how long partitions have been where they are, as of the last failure.
    pub(crate) fn of(
        &self,
        positions: &BTreeMap<Arc<str>, PartitionPosition>,
        now: Instant,
    ) -> BTreeMap<Arc<str>, Duration> {
        let is_recent = |failed_at: &Instant| now.duration_since(*failed_at) <= WELL_AFTER;
        let Some(failed_at) = self.failed_at.filter(is_recent) else { return BTreeMap::new() };
        let silence = |(partition, position): (&Arc<str>, &PartitionPosition)| {
            let (at, since) = self.partitions.get(partition)?;
            (*at == position.next).then(|| (partition.clone(), failed_at.duration_since(*since)))
        };
        positions.iter().filter_map(silence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(positions: &[(&str, u64)]) -> BTreeMap<Arc<str>, PartitionPosition> {
        let position = |next| PartitionPosition { next, resume: Arc::default(), ended: false };
        positions.iter().map(|(name, next)| ((*name).into(), position(*next))).collect()
    }

    #[test]
    fn what_gets_on_between_failures_is_not_stuck_and_failures_of_long_ago_are_forgotten() {
        let (mut stuck, begin, minute) = (Stuck::default(), Instant::now(), Duration::from_secs(60));
        assert!(stuck.of(&at(&[("a", 1)]), begin).is_empty());
        let none = Idle::default();
        stuck.failed(&at(&[("a", 1), ("b", 1)]), &none, begin);
        stuck.failed(&at(&[("a", 1), ("b", 2)]), &none, begin + minute);
        let silent = stuck.of(&at(&[("a", 1), ("b", 2)]), begin + minute);
        assert_eq!((silent["a"], silent["b"]), (minute, Duration::ZERO));
        assert_eq!(stuck.fails_for(), minute);
        assert!(!stuck.of(&at(&[("a", 5)]), begin + minute).contains_key("a"), "it has moved");
        let later = begin + minute + WELL_AFTER + minute;
        assert!(stuck.of(&at(&[("a", 1)]), later).is_empty());
        stuck.failed(&at(&[("a", 1)]), &none, later);
        assert_eq!(stuck.of(&at(&[("a", 1)]), later)["a"], Duration::ZERO);
        // What was proven to have nothing was not stuck.
        stuck.failed(&at(&[("a", 1)]), &Idle { proven_ms: Some(7), ..Idle::default() }, later + minute);
        assert_eq!(stuck.of(&at(&[("a", 1)]), later + minute)["a"], Duration::ZERO);
    }
}
