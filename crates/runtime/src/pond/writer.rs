//! The end of a pond that is written to: a stage that keeps what it is given in segments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::{
    Counts, DEAD_LETTER_TYPE, DeadLetter, Effects, EventType, Finding, Horizon, Hour, HourNote, Input, KindSpec,
    Partitions, Reason, SealReason, Seals, Stage, StageContext, StageError, StageInput, StageKind,
};
use tidemill_topology::{POND_IN, PondOptions, WhenFull};

use crate::audit::{ByHour, add};

use super::record::{self, Barrier, RecordError};
use super::segment_log;
use super::shared::segment_bytes;

/// Builds the writer of one pond.
pub(crate) struct PondKind {
    pub(crate) options: PondOptions,
    /// Types that are made behind it.
    pub(crate) carries: Vec<Arc<str>>,
}

/// See the module.
struct Writer {
    name: Arc<str>,
    /// The types that it holds, but for dead letters, whose hours are closed by the clock, everywhere.
    types: Vec<Arc<str>>,
    /// Types that are made behind it: their hours matter there, too.
    carries: Vec<Arc<str>>,
    options: PondOptions,
    bucket_ms: i64,
    /// What came since the last barrier record. There is one at every barrier behind events, so that a cut has nothing of it.
    totals: ByHour,
    /// Events that it has refused since then, by type and hour.
    refused: BTreeMap<(Arc<str>, Hour), u64>,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    /// Length of each segment by the offset at which it begins.
    segments: BTreeMap<u64, u64>,
    /// Something came since the last barrier record.
    came: bool,
    /// What there is to say first: hours that were sealed before there was a pond, or before it had the type.
    sealed_before: Vec<Horizon>,
    /// The types whose horizons it has.
    known: BTreeSet<Arc<str>>,
}

impl StageKind for PondKind {
    fn spec(&self) -> &'static KindSpec {
        &POND_IN
    }

    fn plan(&self, _: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        Ok(Vec::new())
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        let types = context.input.types.iter().map(|event_type| event_type.name.clone());
        let types: Vec<Arc<str>> = types.filter(|name| **name != *DEAD_LETTER_TYPE).collect();
        let mut state: State = match context.snapshot {
            None => State::default(),
            Some(bytes) => postcard::from_bytes(bytes).map_err(|error| StageError {
                message: "the snapshot of the pond can't be read".into(),
                source: Some(Box::new(error)),
            })?,
        };
        let known: BTreeSet<Arc<str>> = types.iter().chain(&self.carries).cloned().collect();
        let new = known.difference(&state.known);
        let sealed = new.filter_map(|name| Some((name, context.sealed_before_ms.get(name)?)));
        let before = |(name, before_ms): (&Arc<str>, &i64)| Horizon::new(name.clone(), *before_ms, SealReason::Before);
        state.sealed_before.extend(sealed.map(before));
        state.known = known;
        Ok(Box::new(Writer {
            name: context.input.name.clone(),
            types,
            carries: self.carries.clone(),
            options: self.options,
            bucket_ms: context.input.limits.bucket_ms,
            totals: ByHour::new(),
            refused: BTreeMap::new(),
            state,
        }))
    }
}

impl State {
    /// Segments lie one behind the other.
    fn bytes(&self) -> u64 {
        let first = self.segments.first_key_value().map_or(0, |(base, _)| *base);
        self.segments.last_key_value().map_or(0, |(base, length)| base + length) - first
    }
}

impl Writer {
    fn say_first(&mut self, effects: &mut Effects) -> Result<(), StageError> {
        if self.state.sealed_before.is_empty() {
            return Ok(());
        }
        let horizons = std::mem::take(&mut self.state.sealed_before);
        self.append(record::barrier(&Barrier { horizons, ..Barrier::default() }), effects)
    }

    /// Bytes that events may fill: the rest is for barriers, which can't be refused.
    fn events_max(&self) -> u64 {
        self.options.max_bytes - self.options.max_bytes / 32
    }

    /// It refuses events, since it has no room for more.
    fn is_full(&self) -> bool {
        self.options.when_full == WhenFull::DeadLetter && self.state.bytes() >= self.events_max()
    }

    fn fault(&self, error: RecordError) -> StageError {
        StageError { message: format!("pond `{}`: a record can't be made", self.name), source: Some(Box::new(error)) }
    }

    fn append(&mut self, record: Result<Vec<u8>, RecordError>, effects: &mut Effects) -> Result<(), StageError> {
        let record = record.map_err(|error| self.fault(error))?;
        self.keep(record, effects);
        Ok(())
    }

