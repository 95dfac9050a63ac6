//! Which hours may be sealed: proposals, from watermarks, ends of input and, for dead letters only, the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_core::{DEAD_LETTER_TYPE, Horizon, Hour, Role, SealReason};

use tidemill_topology::Plan;

use crate::region::Region;

/// How long after its end an hour of dead letters is left open, in milliseconds.
const DEAD_LETTER_GRACE_MS: i64 = 60_000;

/// How far the events of a type have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// Lowest of the highest event times of its partitions; `None` while one of them has shown no event.
    pub(crate) at_ms: Option<i64>,
    /// The partition that holds it, as `source/partition`.
    pub(crate) held_by: Option<String>,
    /// No partition has anything more for now: it goes on with the clock.
    pub(crate) is_quiet: bool,
}

/// The watermark of the types that come from these sources.
pub(crate) fn watermark(region: &Region, sources: &[usize]) -> Watermark {
    let mut lowest: Option<(i64, String)> = None;
    let mut highest: Option<i64> = None;
    let mut is_quiet = false;
    let held = |by: String| Watermark { held_by: Some(by), ..Watermark::default() };
    for index in sources {
        let source = &region.sources[*index];
        let name = &region.node(source.node).name;
        let state = source.state();
        let Some(positions) = &state.positions else {
            return held(format!("{name} (not open yet)"));
        };
        // Everybody who needs both takes the source's state first.
        let progress = region.progress();
        let seen = progress.seen.get(name);
        let gone = seen.into_iter().flatten().filter(|(partition, _)| !positions.contains_key(*partition));
        highest = highest.max(gone.map(|(_, newest)| newest.at_ms).max());
        for (partition, position) in positions {
            let newest = seen.and_then(|seen| seen.get(partition));
            if let Some(quiet_ms) = state.idle.get(partition) {
                is_quiet = true;
                highest = highest.max(newest.map(|newest| newest.when_quiet(*quiet_ms)));
                continue;
            }
            highest = highest.max(newest.map(|newest| newest.at_ms));
            match newest {
                _ if position.ended => {}
                None => return held(format!("{name}/{partition}")),
                Some(newest) if lowest.as_ref().is_none_or(|(at, _)| newest.at_ms < *at) => {
                    lowest = Some((newest.at_ms, format!("{name}/{partition}")));
                }
                Some(_) => {}
            }
        }
    }
    match lowest {
        Some((at_ms, held_by)) => Watermark { at_ms: Some(at_ms), held_by: Some(held_by), is_quiet: false },
        None => Watermark { at_ms: highest, held_by: None, is_quiet },
    }
}

/// Indexes of the sources that each type comes from, in the order of the plan: types that stages make come after the types they are made of.
pub(crate) struct Lineage {
    pub(crate) types: Vec<(Arc<str>, Vec<usize>)>,
    /// Types that a stage makes, with the types that they are made of.
    pub(crate) derived: Vec<(Arc<str>, Vec<Arc<str>>)>,
}

/// Follows the plan's edges.
pub(crate) fn lineage(plan: &Plan) -> Lineage {
    let mut sources_of: Vec<Vec<usize>> = Vec::new();
    let mut types: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
    let mut derived: BTreeMap<Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
    for (at, node) in plan.nodes.iter().enumerate() {
        let mut sources: Vec<usize> = match node.role {
            Role::Source => vec![plan.nodes[..at].iter().filter(|node| node.role == Role::Source).count()],
            _ => node.inputs.iter().flat_map(|edge| sources_of[edge.from].clone()).collect(),
        };
        sources.sort_unstable();
        sources.dedup();
        for sent in &node.sends {
            let is_made = node.kind.input == tidemill_core::Shape::Rows
                && !node.accepts.iter().any(|accepted| accepted.name == sent.name);
            if is_made {
                let inputs = node.accepts.iter().map(|accepted| accepted.name.clone());
                derived.entry(sent.name.clone()).or_default().extend(inputs);
            } else if *sent.name != *DEAD_LETTER_TYPE {
                let of_type = types.entry(sent.name.clone()).or_default();
                of_type.extend(&sources);
                of_type.sort_unstable();
                of_type.dedup();
            }
        }
        sources_of.push(sources);
    }
    types.retain(|name, _| !derived.contains_key(name));
    let order = |name: &Arc<str>| plan.nodes.iter().position(|node| node.sends.iter().any(|sent| sent.name == *name));
    let mut derived: Vec<_> = derived.into_iter().collect();
    derived.sort_by_key(|(name, _)| order(name));
    Lineage { types: types.into_iter().collect(), derived }
}

