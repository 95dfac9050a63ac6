//! Who has sent events of a type, how far each has come, and whether hours wait for it.
//!
//! A producer is known from its first event or marker on. It holds the hours of a type until it has sent something of a later time, has said that it
//! sends nothing more, or has come no further for its lease. One that is behind what is sealed holds nothing: what it sends is late anyway. One that has
//! come no further for a day is forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::{Batch, PRODUCERS_OF, Partitions, TimeColumn};

/// Of each type; those beyond are not waited for, and a warning says so.
pub(crate) const PRODUCERS_MAX: usize = 10_000;
/// How long a producer is remembered that nothing comes from.
const FORGET_MS: i64 = 86_400_000;

/// How far a producer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// The greatest time of its events and markers, or that of their arrival if that is before it, in milliseconds.
    pub(crate) at_ms: i64,
    /// When that arrived (wall clock), in milliseconds since 1970.
    pub(crate) heard_at_ms: i64,
    /// The greatest time at which it has said that it sends nothing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_ms: Option<i64>,
}

/// Producers by type and name.
pub(crate) type ByType = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Heard>>;

/// What a batch says of its producers; empty for types that name none.
pub(crate) fn heard_in(batch: &Batch) -> BTreeMap<Arc<str>, Heard> {
    let mut heard: BTreeMap<Arc<str>, Heard> = BTreeMap::new();
    let Some(producers) = &batch.event_type.producers else { return heard };
    let Some(times) = TimeColumn::of(&batch.records, batch.event_type.time) else { return heard };
    let (names, ends) = (producers.column(batch), producers.ends(batch));
    let mut current: Option<(&str, Heard)> = None;
    for row in batch.indexes() {
        let name = names.name(row);
        let at_ms = times.ms(row).min(batch.arrived_at_ms);
        let ended_ms = ends.filter(|ends| ends.value(row)).map(|_| at_ms);
        let seen = Heard { at_ms, heard_at_ms: batch.arrived_at_ms, ended_ms };
        match &mut current {
            Some((known, sum)) if *known == name => sum.hear(seen),
            _ => {
                if let Some((name, sum)) = current.replace((name, seen)) {
                    add(&mut heard, name, sum);
                }
            }
        }
    }
    if let Some((name, sum)) = current {
        add(&mut heard, name, sum);
    }
    heard
}

fn add(heard: &mut BTreeMap<Arc<str>, Heard>, name: &str, seen: Heard) {
    match heard.get_mut(name) {
        Some(known) => known.hear(seen),
        None => drop(heard.insert(name.into(), seen)),
    }
}

impl Heard {
    /// Takes over what was heard besides, in whatever order.
    pub(crate) fn hear(&mut self, other: Self) {
        (self.at_ms, self.heard_at_ms) = (self.at_ms, self.heard_at_ms).max((other.at_ms, other.heard_at_ms));
        self.ended_ms = self.ended_ms.max(other.ended_ms);
    }

    /// Whether it has said that it sends nothing more, and nothing of a later time has come.
    fn has_ended(&self) -> bool {
        self.ended_ms.is_some_and(|ended_ms| ended_ms >= self.at_ms)
    }

    /// Whether it has come further within a day, or was listened to for less than that.
    pub(crate) fn is_remembered(&self, begun_ms: i64, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.heard_at_ms.max(begun_ms)) < FORGET_MS
    }
}

/// Takes over what was heard of the producers of a type. Says whether there was room for all.
pub(crate) fn hear(known: &mut BTreeMap<Arc<str>, Heard>, heard: &BTreeMap<Arc<str>, Heard>) -> bool {
    let mut has_room = true;
    for (name, seen) in heard {
        let is_room = known.len() < PRODUCERS_MAX;
        match known.get_mut(name) {
            Some(known) => known.hear(*seen),
            None if is_room => drop(known.insert(name.clone(), *seen)),
            None => has_room = false,
        }
    }
    has_room
}

/// What the producers of a type hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hold {
    /// How far the one has come that is waited for and least far.
    pub(crate) lowest: Option<(i64, Arc<str>)>,
    /// Those whose lease is over, with how far they have come.
    pub(crate) silent: Vec<(i64, Arc<str>)>,
}

