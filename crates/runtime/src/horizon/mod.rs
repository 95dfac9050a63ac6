//! Which hours may be sealed: proposals, from watermarks, ends of input and, for dead letters only, the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_core::{DEAD_LETTER_TYPE, Horizon, Partitions, SealReason};
use tidemill_topology::Derived;

use crate::progress::Progress;
use crate::region::Region;

mod propose;
mod said;
mod steps;

use propose::propose;
pub(crate) use said::Said;
use steps::Steps;

/// What a pond has to say of late events has come by then.
const SAID_BY_MS: i64 = 60_000;

/// What is to end at a barrier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Closing {
    /// Hours.
    pub(crate) horizons: Vec<Horizon>,
    /// Open revisions, by type.
    pub(crate) revised: Vec<Arc<str>>,
    /// Partitions that these hours do not wait for.
    pub(crate) without: Partitions,
    /// More may end than one barrier seals.
    pub(crate) is_step: bool,
}

impl Closing {
    pub(crate) fn is_empty(&self) -> bool {
        self.horizons.is_empty() && self.revised.is_empty()
    }
}

/// What is to be said first of several reasons.
fn first_reason(reasons: impl Iterator<Item = SealReason>) -> SealReason {
    let rank = |reason: &SealReason| match reason {
        SealReason::Silent => 0,
        SealReason::Before => 2,
        _ => 1,
    };
    reasons.min_by_key(rank).unwrap_or(SealReason::Watermark)
}

fn add(to: &mut Partitions, more: Partitions) {
    more.into_iter().for_each(|(source, partitions)| to.entry(source).or_default().extend(partitions));
}

/// What may end now: hours, and revisions.
pub(crate) fn closing(region: &Region, said: &Said, progress: &Progress, now_ms: i64) -> Closing {
    Closing { revised: revised(region, said, progress, now_ms), ..propose(region, said, now_ms) }
}

/// Types whose revisions have been open for long enough, as of the last cut.
fn revised(region: &Region, said: &Said, progress: &Progress, now_ms: i64) -> Vec<Arc<str>> {
    let is_behind_ponds = region.is_behind_ponds();
    let is_due = |(name, since_ms): &(&Arc<str>, &i64)| {
        let delay_ms = region.revised_types.get(*name).map_or(0, |late| late.delay_ms);
        match is_behind_ponds && is_said_by_ponds(region, name) {
            false => now_ms >= since_ms.saturating_add(delay_ms),
            // The region that fills the ponds says it for what comes from there; it can't know of what is late here
            // alone. Between two of its barriers nobody knows the positions of what is in the revision.
            true => said.is_whole && now_ms >= since_ms.saturating_add(2 * delay_ms).saturating_add(SAID_BY_MS),
        }
    };
    let due = progress.revising.iter().filter(is_due).map(|(name, _)| name.clone());
    with_derived(region, due.chain(said.revised.iter().cloned()).collect())
}

/// Whether the end of a type's revisions comes through ponds: of a type that is made here, where one that it is made
/// of has any.
fn is_said_by_ponds(region: &Region, name: &Arc<str>) -> bool {
    let made_here = region.lineage.derived.iter().find(|derived| derived.name == *name);
    made_here.is_none_or(|derived| derived.made_of.iter().any(|input| region.revised_types.contains_key(input)))
}

/// With the types that stages make of these.
fn with_derived(region: &Region, mut names: BTreeSet<Arc<str>>) -> Vec<Arc<str>> {
    for derived in &region.lineage.derived {
        if derived.made_of.iter().any(|input| names.contains(input)) {
            names.insert(derived.name.clone());
        }
    }
    names.into_iter().collect()
}

/// All that is open, up to a step. To be called when nothing is on its way.
pub(crate) fn end_of_input(region: &Region, progress: &Progress) -> Closing {
    let (horizons, is_step) = all_open(region);
    if is_step {
        // Revisions end with the last one.
        return Closing { horizons, is_step, ..Closing::default() };
    }
    let mut revised: BTreeSet<Arc<str>> = progress.revising.keys().cloned().collect();
    if !horizons.is_empty() {
        // Rows that wait for the hour of their type become a revision at this barrier, which is the last one.
        revised.extend(region.lineage.derived.iter().map(|derived| derived.name.clone()));
    }
    Closing { horizons, revised: with_derived(region, revised), ..Closing::default() }
}

/// Horizons that close every hour that has events, and whether they are a step of more.
fn all_open(region: &Region) -> (Vec<Horizon>, bool) {
    let bucket_ms = region.plan.limits.bucket_ms;
    let current = region.committed().sealed_before_ms.clone();
    let progress = region.progress();
    let open = &progress.open;
    let mut ends: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    for (name, hours) in open {
        let Some(last) = hours.last() else { continue };
        let was = current.get(name).copied().unwrap_or(i64::MIN);
        let end = last.saturating_add(bucket_ms);
        if end > was {
            ends.insert(name.clone(), end);
        }
    }
    for derived in &region.lineage.derived {
        // An input that has nothing open was sealed before: the rows made of it may still wait for the others.
        let inputs = derived.made_of.iter().filter_map(|input| ends.get(input).or(current.get(input)));
        if let Some(end) = inputs.max().copied()
            && end > current.get(&derived.name).copied().unwrap_or(i64::MIN)
        {
            ends.insert(derived.name.clone(), end);
        }
    }
    let unbounded = |(name, end): (&Arc<str>, &i64)| Horizon::new(name.clone(), *end, SealReason::EndOfInput);
    let all: Vec<Horizon> = ends.iter().map(unbounded).collect();
    let in_steps: Vec<&Horizon> = all.iter().filter(|horizon| *horizon.event_type != *DEAD_LETTER_TYPE).collect();
    let caps = Steps { bucket_ms, sinks: &region.sinks, current: &current, open }.first(&in_steps);
    for (name, cap_ms) in caps.iter().flatten() {
        let was = current.get(name).copied().unwrap_or(i64::MIN);
        match cap_ms.min(&ends[name]) {
            before if *before > was => drop(ends.insert(name.clone(), *before)),
            _ => drop(ends.remove(name)),
        }
    }
    let sealed_ms = |name: &Arc<str>| ends.get(name).or(current.get(name)).copied();
    let closes = |(name, end): (&Arc<str>, &i64)| {
        let derived = region.lineage.derived.iter().find(|derived| derived.name == *name);
        let given_up_ms = derived.and_then(|derived| given_up_ms(region, derived, *end, &sealed_ms));
        Horizon { given_up_ms, ..Horizon::new(name.clone(), *end, SealReason::EndOfInput) }
    };
    (ends.iter().map(closes).collect(), caps.is_some())
}

/// Up to where no row can come any more of a type that is made of others: as far as all of these take no events any
/// more.
fn given_up_ms(
    region: &Region,
    derived: &Derived,
    sealed_before_ms: i64,
    sealed_ms: &dyn Fn(&Arc<str>) -> Option<i64>,
) -> Option<i64> {
    let of_input = |input: &Arc<str>| {
        let before_ms = sealed_ms(input).unwrap_or(i64::MIN);
        let made = region.lineage.derived.iter().find(|made| made.name == *input);
        match (made, region.declared(input)) {
            (Some(made), _) => given_up_ms(region, made, before_ms, sealed_ms).unwrap_or(before_ms),
            (None, Some(declared)) => declared.late.given_up_before_ms(before_ms),
            (None, None) => before_ms,
        }
    };
    Some(derived.made_of.iter().map(of_input).min()?.min(sealed_before_ms))
}