/// What the ponds that a region reads have said of hours.
#[derive(Default)]
pub(crate) struct Said {
    /// How far each type is sealed by each source, with the seals that it stands at. `None` for one that has come to its end: nothing comes
    /// from it any more.
    by_source: Vec<Option<BTreeMap<Arc<str>, i64>>>,
    /// Sources, by node, that stand at seals: a barrier that carries the horizons lets them go on.
    pub(crate) passes: BTreeSet<usize>,
    reasons: BTreeMap<Arc<str>, SealReason>,
}

impl Said {
    pub(crate) fn of(region: &Region) -> Self {
        let mut said = Self::default();
        let mut stands: Vec<(usize, Vec<Horizon>)> = Vec::new();
        for (index, source) in region.sources.iter().enumerate() {
            let state = source.state();
            stands.extend(state.seals.clone().map(|seals| (index, seals)));
            let horizons = state.heard.horizons.values().chain(state.seals.iter().flatten());
            let by_type = horizons.map(|horizon| (horizon.event_type.clone(), horizon.sealed_before_ms)).collect();
            said.by_source.push((!state.ended).then_some(by_type));
        }
        for (index, seals) in stands {
            if !seals.iter().any(|horizon| said.is_far_ahead(region, horizon)) {
                said.passes.insert(region.sources[index].node);
                said.reasons.extend(seals.into_iter().map(|horizon| (horizon.event_type, horizon.reason)));
            }
        }
        said
    }

    /// How far a type is sealed that comes from these sources: as far as all of them say. `None` when one has said nothing yet.
    fn sealed_before_ms(&self, name: &str, sources: &[usize]) -> Option<i64> {
        let by_source = sources.iter().filter_map(|source| self.by_source.get(*source)?.as_ref());
        by_source.map(|by_type| by_type.get(name).copied()).min().flatten()
    }

    /// Whether a source that goes on behind these seals would get more than an hour ahead of another one with events of the type: what it
    /// brings then would only add to the hours that are open. It waits; its pond keeps what comes.
    fn is_far_ahead(&self, region: &Region, horizon: &Horizon) -> bool {
        let sources = region.lineage.types.iter().find(|(name, _)| *name == horizon.event_type);
        let Some((name, sources)) = sources.filter(|(_, sources)| sources.len() > 1) else { return false };
        let least = self.sealed_before_ms(name, sources).unwrap_or(i64::MIN);
        horizon.sealed_before_ms > least.saturating_add(region.plan.limits.bucket_ms)
    }
}

