//! How far a partition has come in event time, and which of its events are believed.
//!
//! One wrong time must not move a watermark. An event that arrives at most `max_ahead` behind its time is checked by
//! the clock, and is believed alone. Older ones, as in a backlog, are compared with each other: a partition has come as
//! far as three of its last 64 events.

use serde::{Deserialize, Serialize};
use tidemill_core::{Batch, Limits, TimeColumn};

/// Events of a partition whose times are kept.
const RECENT: usize = 64;
/// So many of them have to agree.
const AGREE: usize = 3;
/// When a partition has nothing more, the next event is believed alone when it is no farther on than so many hours.
const STEP_HOURS: i64 = 24;

/// An event that was the one with the highest time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    /// Its event time, or that of its arrival if that is before it, in milliseconds.
    pub(crate) at_ms: i64,
    /// When it arrived (wall clock), in milliseconds since 1970.
    pub(crate) arrived_at_ms: i64,
}

impl Newest {
    /// How far event time has come when nothing more had arrived until `quiet_ms`: as far on as the clock. What was as
    /// long on its way as the newest event would be here. Never beyond the clock.
    pub(crate) fn when_quiet(self, quiet_ms: i64) -> i64 {
        self.at_ms.saturating_add(quiet_ms.saturating_sub(self.arrived_at_ms).max(0))
    }

    fn max_of(self, other: Self) -> Self {
        if other.at_ms > self.at_ms { other } else { self }
    }

    fn later(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.max_of(other)),
            (one, other) => one.or(other),
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// The newest event that is believed; `None` until any is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) newest: Option<Newest>,
    /// The newest of all, where it is beyond that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) beyond: Option<Newest>,
    /// When the last event arrived (wall clock), in milliseconds since 1970.
    pub(crate) arrived_at_ms: i64,
    /// Events that were not checked by the clock.
    #[serde(default, skip_serializing_if = "is_zero")]
    rows: u64,
    /// Time and number of those of the last ones that are beyond what is believed: mostly two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recent: Vec<(i64, u64)>,
}

fn is_zero(rows: &u64) -> bool {
    *rows == 0
}

impl Reached {
    /// What the rows of one batch show. One pass over the time column, and another over the last rows of a batch that
    /// has old ones. `max_ahead_ms`: how old an event may be that is believed alone.
    pub(crate) fn of(batch: &Batch, max_ahead_ms: i64) -> Option<Self> {
        let times = TimeColumn::of(&batch.records, batch.event_type.time)?;
        let arrived_at_ms = batch.arrived_at_ms;
        let live_from_ms = arrived_at_ms.saturating_sub(max_ahead_ms);
        let (mut max_ms, mut max_past_ms, mut min_ms) = (i64::MIN, i64::MIN, i64::MAX);
        for row in batch.indexes() {
            let time = times.ms(row);
            (max_ms, min_ms) = (max_ms.max(time), min_ms.min(time));
            if time <= arrived_at_ms {
                max_past_ms = max_past_ms.max(time);
            }
        }
        if max_ms == i64::MIN {
            return None;
        }
        // An event from the future has a wrong clock, and proves nothing as long as there are others. Where all are
        // like that, by a little for the most part, they count as of their arrival.
        let at_ms = if max_past_ms > i64::MIN { max_past_ms } else { max_ms.min(arrived_at_ms) };
        let newest = Newest { at_ms, arrived_at_ms };
        let mut reached = Self { newest: None, beyond: Some(newest), arrived_at_ms, rows: 0, recent: Vec::new() };
        if min_ms < live_from_ms {
            reached.rows = batch.len() as u64;
            let first = batch.len().saturating_sub(RECENT);
            let last = (first..).zip(batch.indexes().skip(first)).map(|(number, row)| (times.ms(row), number as u64));
            // At least one is of the past.
            reached.recent = last.filter(|(time, _)| *time <= arrived_at_ms).collect();
        }
        if at_ms >= live_from_ms {
            (reached.newest, reached.beyond) = (Some(newest), None);
        }
        reached.believe(arrived_at_ms);
        Some(reached)
    }

    /// Takes over what came after it.
    pub(crate) fn add(&mut self, other: &Self) {
        self.newest = Newest::later(self.newest, other.newest);
        self.beyond = Newest::later(self.beyond, other.beyond);
        self.arrived_at_ms = self.arrived_at_ms.max(other.arrived_at_ms);
        self.recent.extend(other.recent.iter().map(|(at_ms, number)| (*at_ms, self.rows + number)));
        self.rows += other.rows;
        self.believe(other.arrived_at_ms);
    }

