//! Batches that grow by one row at a time, and what all three stages do alike.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_schema::ArrowError;
use tidemill_core::{Batch, Effects, EventType, Field, FieldKind, Input, RawChunk, RowOrigins, StageError};

use super::cell::Cell;
use super::column::Column;
use super::fault::{EventTimes, Fault};
use super::time::Unit;

/// The rows of one type.
pub(super) struct Rows {
    event_type: Arc<EventType>,
    columns: Vec<Column>,
    starts: Vec<u32>,
    lens: Vec<u32>,
    positions: Vec<u64>,
}

impl Rows {
    pub(super) fn new(event_type: &Arc<EventType>) -> Self {
        let columns = event_type.fields.iter().map(Column::new).collect();
        let (starts, lens, positions) = (Vec::new(), Vec::new(), Vec::new());
        Self { event_type: event_type.clone(), columns, starts, lens, positions }
    }

    /// Appends a row: one cell a field, and where the row is in the raw bytes (less than 4 GiB).
    pub(super) fn push(&mut self, cells: &[Cell<'_>], start: usize, len: usize, position: u64) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(cell);
        }
        self.starts.push(start as u32);
        self.lens.push(len as u32);
        self.positions.push(position);
    }

    /// The batch; `raw` is what the rows' places are in.
    pub(super) fn finish(self, chunk: &RawChunk, raw: &Buffer) -> Result<Option<Batch>, StageError> {
        if self.starts.is_empty() {
            return Ok(None);
        }
        let columns = self.columns.into_iter().map(Column::finish).collect::<Result<_, _>>().map_err(arrow_failed)?;
        let records = RecordBatch::try_new(self.event_type.arrow.clone(), columns).map_err(arrow_failed)?;
        let follows = |(start, position): (&u32, &u64)| *position == chunk.origin.first + u64::from(*start);
        let implied = self.starts.iter().zip(&self.positions).all(follows);
        Ok(Some(Batch {
            event_type: self.event_type,
            records,
            selection: None,
            payload_bytes: self.lens.iter().map(|len| *len as usize).sum(),
            counts: None,
            rows: RowOrigins {
                raw: Some(raw.clone()),
                starts: self.starts.into(),
                lens: self.lens.into(),
                positions: (!implied).then(|| self.positions.into()),
            },
            origin: chunk.origin.clone(),
            arrived_at_ms: chunk.arrived_at_ms,
        }))
    }
}

/// Adds the batches of all types to the effects, in the order of the types.
pub(super) fn send(
    all: Vec<Option<Rows>>,
    chunk: &RawChunk,
    raw: &Buffer,
    effects: &mut Effects,
) -> Result<(), StageError> {
    for rows in all.into_iter().flatten() {
        if let Some(batch) = rows.finish(chunk, raw)? {
            effects.tally.sent += batch.len() as u64;
            effects.batches.push(batch);
        }
    }
    Ok(())
}

/// What is wrong with the event time of a row, if anything.
pub(super) fn time_fault(event_type: &EventType, cells: &[Cell<'_>], times: EventTimes) -> Option<Fault> {
    cell_time_fault(&event_type.fields[event_type.time], cells.get(event_type.time), times)
}

/// The same of the cell of its time field.
pub(super) fn cell_time_fault(field: &Field, cell: Option<&Cell<'_>>, times: EventTimes) -> Option<Fault> {
    let unit = if field.kind == FieldKind::TimestampMicros { Unit::Micros } else { Unit::Millis };
    match cell {
        Some(Cell::Long(value)) if times.takes(unit.to_ms(*value)) => None,
        Some(Cell::Long(value)) => Some(times.fault(&field.name, unit.to_ms(*value))),
        _ => Some(Fault::value(&field.name, b"", "a time")),
    }
}

/// Gives a raw chunk to `parse`, passes notes on, and refuses rows.
pub(super) fn raw(
    input: &Input,
    effects: &mut Effects,
    parse: impl FnOnce(&RawChunk, &mut Effects) -> Result<(), StageError>,
) -> Result<(), StageError> {
    match input {
        Input::Raw(chunk) => parse(chunk, effects),
        Input::Note(note) => {
            effects.notes.push(note.clone());
            Ok(())
        }
        Input::Rows(batch) => {
            let name = &batch.event_type.name;
            Err(StageError::new(format!(
                "a stage that parses was given rows of type `{name}`, which are parsed already"
            )))
        }
    }
}

/// Columns that do not make a batch of their type.
#[cold]
pub(super) fn arrow_failed(error: ArrowError) -> StageError {
    StageError { message: "the columns do not make a batch".into(), source: Some(Box::new(error)) }
}
