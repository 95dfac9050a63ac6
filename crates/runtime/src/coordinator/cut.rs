//! A cut from its barrier to its record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_core::{CutId, Limits, Positions, Seals};
use tokio::time::Instant;

use super::Coordinator;
use crate::audit::Books;
use crate::committer::Job;
use crate::error::RunError;
use crate::ledger::{Names, Record, StageRecord};
use crate::opening::TypeCounts;
use crate::producers;
use crate::progress::Progress;
use crate::region::Region;
use crate::worker::Left;

/// What a cut is to its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// One of many.
    Usual,
    /// Nothing is read any more.
    Closing,
    /// Nothing is open any more.
    Finished,
}

/// A cut whose barrier is on its way.
pub(super) struct InFlight {
    pub(super) cut: CutId,
    pub(super) started: Instant,
    pub(super) seals: Arc<Seals>,
    pub(super) waiting_for: BTreeSet<usize>,
    /// What has moved since the cut before.
    pub(super) positions: Positions,
    pub(super) gone: Names,
    pub(super) left: BTreeMap<Arc<str>, Left>,
    /// What sources have seen themselves.
    pub(super) seen: Vec<Progress>,
    pub(super) read_bytes: Option<u64>,
    pub(super) kind: Cut,
    /// What stages and sources have counted since the barrier before, by node.
    pub(super) books: BTreeMap<usize, Books>,
    /// What is to be counted when it is committed.
    pub(super) counts: BTreeMap<Arc<str>, TypeCounts>,
    /// When events came that sinks have dealt with, by sink.
    pub(super) arrived: BTreeMap<Arc<str>, BTreeMap<i64, u64>>,
}

impl InFlight {
    /// Takes over what stages and sources have seen: what lies before the barrier, and no more. An event behind it will
    /// be read again after a crash, and must not have moved a watermark. Returns the producers that were heard of.
    fn see(&mut self, region: &Region, progress: &mut Progress) -> producers::ByType {
        let bucket_ms = region.plan.limits.bucket_ms;
        let seen: Vec<&Progress> = self.left.values().map(|left| &left.progress).chain(&self.seen).collect();
        for (name, events, late) in seen.iter().flat_map(|seen| progress.counted(seen, bucket_ms)) {
            let counts = self.counts.entry(name).or_default();
            (counts.events, counts.late) = (counts.events + events, counts.late + late);
        }
        for (name, missing) in self.left.values().flat_map(|left| &left.missing) {
            self.counts.entry(name.clone()).or_default().missing += missing;
        }
        let heard: BTreeSet<(Arc<str>, Arc<str>)> = (seen.iter().flat_map(|seen| &seen.producers))
            .flat_map(|(event_type, heard)| heard.keys().map(|name| (event_type.clone(), name.clone())))
            .collect();
        let late: Vec<Arc<str>> = seen.into_iter().flat_map(|seen| progress.merge(seen, bucket_ms)).collect();
        // What a stage makes is late by another horizon than what it is made of: it says so itself.
        let made = self.left.values().flat_map(|left| left.revising.clone());
        for name in late.into_iter().chain(made).filter(|name| region.revised_types.contains_key(name)) {
            progress.revising.entry(name).or_insert(self.seals.at_ms);
        }
        progress.revising.retain(|name, _| !self.seals.revised.contains(name));
        let begun_ms = region.listens_since_ms(self.seals.at_ms);
        progress.forget_producers(begun_ms, self.seals.at_ms);
        region.progress().forget_producers(begun_ms, self.seals.at_ms);
        let mut producers = producers::ByType::new();
        for (event_type, name) in heard {
            if let Some(known) = progress.producers.get(&event_type).and_then(|known| known.get(&name)) {
                producers.entry(event_type).or_default().insert(name, *known);
            }
        }
        producers
    }

    /// Hours end.
    fn seal(&mut self, region: &Region, progress: &mut Progress) {
        let Limits { bucket_ms, allowed_lateness_ms: lateness_ms, .. } = *region.plan.limits;
        for horizon in &self.seals.horizons {
            let (name, before_ms) = (&horizon.event_type, horizon.sealed_before_ms);
            let sealed = progress.sealed(name, before_ms, bucket_ms);
            region.progress().sealed(name, before_ms, bucket_ms);
            let counts = self.counts.entry(name.clone()).or_default();
            for start_ms in sealed {
                let due_ms = start_ms.saturating_add(bucket_ms).saturating_add(lateness_ms);
                let delay_ms = self.seals.at_ms.saturating_sub(due_ms).max(0);
                counts.sealed += 1;
                counts.sealed_in_time += u64::from(delay_ms <= region.plan.seal_within_ms(name));
                counts.seal_delay_ms = Some(delay_ms);
            }
        }
        // What came while its hour was being sealed went into the next one, for some types: what stages say holds.
        region.progress().open_next(progress);
    }

    /// The record, but for what stages say.
    fn record(&mut self, region: &Region, progress: &mut Progress, producers: producers::ByType) -> Record {
        Record {
            base: false,
            cut: self.cut,
            at_ms: self.seals.at_ms,
            positions: std::mem::take(&mut self.positions),
            gone: std::mem::take(&mut self.gone),
            progress: progress.take_moved(),
            horizons: self.seals.horizons.clone(),
            revising: progress.revising.clone(),
            producers,
            opened: progress.take_opened(),
            silent: region.silences(),
            outbox: BTreeMap::new(),
            pieces: None,
            stages: BTreeMap::new(),
            fingerprint: None,
            run: region.run,
            until_end: region.config.until_end,
            ends: None,
            before: region.before,
            closing: self.kind != Cut::Usual,
            finished: self.kind == Cut::Finished,
        }
    }
}

impl Coordinator {
    /// When everybody has answered, the cut is complete and goes to the committer.
    pub(super) fn complete(&mut self) {
        let Some(cut) = self.in_flight.as_mut().filter(|cut| cut.waiting_for.is_empty()) else { return };
        let (region, progress) = (&self.region, &mut self.cut_progress);
        let wrong = self.audit.check(&cut.books);
        let damage = cut.books.values().flat_map(|books| &books.damage);
        region.carried.tell(&region.name, wrong.iter().chain(damage));
        if let Some(first) = wrong.first() {
            let (what, more) = (first.to_string(), wrong.len() - 1);
            return self.end(Err(RunError::Audit { what, more }));
        }
        let producers = cut.see(region, progress);
        cut.seal(region, progress);
        self.has_told_of_open = region.tell_of_open(progress, self.has_told_of_open);
        if !region.seals_at_end() {
            progress.tell_far_ahead(&region.plan.limits);
        }
        let mut record = cut.record(region, progress, producers);
        record.ends = region.ends_to_tell(&mut self.ends_of);
        let mut pieces = BTreeMap::new();
        for (name, left) in std::mem::take(&mut cut.left) {
            pieces.insert(name.clone(), left.pieces);
            if !left.arrived.is_empty() {
                cut.arrived.insert(name.clone(), left.arrived);
            }
            let said = StageRecord {
                logs: left.logs,
                publications: left.publications,
                retired: left.retired,
                tally: left.tally,
            };
            record.stages.insert(name, said);
        }
        let job = Job { record, pieces, read_bytes: cut.read_bytes.unwrap_or(0) };
        if self.committer.as_ref().is_none_or(|committer| committer.send(job).is_err()) {
            self.end(Err(RunError::Internal("the committer is gone".into())));
        }
    }
}
