//! How far event time has come, by partition, and which hours have events: the ground on which hours are proposed for sealing.
//!
//! Nothing here decides anything: what is sealed is what a barrier carries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_core::{Batch, DEAD_LETTER_TYPE, LatePolicy, Limits, Totals};

use crate::ledger::{self, Committed, Hours};
use crate::producers::{self, Heard};
use crate::reached::Reached;

/// How often producers are looked through for those that can be forgotten.
const FORGET_EVERY_MS: i64 = 60_000;

/// Highest event times and open hours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// How far partitions have come, by source.
    pub(crate) seen: ledger::Seen,
    /// Those of them that gave something since a record was made.
    moved: ledger::Names,
    /// Those of which it was said that an event is far ahead.
    far_ahead: ledger::Names,
    /// Starts of hours with events that are not sealed, by type.
    pub(crate) open: Hours,
    /// Those of them that have begun since a record was made, where records are.
    opened: Option<Hours>,
    /// Types with late events that are in no revision yet, with the wall clock of the first cut that has any. Known at barriers only.
    pub(crate) revising: BTreeMap<Arc<str>, i64>,
    /// Producers of each type that names them; of a stage or source, those heard of since the barrier before.
    pub(crate) producers: producers::ByType,
    /// Types that have more producers than are remembered.
    too_many: BTreeSet<Arc<str>>,
    looked_for_producers_ms: i64,
    /// Types whose late events are put into the first hour that is not sealed.
    into_next: BTreeSet<Arc<str>>,
    /// For each type, those that are made of it: its events open their hours, too. Not known to stages and sources.
    made_of: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// Events by type and start of their hour, of a stage or source since the barrier before.
    counts: BTreeMap<Arc<str>, BTreeMap<i64, u64>>,
    /// Horizon of each type.
    sealed_before_ms: BTreeMap<Arc<str>, i64>,
}

/// What one batch adds.
pub(crate) struct Seen {
    source: Arc<str>,
    partition: Arc<str>,
    event_type: Arc<str>,
    reached: Reached,
    /// Events by start of their hour.
    hours: BTreeMap<i64, u64>,
    /// What it says of producers, and the types that it says it of.
    heard: BTreeMap<Arc<str>, Heard>,
    heard_of: Vec<Arc<str>>,
    /// Late events are put into the first hour that is not sealed.
    into_next: bool,
    /// Dead letters that come again prove nothing of what their source has still to give.
    is_replay: bool,
}

impl Seen {
    /// Looks at the event times of a batch, of which the totals are known. `max_ahead_ms` is given where hours wait for
    /// what sources and producers show: not behind ponds.
    pub(crate) fn of(batch: &Batch, totals: &[(i64, Totals)], max_ahead_ms: Option<i64>) -> Option<Self> {
        let reached = Reached::of(batch, max_ahead_ms.unwrap_or(i64::MAX))?;
        let hours = totals.iter().map(|(start_ms, totals)| (*start_ms, totals.events)).collect();
        Some(Self {
            source: batch.origin.source.clone(),
            partition: batch.origin.partition.clone(),
            event_type: batch.event_type.name.clone(),
            reached,
            heard: max_ahead_ms.map(|_| producers::heard_in(batch)).unwrap_or_default(),
            heard_of: match &batch.event_type.producers {
                Some(producers) if !producers.marks.is_empty() => producers.marks.clone(),
                _ => vec![batch.event_type.name.clone()],
            },
            hours,
            into_next: *batch.event_type.name == *DEAD_LETTER_TYPE
                || batch.event_type.late.policy == LatePolicy::NextHour,
            is_replay: batch.origin.enters.is_some(),
        })
    }
}

