//! What all records of a ledger say together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_core::{CutId, Home, Horizon, LogName, Positions, SealReason};
use tidemill_topology::Fingerprint;

use super::record::{Batch, Ends, Hours, Record, Seen};
use crate::logs::Lengths;
use crate::producers;
use crate::silence::Silences;

/// All records of a ledger, added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Committed {
    /// The last one. Positions, progress and silences of all of them are beside it.
    pub(crate) last: Record,
    pub(crate) positions: Positions,
    pub(crate) progress: Seen,
    pub(crate) silent: BTreeMap<Arc<str>, Silences>,
    pub(crate) sealed_before_ms: BTreeMap<Arc<str>, i64>,
    /// Hours that have events and are not sealed.
    pub(crate) open: Hours,
    pub(crate) producers: producers::ByType,
    pub(crate) logs: BTreeMap<Arc<str>, Lengths>,
    /// What is to be published, by cut. Batches leave it when a mark says that they are.
    pub(crate) outbox: BTreeMap<CutId, Batch>,
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Where the run to the end ends, if it is one.
    pub(crate) ends: Option<Ends>,
}

impl Committed {
    pub(crate) fn apply(&mut self, mut record: Record) {
        if record.base {
            *self = Self { outbox: std::mem::take(&mut record.outbox), ..Self::default() };
        }
        for (source, moved) in std::mem::take(&mut record.positions) {
            let known = Arc::make_mut(self.positions.entry(source).or_default());
            known.extend(Arc::unwrap_or_clone(moved));
        }
        for (source, names) in std::mem::take(&mut record.gone) {
            if let Some(positions) = self.positions.get_mut(&source) {
                Arc::make_mut(positions).retain(|name, _| !names.contains(name));
            }
        }
        for (source, moved) in std::mem::take(&mut record.progress) {
            self.progress.entry(source).or_default().extend(moved);
        }
        self.silent.extend(std::mem::take(&mut record.silent));
        for (event_type, starts) in &record.opened {
            self.open.entry(event_type.clone()).or_default().extend(starts);
        }
        let published_before_ms = self.published_before(&record);
        for horizon in &record.horizons {
            self.sealed_before_ms.insert(horizon.event_type.clone(), horizon.sealed_before_ms);
            if let Some(open) = self.open.get_mut(&horizon.event_type) {
                // Horizons are starts of hours.
                *open = open.split_off(&horizon.sealed_before_ms);
            }
        }
        for (event_type, heard) in &record.producers {
            let known = self.producers.entry(event_type.clone()).or_default();
            known.extend(heard.clone());
            if known.len() > 2 * producers::PRODUCERS_MAX {
                known.retain(|_, heard| heard.is_remembered(i64::MIN, record.at_ms));
            }
        }
        let mut batch = Batch { publications: BTreeMap::new(), published_before_ms, at_ms: record.at_ms };
        for (stage, said) in &mut record.stages {
            let logs = self.logs.entry(stage.clone()).or_default();
            logs.extend(said.logs.iter().cloned());
            let publications = std::mem::take(&mut said.publications);
            for name in publications.iter().map(|publication| &publication.log).chain(&said.retired) {
                logs.remove(name);
            }
            if !publications.is_empty() {
                batch.publications.insert(stage.clone(), publications);
            }
        }
        if !batch.publications.is_empty() {
            self.outbox.insert(record.cut, batch);
        }
        if record.ends.is_some() || !record.until_end {
            self.ends.clone_from(&record.ends);
        }
        if record.fingerprint.is_some() {
            self.fingerprint.clone_from(&record.fingerprint);
        }
        self.last = record;
    }

    /// Of types whose hours a record seals: where the hours end that were sealed before it.
    fn published_before(&self, record: &Record) -> BTreeMap<Arc<str>, i64> {
        // Of a type of which none were, the first one begins there.
        let first_ms = |name| self.open.get(name).and_then(BTreeSet::first).copied();
        let before = |name| self.sealed_before_ms.get(name).copied().or_else(|| first_ms(name)).unwrap_or(i64::MIN);
        let moved = record.horizons.iter().map(|horizon| &horizon.event_type);
        moved.map(|name| (name.clone(), before(name))).collect()
    }

    /// Logs of a stage that are to be published: they are none any more, and not yet where readers find them.
    pub(crate) fn staged(&self, stage: &str) -> BTreeSet<LogName> {
        let of_stage = self.outbox.values().filter_map(|batch| batch.publications.get(stage));
        of_stage.flatten().map(|publication| publication.log.clone()).collect()
    }

    /// Names of files that came with requests and are to be published.
    pub(crate) fn requested(&self) -> Vec<String> {
        let publications = self.outbox.values().flat_map(|batch| batch.publications.values().flatten());
        let requested = publications.filter(|publication| publication.log.home == Home::Request);
        requested.map(|publication| publication.log.name.clone()).collect()
    }

    /// Takes out of a record what is known already. So a record costs what moved, however many partitions there are.
    pub(crate) fn leave_out_known(&self, record: &mut Record) {
        // A source that has nothing else stays, if it is new.
        record.positions.retain(|source, moved| !moved.is_empty() || !self.positions.contains_key(source));
        record.gone.retain(|_, names| !names.is_empty());
        record.silent.retain(|source, silent| self.silent.get(source) != Some(silent));
    }

    /// Another run begins: it has ends of its own, if any.
    pub(crate) fn begin(&mut self, run: u64) {
        if self.last.run != run {
            (self.last.run, self.last.until_end, self.last.closing) = (run, false, false);
            self.ends = None;
        }
    }