    /// Looks for three that agree.
    fn believe(&mut self, arrived_at_ms: i64) {
        let known_ms = self.newest.map_or(i64::MIN, |newest| newest.at_ms);
        let from = self.rows.saturating_sub(RECENT as u64);
        self.recent.retain(|(at_ms, number)| *at_ms > known_ms && *number >= from);
        if let Some(nth) = self.recent.len().checked_sub(AGREE) {
            let mut times: Vec<i64> = self.recent.iter().map(|(at_ms, _)| *at_ms).collect();
            let at_ms = *times.select_nth_unstable(nth).1;
            self.newest = Some(Newest { at_ms, arrived_at_ms });
            self.recent.retain(|(later_ms, _)| *later_ms > at_ms);
        }
        let known_ms = self.newest.map_or(i64::MIN, |newest| newest.at_ms);
        self.beyond = self.beyond.filter(|beyond| beyond.at_ms > known_ms);
    }

    /// The newest event of all.
    pub(crate) fn last(&self) -> Option<Newest> {
        self.beyond.or(self.newest)
    }

    /// The newest event that is believed when there is nothing more: the few that end a backlog are its last ones. What
    /// is far beyond them is believed when nothing has come from anywhere for `hold_at_most`.
    pub(crate) fn at_rest(&self, silent_ms: i64, limits: &Limits) -> Option<Newest> {
        if silent_ms > limits.hold_at_most_ms { self.last() } else { self.last_in_steps(limits) }
    }

    fn last_in_steps(&self, limits: &Limits) -> Option<Newest> {
        // Events that are in no order may have the newest one first.
        let mut later: Vec<Newest> = self.recent().chain(self.beyond).collect();
        self.newest.map(|newest| in_steps(newest, &mut later, limits))
    }

    /// The events of a partition that has too few to be compared with each other: they are compared with those of other
    /// partitions.
    pub(crate) fn few(&self) -> impl Iterator<Item = Newest> {
        self.recent().filter(|_| self.newest.is_none())
    }

    fn recent(&self) -> impl Iterator<Item = Newest> {
        self.recent.iter().map(|(at_ms, _)| Newest { at_ms: *at_ms, arrived_at_ms: self.arrived_at_ms })
    }

    /// The time of the newest event, when it is so far ahead of the others that it is not believed.
    pub(crate) fn far_ahead_ms(&self, limits: &Limits) -> Option<i64> {
        let near_ms = self.last_in_steps(limits)?.at_ms;
        self.beyond.map(|beyond| beyond.at_ms).filter(|at_ms| *at_ms > near_ms)
    }

    /// Nothing has come later than now: the wall clock may have been set back. Says whether anything seemed to have.
    pub(crate) fn not_later_than(&mut self, now_ms: i64) -> bool {
        let before = self.clone();
        self.each_arrival(|at_ms| *at_ms = (*at_ms).min(now_ms));
        *self != before
    }

    /// The wall clock was set forward by so much, or back.
    pub(crate) fn shift(&mut self, step_ms: i64) {
        self.each_arrival(|at_ms| *at_ms = at_ms.saturating_add(step_ms));
    }

    fn each_arrival(&mut self, change: impl Fn(&mut i64)) {
        let of_events = self.newest.iter_mut().chain(&mut self.beyond).map(|newest| &mut newest.arrived_at_ms);
        of_events.chain([&mut self.arrived_at_ms]).for_each(change);
    }
}

/// The last of these events that is no farther on than a step from the one before it, from `first` on.
pub(crate) fn in_steps(first: Newest, later: &mut [Newest], limits: &Limits) -> Newest {
    later.sort_unstable_by_key(|event| event.at_ms);
    let step_ms = limits.max_ahead_ms.max(limits.bucket_ms.saturating_mul(STEP_HOURS));
    let is_next = |last: &Newest, event: &Newest| event.at_ms.saturating_sub(last.at_ms) <= step_ms;
    let next = |last: Newest, event: &Newest| if is_next(&last, event) { last.max_of(*event) } else { last };
    later.iter().fold(first, next)
}

