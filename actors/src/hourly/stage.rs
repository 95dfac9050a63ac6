//! The worker's value.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use serde::{Deserialize, Serialize};
use tidemill_core::{
    Batch, DeadLetter, Effects, EventType, Field, Hour, Input, Late, LatePolicy, Limits, Origin, Reason, RowOrigins,
    Seals, Stage, StageError, Tally, TimeColumn,
};

use super::emit;
use super::groups::Groups;
use super::measure::Accumulator;
use super::plan::Plan;
use super::snapshot;
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

/// An hour of a type that still takes events.
#[derive(Serialize, Deserialize)]
pub(super) struct OpenHour {
    pub(super) phase: Phase,
    pub(super) groups: Groups,
    pub(super) measures: Vec<Accumulator>,
}

/// Where an hour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// It is not sealed, or not for its type.
    Open,
    /// It is sealed, and late events have come since its rows left.
    Revising,
    /// It is sealed, and kept so that late events can be added to it.
    Kept,
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
    /// Groups in all open hours.
    pub(super) groups: usize,
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
        for (start_ms, rows) in decision.hours {
            let key = (decision.input, start_ms);
            // Room for an earlier one of these hours may have been made at its cost.
            if self.is_too_late(start_ms) {
                tally.late += rows.len() as u64;
                tally.taken_late -= rows.len() as u64;
                refuse(batch, &rows, Reason::Late, &late_message(start_ms, self.limits.bucket_ms), effects);
                continue;
            }
            let is_full =
                |stage: &Self| !stage.open.contains_key(&key) && stage.open.len() >= stage.limits.max_open_hours;
            while is_full(self) && self.drop_oldest_kept(key.1) {}
            if is_full(self) {
                let message = format!("{} hours are open, which is the limit", self.open.len());
                tally.dead += rows.len() as u64;
                refuse(batch, &rows, Reason::TooManyOpenHours, &message, effects);
                continue;
            }
            let refused = self.absorb(key, &decision.columns, &rows)?;
            let message = format!("{} groups are open, which is the limit", self.limits.max_groups);
            refuse(batch, &refused, Reason::TooManyGroups, &message, effects);
            tally.dead += refused.len() as u64;
            tally.absorbed += (rows.len() - refused.len()) as u64;
        }
        self.inputs[decision.input].last_origin = Some(batch.origin.clone());
        effects.tally.add(&tally);
        Some(())
    }

    /// Makes room for the groups of these rows that are not there yet, as far as there are hours that are only kept.
    fn make_room(&mut self, key: (usize, i64), columns: &Columns<'_>, rows: &[u32]) -> Option<()> {
        if self.groups + rows.len() <= self.limits.max_groups {
            return Some(());
        }
        let mut new_rows = Vec::new();
        for row in rows {
            let hour = self.open.get(&key);
            let is_there =
                hour.map_or(Some(false), |hour| hour.groups.holds(&self.plan.groups, &columns.groups, *row))?;
            if !is_there {
                new_rows.push(*row);
            }
        }
        let mut new = Groups::new(self.plan.groups.len());
        new.assign(&self.plan.groups, &columns.groups, &new_rows)?;
        let missing = new.len();
        while self.groups + missing > self.limits.max_groups && self.drop_oldest_kept(key.1) {}
        Some(())
    }

    /// Takes the rows of one hour in; returns those that would need a group too many.
    fn absorb(&mut self, key: (usize, i64), columns: &Columns<'_>, rows: &[u32]) -> Option<Vec<u32>> {
        self.make_room(key, columns, rows)?;
        let sealed_ms = first_open_ms(self.sealed_before_ms, self.limits.bucket_ms);
        let is_sealed = key.1 < sealed_ms.min(self.input_sealed_ms(key.0));
        let phase = if is_sealed { Phase::Revising } else { Phase::Open };
        let Plan { groups: fields, measures, .. } = &self.plan;
        let hour = self.open.entry(key).or_insert_with(|| OpenHour {
            phase,
            groups: Groups::new(fields.len()),
            measures: measures.iter().map(Accumulator::new).collect(),
        });
        let room = self.limits.max_groups.saturating_sub(self.groups);
        let before = hour.groups.len();
        let mut refused = Vec::new();
        // Only near the limit it matters which row needs a new group.
        let (groups, taken) = if rows.len() <= room {
            (hour.groups.assign(fields, &columns.groups, rows)?, None)
        } else {
            let (mut groups, mut taken) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
            for row in rows {
                if hour.groups.len() - before >= room && !hour.groups.holds(fields, &columns.groups, *row)? {
                    refused.push(*row);
                    continue;
                }
                groups.extend(hour.groups.assign(fields, &columns.groups, &[*row])?);
                taken.push(*row);
            }
            (groups, Some(taken))
        };
        let rows = taken.as_deref().unwrap_or(rows);
        let len = hour.groups.len();
        for ((accumulator, measure), column) in hour.measures.iter_mut().zip(measures).zip(&columns.measures) {
            let of: Option<(&Field, &ArrayRef)> = measure.of.as_ref().zip(*column);
            accumulator.add(of, rows, &groups, len)?;
        }
        if !rows.is_empty() {
            hour.phase = phase;
        }
        self.groups += len - before;
        if len == 0 {
            self.open.remove(&key);
        }
        Some(refused)
    }

    pub(super) fn send(&self, key: (usize, i64), at_ms: i64, effects: &mut Effects) {
        let Some(hour) = self.open.get(&key) else { return };
        let input = &self.inputs[key.0];
        let origin = match &input.last_origin {
            Some(last) => Origin { first: last.next, enters: None, ..(**last).clone() },
            None => Origin { source: input.name.clone(), partition: "".into(), first: 0, next: 0, enters: None },
        };
        let origin = Arc::new(origin);
        for records in emit::records(&self.plan, &self.output, &input.name, key.1, hour) {
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
    }
}

fn refuse(batch: &Batch, rows: &[u32], reason: Reason, message: &str, effects: &mut Effects) {
    let letter = |row: &u32| DeadLetter::of_row(batch, *row as usize, reason, message.to_owned());
    effects.dead.extend(rows.iter().map(letter));
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
            // What is said about the events' hours does not hold for the rows made of them.
            Input::Note(_) => Ok(()),
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
        self.seal_rows(seals, effects);
        Ok(())
    }

    fn snapshot(&mut self, effects: &mut Effects) -> Result<Vec<u8>, StageError> {
        if std::mem::take(&mut self.has_revised) || self.open.values().any(|hour| hour.phase == Phase::Revising) {
            effects.revising.push(self.output.name.clone());
        }
        snapshot::write(self)
    }

    fn open_hours(&self) -> BTreeMap<Arc<str>, usize> {
        let mut hours = BTreeMap::new();
        for ((at, _), _) in self.open.iter().filter(|(_, hour)| hour.phase != Phase::Kept) {
            *hours.entry(self.inputs[*at].name.clone()).or_default() += 1;
        }
        hours
    }
}
