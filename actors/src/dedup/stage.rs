//! The worker's value: decides over a batch, then keeps the books.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::{
    Batch, DeadLetter, Effects, Hour, HourNote, Input, Reason, Seals, Stage, StageError, Tally, TimeColumn,
    format_time_ms,
};

use super::ids::IdMaker;
use super::state::{Judged, Memory, Verdict};

pub(super) struct DedupStage {
    pub(super) makers: Vec<(Arc<str>, IdMaker)>,
    pub(super) memory: Memory,
    pub(super) sealed_before_ms: BTreeMap<Arc<str>, i64>,
    pub(super) bucket_ms: i64,
}

/// All about a batch that can be told, and can fail, without changing anything.
struct Decision {
    /// Number of the type.
    of: usize,
    ids: Vec<u128>,
    times: Vec<i64>,
    /// Whether the id was known before the batch.
    known: Vec<bool>,
    /// Events before it are too late to be taken.
    given_up_ms: i64,
    /// Hours of the type that begin before it are sealed.
    sealed_ms: i64,
}

impl DedupStage {
    fn decide(&self, batch: &Batch) -> Result<Decision, StageError> {
        let name = &batch.event_type.name;
        let Some(of) = self.makers.iter().position(|(known, _)| known == name) else {
            return Err(StageError::new(format!("a batch of type `{name}`, which was not planned to arrive")));
        };
        let Some(column) = TimeColumn::of(&batch.records, batch.event_type.time) else {
            return Err(StageError::new(format!("the time column of type `{name}` is no timestamp")));
        };
        let ids = self.makers[of].1.ids(batch);
        let times: Vec<i64> = batch.indexes().map(|row| column.ms(row)).collect();
        let known = self.memory.known(&ids, &times)?;
        let sealed_ms = self.sealed_before_ms.get(name).copied().unwrap_or(i64::MIN);
        let given_up_ms = first_open_ms(batch.event_type.late.given_up_before_ms(sealed_ms), self.bucket_ms);
        Ok(Decision { of, ids, times, known, given_up_ms, sealed_ms: first_open_ms(sealed_ms, self.bucket_ms) })
    }

    fn apply(&mut self, batch: &Batch, decision: &Decision, effects: &mut Effects) {
        let Decision { of, ids, times, known, given_up_ms, sealed_ms } = decision;
        let mut kept: Vec<u32> = Vec::with_capacity(ids.len());
        let mut tally = Tally { received: ids.len() as u64, ..Tally::default() };
        let mut duplicates = Duplicates { bucket_ms: self.bucket_ms, last: None, earlier: BTreeMap::new() };
        let bucket_ms = self.bucket_ms;
        let mut rows = batch.indexes();
        let judged = Judged { of: *of, ids, times, known };
        self.memory.judge(judged, *given_up_ms, |at, verdict| {
            let Some(row) = rows.next() else { return };
            let time_ms = times[at];
            let mut refuse = |reason: Reason, message: String| {
                effects.dead.push(DeadLetter::of_row(batch, row, reason, message));
            };
            match verdict {
                Verdict::Taken => {
                    kept.push(row as u32);
                    tally.taken_late += u64::from(time_ms < *sealed_ms);
                }
                Verdict::Duplicate => {
                    tally.duplicates += 1;
                    // The last manifest of the hour is out: there is no more to say about it.
                    if time_ms >= *given_up_ms {
                        duplicates.count(time_ms);
                    }
                }
                Verdict::Late => {
                    tally.late += 1;
                    refuse(Reason::Late, late_message(time_ms, bucket_ms));
                }
                Verdict::TooOld(oldest) => {
                    tally.dead += 1;
                    let (time, oldest) = (format_time_ms(time_ms), format_time_ms(oldest));
                    let message =
                        format!("its time {time} is before {oldest}, where ids have been forgotten: a duplicate could not be told");
                    refuse(Reason::TooOldToJudge, message);
                }
            }
        });
        tally.sent = kept.len() as u64;
        effects.tally.add(&tally);
        effects.notes.extend(duplicates.notes(&batch.event_type.name));
        if kept.len() == ids.len() {
            effects.batches.push(batch.clone());
        } else if !kept.is_empty() {
            effects.batches.push(batch.select(kept));
        }
        self.memory.flush(effects);
    }
}

impl Stage for DedupStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        match input {
            Input::Rows(batch) if batch.is_empty() => Ok(()),
            Input::Rows(batch) => {
                let decision = self.decide(batch)?;
                self.apply(batch, &decision, effects);
                Ok(())
            }
            Input::Note(note) => {
                effects.notes.push(note.clone());
                Ok(())
            }
            Input::Raw(_) => Err(StageError::new("dedup takes typed events, not raw records")),
        }
    }

    fn seal(&mut self, seals: &Seals, effects: &mut Effects) -> Result<(), StageError> {
        for horizon in &seals.horizons {
            let sealed = self.sealed_before_ms.entry(horizon.event_type.clone()).or_insert(i64::MIN);
            *sealed = (*sealed).max(horizon.sealed_before_ms);
        }
        self.memory.forget(seals.cut, &self.sealed_before_ms);
        self.memory.flush(effects);
        Ok(())
    }

    fn snapshot(&mut self, effects: &mut Effects) -> Result<Vec<u8>, StageError> {
        self.memory.snapshot(&self.sealed_before_ms, effects)
    }
}

/// Start of the first hour that does not end at or before a horizon. Works for the ends of the number range too, which mean
/// that nothing, or everything, is sealed.
pub(crate) fn first_open_ms(sealed_before_ms: i64, bucket_ms: i64) -> i64 {
    sealed_before_ms.div_euclid(bucket_ms).saturating_mul(bucket_ms)
}

/// What is wrong with an event of a sealed hour.
pub(crate) fn late_message(time_ms: i64, bucket_ms: i64) -> String {
    format!("its time {} falls in hour {}, which is sealed", format_time_ms(time_ms), Hour::of(time_ms, bucket_ms))
}

/// Duplicates of one batch by hour. Most batches lie in one hour.
struct Duplicates {
    bucket_ms: i64,
    last: Option<(Hour, u64)>,
    earlier: BTreeMap<Hour, u64>,
}

impl Duplicates {
    fn count(&mut self, time_ms: i64) {
        let hour = Hour::of(time_ms, self.bucket_ms);
        match &mut self.last {
            Some((last, count)) if *last == hour => *count += 1,
            last => {
                if let Some((hour, count)) = last.replace((hour, 1)) {
                    *self.earlier.entry(hour).or_default() += count;
                }
            }
        }
    }

    fn notes(mut self, event_type: &Arc<str>) -> impl Iterator<Item = HourNote> {
        if let Some((hour, count)) = self.last {
            *self.earlier.entry(hour).or_default() += count;
        }
        let event_type = event_type.clone();
        self.earlier.into_iter().map(move |(hour, duplicates)| HourNote {
            event_type: event_type.clone(),
            hour,
            duplicates,
            refused: 0,
            counted: None,
            accounts: None,
        })
    }
}