#[cfg(test)]
impl Reached {
    /// A partition of which one event was believed.
    pub(crate) fn at(at_ms: i64, arrived_at_ms: i64) -> Self {
        let newest = Some(Newest { at_ms, arrived_at_ms });
        Self { newest, beyond: None, arrived_at_ms, rows: 0, recent: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const YEAR: i64 = 365 * 24 * HOUR;

    /// Old events, one a batch.
    fn old(times: &[i64]) -> Reached {
        let one = |at_ms: i64| {
            let beyond = Some(Newest { at_ms, arrived_at_ms: 50 * YEAR });
            Reached { newest: None, beyond, arrived_at_ms: 50 * YEAR, rows: 1, recent: vec![(at_ms, 0)] }
        };
        let mut all = one(times[0]);
        times[1..].iter().for_each(|at_ms| all.add(&one(*at_ms)));
        all
    }

    fn limits() -> Limits {
        Limits { hold_at_most_ms: 6 * HOUR, max_ahead_ms: HOUR, bucket_ms: HOUR, ..tidemill_testkit::limits() }
    }

    fn at_rest(reached: &Reached, silent_ms: i64) -> Option<i64> {
        reached.at_rest(silent_ms, &limits()).map(|newest| newest.at_ms)
    }

    #[test]
    fn what_is_quiet_goes_on_with_the_clock_at_its_distance_and_never_beyond_it() {
        let newest = Newest { at_ms: 1_000, arrived_at_ms: 5_000 };
        assert_eq!(newest.when_quiet(4_000), 1_000, "a proof from before it says nothing");
        assert_eq!(newest.when_quiet(5_700), 1_700);
    }

    #[test]
    fn three_that_agree_are_believed_and_one_of_next_year_is_not() {
        assert_eq!(old(&[1, 2]).newest, None);
        assert_eq!(old(&[1, 2, 3]).newest.map(|newest| newest.at_ms), Some(1));
        let reached = old(&[1, 2, 3, YEAR, 4, 5]);
        assert_eq!(reached.newest.map(|newest| newest.at_ms), Some(4));
        assert_eq!(reached.last().map(|newest| newest.at_ms), Some(YEAR));
        let mut many = vec![YEAR, YEAR];
        many.extend(0..100);
        many.push(YEAR);
        assert_eq!(old(&many).newest.map(|newest| newest.at_ms), Some(98), "three, but not of the last 64");
    }

    #[test]
    fn what_the_clock_checks_is_believed_alone_and_never_goes_back() {
        let mut reached = Reached::at(2 * YEAR, 2 * YEAR + 5);
        reached.add(&old(&[1, 2, 3]));
        assert_eq!(reached.newest, Some(Newest { at_ms: 2 * YEAR, arrived_at_ms: 2 * YEAR + 5 }));
        assert_eq!(reached.beyond, None);
    }

    #[test]
    fn at_rest_the_last_ones_are_believed_and_what_is_far_beyond_them_after_a_long_time() {
        assert_eq!(at_rest(&old(&[1, YEAR]), 0), None, "too few");
        assert_eq!(old(&[1, YEAR]).few().map(|event| event.at_ms).collect::<Vec<_>>(), [1, YEAR]);
        assert_eq!(at_rest(&old(&[1, HOUR, 9 * HOUR, 30 * HOUR]), 0), Some(30 * HOUR));
        let reached = old(&[1, 2, 3, HOUR, YEAR, YEAR + 1]);
        assert_eq!(at_rest(&reached, 0), Some(HOUR));
        assert_eq!(at_rest(&reached, 6 * HOUR), Some(HOUR));
        assert_eq!(at_rest(&reached, 6 * HOUR + 1), Some(YEAR + 1));
        assert_eq!(reached.far_ahead_ms(&limits()), Some(YEAR + 1));
        assert_eq!(old(&[1, 2, 3, HOUR]).far_ahead_ms(&limits()), None);
    }

    #[test]
    fn at_rest_the_newest_counts_wherever_it_came() {
        let mut times: Vec<i64> = (0..200).map(|n| n % 50).collect();
        times[7] = 5 * HOUR;
        assert_eq!(at_rest(&old(&times), 0), Some(5 * HOUR));
    }

    #[test]
    fn what_is_added_in_parts_is_what_came_at_once() {
        let times: Vec<i64> = (0..200).map(|n| (n * 7_919) % 1_000).collect();
        let mut parts = old(&times[..90]);
        parts.add(&old(&times[90..]));
        assert_eq!(parts.recent, old(&times).recent);
        assert!(parts.recent.len() < 3, "no more is kept than is needed");
        assert_eq!(parts.newest.map(|newest| newest.at_ms), old(&times).newest.map(|newest| newest.at_ms));
    }
}
