//! Partitions that give records all the time and no event: nothing in them is of a known type, or can be parsed. They hold hours open like others, and would for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::PartitionPosition;
use tokio::time::Instant;

use crate::reached::Newest;

/// How often partitions are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is counted between two looks at most: a process that was frozen has seen nothing.
const STEP_MAX: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub(crate) struct Barren {
    looked: Option<Instant>,
    partitions: BTreeMap<Arc<str>, Known>,
    /// For how long each has been so, as of the last look.
    found: BTreeMap<Arc<str>, Duration>,
}

struct Known {
    next: u64,
    newest_ms: Option<i64>,
    barren_for: Duration,
}

impl Barren {
    /// For how long each partition has given records, and no event that is newer than those before, as of the last look; one that waits for its turn gives nothing.
    pub(crate) fn found(&self) -> &BTreeMap<Arc<str>, Duration> {
        &self.found
    }

    /// Whether it is time to look: that is not at every chunk.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_EVERY)
    }

    /// Looks at all partitions.
    pub(crate) fn look(
        &mut self,
        positions: &BTreeMap<Arc<str>, PartitionPosition>,
        newest: impl Fn(&str) -> Option<Newest>,
        now: Instant,
    ) {
        let passed = self.looked.map_or(Duration::ZERO, |looked| now.duration_since(looked).min(STEP_MAX));
        self.looked = Some(now);
        self.partitions.retain(|name, _| positions.contains_key(name));
        for (name, position) in positions {
            let newest_ms = newest(name).map(|newest| newest.at_ms);
            let fresh = || Known { next: position.next, newest_ms, barren_for: Duration::ZERO };
            let known = self.partitions.entry(name.clone()).or_insert_with(fresh);
            if known.newest_ms != newest_ms {
                *known = fresh();
            } else if known.next != position.next {
                (known.next, known.barren_for) = (position.next, known.barren_for + passed);
            }
        }
        let barren = self.partitions.iter().filter(|(_, known)| !known.barren_for.is_zero());
        self.found = barren.map(|(name, known)| (name.clone(), known.barren_for)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_records_without_events_is_barren_and_what_waits_or_gives_events_is_not() {
        let (mut barren, mut now) = (Barren::default(), Instant::now());
        let mut look = |second: u64, positions: [u64; 3], newest_ms: i64| {
            now += Duration::from_secs(second);
            let position = |next| PartitionPosition { next, resume: Arc::default(), ended: false };
            let positions =
                ["barren", "events", "waits"].map(Arc::from).into_iter().zip(positions.map(position)).collect();
            let newest = |name: &str| (name == "events").then_some(Newest { at_ms: newest_ms, arrived_at_ms: 0 });
            if barren.is_due(now) {
                barren.look(&positions, newest, now);
            }
            barren.found().clone()
        };
        assert!(look(0, [1, 1, 1], 1).is_empty());
        assert!(look(1, [1, 2, 1], 2).is_empty());
        let two = BTreeMap::from([("barren".into(), Duration::from_secs(2))]);
        assert_eq!(look(2, [2, 3, 1], 3), two);
        assert_eq!(look(0, [3, 4, 1], 4), two, "a second has not passed");
        let seven = BTreeMap::from([("barren".into(), Duration::from_secs(7))]);
        assert_eq!(look(3_600, [4, 5, 1], 5), seven, "nobody looked meanwhile");
        assert_eq!(look(60, [4, 6, 1], 6), seven, "it gives nothing now");
    }
}
