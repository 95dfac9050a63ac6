//! Proposals of a region: which horizons may move now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_core::{DEAD_LETTER_TYPE, Horizon, Hour, Late, Limits, Partitions, SealReason};
use tidemill_topology::{Derived, Origin};

use super::said::Said;
use super::steps::Steps;
use super::{Closing, add, first_reason, given_up_ms};
use crate::producers::Hold;
use crate::region::Region;
use crate::watermark::{Watermark, Without, watermark};

/// How long after its end an hour of dead letters is left open, in milliseconds.
const DEAD_LETTER_GRACE_MS: i64 = 60_000;

/// What is found of all types, one after the other.
pub(super) struct Proposal<'a> {
    region: &'a Region,
    limits: &'a Limits,
    now_ms: i64,
    /// Horizons as of the last cut.
    current: BTreeMap<Arc<str>, i64>,
    /// Before any watermark is looked at: what begins meanwhile is not to be closed by what was proven before it came.
    open: BTreeMap<Arc<str>, BTreeSet<i64>>,
    /// By origins, which most types share.
    allowed: BTreeMap<&'a [Origin], Option<Allowed>>,
    /// Up to where the next step goes, by type, where all that may end is more than one.
    caps: BTreeMap<Arc<str>, i64>,
    moved: BTreeMap<Arc<str>, Horizon>,
    /// Some hour ends.
    closes: bool,
    without: Partitions,
}

/// What a watermark allows.
struct Allowed {
    /// Hours that end at or before it.
    before_ms: i64,
    /// End of the last one of these that has events of any type that comes from there alone, and is open.
    begun_ms: Option<i64>,
    /// End of the hour of the newest event.
    newest_end_ms: i64,
    is_quiet: bool,
    /// Partitions that are not waited for, with the start of the first hour that each holds open.
    without: Vec<(i64, Without)>,
}

impl Allowed {
    /// The partitions that hours up to `before_ms` do not wait for. One that had shown later events held nothing.
    fn without(&self, before_ms: i64) -> Partitions {
        let mut holding = Partitions::new();
        for (_, Without { source, partition, .. }) in self.without.iter().filter(|(from_ms, _)| *from_ms < before_ms) {
            holding.entry(source.clone()).or_default().extend(partition.clone());
        }
        holding
    }

    /// How far hours without events may be sealed while nothing comes: whatever comes next, and is no older than the
    /// newest event of all, is still taken.
    fn last_empty_ms(&self, late: &Late, bucket_ms: i64) -> i64 {
        let last_ms = self.newest_end_ms.saturating_add(late.within_ms).saturating_sub(bucket_ms);
        Hour::of(last_ms, bucket_ms).start_ms
    }
}

/// The horizons that ponds have said, that watermarks and the clock allow now, up to a step; none when nothing would
/// close.
pub(super) fn propose(region: &Region, said: &Said, now_ms: i64) -> Closing {
    if region.is_behind_ponds() && !said.moves() && !region.progress().has_letters() {
        return Closing::default();
    }
    let mut proposal = Proposal {
        region,
        limits: &region.plan.limits,
        now_ms,
        current: region.committed().sealed_before_ms.clone(),
        open: region.progress().open.clone(),
        allowed: BTreeMap::new(),
        caps: BTreeMap::new(),
        moved: BTreeMap::new(),
        closes: false,
        without: Partitions::new(),
    };
    if region.is_behind_ponds() {
        // What comes through a pond was sealed in steps before it.
        proposal.take_over(said);
        proposal.letters();
        proposal.derive();
        return proposal.closing(false);
    }
    proposal.look_at_origins();
    proposal.move_all();
    let caps = proposal.steps().first(&proposal.in_steps());
    let is_step = caps.is_some();
    if let Some(caps) = caps {
        (proposal.caps, proposal.closes) = (caps, false);
        (proposal.moved, proposal.without) = Default::default();
        proposal.move_all();
    }
    proposal.closing(is_step)
}

impl<'a> Proposal<'a> {
    fn closing(self, is_step: bool) -> Closing {
        match self.closes {
            true => Closing {
                horizons: self.moved.into_values().collect(),
                revised: Vec::new(),
                without: self.without,
                is_step,
            },
            false => Closing::default(),
        }
    }

    fn move_all(&mut self) {
        for (name, origins) in &self.region.lineage.types {
            self.received(name, origins);
        }
        self.letters();
        self.derive();
    }

    fn derive(&mut self) {
        for derived in &self.region.lineage.derived {
            match derived.origins[..] {
                // Of dead letters, or known from ponds.
                [] => self.follow(derived),
                _ => self.derived(derived),
            }
        }
    }