impl Progress {
    /// As a cut has it. `made_of`: for each type, those that are made of it. `now_ms`: by the wall clock, which may
    /// have been set back since.
    pub(crate) fn at(cut: &Committed, made_of: BTreeMap<Arc<str>, Vec<Arc<str>>>, now_ms: i64) -> Self {
        let mut seen = cut.progress.clone();
        // Nothing has come, and nobody was heard of, later than now.
        let mut moved = ledger::Names::new();
        for (source, partitions) in &mut seen {
            let changed = partitions.iter_mut().filter_map(|(name, reached)| {
                let is_changed = reached.not_later_than(now_ms);
                is_changed.then(|| name.clone())
            });
            moved.entry(source.clone()).or_default().extend(changed);
        }
        let mut revising = cut.last.revising.clone();
        revising.values_mut().for_each(|since_ms| *since_ms = (*since_ms).min(now_ms));
        let sealed_before_ms = cut.sealed_before_ms.clone();
        let mut producers = cut.producers.clone();
        for heard in producers.values_mut().flat_map(BTreeMap::values_mut) {
            heard.heard_at_ms = heard.heard_at_ms.min(now_ms);
        }
        let mut progress = Self {
            seen,
            moved,
            open: cut.open.clone(),
            revising,
            producers,
            sealed_before_ms,
            made_of,
            ..Self::default()
        };
        // Those that are made by a stage which was not there before.
        for (event_type, derived) in &progress.made_of {
            let came = progress.open.get(event_type).cloned().unwrap_or_default();
            for derived in derived {
                let before = progress.sealed_before_ms.get(derived).copied().unwrap_or(i64::MIN);
                let open = came.iter().filter(|start| **start >= before);
                progress.open.entry(derived.clone()).or_default().extend(open);
            }
        }
        progress
    }

    /// Takes note of a batch. Hours that are sealed stay so: their events are late, and open nothing.
    pub(crate) fn see(&mut self, seen: &Seen, bucket_ms: i64) {
        if *seen.event_type != *DEAD_LETTER_TYPE && !seen.is_replay {
            self.see_time(&seen.source, &seen.partition, &seen.reached);
            for event_type in seen.heard_of.iter().filter(|_| !seen.heard.is_empty()) {
                self.hear(event_type, &seen.heard);
            }
        }
        if seen.into_next && !self.into_next.contains(&seen.event_type) {
            self.into_next.insert(seen.event_type.clone());
        }
        self.see_hours(&seen.event_type, seen.hours.keys().copied(), bucket_ms);
    }

    /// Counts the events of a batch, for the barrier that comes behind it.
    pub(crate) fn count(&mut self, seen: &Seen) {
        let counts = self.counts.entry(seen.event_type.clone()).or_default();
        seen.hours.iter().for_each(|(start, events)| *counts.entry(*start).or_default() += events);
    }

    /// Of each type, how many events a stage or source has counted up to a barrier, and how many of them are of sealed hours. To be asked before the
    /// hours of the barrier are.
    pub(crate) fn counted(&self, other: &Self, bucket_ms: i64) -> Vec<(Arc<str>, u64, u64)> {
        let of_type = |(name, hours): (&Arc<str>, &BTreeMap<i64, u64>)| {
            let before = self.sealed_before_ms.get(name).copied().unwrap_or(i64::MIN);
            let late = hours.iter().filter(|(start, _)| start.saturating_add(bucket_ms) <= before);
            (name.clone(), hours.values().sum(), late.map(|(_, events)| events).sum())
        };
        other.counts.iter().map(of_type).collect()
    }

    /// Takes over what a stage has seen up to a barrier. Returns the types that had events of sealed hours.
    pub(crate) fn merge(&mut self, other: &Self, bucket_ms: i64) -> Vec<Arc<str>> {
        for (source, partitions) in &other.seen {
            for (partition, reached) in partitions {
                self.see_time(source, partition, reached);
                self.moved.entry(source.clone()).or_default().insert(partition.clone());
            }
        }
        self.into_next.extend(other.into_next.iter().cloned());
        other.producers.iter().for_each(|(event_type, heard)| self.hear(event_type, heard));
        let mut late = Vec::new();
        for (event_type, hours) in &other.open {
            if self.see_hours(event_type, hours.iter().copied(), bucket_ms) {
                late.push(event_type.clone());
            }
        }
        late
    }

    fn hear(&mut self, event_type: &Arc<str>, heard: &BTreeMap<Arc<str>, Heard>) {
        let known = self.producers.entry(event_type.clone()).or_default();
        if !producers::hear(known, heard) && self.too_many.insert(event_type.clone()) {
            tracing::warn!(
                %event_type,
                max = producers::PRODUCERS_MAX,
                "the type has more producers than can be remembered: hours do not wait for the others"
            );
        }
    }

