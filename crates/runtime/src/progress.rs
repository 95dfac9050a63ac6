//! How far event time has come, by partition, and which hours have events: the ground on which hours are proposed for sealing.
//!
//! Nothing here decides anything: what is sealed is what a barrier carries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_core::{Batch, Hour, TimeColumn};

/// Highest event times and open hours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Source, partition, highest event time in milliseconds.
    pub(crate) seen: BTreeMap<Arc<str>, BTreeMap<Arc<str>, i64>>,
    /// Starts of hours with events, by type.
    pub(crate) open: BTreeMap<Arc<str>, BTreeSet<i64>>,
}

/// What one batch adds.
pub(crate) struct Seen {
    source: Arc<str>,
    partition: Arc<str>,
    event_type: Arc<str>,
    max_ms: i64,
    hours: BTreeSet<i64>,
}

impl Seen {
    /// Looks at the event times of a batch. One pass over the time column.
    pub(crate) fn of(batch: &Batch, bucket_ms: i64) -> Option<Self> {
        let times = TimeColumn::of(&batch.records, batch.event_type.time)?;
        let mut max_ms = i64::MIN;
        let mut hours = BTreeSet::new();
        let mut current = Hour { start_ms: 0, width_ms: 0 };
        for row in batch.indexes() {
            let time = times.ms(row);
            max_ms = max_ms.max(time);
            if time < current.start_ms || time >= current.end_ms() {
                current = Hour::of(time, bucket_ms);
                hours.insert(current.start_ms);
            }
        }
        (max_ms > i64::MIN).then(|| Self {
            source: batch.origin.source.clone(),
            partition: batch.origin.partition.clone(),
            event_type: batch.event_type.name.clone(),
            max_ms,
            hours,
        })
    }
}

impl Progress {
    /// Takes note of a batch.
    pub(crate) fn see(&mut self, seen: Seen, moves_watermark: bool) {
        if moves_watermark {
            let partitions = self.seen.entry(seen.source).or_default();
            let max = partitions.entry(seen.partition).or_insert(seen.max_ms);
            *max = (*max).max(seen.max_ms);
        }
        self.open.entry(seen.event_type).or_default().extend(seen.hours);
    }

    /// Hours of a type that end at or before `sealed_before_ms` are sealed.
    pub(crate) fn sealed(&mut self, event_type: &str, sealed_before_ms: i64, bucket_ms: i64) {
        if let Some(open) = self.open.get_mut(event_type) {
            open.retain(|start| start.saturating_add(bucket_ms) > sealed_before_ms);
        }
    }
}
