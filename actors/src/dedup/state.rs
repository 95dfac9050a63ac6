//! What `dedup` remembers, and how it is kept in cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::{Effects, Home, LogName, LogReader, PieceChanges, PieceReader, StageError};

use super::runs::{Run, Runs};
use super::table::IdSet;

/// Buckets that an event reaches on either side of its own.
const REACH: i64 = 4;
/// First byte of a snapshot.
const VERSION: u8 = 4;

/// The ids of one quarter of a window, of all types.
struct Bucket {
    /// The last cut before its Log was begun: part of the name, since a bucket that is forgotten may come back for
    /// another
    /// type.
    cut: u64,
    /// The types that have ids in it, by their numbers.
    types: BTreeSet<u16>,
    ids: IdSet,
    /// Ids taken by this call, as they go into the Log.
    taken: Vec<u8>,
    /// Ids that are in the Log: those in memory.
    logged: u64,
    /// CRC32C of the Log.
    crc: u32,
    /// The cut that its pieces are named by.
    began: u64,
    /// Ids that have left memory.
    runs: Runs,
    /// Number of the call that added to it last.
    touched: u64,
}

impl Bucket {
    fn new(number: i64, cut: u64) -> Self {
        let types = BTreeSet::new();
        Self {
            cut,
            types,
            ids: IdSet::default(),
            taken: Vec::new(),
            logged: 0,
            crc: 0,
            began: cut,
            runs: Runs::new(number, cut),
            touched: 0,
        }
    }
}

/// The ids taken so far, by bucket of event time.
pub(super) struct Memory {
    window_ms: i64,
    width_ms: i64,
    types: Vec<OfType>,
    /// The last cut.
    cut: u64,
    buckets: BTreeMap<i64, Bucket>,
    /// Buckets that this call has added to.
    fresh: Vec<i64>,
    /// Logs and pieces of buckets that are forgotten.
    retired: Vec<LogName>,
    gone: PieceChanges,
    pieces: Arc<dyn PieceReader>,
    /// Memory for ids, in bytes.
    memory_bytes: u64,
    calls: u64,
    /// Some ids have left memory.
    has_runs: bool,
}

/// A type that arrives.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct OfType {
    name: Arc<str>,
    /// Its ids in buckets before it are forgotten. It moves at barriers only, so that a replay forgets the same.
    forgotten_before: i64,
}

/// Snapshot: one version byte, then this in postcard.
#[derive(Serialize, Deserialize)]
struct Kept {
    window_ms: i64,
    cut: u64,
    types: Vec<OfType>,
    buckets: Vec<KeptBucket>,
    sealed_before_ms: BTreeMap<Arc<str>, i64>,
}

#[derive(Serialize, Deserialize)]
struct KeptBucket {
    number: i64,
    cut: u64,
    types: BTreeSet<u16>,
    /// Ids in its Log, and the Log's CRC32C.
    count: u64,
    crc: u32,
    began: u64,
}

/// The events of a batch, one an index.
pub(super) struct Judged<'a> {
    /// Number of their type.
    pub(super) of: usize,
    pub(super) ids: &'a [u128],
    pub(super) times: &'a [i64],
    /// Whether the id was known before the batch.
    pub(super) known: &'a [bool],
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Taken,
    Duplicate,
    Late,
    /// Older than this event time, before which ids have been forgotten.
    TooOld(i64),
}

impl Memory {
    /// `types`: names of those that arrive, in the order of their numbers.
    pub(super) fn new(
        window_ms: i64,
        types: impl Iterator<Item = Arc<str>>,
        pieces: Arc<dyn PieceReader>,
        memory_bytes: u64,
    ) -> Self {
        Self {
            window_ms,
            width_ms: (window_ms + REACH - 1) / REACH,
            types: types.map(|name| OfType { name, forgotten_before: i64::MIN }).collect(),
            cut: 0,
            buckets: BTreeMap::new(),
            fresh: Vec::new(),
            retired: Vec::new(),
            gone: PieceChanges::new(),
            pieces,
            memory_bytes,
            calls: 0,
            has_runs: false,
        }
    }

    /// Whether each id is known in a bucket within reach of its time. The loop has nothing to wait for between two
    /// ids, so that the processor fetches several of them from memory at once.
    pub(super) fn known(&self, ids: &[u128], times: &[i64]) -> Result<Vec<bool>, StageError> {
        // A batch touches few buckets, often in turns.
        let mut reaches: Vec<Reach<'_>> = Vec::new();
        let mut current = 0;
        let probe = |(id, time): (&u128, &i64)| {
            let bucket = time.div_euclid(self.width_ms);
            if reaches.get(current).is_none_or(|reach| reach.bucket != bucket) {
                current = reaches.iter().position(|reach| reach.bucket == bucket).unwrap_or_else(|| {
                    reaches.push(self.reach(bucket));
                    reaches.len() - 1
                });
            }
            reaches[current].sets.iter().any(|set| set.contains(*id))
        };
        let mut known: Vec<bool> = ids.iter().zip(times).map(probe).collect();
        if self.has_runs {
            self.look_into_runs(ids, times, &mut known)?;
        }
        Ok(known)
    }