    /// Whether an hour of dead letters is open.
    pub(crate) fn has_letters(&self) -> bool {
        self.open.get(DEAD_LETTER_TYPE).is_some_and(|open| !open.is_empty())
    }

    /// From now on it notes which hours begin; those that are not among `known` have begun.
    pub(crate) fn tell_opened(&mut self, known: &Hours) {
        let is_new = |name: &Arc<str>, start: &i64| !known.get(name).is_some_and(|known| known.contains(start));
        let opened = self.open.iter().map(|(name, open)| {
            let new = open.iter().copied().filter(|start| is_new(name, start));
            (name.clone(), new.collect::<BTreeSet<i64>>())
        });
        self.opened = Some(opened.filter(|(_, opened)| !opened.is_empty()).collect());
    }

    /// Hours that have begun since it was asked last.
    pub(crate) fn take_opened(&mut self) -> Hours {
        self.opened.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Says of which partitions an event is far ahead of the others, once of each that gave something since a record was
    /// made.
    pub(crate) fn tell_far_ahead(&mut self, limits: &Limits) {
        for (source, names) in &self.moved {
            let told = self.far_ahead.entry(source.clone()).or_default();
            for name in names {
                let Some(at_ms) = self.seen[source][name].far_ahead_ms(limits) else {
                    told.remove(name);
                    continue;
                };
                if told.insert(name.clone()) {
                    let (time, partition) = (tidemill_core::format_time_ms(at_ms), name);
                    tracing::warn!(%source, %partition, %time, "an event is far ahead of the others of its partition: no hour is sealed because of it until two more agree, or nothing has come for `hold_at_most`");
                }
            }
        }
    }

    /// How far partitions have come that gave something since it was asked last.
    pub(crate) fn take_moved(&mut self) -> ledger::Seen {
        let moved = std::mem::take(&mut self.moved).into_iter().filter_map(|(source, names)| {
            let seen = self.seen.get(&source)?;
            let reached = names.into_iter().filter_map(|name| Some((name.clone(), seen.get(&name)?.clone())));
            let reached = reached.collect();
            Some((source, reached))
        });
        moved.collect()
    }

    /// The wall clock was set forward by so much, or back: what was seen by it, was seen as long ago as before.
    pub(crate) fn shift(&mut self, step_ms: i64) {
        let shift = |at_ms: &mut i64| *at_ms = at_ms.saturating_add(step_ms);
        self.seen.values_mut().flat_map(BTreeMap::values_mut).for_each(|reached| reached.shift(step_ms));
        let names = self.seen.iter().map(|(source, seen)| (source.clone(), seen.keys().cloned().collect()));
        self.moved = names.collect();
        let producers = self.producers.values_mut().flat_map(BTreeMap::values_mut);
        producers.for_each(|heard| shift(&mut heard.heard_at_ms));
        self.revising.values_mut().for_each(shift);
        shift(&mut self.looked_for_producers_ms);
    }

    /// Forgets producers that have come no further for a day; looked at once in a while. `begun_ms`: since when they are listened to.
    pub(crate) fn forget_producers(&mut self, begun_ms: i64, now_ms: i64) {
        if now_ms.saturating_sub(self.looked_for_producers_ms) < FORGET_EVERY_MS {
            return;
        }
        self.looked_for_producers_ms = now_ms;
        for producers in self.producers.values_mut() {
            producers.retain(|_, heard| heard.is_remembered(begun_ms, now_ms));
        }
    }

    fn see_time(&mut self, source: &Arc<str>, partition: &Arc<str>, reached: &Reached) {
        let partitions = self.seen.entry(source.clone()).or_default();
        match partitions.get_mut(partition) {
            Some(known) => known.add(reached),
            None => drop(partitions.insert(partition.clone(), reached.clone())),
        }
    }

    /// Returns whether some of the hours are sealed.
    fn see_hours(&mut self, event_type: &Arc<str>, hours: impl Iterator<Item = i64>, bucket_ms: i64) -> bool {
        let mut some_sealed = false;
        let before = self.sealed_before_ms.get(event_type).copied().unwrap_or(i64::MIN);
        let mut opened = self.opened.as_mut();
        let mut begin = |open: &mut BTreeSet<i64>, name: &Arc<str>, start: i64| {
            if open.insert(start)
                && let Some(opened) = &mut opened
            {
                opened.entry(name.clone()).or_default().insert(start);
            }
        };
        let open = self.open.entry(event_type.clone()).or_default();
        let into_next = self.into_next.contains(event_type);
        let mut came: BTreeSet<i64> = BTreeSet::new();
        for start in hours {
            let is_open = start.saturating_add(bucket_ms) > before;
            if is_open || into_next {
                let start = if is_open { start } else { before };
                begin(open, event_type, start);
                came.insert(start);
            } else {
                some_sealed = true;
            }
        }
        for derived in self.made_of.get(event_type).into_iter().flatten() {
            let before = self.sealed_before_ms.get(derived).copied().unwrap_or(i64::MIN);
            let is_open = |start: &&i64| start.saturating_add(bucket_ms) > before;
            let open = self.open.entry(derived.clone()).or_default();
            came.iter().filter(is_open).for_each(|start| begin(open, derived, *start));
        }
        some_sealed
    }

    /// Takes over the open hours of those types whose late events open another hour than their own.
    pub(crate) fn open_next(&mut self, other: &Self) {
        for name in &other.into_next {
            if let Some(hours) = other.open.get(name) {
                self.open.entry(name.clone()).or_default().extend(hours);
            }
        }
    }

    /// Hours of a type that end at or before `sealed_before_ms` are sealed. Returns the starts of those that had events.
    pub(crate) fn sealed(&mut self, event_type: &Arc<str>, sealed_before_ms: i64, bucket_ms: i64) -> BTreeSet<i64> {
        self.sealed_before_ms.insert(event_type.clone(), sealed_before_ms);
        let Some(open) = self.open.get_mut(event_type) else { return BTreeSet::new() };
        let (left, sealed) = open.iter().partition(|start| start.saturating_add(bucket_ms) > sealed_before_ms);
        *open = left;
        sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(event_type: &str, hour: i64) -> Seen {
        Seen {
            source: "s".into(),
            partition: "p".into(),
            event_type: event_type.into(),
            reached: Reached::at(hour, hour),
            hours: BTreeMap::from([(hour, 1)]),
            heard: BTreeMap::new(),
            heard_of: Vec::new(),
            into_next: event_type == DEAD_LETTER_TYPE,
            is_replay: false,
        }
    }

    #[test]
    fn an_event_of_a_sealed_hour_opens_it_for_nobody_but_a_dead_letter_opens_the_next() {
        let mut progress = Progress::default();
        for name in ["a", DEAD_LETTER_TYPE] {
            progress.see(&seen(name, 0), 10);
            assert_eq!(progress.sealed(&name.into(), 10, 10), BTreeSet::from([0]));
            progress.see(&seen(name, 0), 10);
        }
        assert!(progress.open["a"].is_empty());
        assert_eq!(progress.open[DEAD_LETTER_TYPE], BTreeSet::from([10]));
    }

    #[test]
    fn a_clock_that_is_set_moves_what_was_seen_by_it() {
        let mut progress = Progress::default();
        let heard = |heard_at_ms| BTreeMap::from([("p".into(), Heard { at_ms: 5, heard_at_ms, ended_ms: None })]);
        let batch = Seen { heard: heard(1_000), heard_of: vec!["a".into()], ..seen("a", 0) };
        progress.see(&Seen { reached: Reached::at(3, 900), ..batch }, 10);
        progress.shift(600);
        assert_eq!(progress.seen["s"]["p"], Reached::at(3, 1_500));
        assert_eq!(progress.producers["a"], heard(1_600));
    }

    #[test]
    fn what_is_counted_up_to_a_barrier_is_late_by_the_horizons_before_it() {
        let mut stage = Progress::default();
        for hour in [0, 10, 10, 20] {
            stage.count(&seen("a", hour));
        }
        let mut cut = Progress::default();
        assert_eq!(cut.counted(&stage, 10), [("a".into(), 4, 0)]);
        cut.sealed(&"a".into(), 20, 10);
        assert_eq!(cut.counted(&stage, 10), [("a".into(), 4, 3)]);
    }
}
