//! What one stage or source counts between two barriers.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::{
    Batch, Counted, Counts, DEAD_LETTER_TYPE, Effects, Hour, HourNote, HourTotals, IdSum, Input, RawChunk, Stage,
    Totals, key_hash,
};

use super::check::Mismatch;

/// Totals by type and start of the hour.
pub(crate) type ByHour = BTreeMap<(Arc<str>, i64), Totals>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Positions that a source gave, or a stage took, of what is not parsed yet, by source and partition: how many, and which.
    pub(crate) chunks: BTreeMap<(Arc<str>, Arc<str>), Totals>,
    pub(crate) taken: ByHour,
    /// Replayed dead letters that enter here.
    pub(crate) entered: ByHour,
    pub(crate) given: ByHour,
    /// Dead letters, as events of their own type.
    pub(crate) letters: ByHour,
    /// The events that became dead letters, where they were parsed.
    pub(crate) refused: ByHour,
    /// What a sink has written, if it says so.
    pub(crate) written: Option<ByHour>,
    /// What was read out of a pond, and is not what was written into it.
    pub(crate) damage: Vec<Mismatch>,
}

impl Books {
    /// An input that the stage `node` was given.
    pub(crate) fn take(&mut self, input: &Input, node: &str, bucket_ms: i64) {
        match input {
            Input::Raw(chunk) => self.chunk(chunk),
            Input::Rows(batch) => match &batch.origin.enters {
                None => add(&mut self.taken, batch, bucket_ms),
                Some(stage) if **stage == *node => add(&mut self.entered, batch, bucket_ms),
                // On its way to the stage where it enters: those before it have had it.
                Some(_) => {}
            },
            Input::Note(_) => {}
        }
    }

    /// An input that a source or the end of a pond gave.
    pub(crate) fn give(&mut self, input: &Input, bucket_ms: i64) {
        match input {
            Input::Raw(chunk) => self.chunk(chunk),
            Input::Rows(batch) => self.give_rows(batch, bucket_ms),
            Input::Note(_) => {}
        }
    }

    fn chunk(&mut self, chunk: &RawChunk) {
        let origin = &chunk.origin;
        if origin.enters.is_none() {
            // A chunk may be halved on its way: what is counted are positions, and of the halves' sums the middle drops out.
            let at = |position: u64| Totals { events: position, ids: IdSum(key_hash(&position.to_le_bytes())) };
            let key = (origin.source.clone(), origin.partition.clone());
            *self.chunks.entry(key).or_default() += at(origin.next) - at(origin.first);
        }
    }

    fn give_rows(&mut self, batch: &Batch, bucket_ms: i64) {
        if batch.origin.enters.is_none() {
            add(&mut self.given, batch, bucket_ms);
        }
    }

    /// What came to the stage: what it was given, and dead letters that enter here.
    pub(crate) fn came(&self) -> ByHour {
        let mut came = self.taken.clone();
        merge(&mut came, &self.entered);
        came
    }

    /// What a call into a stage has brought about; `dead` are its dead letters as a batch.
    pub(crate) fn effects(&mut self, effects: &Effects, dead: Option<&Batch>, bucket_ms: i64) {
        effects.batches.iter().for_each(|batch| self.give_rows(batch, bucket_ms));
        for letter in &effects.dead {
            let Some(((time_ms, id), event_type)) = letter.parsed.zip(letter.event_type.as_ref()) else { continue };
            let hour = Hour::of(time_ms, bucket_ms);
            let totals = Totals { events: 1, ids: IdSum(id) };
            *self.refused.entry((event_type.clone(), hour.start_ms)).or_default() += totals;
        }
        if let Some(dead) = dead {
            add(&mut self.letters, dead, bucket_ms);
        }
    }

    /// Adds what was counted of one item.
    pub(crate) fn add(&mut self, more: Self) {
        merge(&mut self.chunks, &more.chunks);
        merge(&mut self.taken, &more.taken);
        merge(&mut self.entered, &more.entered);
        merge(&mut self.given, &more.given);
        merge(&mut self.letters, &more.letters);
        merge(&mut self.refused, &more.refused);
        self.written = more.written.or(self.written.take());
        self.damage.extend(more.damage);
    }
}

/// Adds totals, key by key.
fn merge<K: Ord + Clone>(mine: &mut BTreeMap<K, Totals>, theirs: &BTreeMap<K, Totals>) {
    for (key, totals) in theirs {
        *mine.entry(key.clone()).or_default() += *totals;
    }
}

/// Takes totals away, key by key.
pub(super) fn take_away(mine: &mut ByHour, theirs: &ByHour) {
    for (key, totals) in theirs {
        let mine = mine.entry(key.clone()).or_default();
        *mine = *mine - *totals;
    }
}

/// Adds what a batch holds.
pub(crate) fn add(side: &mut ByHour, batch: &Batch, bucket_ms: i64) {
    for (start_ms, totals) in Counts::of(batch, bucket_ms).hours() {
        *side.entry((batch.event_type.name.clone(), *start_ms)).or_default() += *totals;
    }
}

/// What a stage has to say of its counts, for the manifests of the sinks behind it.
pub(crate) fn notes(stage: &Arc<str>, cut: u64, counts: &ByHour, width_ms: i64) -> Vec<HourNote> {
    let note = |((event_type, start_ms), totals): (&(Arc<str>, i64), &Totals)| HourNote {
        event_type: event_type.clone(),
        hour: Hour { start_ms: *start_ms, width_ms },
        duplicates: 0,
        refused: 0,
        counted: Some(Counted { cut, stage: stage.clone(), totals: *totals }),
        accounts: None,
    };
    counts.iter().map(note).collect()
}

/// What a sink has written, from barrier to barrier.
pub(crate) struct Written {
    /// What it held at the barrier before.
    held: Option<ByHour>,
}

impl Written {
    /// From what a stage holds that was just built.
    pub(crate) fn since(stage: &mut dyn Stage) -> Self {
        Self { held: stage.holds().map(|held| by_hour(&held)) }
    }

    /// What it has written since the barrier before; `closed` by this one. Costs what has changed.
    pub(crate) fn until(&mut self, stage: &mut dyn Stage, closed: &[HourTotals]) -> Option<ByHour> {
        let held = self.held.as_mut()?;
        let mut written = by_hour(closed);
        for (key, totals) in by_hour(&stage.holds()?) {
            let before = match totals.events {
                0 => held.remove(&key),
                _ => held.insert(key.clone(), totals),
            };
            let written = written.entry(key).or_default();
            *written += totals;
            *written = *written - before.unwrap_or_default();
        }
        Some(written)
    }
}

fn by_hour(all: &[HourTotals]) -> ByHour {
    let mut sums = ByHour::new();
    for HourTotals { event_type, hour, totals } in all {
        *sums.entry((event_type.clone(), hour.start_ms)).or_default() += *totals;
    }
    sums
}

/// The same by type alone, for types of which events may go into another hour than their own.
pub(super) fn without_hours(totals: &ByHour, moves: impl Fn(&str) -> bool) -> ByHour {
    let mut sums = ByHour::new();
    for ((event_type, start_ms), totals) in totals {
        let start_ms = if **event_type == *DEAD_LETTER_TYPE || moves(event_type) { i64::MIN } else { *start_ms };
        *sums.entry((event_type.clone(), start_ms)).or_default() += *totals;
    }
    sums
}