    fn keep(&mut self, record: Vec<u8>, effects: &mut Effects) {
        let (mut base, mut length) =
            self.state.segments.last_key_value().map_or((0, 0), |(base, length)| (*base, *length));
        if length >= segment_bytes(self.options) {
            (base, length) = (base + length, 0);
        }
        self.state.segments.insert(base, length + record.len() as u64);
        effects.appends.push((segment_log(base), record));
    }
}

impl Stage for Writer {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        self.say_first(effects)?;
        match input {
            Input::Raw(_) => Err(StageError::new("a pond holds parsed events")),
            // Where events are refused, counts would fill the disk all the same: they come with every barrier.
            Input::Note(note) if note.counted.is_some() && self.is_full() => Ok(()),
            Input::Note(note) => {
                self.state.came = true;
                self.append(record::note(note), effects)
            }
            Input::Rows(batch) => {
                let count = batch.len() as u64;
                effects.tally.received += count;
                let record = record::rows(batch).map_err(|error| self.fault(error))?;
                if self.options.when_full == WhenFull::DeadLetter
                    && self.state.bytes() + record.len() as u64 > self.events_max()
                {
                    let message = format!(
                        "the pond `{}` holds its {} bytes: what takes from it is down or too slow",
                        self.name, self.options.max_bytes
                    );
                    let letters =
                        batch.indexes().map(|row| DeadLetter::of_row(batch, row, Reason::PondFull, message.clone()));
                    effects.dead.extend(letters);
                    effects.tally.dead += count;
                    effects.tally.refused += count;
                    // The hours behind the pond are short of them: the next barrier says so, for which there is room.
                    for (start_ms, totals) in Counts::of(batch, self.bucket_ms).hours() {
                        let hour = Hour { start_ms: *start_ms, width_ms: self.bucket_ms };
                        let refused = self.refused.entry((batch.event_type.name.clone(), hour)).or_default();
                        *refused += totals.events;
                    }
                    return Ok(());
                }
                effects.tally.sent += count;
                add(&mut self.totals, batch, self.bucket_ms);
                self.state.came = true;
                self.keep(record, effects);
                Ok(())
            }
        }
    }

    fn seal(&mut self, seals: &Seals, effects: &mut Effects) -> Result<(), StageError> {
        self.say_first(effects)?;
        let matters =
            |horizon: &&Horizon| self.types.contains(&horizon.event_type) || self.carries.contains(&horizon.event_type);
        let horizons: Vec<Horizon> = seals.horizons.iter().filter(matters).cloned().collect();
        let revised: Vec<Arc<str>> = seals.revised.iter().filter(|name| self.types.contains(name)).cloned().collect();
        for ((event_type, hour), refused) in std::mem::take(&mut self.refused) {
            self.state.came = true;
            self.append(record::note(&HourNote { refused, ..HourNote::on(event_type, hour) }), effects)?;
        }
        if self.state.came || !horizons.is_empty() || !revised.is_empty() {
            self.state.came = false;
            let positions = seals.positions.clone();
            let of_ours = |of: &(Vec<Arc<str>>, _)| of.0.iter().any(|name| self.types.contains(name));
            let positions_of = seals.positions_of.iter().filter(|of| of_ours(of)).cloned().collect();
            // What was not waited for matters to the hours that are sealed without it.
            let without = if horizons.is_empty() { Partitions::new() } else { seals.without.clone() };
            let totals = std::mem::take(&mut self.totals);
            let barrier =
                Barrier { horizons, positions, is_whole: seals.is_whole, positions_of, revised, without, totals };
            self.append(record::barrier(&barrier), effects)?;
        }
        let consumed = seals.consumed.get(&self.name).copied().unwrap_or(0);
        // The last one stays: it says where the pond ends.
        let last = self.state.segments.last_key_value().map(|(base, _)| *base);
        self.state.segments.retain(|base, length| {
            let is_needed = base + *length > consumed || Some(*base) == last;
            if !is_needed {
                effects.retired.push(segment_log(*base));
            }
            is_needed
        });
        Ok(())
    }

    fn snapshot(&mut self, _: &mut Effects) -> Result<Vec<u8>, StageError> {
        postcard::to_stdvec(&self.state).map_err(|error| StageError {
            message: "the snapshot of the pond can't be written".into(),
            source: Some(Box::new(error)),
        })
    }
}
