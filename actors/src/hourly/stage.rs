//! The worker's value.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use tidemill_core::{
    Batch, DeadLetter, Effects, EventType, Field, Hour, HourNote, Input, Late, LatePolicy, Limits, Origin,
    PieceChanges, PieceReader, Reason, RowOrigins, Seals, Stage, StageError, Tally, TimeColumn,
};

use super::emit;
use super::plan::Plan;
use super::snapshot;
use super::state::{OpenHour, Phase, name_of};
use crate::dedup::{first_open_ms, late_message};

/// One type that arrives.
pub(super) struct InputType {
    pub(super) name: Arc<str>,
    /// Columns of the group fields.
    pub(super) groups: Vec<usize>,
    /// Columns of the measures' fields.
    pub(super) measures: Vec<Option<usize>>,
    pub(super) late: Late,
    /// Hours that end at or before it are sealed.
    pub(super) sealed_before_ms: i64,
    /// Its events of hours that end at or before it are not taken. It moves with seals only, by what the type says at the time.
    pub(super) given_up_ms: i64,
    /// Where the last batch came from: the rows of its hours name it as theirs.
    pub(super) last_origin: Option<Arc<Origin>>,
}

pub(super) struct HourlyStage {
    pub(super) plan: Plan,
    pub(super) output: Arc<EventType>,
    /// The rows of hours that end at or before it have left. It may be beyond what is sealed for an input that is
    /// quiet.
    pub(super) sealed_before_ms: i64,
    /// Hours whose rows have left, and that end at or before it, can't be revised any more.
    pub(super) given_up_ms: i64,
    pub(super) limits: Arc<Limits>,
    pub(super) inputs: Vec<InputType>,
    /// By index of the input type and start of the hour.
    pub(super) open: BTreeMap<(usize, i64), OpenHour>,
    pub(super) pieces: Arc<dyn PieceReader>,
    /// How much state it may keep in memory, in bytes.
    pub(super) memory_bytes: u64,
    /// Pieces of hours that have ended.
    pub(super) gone: PieceChanges,
    /// Number of calls so far: says which hours took events last.
    pub(super) calls: u64,
    /// More groups are open than the alarm is set to.
    pub(super) has_many_groups: bool,
    /// Rows have left at this barrier for a revision that is yet to end.
    pub(super) has_revised: bool,
}

/// A batch divided by hour.
struct Decision<'a> {
    input: usize,
    /// Start of the hour, and its rows.
    hours: Vec<(i64, Vec<u32>)>,
    late: Vec<(u32, i64)>,
    taken_late: u64,
    columns: Columns<'a>,
}

/// The columns of a batch that matter.
struct Columns<'a> {
    groups: Vec<&'a ArrayRef>,
    measures: Vec<Option<&'a ArrayRef>>,
}