    /// The same for ids that have left memory. Each piece is read once for all of its ids that may be in it.
    fn look_into_runs(&self, ids: &[u128], times: &[i64], known: &mut [bool]) -> Result<(), StageError> {
        // Bucket, place of the run in it, piece, and the id.
        let mut questions: Vec<(i64, usize, usize, usize)> = Vec::new();
        // Events of one batch mostly lie in one bucket.
        let (mut current, mut runs): (Option<i64>, Vec<(i64, usize, &Run)>) = (None, Vec::new());
        for at in (0..ids.len()).filter(|at| !known[*at]) {
            let bucket = times[at].div_euclid(self.width_ms);
            if current != Some(bucket) {
                current = Some(bucket);
                let others = self.buckets.range(bucket - REACH..=bucket + REACH);
                runs.clear();
                for (number, other) in others {
                    runs.extend(other.runs.iter().enumerate().map(|(place, run)| (*number, place, run)));
                }
            }
            for (number, place, run) in runs.iter().filter(|(.., run)| run.may_hold(ids[at])) {
                questions.extend(run.block_of(ids[at]).map(|block| (*number, *place, block, at)));
            }
        }
        questions.sort_unstable();
        for of_piece in questions.chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2)) {
            let (number, place, block, _) = of_piece[0];
            let Some(bucket) = self.buckets.get(&number) else { continue };
            let Some(run) = bucket.runs.iter().nth(place) else { continue };
            let found = bucket.runs.block(run, block, &*self.pieces)?;
            for (.., at) in of_piece {
                known[*at] |= found.binary_search(&ids[*at]).is_ok();
            }
        }
        Ok(())
    }

    /// The buckets within reach of `bucket`, itself first.
    fn reach(&self, bucket: i64) -> Reach<'_> {
        let own = self.buckets.get(&bucket);
        let others = self.buckets.range(bucket - REACH..=bucket + REACH).rev().filter(|(number, _)| **number != bucket);
        let sets = own.into_iter().chain(others.map(|(_, other)| other)).map(|bucket| &bucket.ids);
        Reach { bucket, sets: sets.filter(|set| !set.is_empty()).collect() }
    }

    /// Judges events in order, remembers those that are taken, and tells `each` the number and the verdict of every one. `known`:
    /// what [`Memory::known`] said before the batch. `given_up_ms`: events before it are late.
    pub(super) fn judge(&mut self, events: Judged<'_>, given_up_ms: i64, mut each: impl FnMut(usize, Verdict)) {
        let width_ms = self.width_ms;
        let bucket_of = |at: usize| events.times[at].div_euclid(width_ms);
        let mut from = 0;
        while from < events.ids.len() {
            // Events of one batch mostly lie in one bucket: what depends on that is looked up once a run.
            let bucket = bucket_of(from);
            let to = (from + 1..events.ids.len()).find(|at| bucket_of(*at) != bucket).unwrap_or(events.ids.len());
            self.judge_run(&events, from..to, bucket, given_up_ms, &mut each);
            from = to;
        }
    }

    fn judge_run(
        &mut self,
        events: &Judged<'_>,
        run: Range<usize>,
        bucket: i64,
        given_up_ms: i64,
        each: &mut impl FnMut(usize, Verdict),
    ) {
        let oldest = self.types[events.of].forgotten_before.saturating_add(REACH);
        if bucket < oldest {
            return run.for_each(|at| each(at, Verdict::TooOld(oldest.saturating_mul(self.width_ms))));
        }
        // Only ids of the same batch can be found now that were not known, in buckets that this call has added to. Mostly that is
        // `bucket` alone, where adding the id will tell.
        let is_other = |other: &&i64| **other != bucket && other.abs_diff(bucket) <= REACH as u64;
        let others: Vec<i64> = self.fresh.iter().filter(is_other).copied().collect();
        let is_known = |at: usize, buckets: &BTreeMap<i64, Bucket>| {
            let holds = |other: &i64| buckets.get(other).is_some_and(|other| other.ids.contains(events.ids[at]));
            events.known[at] || others.iter().any(holds)
        };
        let known: Vec<bool> = match others[..] {
            [] => Vec::new(),
            _ => run.clone().map(|at| is_known(at, &self.buckets)).collect(),
        };
        let known = if known.is_empty() { &events.known[run.clone()] } else { &known };
        let is_taken = |at: usize| !known[at - run.start] && events.times[at] >= given_up_ms;
        if !self.buckets.contains_key(&bucket) && run.clone().any(is_taken) {
            self.buckets.insert(bucket, Bucket::new(bucket, self.cut));
        }
        let mut own = self.buckets.get_mut(&bucket);
        let was_fresh = own.as_ref().is_some_and(|own| !own.taken.is_empty());
        for at in run.clone() {
            let id = events.ids[at];
            let verdict = match &mut own {
                _ if known[at - run.start] => Verdict::Duplicate,
                // There is one for all that can be taken.
                None => Verdict::Late,
                Some(own) if events.times[at] < given_up_ms => match own.ids.contains(id) {
                    true => Verdict::Duplicate,
                    false => Verdict::Late,
                },
                Some(own) => match own.ids.insert(id) {
                    true => {
                        own.taken.extend_from_slice(&id.to_le_bytes());
                        Verdict::Taken
                    }
                    false => Verdict::Duplicate,
                },
            };
            each(at, verdict);
        }
        let Some(own) = own.filter(|own| !own.taken.is_empty()) else { return };
        own.types.insert(events.of as u16);
        own.touched = self.calls;
        if !was_fresh {
            self.fresh.push(bucket);
        }
    }

    /// A barrier of this cut: hours of each type that end at or before its horizon are sealed. What is older than two
    /// windows before that is forgotten, so that an event that is late by up to a window can still be told from a
    /// duplicate. A bucket goes when all types that have ids in it have passed it, so one that never comes keeps
    /// nothing.
    pub(super) fn forget(&mut self, cut: u64, sealed_before_ms: &BTreeMap<Arc<str>, i64>) {
        self.cut = cut;
        for of in &mut self.types {
            let Some(horizon_ms) = sealed_before_ms.get(&of.name) else { continue };
            let first = horizon_ms.div_euclid(self.width_ms).saturating_sub(2 * REACH);
            of.forgotten_before = of.forgotten_before.max(first);
        }
        let types = &self.types;
        let most = types.iter().map(|of| of.forgotten_before).max().unwrap_or(i64::MIN);
        let is_needed = |number: i64, bucket: &Bucket| {
            let of_type = |of: &u16| types.get(usize::from(*of)).map_or(most, |of| of.forgotten_before);
            // One whose types do not arrive any more goes with the first that passes it.
            bucket.types.iter().map(of_type).min().unwrap_or(most) <= number
        };
        let (retired, gone) = (&mut self.retired, &mut self.gone);
        self.buckets.retain(|number, bucket| {
            let is_needed = is_needed(*number, bucket);
            if !is_needed {
                retired.extend((bucket.logged > 0).then(|| log_name(*number, bucket.cut)));
                bucket.runs.remove(gone);
            }
            is_needed
        });
    }

    /// Hands over the ids taken by this call, and the Logs that are not needed any more.
    pub(super) fn flush(&mut self, effects: &mut Effects) {
        self.calls += 1;
        self.fresh.sort_unstable();
        for number in self.fresh.drain(..) {
            // A bucket that this call has added to and forgotten again leaves nothing to keep.
            let Some(bucket) = self.buckets.get_mut(&number) else { continue };
            let taken = std::mem::take(&mut bucket.taken);
            bucket.logged += (taken.len() / 16) as u64;
            bucket.crc = crc32c::crc32c_append(bucket.crc, &taken);
            effects.appends.push((log_name(number, bucket.cut), taken));
        }
        effects.retired.append(&mut self.retired);
    }

    pub(super) fn snapshot(
        &mut self,
        sealed_before_ms: &BTreeMap<Arc<str>, i64>,
        effects: &mut Effects,
    ) -> Result<Vec<u8>, StageError> {
        self.leave(effects)?;
        let bucket = |(number, bucket): (&i64, &Bucket)| KeptBucket {
            number: *number,
            cut: bucket.cut,
            types: bucket.types.clone(),
            count: bucket.logged,
            crc: bucket.crc,
            began: bucket.began,
        };
        let kept = Kept {
            window_ms: self.window_ms,
            cut: self.cut,
            types: self.types.clone(),
            buckets: self.buckets.iter().map(bucket).collect(),
            sealed_before_ms: sealed_before_ms.clone(),
        };
        postcard::to_extend(&kept, vec![VERSION])
            .map_err(|error| StageError { message: "can't write the snapshot".into(), source: Some(error.into()) })
    }

    /// Beyond the share of memory, ids leave it: first those of buckets that have not been added to for longest, until
    /// half
    /// of the share is free. What filters take is not counted: they stay.
    fn leave(&mut self, effects: &mut Effects) -> Result<(), StageError> {
        effects.pieces.append(&mut self.gone);
        let mut held: u64 = self.buckets.values().map(|bucket| bucket.ids.memory_bytes() as u64).sum();
        if held <= self.memory_bytes {
            return Ok(());
        }
        let mut buckets: Vec<_> = self.buckets.iter_mut().filter(|(_, bucket)| !bucket.ids.is_empty()).collect();
        buckets.sort_unstable_by_key(|(number, bucket)| (bucket.touched, **number));
        for (number, bucket) in buckets {
            if held <= self.memory_bytes / 2 {
                break;
            }
            let ids = std::mem::take(&mut bucket.ids);
            held -= ids.memory_bytes() as u64;
            self.has_runs = true;
            bucket.runs.add(ids.into_sorted(), &*self.pieces, &mut effects.pieces)?;
            // What comes from now on goes into another Log.
            effects.retired.extend((bucket.logged > 0).then(|| log_name(*number, bucket.cut)));
            (bucket.cut, bucket.logged, bucket.crc) = (self.cut, 0, 0);
        }
        Ok(())
    }

    /// Gives a new memory what it held at a cut; returns the horizons that belong to it.
    pub(super) fn restore(
        &mut self,
        snapshot: &[u8],
        logs: &dyn LogReader,
    ) -> Result<BTreeMap<Arc<str>, i64>, StageError> {
        let Some((&VERSION, bytes)) = snapshot.split_first() else {
            return Err(StageError::new(format!(
                "the snapshot has version {:?}, this program reads version {VERSION}: start with the program that wrote it",
                snapshot.first()
            )));
        };
        let kept: Kept = postcard::from_bytes(bytes)
            .map_err(|error| StageError { message: "can't read the snapshot".into(), source: Some(error.into()) })?;
        if kept.window_ms != self.window_ms {
            return Err(StageError::new(format!(
                "the state was made with a window of {} ms, the topology has {} ms: change it back or start afresh",
                kept.window_ms, self.window_ms
            )));
        }
        self.cut = kept.cut;
        for of in &mut self.types {
            let known = kept.types.iter().find(|known| known.name == of.name);
            of.forgotten_before = known.map_or(i64::MIN, |known| known.forgotten_before);
        }
        let number_now = |of: &u16| {
            let name = &kept.types.get(usize::from(*of))?.name;
            Some(self.types.iter().position(|of| of.name == *name)? as u16)
        };
        for KeptBucket { number, cut, types, count, crc, began } in kept.buckets {
            let ids = if count > 0 { read_ids(logs, &log_name(number, cut), count, crc)? } else { IdSet::default() };
            let runs = Runs::read(number, began, &*self.pieces)?;
            self.has_runs |= !runs.is_empty();
            let types = types.iter().filter_map(number_now).collect();
            let bucket = Bucket { cut, types, ids, logged: count, crc, began, runs, ..Bucket::new(number, began) };
            self.buckets.insert(number, bucket);
        }
        Ok(kept.sealed_before_ms)
    }
}

