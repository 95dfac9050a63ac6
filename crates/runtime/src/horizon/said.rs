//! What the ponds that a region reads have said of hours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{Horizon, PONDS, Partitions, SealReason};
use tidemill_topology::Origin;

use super::{Closing, add, first_reason};
use crate::pond::reader::Heard;
use crate::region::Region;

/// See the module.
#[derive(Default)]
pub(crate) struct Said {
    /// What each source has said, and the horizons that it stands at. `None` for one that has come to its end, or is
    /// not waited for.
    by_source: Vec<Option<(Arc<Heard>, Vec<Horizon>)>>,
    /// Sources, by node, that stand at seals: a barrier that carries the horizons lets them go on.
    pub(crate) passes: BTreeSet<usize>,
    reasons: BTreeMap<Arc<str>, SealReason>,
    /// Whether all that has come lies below the positions that the ponds have said.
    pub(super) is_whole: bool,
    /// Types whose open revisions end at these seals.
    pub(super) revised: BTreeSet<Arc<str>>,
    /// Partitions that these seals did not wait for.
    pub(super) without: Partitions,
    /// Sources that are not waited for, because the region that fills the pond is parked.
    parked: BTreeSet<usize>,
}

impl Said {
    pub(crate) fn of(region: &Region) -> Self {
        let mut said = Self { is_whole: true, ..Self::default() };
        let mut stands: BTreeMap<usize, Closing> = BTreeMap::new();
        let hold = Duration::from_millis(region.plan.limits.hold_at_most_ms.unsigned_abs());
        for (index, source) in region.sources.iter().enumerate() {
            let is_parked = source.parked_since().is_some_and(|since| since.elapsed() > hold);
            if is_parked {
                said.parked.insert(index);
                said.without.entry(PONDS.into()).or_default().insert(region.node(source.node).name.clone());
            }
            let state = source.state();
            said.is_whole &= source.pond.is_none() || state.heard.is_whole;
            stands.extend(state.seals.clone().map(|seals| (index, seals)));
            let stands_at = state.seals.as_ref().map_or(Vec::new(), |closing| closing.horizons.clone());
            said.by_source.push((!state.ended && !is_parked).then(|| (state.heard.clone(), stands_at)));
        }
        let waits_for = stands.iter().map(|(index, seals)| {
            let waits_for = seals.horizons.iter().flat_map(|horizon| said.far_behind(region, horizon)).collect();
            (*index, waits_for)
        });
        let held = held(waits_for.collect());
        for (index, seals) in stands.into_iter().filter(|(index, _)| !held.contains(index)) {
            said.passes.insert(region.sources[index].node);
            said.revised.extend(seals.revised);
            add(&mut said.without, seals.without);
            for Horizon { event_type, reason, .. } in seals.horizons {
                let known = said.reasons.entry(event_type).or_insert(reason);
                // That hours were sealed before there was one of the ponds does not hold for the others.
                *known = first_reason([*known, reason].into_iter());
            }
        }
        said
    }

    /// Whether horizons may move.
    pub(super) fn moves(&self) -> bool {
        !self.passes.is_empty() || !self.parked.is_empty()
    }

    /// How far a source says that a type is sealed, with the seals that it stands at when some are passed.
    fn of_source<'a>(&self, (heard, stands_at): &'a (Arc<Heard>, Vec<Horizon>), name: &str) -> Option<&'a Horizon> {
        let at_seals = stands_at.iter().find(|horizon| *horizon.event_type == *name);
        at_seals.filter(|_| !self.passes.is_empty()).or_else(|| heard.horizons.get(name))
    }

    /// How far a type is sealed that comes from these sources: as far as all of them say. `None` when one has said
    /// nothing yet.
    pub(super) fn horizon(&self, name: &str, origins: &[Origin]) -> Option<Horizon> {
        let by_source = origins.iter().filter_map(|origin| self.by_source.get(origin.source)?.as_ref());
        let horizons: Option<Vec<&Horizon>> = by_source.map(|said| self.of_source(said, name)).collect();
        let horizons = horizons?;
        let least = horizons.iter().min_by_key(|horizon| horizon.sealed_before_ms)?;
        let given_up_ms = horizons.iter().map(|horizon| horizon.given_up_ms).min().flatten();
        let is_without = origins.iter().any(|origin| self.parked.contains(&origin.source));
        let reason = match is_without {
            true => SealReason::Silent,
            false => self.reasons.get(name).copied().unwrap_or(SealReason::Watermark),
        };
        Some(Horizon { given_up_ms, reason, ..(*least).clone() })
    }

    /// The sources from which events of the type come and that are more than an hour behind a horizon: what is behind
    /// it would only add to the hours that are open. The one that stands at it waits for them; its pond keeps what
    /// comes. None where only the horizon of a type comes, which is made of what they bring.
    fn far_behind(&self, region: &Region, horizon: &Horizon) -> Vec<usize> {
        let types = &region.lineage.types;
        let Some((_, origins)) = types.iter().find(|(name, _)| *name == horizon.event_type) else { return Vec::new() };
        let is_sent = |source: &usize| {
            let sends = &region.node(region.sources[*source].node).sends;
            sends.iter().any(|sent| sent.name == horizon.event_type)
        };
        let enough_ms = horizon.sealed_before_ms.saturating_sub(region.plan.limits.bucket_ms);
        let is_behind = |source: &usize| {
            self.by_source.get(*source).and_then(Option::as_ref).is_some_and(|(heard, stands_at)| {
                let known = stands_at.iter().find(|known| known.event_type == horizon.event_type);
                let known = known.or_else(|| heard.horizons.get(&horizon.event_type));
                known.is_none_or(|known| known.sealed_before_ms < enough_ms)
            })
        };
        origins.iter().map(|origin| origin.source).filter(is_sent).filter(is_behind).collect()
    }
}

/// Of sources that stand at seals, with those that each waits for, the ones that have to wait: for one that moves by
/// itself, at last. Ponds that were filled by different regions may have seals in different orders, so that sources
/// stand for each other in a circle: these go on.
fn held(waits_for: BTreeMap<usize, BTreeSet<usize>>) -> BTreeSet<usize> {
    let mut held: BTreeSet<usize> = BTreeSet::new();
    loop {
        let moves = |source: &usize| {
            held.contains(source) || waits_for.get(source).is_none_or(|waits_for| waits_for.is_empty())
        };
        let more = waits_for.iter().filter(|(index, waits_for)| !held.contains(*index) && waits_for.iter().any(moves));
        let more: Vec<usize> = more.map(|(index, _)| *index).collect();
        if more.is_empty() {
            return held;
        }
        held.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_one_that_moves_is_held_and_a_circle_is_not() {
        let held = |waits_for: &[(usize, &[usize])]| {
            let waits_for = waits_for.iter().map(|(index, of)| (*index, of.iter().copied().collect()));
            held(waits_for.collect()).into_iter().collect::<Vec<usize>>()
        };
        assert_eq!(held(&[(0, &[])]), [0; 0]);
        assert_eq!(held(&[(0, &[1])]), [0], "1 does not stand");
        assert_eq!(held(&[(0, &[1]), (1, &[])]), [0], "1 goes on with the next barrier");
        assert_eq!(held(&[(0, &[1]), (1, &[0])]), [0; 0]);
        assert_eq!(held(&[(0, &[1]), (1, &[0]), (2, &[0])]), [0; 0], "behind a circle, which goes on");
        assert_eq!(held(&[(0, &[1]), (1, &[0, 2])]), [0, 1], "2 moves");
    }
}