    fn steps(&self) -> Steps<'_> {
        Steps { bucket_ms: self.limits.bucket_ms, sinks: &self.region.sinks, current: &self.current, open: &self.open }
    }

    /// Letters, and what follows them, are few.
    fn in_steps(&self) -> Vec<&Horizon> {
        let is_in_steps = |name: &Arc<str>| {
            let derived = self.region.lineage.derived.iter().find(|derived| derived.name == *name);
            **name != *DEAD_LETTER_TYPE && derived.is_none_or(|derived| !derived.origins.is_empty())
        };
        self.moved.iter().filter(|(name, _)| is_in_steps(name)).map(|(_, horizon)| horizon).collect()
    }

    fn cap_ms(&self, name: &Arc<str>) -> i64 {
        self.caps.get(name).copied().unwrap_or(i64::MAX)
    }

    fn was(&self, name: &Arc<str>) -> i64 {
        self.current.get(name).copied().unwrap_or(i64::MIN)
    }

    /// Behind this proposal.
    fn sealed_before_ms(&self, name: &Arc<str>) -> Option<i64> {
        self.moved.get(name).map(|moved| moved.sealed_before_ms).or(self.current.get(name).copied())
    }

    /// Ends of the hours of a type that have events and end behind its last horizon.
    fn ends(&self, name: &Arc<str>) -> impl Iterator<Item = i64> {
        let was = self.was(name);
        let open = self.open.get(name).into_iter().flatten();
        open.filter(move |start| **start >= was).map(|start| start.saturating_add(self.limits.bucket_ms))
    }

    /// Seals of a pond close something: the region that writes it has seen to that.
    fn take_over(&mut self, said: &Said) {
        // It must be known from all that stand at seals now, so only barriers that let one go on carry any; or what was
        // said before, when a pond is not waited for any more.
        if !said.moves() {
            return;
        }
        for (name, origins) in &self.region.lineage.types {
            let was = self.was(name);
            let Some(known) = said.horizon(name, origins).filter(|known| known.sealed_before_ms > was) else {
                continue;
            };
            self.closes = true;
            self.moved.insert(name.clone(), known);
            add(&mut self.without, said.without.clone());
        }
    }

    fn look_at_origins(&mut self) {
        let of_types = self.region.lineage.types.iter().map(|(_, origins)| &origins[..]);
        let of_derived = self.region.lineage.derived.iter().map(|derived| &derived.origins[..]);
        for origins in of_types.chain(of_derived) {
            if !self.allowed.contains_key(origins) {
                let allowed = allowed(self.region, origins, self.now_ms);
                self.allowed.insert(origins, allowed);
            }
        }
        for (name, origins) in &self.region.lineage.types {
            let Some(Some(before_ms)) = self.allowed.get(&origins[..]).map(|of| of.as_ref().map(|of| of.before_ms))
            else {
                continue;
            };
            let begun_ms = self.ends(name).take_while(|end| *end <= before_ms).last();
            if let Some(Some(allowed)) = self.allowed.get_mut(&origins[..]) {
                allowed.begun_ms = allowed.begun_ms.max(begun_ms);
            }
        }
    }

    /// Up to where producers hold the hours of a type.
    fn held_ms(&self, hold: &Hold, was: i64) -> i64 {
        let held_ms = hold.lowest.as_ref().map_or(i64::MAX, |(at_ms, _)| self.limits.open_from_ms(*at_ms));
        // Step by step, so that each hour names those only that had not gone further.
        let steps = hold.silent.iter().map(|(at_ms, _)| self.limits.open_from_ms(*at_ms)).filter(|step| *step > was);
        steps.min().map_or(held_ms, |step| held_ms.min(step))
    }

    fn received(&mut self, name: &Arc<str>, origins: &'a [Origin]) {
        let limits = self.limits;
        let was = self.was(name);
        let Some(Some(of_origins)) = self.allowed.get(origins) else { return };
        let hold = self.region.producers_hold(name, self.now_ms);
        // Quiet closes what has begun, for all types that come from there. Whether anything at all belongs to an hour
        // is shown by later events only: what comes in large portions, such as a file a day, is quiet for long and
        // means nothing by it. Where what comes late is published all the same, hours without events need not wait for
        // that, but no more of them are sealed than late events may be behind.
        let before = match of_origins.is_quiet {
            true => {
                let late = self.region.revised_types.get(name);
                let empty_ms =
                    late.map(|late| of_origins.before_ms.min(of_origins.last_empty_ms(late, limits.bucket_ms)));
                of_origins.begun_ms.max(empty_ms)
            }
            false => Some(of_origins.before_ms),
        };
        let allowed = |before: i64| before.min(self.held_ms(&hold, was)).min(self.cap_ms(name));
        let Some(before) = before.map(allowed).filter(|before| *before > was) else { return };
        // Hours without events are sealed, too, when others have been.
        self.closes |= was > i64::MIN || of_origins.begun_ms.is_some();
        let mut not_waited_for = of_origins.without(before);
        add(&mut not_waited_for, hold.without(name, |at_ms| limits.open_from_ms(at_ms) < before));
        let reason = reason(of_origins.is_quiet, &not_waited_for);
        add(&mut self.without, not_waited_for);
        self.moved.insert(name.clone(), Horizon::new(name.clone(), before, reason));
    }

    /// The hours of rows that are made of several types wait for the origins of all of them, and for nothing that is
    /// proven to be idle. So a type that is never sent, or that comes once a day, holds none: rows of events that it
    /// brings later are a revision.
    fn derived(&mut self, derived: &'a Derived) {
        let limits = self.limits;
        let was = self.was(&derived.name);
        let Some(Some(of_origins)) = self.allowed.get(&derived.origins[..]) else { return };
        let mut before = of_origins.before_ms.min(self.cap_ms(&derived.name));
        if of_origins.is_quiet {
            // What closes for none of them has not begun.
            let inputs = derived.made_of.iter().filter_map(|input| self.sealed_before_ms(input)).max();
            before = before.min(inputs.unwrap_or(i64::MIN));
        }
        let holds = self.region.lineage.received(&derived.name).into_iter().map(|input| {
            let hold = self.region.producers_hold(input, self.now_ms);
            before = before.min(self.held_ms(&hold, was));
            (input, hold)
        });
        let holds: Vec<(&Arc<str>, Hold)> = holds.collect();
        for input in &derived.made_of {
            let sealed_ms = self.sealed_before_ms(input).unwrap_or(i64::MIN);
            let open = self.open.get(input).and_then(|open| open.range(sealed_ms..).next());
            before = before.min(open.copied().unwrap_or(i64::MAX));
        }
        // All of these are starts of hours.
        if before <= was {
            return;
        }
        let mut not_waited_for = of_origins.without(before);
        for (input, hold) in holds {
            add(&mut not_waited_for, hold.without(input, |at_ms| limits.open_from_ms(at_ms) < before));
        }
        // One that is new follows at once: its rows may wait in a pond, behind all seals of what they are made of.
        let is_new = was == i64::MIN && derived.made_of.iter().any(|input| self.sealed_before_ms(input).is_some());
        self.closes |= was > i64::MIN || is_new || self.ends(&derived.name).any(|end| end <= before);
        let reason = reason(of_origins.is_quiet, &not_waited_for);
        add(&mut self.without, not_waited_for);
        let given_up_ms = given_up_ms(self.region, derived, before, &|input| self.sealed_before_ms(input));
        let horizon = Horizon { given_up_ms, ..Horizon::new(derived.name.clone(), before, reason) };
        self.moved.insert(derived.name.clone(), horizon);
    }

    /// Rows made of dead letters are sealed with these.
    fn follow(&mut self, derived: &Derived) {
        if self.region.lineage.types.iter().any(|(name, _)| *name == derived.name) {
            return;
        }
        let was = self.was(&derived.name);
        let before = derived.made_of.iter().map(|input| self.sealed_before_ms(input)).min().flatten();
        if let Some(before) = before.filter(|before| *before > was) {
            let moved = derived.made_of.iter().filter_map(|input| self.moved.get(input));
            let reason = first_reason(moved.map(|of| of.reason));
            self.moved.insert(derived.name.clone(), Horizon::new(derived.name.clone(), before, reason));
        }
    }

    fn letters(&mut self) {
        let letters: Arc<str> = DEAD_LETTER_TYPE.into();
        let clock = Hour::of(self.now_ms - DEAD_LETTER_GRACE_MS, self.limits.bucket_ms).start_ms;
        let has_letters = self.open.get(&letters);
        let has_letters = has_letters
            .is_some_and(|open| open.iter().any(|start| start.saturating_add(self.limits.bucket_ms) <= clock));
        if has_letters && clock > self.was(&letters) {
            self.closes = true;
            self.moved.insert(letters.clone(), Horizon::new(letters.clone(), clock, SealReason::Clock));
        }
    }
}

fn reason(is_quiet: bool, not_waited_for: &Partitions) -> SealReason {
    match (not_waited_for.is_empty(), is_quiet) {
        (false, _) => SealReason::Silent,
        (true, true) => SealReason::Quiet,
        (true, false) => SealReason::Watermark,
    }
}

/// What the watermark of these origins allows now; `None` where nothing can be said.
fn allowed(region: &Region, origins: &[Origin], now_ms: i64) -> Option<Allowed> {
    let limits = &region.plan.limits;
    let Watermark { at_ms, newest_ms, is_quiet, without, .. } = watermark(region, origins, now_ms);
    let before_ms = limits.open_from_ms(at_ms?);
    let from_ms = |of: &Without| of.newest_ms.map_or(i64::MIN, |newest_ms| limits.open_from_ms(newest_ms));
    let without = without.into_iter().map(|of| (from_ms(&of), of)).collect();
    let newest_end_ms = Hour::of(newest_ms?, limits.bucket_ms).end_ms();
    Some(Allowed { before_ms, begun_ms: None, newest_end_ms, is_quiet, without })
}