impl HourlyStage {
    fn decide<'a>(&self, batch: &'a Batch) -> Result<Decision<'a>, StageError> {
        let name = &batch.event_type.name;
        let Some(at) = self.inputs.iter().position(|input| input.name == *name) else {
            return Err(StageError::new(format!("a batch of type `{name}`, which was not planned to arrive")));
        };
        let input = &self.inputs[at];
        if batch.records.schema_ref().fields() != batch.event_type.arrow.fields() {
            return Err(StageError::new(format!("a batch of type `{name}` does not have the columns of its type")));
        }
        let Some(times) = TimeColumn::of(&batch.records, batch.event_type.time) else {
            return Err(StageError::new(format!("the time column of type `{name}` is no timestamp")));
        };
        let width = self.limits.bucket_ms;
        let sealed_ms = first_open_ms(self.sealed_before_ms, width);
        let input_sealed_ms = self.input_sealed_ms(at);
        let refused_ms = first_open_ms(input.given_up_ms, width);
        // Into the first hour of its type that is open, where it is to be counted there.
        let earliest_ms = if input.late.policy == LatePolicy::NextHour { input_sealed_ms } else { i64::MIN };
        let mut hours: Vec<(i64, Vec<u32>)> = Vec::new();
        let (mut late, mut taken_late) = (Vec::new(), 0);
        let mut current = 0;
        for row in batch.indexes() {
            let own_ms = times.ms(row);
            let time_ms = own_ms.max(earliest_ms);
            if own_ms < refused_ms || self.is_too_late(time_ms) {
                late.push((row as u32, own_ms));
                continue;
            }
            taken_late += u64::from(own_ms < input_sealed_ms || time_ms < sealed_ms);
            let in_hour = |start: i64| time_ms.checked_sub(start).is_some_and(|since| (0..width).contains(&since));
            if !hours.get(current).is_some_and(|(start, _)| in_hour(*start)) {
                current = hours.iter().position(|(start, _)| in_hour(*start)).unwrap_or_else(|| {
                    let rows = Vec::with_capacity(if hours.is_empty() { batch.len() } else { 0 });
                    hours.push((Hour::of(time_ms, width).start_ms, rows));
                    hours.len() - 1
                });
            }
            hours[current].1.push(row as u32);
        }
        let columns = Columns {
            groups: input.groups.iter().map(|column| batch.records.column(*column)).collect(),
            measures: input.measures.iter().map(|column| column.map(|column| batch.records.column(column))).collect(),
        };
        Ok(Decision { input: at, hours, late, taken_late, columns })
    }

    fn apply(&mut self, batch: &Batch, decision: Decision<'_>, effects: &mut Effects) -> Option<()> {
        let mut tally = Tally {
            received: batch.len() as u64,
            late: decision.late.len() as u64,
            taken_late: decision.taken_late,
            ..Tally::default()
        };
        for (row, time_ms) in decision.late {
            let message = late_message(time_ms, self.limits.bucket_ms);
            effects.dead.push(DeadLetter::of_row(batch, row as usize, Reason::Late, message));
        }
        self.calls += 1;
        for (start_ms, rows) in decision.hours {
            self.absorb((decision.input, start_ms), &decision.columns, &rows)?;
            tally.absorbed += rows.len() as u64;
        }
        self.inputs[decision.input].last_origin = Some(batch.origin.clone());
        effects.tally.add(&tally);
        Some(())
    }

    /// Takes the rows of one hour in.
    fn absorb(&mut self, key: (usize, i64), columns: &Columns<'_>, rows: &[u32]) -> Option<()> {
        let sealed_ms = first_open_ms(self.sealed_before_ms, self.limits.bucket_ms);
        let is_sealed = key.1 < sealed_ms.min(self.input_sealed_ms(key.0));
        let phase = if is_sealed { Phase::Revising } else { Phase::Open };
        let Plan { groups: fields, measures, .. } = &self.plan;
        let hour = self.open.entry(key).or_insert_with(|| OpenHour::new(&self.plan));
        let groups = hour.table.groups.assign(fields, &columns.groups, rows)?;
        let len = hour.table.groups.len();
        for ((accumulator, measure), column) in hour.table.measures.iter_mut().zip(measures).zip(&columns.measures) {
            let of: Option<(&Field, &ArrayRef)> = measure.of.as_ref().zip(*column);
            accumulator.add(of, rows, &groups, len)?;
        }
        if rows.is_empty() {
            if hour.is_empty() {
                self.open.remove(&key);
            }
            return Some(());
        }
        hour.touch(&groups, self.calls);
        hour.set_phase(phase);
        Some(())
    }

    pub(super) fn send(&self, key: (usize, i64), at_ms: i64, effects: &mut Effects) -> Result<(), StageError> {
        let Some(hour) = self.open.get(&key) else { return Ok(()) };
        let input = &self.inputs[key.0];
        let origin = match &input.last_origin {
            Some(last) => Origin { first: last.next, enters: None, ..(**last).clone() },
            None => Origin { source: input.name.clone(), partition: "".into(), first: 0, next: 0, enters: None },
        };
        let origin = Arc::new(origin);
        hour.for_tables(&self.plan, &name_of(key.1, &input.name), &*self.pieces, |table| {
            for records in emit::records(&self.plan, &self.output, &input.name, key.1, table) {
                effects.batches.push(Batch {
                    event_type: self.output.clone(),
                    payload_bytes: records.num_rows() * records.num_columns() * 8,
                    counts: None,
                    records,
                    selection: None,
                    rows: RowOrigins::default(),
                    origin: origin.clone(),
                    arrived_at_ms: at_ms,
                });
            }
            Ok(())
        })
    }

    /// Puts into pieces what changed. Beyond its share of memory, hours leave it: first those that have not taken
    /// events for
    /// longest, until half of the share is free.
    fn save(&mut self, changes: &mut PieceChanges) -> Result<(), StageError> {
        changes.append(&mut self.gone);
        let mut held = 0;
        for ((input, start_ms), hour) in &mut self.open {
            if hour.is_changed() {
                hour.save(&name_of(*start_ms, &self.inputs[*input].name), changes)?;
            }
            held += hour.memory_bytes(&self.plan);
        }
        if held <= self.memory_bytes {
            return Ok(());
        }
        let mut hours: Vec<_> = self.open.iter_mut().map(|(key, hour)| (hour.touched(), *key, hour)).collect();
        hours.sort_unstable_by_key(|(touched, key, _)| (*touched, *key));
        for (_, (input, start_ms), hour) in hours {
            if held <= self.memory_bytes / 2 {
                break;
            }
            held -= hour.memory_bytes(&self.plan);
            hour.leave(&self.plan, &name_of(start_ms, &self.inputs[input].name), &*self.pieces, changes)?;
        }
        Ok(())
    }

    /// Says once when there are more groups than `max_groups`.
    fn look_at_groups(&mut self) {
        let groups: u64 = self.open.values().map(OpenHour::len).sum();
        let is_over = groups > self.limits.max_groups as u64;
        if is_over && !self.has_many_groups {
            let (stage, max_groups) = (&self.output.name, self.limits.max_groups);
            tracing::warn!(
                %stage, groups, max_groups,
                "more groups are open than `max_groups`: are the values of `group_by` few? Nothing is lost; groups \
                 beyond `runtime.state_memory` lie in the state directory"
            );
        }
        self.has_many_groups = is_over;
    }
}