/// The horizons that ponds have said, that watermarks and the clock allow now; none when nothing would close.
pub(crate) fn propose(region: &Region, said: &Said, now_ms: i64) -> Vec<Horizon> {
    let limits = &region.plan.limits;
    let current = region.committed().sealed_before_ms.clone();
    let mut moved: BTreeMap<Arc<str>, Horizon> = BTreeMap::new();
    let mut closes = false;
    // Most types come from the same sources.
    let mut known: BTreeMap<&[usize], Watermark> = BTreeMap::new();
    for (name, sources) in &region.lineage.types {
        let was = current.get(name).copied().unwrap_or(i64::MIN);
        if region.is_behind_ponds() {
            // Seals of a pond close something: the region that writes it has seen to that.
            // It must be known from all that stand at seals now, so only barriers that let one go on carry any.
            let before = said.sealed_before_ms(name, sources).filter(|before| *before > was && !said.passes.is_empty());
            if let Some(before) = before {
                closes = true;
                let reason = said.reasons.get(name).copied().unwrap_or(SealReason::Watermark);
                moved.insert(name.clone(), horizon(name, before, reason));
            }
            continue;
        }
        let watermark = known.entry(sources).or_insert_with(|| watermark(region, sources));
        let Some(at_ms) = watermark.at_ms else { continue };
        let mut before = Hour::of(at_ms.saturating_sub(limits.allowed_lateness_ms), limits.bucket_ms).start_ms;
        let mut reason = SealReason::Watermark;
        let progress = region.progress();
        let open = progress.open.get(name).into_iter().flatten().filter(|start| **start >= was);
        let last = open.map(|start| start.saturating_add(limits.bucket_ms)).take_while(|end| *end <= before).last();
        if watermark.is_quiet {
            // Quiet closes what has begun. That nothing at all belongs to an hour is shown by later events only: what comes in
            // large portions, such as a file a day, is quiet for long and means nothing by it.
            before = last.unwrap_or(was);
            reason = SealReason::Quiet;
        }
        if before > was {
            // Hours without events are sealed, too, from the first one on that has some.
            closes |= was > i64::MIN || last.is_some();
            moved.insert(name.clone(), horizon(name, before, reason));
        }
    }
    let letters: Arc<str> = DEAD_LETTER_TYPE.into();
    let clock = Hour::of(now_ms - DEAD_LETTER_GRACE_MS, limits.bucket_ms).start_ms;
    let was = current.get(&letters).copied().unwrap_or(i64::MIN);
    let has_letters = (region.progress().open.get(&letters))
        .is_some_and(|open| open.iter().any(|start| start.saturating_add(limits.bucket_ms) <= clock));
    if has_letters && clock > was {
        closes = true;
        moved.insert(letters.clone(), horizon(&letters, clock, SealReason::Clock));
    }
    if !closes {
        return Vec::new();
    }
    for (name, made_of) in &region.lineage.derived {
        let of =
            |input: &Arc<str>| moved.get(input).map(|moved| moved.sealed_before_ms).or(current.get(input).copied());
        let before = made_of.iter().map(of).min().flatten();
        let was = current.get(name).copied().unwrap_or(i64::MIN);
        if let Some(before) = before.filter(|before| *before > was) {
            let reason =
                made_of.iter().find_map(|input| moved.get(input)).map_or(SealReason::Watermark, |of| of.reason);
            moved.insert(name.clone(), horizon(name, before, reason));
        }
    }
    moved.into_values().collect()
}

/// Horizons that close every hour that has events. To be called when nothing is on its way.
pub(crate) fn end_of_input(region: &Region) -> Vec<Horizon> {
    let bucket_ms = region.plan.limits.bucket_ms;
    let current = region.committed().sealed_before_ms.clone();
    let open = region.progress().open.clone();
    let mut ends: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    for (name, hours) in &open {
        let Some(last) = hours.last() else { continue };
        let was = current.get(name).copied().unwrap_or(i64::MIN);
        let end = last.saturating_add(bucket_ms);
        if end > was {
            ends.insert(name.clone(), end);
        }
    }
    for (name, made_of) in &region.lineage.derived {
        // An input that has nothing open was sealed before: the rows made of it may still wait for the others.
        if let Some(end) = made_of.iter().filter_map(|input| ends.get(input).or(current.get(input))).max().copied()
            && end > current.get(name).copied().unwrap_or(i64::MIN)
        {
            ends.insert(name.clone(), end);
        }
    }
    ends.into_iter().map(|(name, end)| horizon(&name, end, SealReason::EndOfInput)).collect()
}

fn horizon(name: &Arc<str>, sealed_before_ms: i64, reason: SealReason) -> Horizon {
    Horizon { event_type: name.clone(), sealed_before_ms, reason }
}