    /// One record that says everything, with the effects of the last one.
    pub(crate) fn base(&self) -> Record {
        let mut record = Record { base: true, fingerprint: self.fingerprint.clone(), ..self.last.clone() };
        record.horizons = (self.sealed_before_ms.iter())
            .map(|(event_type, before_ms)| Horizon::new(event_type.clone(), *before_ms, SealReason::Watermark))
            .collect();
        record.positions.clone_from(&self.positions);
        record.progress.clone_from(&self.progress);
        record.silent.clone_from(&self.silent);
        record.ends.clone_from(&self.ends);
        record.opened.clone_from(&self.open);
        record.producers.clone_from(&self.producers);
        for producers in record.producers.values_mut() {
            producers.retain(|_, heard| heard.is_remembered(i64::MIN, record.at_ms));
        }
        for (stage, logs) in &self.logs {
            let said = record.stages.entry(stage.clone()).or_default();
            said.logs = logs.iter().map(|(name, length)| (name.clone(), *length)).collect();
        }
        record.outbox.clone_from(&self.outbox);
        record
    }

    /// The same when the effects of the last record are done, but for the outbox.
    pub(super) fn base_without_effects(&self) -> Record {
        let mut record = self.base();
        record.stages.values_mut().for_each(|said| said.retired.clear());
        record
    }

    /// A batch is published, and all before it are.
    pub(crate) fn published(&mut self, cut: CutId) {
        self.outbox.retain(|of, _| *of > cut);
    }
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::SplitMix64;
    use rand_xoshiro::rand_core::{Rng, SeedableRng};
    use tidemill_core::{Moved, PartitionPosition, Publication, SourcePositions};

    use super::*;
    use crate::ledger::{StageRecord, frame, records};
    use crate::reached::Reached;

    /// The record as it comes out of a file.
    fn written(record: &Record) -> Record {
        let bytes = [&crate::ledger::MAGIC[..], &frame(record).expect("bytes")].concat();
        records(&bytes, std::path::Path::new("ledger")).expect("a record").0.remove(0)
    }

    fn whole(random: &mut SplitMix64, cut: u64, before: &Record) -> Record {
        let mut record = Record { base: false, cut, ..before.clone() };
        let source: Arc<str> = format!("s{}", random.next_u64() % 3).into();
        let partition: Arc<str> = format!("p{}", random.next_u64() % 4).into();
        let positions = Arc::make_mut(record.positions.entry(source.clone()).or_default());
        if random.next_u64().is_multiple_of(4) {
            positions.remove(&partition);
        } else {
            let at = PartitionPosition { next: cut, resume: Arc::default(), ended: cut.is_multiple_of(7) };
            positions.insert(partition.clone(), at);
            let newest = Reached::at((cut / 2) as i64, cut as i64);
            record.progress.entry(source.clone()).or_default().insert(partition.clone(), newest);
        }
        let silent = record.silent.entry(source).or_default();
        record.horizons = vec![Horizon::new("play".into(), cut as i64, SealReason::Watermark)];
        let log = |number| LogName { home: Home::Output, name: format!("{cut}-{number}") };
        let file = |number| Publication { log: log(number), path: format!("hour/{cut}-{number}"), replaces: false };
        let publications = (0..random.next_u64() % 3).map(file).collect();
        record.stages = BTreeMap::from([("files".into(), StageRecord { publications, ..StageRecord::default() })]);
        // A source of which no partition is silent any more is still there.
        match cut.is_multiple_of(3) {
            true => drop(silent.insert(partition, cut)),
            false => silent.clear(),
        }
        record
    }

    #[test]
    fn what_changed_adds_up_to_the_whole_through_bases_anywhere() {
        for seed in 0..200 {
            let mut random = SplitMix64::seed_from_u64(seed);
            let (mut committed, mut last) = (Committed::default(), Record::default());
            let mut outbox: BTreeMap<CutId, Vec<Publication>> = BTreeMap::new();
            for cut in 1..40 {
                let before = std::mem::take(&mut last);
                last = whole(&mut random, cut, &before);
                let said = last.stages.values().flat_map(|said| said.publications.clone()).collect();
                outbox.insert(cut, said);
                outbox.retain(|_, said| !said.is_empty());
                let mut record = last.clone();
                let none = SourcePositions::default();
                for (source, positions) in &mut record.positions {
                    let moved = Moved::between(before.positions.get(source).unwrap_or(&none), positions);
                    *positions = Arc::new(moved.positions);
                    record.gone.insert(source.clone(), moved.gone);
                }
                committed.leave_out_known(&mut record);
                let moved: usize = record.positions.values().map(|moved| moved.len()).sum();
                assert!(moved <= 1, "seed {seed}: {moved} positions for one that moved");
                committed.apply(written(&record));
                if random.next_u64().is_multiple_of(5) {
                    let before = committed.outbox.clone();
                    committed.apply(written(&committed.base()));
                    assert_eq!(committed.outbox, before, "seed {seed}, cut {cut}");
                }
                let said = (&committed.positions, &committed.progress, &committed.silent);
                assert_eq!(said, (&last.positions, &last.progress, &last.silent), "seed {seed}, cut {cut}");
                let published = random.next_u64() % (2 * cut);
                if published < cut {
                    committed.published(published);
                    outbox.retain(|cut, _| *cut > published);
                }
                let files = |batch: &Batch| batch.publications.values().flatten().cloned().collect::<Vec<_>>();
                let in_outbox: BTreeMap<_, _> =
                    committed.outbox.iter().map(|(cut, batch)| (*cut, files(batch))).collect();
                assert_eq!(in_outbox, outbox, "seed {seed}, cut {cut}");
                let is_early =
                    |batch: &Batch| batch.published_before_ms.values().all(|before_ms| *before_ms < cut as i64);
                assert!(committed.outbox.values().all(is_early), "seed {seed}, cut {cut}");
            }
        }
    }
}
