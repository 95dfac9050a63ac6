//! Steps: one barrier seals a bounded number of hours, those without events included.
//!
//! So no cut takes long because many hours end at once, and a process that is killed again and again comes further each
//! time. A step ends at one event time for all types, so what is made of others never passes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_core::{GAP_HOURS_MAX, Horizon, Hour};

use crate::failpoint;

/// Hours that one barrier seals, each counted for every sink that takes its type.
const STEP_HOURS_MAX: u64 = 256;

/// Where the types stand before a step.
pub(super) struct Steps<'a> {
    pub(super) bucket_ms: i64,
    /// How many sinks take each type.
    pub(super) sinks: &'a BTreeMap<Arc<str>, u64>,
    /// Horizons.
    pub(super) current: &'a BTreeMap<Arc<str>, i64>,
    /// Starts of hours with events.
    pub(super) open: &'a BTreeMap<Arc<str>, BTreeSet<i64>>,
}

impl Steps<'_> {
    /// Up to where each type may be sealed by the next barrier, when all of these horizons are more than a step.
    pub(super) fn first(&self, horizons: &[&Horizon]) -> Option<BTreeMap<Arc<str>, i64>> {
        let hours_max = failpoint::step_hours(STEP_HOURS_MAX);
        let roughly = |horizon: &&Horizon| {
            let begin_ms = self.begin_ms(horizon)?;
            let hours = Hour { start_ms: begin_ms, width_ms: self.bucket_ms }.count_to(horizon.sealed_before_ms);
            Some(self.weight(horizon).saturating_mul(hours.unsigned_abs()))
        };
        let all = horizons.iter().filter_map(roughly).fold(0, u64::saturating_add);
        if all <= hours_max {
            return None;
        }
        let of_types: Vec<(&Horizon, Vec<i64>)> =
            horizons.iter().map(|horizon| (*horizon, self.ends(horizon))).collect();
        let mut weights: BTreeMap<i64, u64> = BTreeMap::new();
        for (horizon, ends) in &of_types {
            let weight = self.weight(horizon);
            ends.iter().for_each(|end_ms| *weights.entry(*end_ms).or_default() += weight);
        }
        // The hours that end first end in any case: each step gets somewhere.
        let mut step_ms = *weights.keys().next()?;
        let mut sealed = 0;
        for (end_ms, weight) in &weights {
            sealed += weight;
            if sealed > hours_max {
                break;
            }
            step_ms = *end_ms;
        }
        if weights.keys().next_back() == Some(&step_ms) {
            return None;
        }
        let caps = of_types.into_iter().map(|(horizon, ends)| {
            let stays_ms = if self.begin_ms(horizon).is_none() { step_ms } else { self.was(horizon) };
            let last_ms = ends.into_iter().take_while(|end_ms| *end_ms <= step_ms).last();
            (horizon.event_type.clone(), last_ms.unwrap_or(stays_ms))
        });
        Some(caps.collect())
    }

    fn weight(&self, horizon: &Horizon) -> u64 {
        self.sinks.get(&horizon.event_type).copied().unwrap_or(0).max(1)
    }

    fn was(&self, horizon: &Horizon) -> i64 {
        self.current.get(&horizon.event_type).copied().unwrap_or(i64::MIN)
    }

    /// Starts of hours that have events and are not sealed.
    fn starts(&self, horizon: &Horizon) -> impl Iterator<Item = i64> {
        let was_ms = self.was(horizon);
        self.open.get(&horizon.event_type).into_iter().flatten().copied().filter(move |start_ms| *start_ms >= was_ms)
    }

    /// Start of the first hour that it seals; `None` when there was never an hour with events.
    fn begin_ms(&self, horizon: &Horizon) -> Option<i64> {
        let was_ms = self.was(horizon);
        if was_ms > i64::MIN { Some(was_ms) } else { self.starts(horizon).next() }
    }

    /// Ends of the hours that a horizon seals, the first of more than a step: those with events, and those between them
    /// where there is no gap that gets no manifests.
    fn ends(&self, horizon: &Horizon) -> Vec<i64> {
        let mut ends = Vec::new();
        let Some(mut next_ms) = self.begin_ms(horizon) else { return ends };
        let before_ms = horizon.sealed_before_ms;
        let starts = self.starts(horizon).take_while(|start_ms| *start_ms < before_ms);
        for start_ms in starts.chain([before_ms]) {
            let gap = Hour { start_ms: next_ms, width_ms: self.bucket_ms }.count_to(start_ms);
            let has_events = i64::from(start_ms < before_ms);
            let (from_ms, hours) = match gap > GAP_HOURS_MAX {
                true => (start_ms, has_events),
                false => (next_ms, gap + has_events),
            };
            let left = STEP_HOURS_MAX as i64 + 1 - ends.len() as i64;
            ends.extend((1..=hours.min(left)).map(|nth| from_ms.saturating_add(nth * self.bucket_ms)));
            if hours >= left {
                break;
            }
            next_ms = start_ms.saturating_add(self.bucket_ms);
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use tidemill_core::SealReason;

    use super::*;

    fn first(current: &[(&str, i64)], open: &[(&str, &[i64])], horizons: &[(&str, i64)]) -> Option<Vec<(String, i64)>> {
        let named = |(name, at): &(&str, i64)| (Arc::from(*name), *at);
        let current = current.iter().map(named).collect();
        let open = open.iter().map(|(name, starts)| (Arc::from(*name), starts.iter().copied().collect())).collect();
        let sinks = BTreeMap::from([("two".into(), 2)]);
        let horizon = |(name, at): &(&str, i64)| Horizon::new((*name).into(), *at, SealReason::Watermark);
        let horizons: Vec<Horizon> = horizons.iter().map(horizon).collect();
        let steps = Steps { bucket_ms: 1, sinks: &sinks, current: &current, open: &open };
        let caps = steps.first(&horizons.iter().collect::<Vec<_>>())?;
        Some(caps.into_iter().map(|(name, at)| (name.to_string(), at)).collect())
    }

    fn at(name: &str, at: i64) -> (String, i64) {
        (name.to_owned(), at)
    }

    #[test]
    fn what_is_less_than_a_step_is_sealed_at_once() {
        assert_eq!(first(&[("a", 0)], &[], &[("a", 256)]), None);
        assert_eq!(first(&[], &[("two", &[0, 127])], &[("two", 128)]), None);
        assert_eq!(first(&[("a", 0), ("b", 0)], &[], &[("a", 128), ("b", 128)]), None);
    }

    #[test]
    fn hours_without_events_and_each_sink_count() {
        assert_eq!(first(&[("a", 0)], &[], &[("a", 257)]), Some(vec![at("a", 256)]));
        assert_eq!(first(&[], &[("two", &[0])], &[("two", 129)]), Some(vec![at("two", 128)]));
        let both = first(&[("a", 10), ("two", 0)], &[], &[("a", 1_000), ("two", 1_000)]);
        assert_eq!(both, Some(vec![at("a", 88), at("two", 88)]), "78 of one and 88 of the other, twice");
    }

    #[test]
    fn a_gap_without_manifests_is_no_step_and_ends_nothing_within_it() {
        let far = 1_000_000;
        assert_eq!(first(&[("a", 0)], &[("a", &[5, far])], &[("a", far + 1)]), None);
        assert_eq!(first(&[("a", 0)], &[], &[("a", far)]), None, "nothing comes up to the horizon");
        let beside = first(&[("a", 0), ("b", 0)], &[("a", &[5, far])], &[("a", far + 1), ("b", 1_000)]);
        assert_eq!(beside, Some(vec![at("a", 6), at("b", 250)]));
        let behind = first(&[("a", 6), ("b", 250)], &[("a", &[far])], &[("a", far + 1), ("b", 1_000)]);
        assert_eq!(behind, Some(vec![at("a", 6), at("b", 506)]));
    }

    #[test]
    fn one_hour_of_very_many_types_is_a_step() {
        let names: Vec<String> = (0..300).map(|nth| format!("{nth:03}")).collect();
        let current: Vec<(&str, i64)> = names.iter().map(|name| (&**name, 0)).collect();
        let horizons: Vec<(&str, i64)> = names.iter().map(|name| (&**name, 2)).collect();
        let caps = first(&current, &[], &horizons).expect("more than a step");
        assert!(caps.len() == 300 && caps.iter().all(|(_, cap)| *cap == 1));
    }
}
