//! The stage `tsv`.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use tidemill_core::{
    Batch, Effects, EventType, Field, FieldKind, Framing, Input, Limits, RawChunk, RowOrigins, Stage, StageError,
};

use super::Config;
use super::columns::{Builder, Faults, Lines};
use super::layout::Layout;
use super::nulls::Nulls;
use super::table::{Group, Reading, Table};
use crate::parse::cell::Cell;
use crate::parse::column::Column;
use crate::parse::fault::{EventTimes, Letters};
use crate::parse::names::Names;
use crate::parse::rows::{arrow_failed, cell_time_fault};
use crate::parse::time::TimeForm;
use crate::parse::views::TextBuffer;

/// A worker of `tsv`.
pub(super) struct TsvStage {
    layouts: Vec<Layout>,
    reading: Reading,
    nulls: Nulls,
    form: TimeForm,
    limits: Arc<Limits>,
    table: Table,
}

impl TsvStage {
    pub(super) fn new(config: &Config, types: &[Arc<EventType>], limits: Arc<Limits>) -> Result<Self, StageError> {
        let separator = config.separator().ok_or_else(|| StageError::new("the separator is no ASCII character"))?;
        Ok(Self {
            layouts: types.iter().map(|event_type| Layout::new(config, event_type)).collect(),
            reading: Reading {
                separator,
                header: config.header,
                type_column: config.type_column(),
                type_from: config.type_from.clone(),
                names: Names::new(types.iter().map(|event_type| &*event_type.name)),
            },
            nulls: Nulls::new(&config.null),
            form: config.time,
            limits,
            table: Table::default(),
        })
    }

    fn parse(&mut self, chunk: &RawChunk, effects: &mut Effects) -> Result<(), StageError> {
        let mut letters = Letters::new(chunk);
        let tombstones = letters.add_tombstones();
        let received = tombstones + self.table.fill(chunk, &self.reading, &self.layouts, &self.limits, &mut letters)?;
        let text = TextBuffer::new(chunk.bytes.clone());
        for (layout, group) in self.layouts.iter().zip(&self.table.groups) {
            if !group.firsts.is_empty() {
                let batch = self.batch(chunk, &text, layout, group, &mut letters)?;
                effects.tally.sent += batch.as_ref().map_or(0, Batch::len) as u64;
                effects.batches.extend(batch);
            }
        }
        effects.tally.received += received;
        letters.finish(effects);
        Ok(())
    }

    /// The lines of one type as a batch; `None` when no line was right.
    fn batch(
        &self,
        chunk: &RawChunk,
        text: &TextBuffer,
        layout: &Layout,
        group: &Group,
        letters: &mut Letters<'_>,
    ) -> Result<Option<Batch>, StageError> {
        let (ends, firsts) = (&self.table.ends[..], &group.firsts[..]);
        let lines = Lines { bytes: &chunk.bytes, text, ends, firsts, width: layout.width };
        let mut builder = Builder { lines, nulls: &self.nulls, form: self.form, faults: Faults::default() };
        let event_type = &layout.event_type;
        let mut columns = Vec::with_capacity(layout.fields.len());
        for (number, field) in layout.fields.iter().enumerate() {
            let event_time = (number == event_type.time).then(|| EventTimes::of(chunk, &self.limits));
            let column = if layout.from_message.has(number) {
                from_message(chunk, layout, number, group, event_time, &mut builder.faults)
            } else {
                builder.column(field, event_time)
            };
            columns.push(column.map_err(arrow_failed)?);
        }
        let starts: Arc<[u32]> = firsts.iter().map(|first| lines.line(*first).0).collect();
        let lens: Arc<[u32]> = firsts.iter().map(|first| lines.line(*first).1).collect();
        let faults = builder.faults;
        for (row, fault) in &faults.found {
            let (start, len) = (starts[*row] as usize, lens[*row] as usize);
            let position = group.positions.get(*row).copied().unwrap_or_else(|| letters.position(start));
            letters.add(position, Some(&event_type.name), fault, &chunk.bytes[start..start + len]);
        }
        let selection: Option<Arc<[u32]>> = (!faults.found.is_empty())
            .then(|| (0..firsts.len()).filter(|row| !faults.has(*row)).map(|row| row as u32).collect());
        if selection.as_ref().is_some_and(|rows| rows.is_empty()) {
            return Ok(None);
        }
        let payload_bytes = match &selection {
            None => lens.iter().map(|len| *len as usize).sum(),
            Some(rows) => rows.iter().map(|row| lens[*row as usize] as usize).sum(),
        };
        let records = RecordBatch::try_new(event_type.arrow.clone(), columns).map_err(arrow_failed)?;
        let positions = (!group.positions.is_empty()).then(|| group.positions.as_slice().into());
        Ok(Some(Batch {
            event_type: event_type.clone(),
            records,
            selection,
            rows: RowOrigins { raw: Some(chunk.bytes.clone()), starts, lens, positions },
            origin: chunk.origin.clone(),
            arrived_at_ms: chunk.arrived_at_ms,
            payload_bytes,
            counts: None,
        }))
    }
}

/// The column of a field that comes from the messages around the lines.
fn from_message(
    chunk: &RawChunk,
    layout: &Layout,
    number: usize,
    group: &Group,
    event_time: Option<EventTimes>,
    faults: &mut Faults,
) -> Result<ArrayRef, ArrowError> {
    let field = &layout.fields[number].field;
    let mut column = Column::new(field);
    let rows = group.firsts.len();
    for row in 0..rows {
        let message = match &chunk.framing {
            Framing::Messages(messages) => messages.find(&chunk.bytes, group.positions[row]),
            Framing::Lines | Framing::AvroBlocks { .. } => None,
        };
        let cell = layout.from_message.cell(number, field, message);
        let fault_of = |cell: &Cell<'_>| event_time.and_then(|times| cell_time_fault(field, Some(cell), times));
        match cell.and_then(|cell| fault_of(&cell).map_or(Ok(cell), Err)) {
            Ok(cell) => column.push(&cell),
            Err(fault) => {
                faults.add(row, rows, fault);
                column.push(&placeholder(field));
            }
        }
    }
    column.finish()
}

/// What stands in a row that is at fault.
fn placeholder(field: &Field) -> Cell<'static> {
    match field.kind {
        _ if field.is_nullable() => Cell::Null,
        FieldKind::String => Cell::Text("".into()),
        FieldKind::Bytes => Cell::Bytes(b""[..].into()),
        FieldKind::Int => Cell::Int(0),
        _ => Cell::Long(0),
    }
}

impl Stage for TsvStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        crate::parse::rows::raw(input, effects, |chunk, effects| self.parse(chunk, effects))
    }
}