impl Stage for HourlyStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        match input {
            Input::Rows(batch) if batch.is_empty() => Ok(()),
            Input::Rows(batch) => {
                let decision = self.decide(batch)?;
                let wrong =
                    || StageError::new(format!("a column of type `{}` is not of its kind", batch.event_type.name));
                self.apply(batch, decision, effects).ok_or_else(wrong)
            }
            // What is missing of the events is missing in the rows made of them. Nothing else that is said of the
            // hours of
            // events holds for these.
            Input::Note(note) => {
                if note.refused > 0 && self.inputs.iter().any(|input| input.name == note.event_type) {
                    let rows = HourNote::on(self.output.name.clone(), note.hour);
                    effects.notes.push(HourNote { refused: note.refused, ..rows });
                }
                Ok(())
            }
            Input::Raw(_) => Err(StageError::new("hourly takes typed events, not raw records")),
        }
    }

    fn seal(&mut self, seals: &Seals, effects: &mut Effects) -> Result<(), StageError> {
        for horizon in &seals.horizons {
            let Some(at) = self.inputs.iter().position(|input| input.name == horizon.event_type) else { continue };
            let input = &mut self.inputs[at];
            input.sealed_before_ms = input.sealed_before_ms.max(horizon.sealed_before_ms);
            input.given_up_ms = input.given_up_ms.max(input.late.given_up_by_ms(horizon));
        }
        self.seal_rows(seals, effects)
    }

    fn snapshot(&mut self, effects: &mut Effects) -> Result<Vec<u8>, StageError> {
        if std::mem::take(&mut self.has_revised) || self.open.values().any(|hour| hour.phase() == Phase::Revising) {
            effects.revising.push(self.output.name.clone());
        }
        self.save(&mut effects.pieces)?;
        self.look_at_groups();
        snapshot::write(self)
    }

    fn open_hours(&self) -> BTreeMap<Arc<str>, usize> {
        let mut hours = BTreeMap::new();
        for ((at, _), _) in self.open.iter().filter(|(_, hour)| hour.phase() != Phase::Kept) {
            *hours.entry(self.inputs[*at].name.clone()).or_default() += 1;
        }
        hours
    }
}
