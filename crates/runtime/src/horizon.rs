//! Which hours may be sealed: proposals, from watermarks, ends of input and, for dead letters only, the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_core::{DEAD_LETTER_TYPE, Horizon, Hour, Late, Partitions, SealReason};

use tidemill_topology::Origin;

use crate::progress::Progress;
use crate::region::Region;
use crate::watermark::{Watermark, Without, watermark};

/// How long after its end an hour of dead letters is left open, in milliseconds.
const DEAD_LETTER_GRACE_MS: i64 = 60_000;

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
}

impl Closing {
    pub(crate) fn is_empty(&self) -> bool {
        self.horizons.is_empty() && self.revised.is_empty()
    }
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
    /// Types whose open revisions end at these seals.
    revised: BTreeSet<Arc<str>>,
    /// Partitions that these seals did not wait for.
    without: Partitions,
}

impl Said {
    pub(crate) fn of(region: &Region) -> Self {
        let mut said = Self::default();
        let mut stands: Vec<(usize, Closing)> = Vec::new();
        for (index, source) in region.sources.iter().enumerate() {
            let state = source.state();
            stands.extend(state.seals.clone().map(|seals| (index, seals)));
            let stands_at = state.seals.iter().flat_map(|closing| &closing.horizons);
            let horizons = state.heard.horizons.values().chain(stands_at);
            let by_type = horizons.map(|horizon| (horizon.event_type.clone(), horizon.sealed_before_ms)).collect();
            said.by_source.push((!state.ended).then_some(by_type));
        }
        for (index, seals) in stands {
            if !seals.horizons.iter().any(|horizon| said.is_far_ahead(region, horizon)) {
                said.passes.insert(region.sources[index].node);
                said.revised.extend(seals.revised);
                add(&mut said.without, seals.without);
                for Horizon { event_type, reason, .. } in seals.horizons {
                    let known = said.reasons.entry(event_type).or_insert(reason);
                    // That hours were sealed before there was one of the ponds does not hold for the others.
                    *known = first_reason([*known, reason].into_iter());
                }
            }
        }
        said
    }

    /// How far a type is sealed that comes from these sources: as far as all of them say. `None` when one has said nothing yet.
    fn sealed_before_ms(&self, name: &str, origins: &[Origin]) -> Option<i64> {
        let by_source = origins.iter().filter_map(|origin| self.by_source.get(origin.source)?.as_ref());
        by_source.map(|by_type| by_type.get(name).copied()).min().flatten()
    }

    /// Whether a source that goes on behind these seals would get more than an hour ahead of another one with events of the type: what it
    /// brings then would only add to the hours that are open. It waits; its pond keeps what comes.
    fn is_far_ahead(&self, region: &Region, horizon: &Horizon) -> bool {
        let origins = region.lineage.types.iter().find(|(name, _)| *name == horizon.event_type);
        let Some((name, origins)) = origins.filter(|(_, origins)| origins.len() > 1) else { return false };
        let least = self.sealed_before_ms(name, origins).unwrap_or(i64::MIN);
        horizon.sealed_before_ms > least.saturating_add(region.plan.limits.bucket_ms)
    }
}