/// The sets within reach of a bucket.
struct Reach<'a> {
    bucket: i64,
    sets: Vec<&'a IdSet>,
}

fn log_name(bucket: i64, cut: u64) -> LogName {
    LogName { home: Home::State, name: format!("ids-{bucket}-{cut}") }
}

fn read_ids(logs: &dyn LogReader, log: &LogName, count: u64, crc: u32) -> Result<IdSet, StageError> {
    let failed = |error: std::io::Error| StageError {
        message: format!("can't read the ids in Log `{}`", log.name),
        source: Some(error.into()),
    };
    let mut set = IdSet::with_capacity(usize::try_from(count).unwrap_or(0));
    let mut reader = logs.open(log).map_err(failed)?.take(count.saturating_mul(16).saturating_add(1));
    let mut buffer = vec![0; 1 << 16];
    let (mut held, mut found) = (0, 0);
    loop {
        let read = match reader.read(&mut buffer[held..]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        found = crc32c::crc32c_append(found, &buffer[held..held + read]);
        held += read;
        let (ids, rest) = buffer[..held].as_chunks::<16>();
        ids.iter().for_each(|id| {
            set.insert(u128::from_le_bytes(*id));
        });
        let (from, rest) = (held - rest.len(), rest.len());
        buffer.copy_within(from..held, 0);
        held = rest;
    }
    if held > 0 || set.len() as u64 != count {
        return Err(StageError::new(format!(
            "Log `{}` holds {} ids and {held} bytes, the snapshot says {count} ids: the state is damaged",
            log.name,
            set.len()
        )));
    }
    if found != crc {
        return Err(StageError::new(format!(
            "Log `{}` has the checksum {found:08x}, the snapshot says {crc:08x}: the state is damaged; put a copy of it back, or \
             start afresh",
            log.name
        )));
    }
    Ok(set)
}