impl Hold {
    /// `begun_ms`: leases begin no earlier than this, since nobody was there to hear of them. `is_behind`: whether a time is behind what is sealed.
    pub(crate) fn of(
        producers: &BTreeMap<Arc<str>, Heard>,
        lease_ms: i64,
        begun_ms: i64,
        now_ms: i64,
        is_behind: impl Fn(i64) -> bool,
    ) -> Self {
        let mut hold = Self::default();
        let may_send = |heard: &Heard| !heard.has_ended() && heard.is_remembered(begun_ms, now_ms);
        for (name, heard) in producers.iter().filter(|(_, heard)| may_send(heard)) {
            let silent_ms = now_ms.saturating_sub(heard.heard_at_ms.max(begun_ms));
            if silent_ms >= lease_ms {
                hold.silent.push((heard.at_ms, name.clone()));
            } else if !is_behind(heard.at_ms) && hold.lowest.as_ref().is_none_or(|(lowest, _)| heard.at_ms < *lowest) {
                hold.lowest = Some((heard.at_ms, name.clone()));
            }
        }
        hold
    }

    /// Those that hours up to there have not waited for, as seals name them.
    pub(crate) fn without(&self, event_type: &str, is_behind: impl Fn(i64) -> bool) -> Partitions {
        let behind = self.silent.iter().filter(|(at_ms, _)| is_behind(*at_ms)).map(|(_, name)| name.clone());
        let names = behind.collect::<std::collections::BTreeSet<_>>();
        match names.is_empty() {
            true => Partitions::new(),
            false => Partitions::from([(format!("{PRODUCERS_OF}{event_type}").into(), names)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(at_ms: i64, heard_at_ms: i64, ended_ms: Option<i64>) -> Heard {
        Heard { at_ms, heard_at_ms, ended_ms }
    }

    #[test]
    fn a_producer_holds_until_its_lease_is_over_or_it_ends_and_the_least_far_decides() {
        let producers = BTreeMap::from([
            ("a".into(), heard(100, 1_000, None)),
            ("b".into(), heard(50, 400, None)),
            ("c".into(), heard(10, 1_000, Some(10))),
        ]);
        let never = |_: i64| false;
        let hold = Hold::of(&producers, 500, 0, 1_000, never);
        assert_eq!((hold.lowest, &hold.silent[..]), (Some((100, "a".into())), &[(50, "b".into())][..]));
        let hold = Hold::of(&producers, 500, 900, 1_000, never);
        assert_eq!((hold.lowest, hold.silent.len()), (Some((50, "b".into())), 0), "nobody was there to hear of it");
        let hold = Hold::of(&producers, 500, 900, 1_000, |at_ms| at_ms < 60);
        assert_eq!(hold.lowest, Some((100, "a".into())), "what is sealed is not held by who is behind it");
        assert_eq!(Hold::of(&producers, 500, 0, 400 + FORGET_MS, never).silent, [(100, "a".into())], "b is forgotten");
        assert_eq!(
            Hold::of(&producers, 500, 500, 400 + FORGET_MS, never).silent.len(),
            2,
            "not before it was listened to"
        );
        let without = Hold::of(&producers, 500, 0, 2_000, never).without("play", |at_ms| at_ms < 100);
        assert_eq!(without, Partitions::from([("@producers/play".into(), ["b".into()].into())]));
    }

    #[test]
    fn what_is_heard_is_the_same_in_any_order_and_an_end_holds_until_something_of_a_later_time_comes() {
        let all = [heard(100, 1_000, Some(100)), heard(90, 1_005, None), heard(100, 1_001, None)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut known = all[order[0]];
            order[1..].iter().for_each(|at| known.hear(all[*at]));
            assert_eq!(known, heard(100, 1_001, Some(100)), "{order:?}");
            assert!(known.has_ended());
            known.hear(heard(101, 1_002, None));
            assert!(!known.has_ended());
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut known = BTreeMap::new();
        let names = |from: usize, to: usize| (from..to).map(|at| (at.to_string().into(), heard(0, 0, None))).collect();
        assert!(hear(&mut known, &names(0, PRODUCERS_MAX)));
        assert!(!hear(&mut known, &names(1, PRODUCERS_MAX + 1)));
        assert!(known.contains_key("1") && !known.contains_key(PRODUCERS_MAX.to_string().as_str()));
    }
}