/// The horizons that ponds have said, that watermarks and the clock allow now; none when nothing would close.
fn propose(region: &Region, said: &Said, now_ms: i64) -> (Vec<Horizon>, Partitions) {
    let limits = &region.plan.limits;
    let current = region.committed().sealed_before_ms.clone();
    let mut moved: BTreeMap<Arc<str>, Horizon> = BTreeMap::new();
    let mut closes = false;
    let mut without = Partitions::new();
    let is_behind_ponds = region.is_behind_ponds();
    let allowed = if is_behind_ponds { BTreeMap::new() } else { allowed(region, &current, now_ms) };
    for (name, origins) in &region.lineage.types {
        let was = current.get(name).copied().unwrap_or(i64::MIN);
        if is_behind_ponds {
            // Seals of a pond close something: the region that writes it has seen to that.
            // It must be known from all that stand at seals now, so only barriers that let one go on carry any.
            let before = said.sealed_before_ms(name, origins).filter(|before| *before > was && !said.passes.is_empty());
            if let Some(before) = before {
                closes = true;
                let reason = said.reasons.get(name).copied().unwrap_or(SealReason::Watermark);
                moved.insert(name.clone(), horizon(name, before, reason));
                add(&mut without, said.without.clone());
            }
            continue;
        }
        let Some(Some(of_origins)) = allowed.get(&**origins) else { continue };
        let hold = region.producers_hold(name, now_ms);
        let held_ms = hold.lowest.as_ref().map_or(i64::MAX, |(at_ms, _)| limits.open_from_ms(*at_ms));
        // Step by step, so that each hour names those only that had not gone further.
        let steps = hold.silent.iter().map(|(at_ms, _)| limits.open_from_ms(*at_ms)).filter(|step| *step > was);
        let held_ms = steps.min().map_or(held_ms, |step| held_ms.min(step));
        // Quiet closes what has begun, for all types that come from there. Whether anything at all belongs to an hour is shown by later
        // events only: what comes in large portions, such as a file a day, is quiet for long and means nothing by it. Where what comes late is
        // published all the same, hours without events need not wait for that, but no more of them are sealed than late events may be behind.
        let (before, reason) = match of_origins.is_quiet {
            true => {
                let late = region.revised_types.get(name);
                let empty_ms =
                    late.map(|late| of_origins.before_ms.min(of_origins.last_empty_ms(late, limits.bucket_ms)));
                (of_origins.begun_ms.max(empty_ms), SealReason::Quiet)
            }
            false => (Some(of_origins.before_ms), SealReason::Watermark),
        };
        let before = before.map(|before| before.min(held_ms));
        let mut not_waited_for = of_origins.without.clone();
        add(
            &mut not_waited_for,
            hold.without(name, |at_ms| before.is_some_and(|before| limits.open_from_ms(at_ms) < before)),
        );
        let reason = if not_waited_for.is_empty() { reason } else { SealReason::Silent };
        if let Some(before) = before.filter(|before| *before > was) {
            add(&mut without, not_waited_for);
            // Hours without events are sealed, too, when others have been.
            closes |= was > i64::MIN || of_origins.begun_ms.is_some();
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
        return (Vec::new(), Partitions::new());
    }
    for (name, made_of) in &region.lineage.derived {
        let of =
            |input: &Arc<str>| moved.get(input).map(|moved| moved.sealed_before_ms).or(current.get(input).copied());
        let before = made_of.iter().map(of).min().flatten();
        let was = current.get(name).copied().unwrap_or(i64::MIN);
        if let Some(before) = before.filter(|before| *before > was) {
            // What one of them did not wait for is missing in the rows, too.
            let reason = first_reason(made_of.iter().filter_map(|input| moved.get(input)).map(|of| of.reason));
            moved.insert(name.clone(), horizon(name, before, reason));
        }
    }
    (moved.into_values().collect(), without)
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

/// What a watermark allows, for types that come from the same partitions, as most do.
struct Allowed {
    /// Hours that end at or before it.
    before_ms: i64,
    /// End of the last one of these that has events of any of the types and is open.
    begun_ms: Option<i64>,
    /// End of the hour of the newest event.
    newest_end_ms: i64,
    is_quiet: bool,
    /// Partitions that are not waited for.
    without: Partitions,
}

impl Allowed {
    /// How far hours without events may be sealed while nothing comes: whatever comes next, and is no older than the newest event of all, is still
    /// taken.
    fn last_empty_ms(&self, late: &Late, bucket_ms: i64) -> i64 {
        let last_ms = self.newest_end_ms.saturating_add(late.within_ms).saturating_sub(bucket_ms);
        Hour::of(last_ms, bucket_ms).start_ms
    }
}

/// What watermarks allow now; `None` where nothing can be said.
fn allowed<'a>(
    region: &'a Region,
    current: &BTreeMap<Arc<str>, i64>,
    now_ms: i64,
) -> BTreeMap<&'a [Origin], Option<Allowed>> {
    let limits = &region.plan.limits;
    // Before any watermark is looked at: what begins meanwhile is not to be closed by what was proven before it came.
    let open = region.progress().open.clone();
    let of = |origins: &[Origin]| {
        let Watermark { at_ms, newest_ms, is_quiet, without, .. } = watermark(region, origins, now_ms);
        let before_ms = limits.open_from_ms(at_ms?);
        let mut holding = Partitions::new();
        for Without { source, partition, newest_ms } in without {
            // One that had shown later events held nothing.
            if newest_ms.is_none_or(|newest_ms| limits.open_from_ms(newest_ms) < before_ms) {
                holding.entry(source).or_default().extend(partition);
            }
        }
        let newest_end_ms = Hour::of(newest_ms?, limits.bucket_ms).end_ms();
        Some(Allowed { before_ms, begun_ms: None, newest_end_ms, is_quiet, without: holding })
    };
    let mut found: BTreeMap<&[Origin], Option<Allowed>> = BTreeMap::new();
    for (name, origins) in &region.lineage.types {
        let Some(allowed) = found.entry(origins).or_insert_with(|| of(origins)) else { continue };
        let was = current.get(name).copied().unwrap_or(i64::MIN);
        let ends = open.get(name).into_iter().flatten().filter(|start| **start >= was);
        let ends = ends.map(|start| start.saturating_add(limits.bucket_ms));
        allowed.begun_ms = allowed.begun_ms.max(ends.take_while(|end| *end <= allowed.before_ms).last());
    }
    found
}

/// What may end now: hours, and revisions.
pub(crate) fn closing(region: &Region, said: &Said, progress: &Progress, now_ms: i64) -> Closing {
    let (horizons, without) = propose(region, said, now_ms);
    Closing { horizons, revised: revised(region, said, progress, now_ms), without }
}

/// Types whose revisions have been open for long enough, as of the last cut.
fn revised(region: &Region, said: &Said, progress: &Progress, now_ms: i64) -> Vec<Arc<str>> {
    let is_behind_ponds = region.is_behind_ponds();
    let is_due = |(name, since_ms): &(&Arc<str>, &i64)| {
        let delay_ms = region.revised_types.get(*name).map_or(0, |late| late.delay_ms);
        match is_behind_ponds {
            false => now_ms >= since_ms.saturating_add(delay_ms),
            // The region that fills the ponds says it for what comes from there; it can't know of what is late here alone.
            true => now_ms >= since_ms.saturating_add(2 * delay_ms).saturating_add(SAID_BY_MS),
        }
    };
    let due = progress.revising.iter().filter(is_due).map(|(name, _)| name.clone());
    with_derived(region, due.chain(said.revised.iter().cloned()).collect())
}

/// With the types that stages make of these.
fn with_derived(region: &Region, mut names: BTreeSet<Arc<str>>) -> Vec<Arc<str>> {
    for (name, made_of) in &region.lineage.derived {
        if made_of.iter().any(|input| names.contains(input)) {
            names.insert(name.clone());
        }
    }
    names.into_iter().collect()
}

/// All that is open. To be called when nothing is on its way.
pub(crate) fn end_of_input(region: &Region, progress: &Progress) -> Closing {
    let revised = with_derived(region, progress.revising.keys().cloned().collect());
    Closing { horizons: all_open(region), revised, without: Partitions::new() }
}

/// Horizons that close every hour that has events.
fn all_open(region: &Region) -> Vec<Horizon> {
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
