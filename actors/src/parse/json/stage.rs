//! The stage `json`.

use std::sync::Arc;

use tidemill_core::{Effects, EventType, Input, Limits, Message, RawChunk, Reason, Stage, StageError};

use super::Config;
use super::record::{read, type_name};
use crate::parse::cell::Cell;
use crate::parse::config::TypeFrom;
use crate::parse::fault::{EventTimes, Fault, Letters, shown, too_large};
use crate::parse::message::{MessageFields, type_number};
use crate::parse::names::Names;
use crate::parse::records;
use crate::parse::rows::{self, Rows, time_fault};

/// A worker of `json`.
pub(super) struct JsonStage {
    config: Config,
    types: Vec<Arc<EventType>>,
    /// One a type.
    from_message: Vec<MessageFields>,
    names: Names,
    limits: Arc<Limits>,
}

impl JsonStage {
    pub(super) fn new(config: Config, types: &[Arc<EventType>], limits: Arc<Limits>) -> Self {
        let names = Names::new(types.iter().map(|event_type| &*event_type.name));
        let of = |event_type: &Arc<EventType>| MessageFields::of(&config.from_message, event_type);
        Self { from_message: types.iter().map(of).collect(), config, types: types.to_vec(), names, limits }
    }

    fn parse(&self, chunk: &RawChunk, effects: &mut Effects) -> Result<(), StageError> {
        let bytes = chunk.bytes.as_slice();
        let times = EventTimes::of(chunk, &self.limits);
        let mut letters = Letters::new(chunk);
        let mut all: Vec<Option<Rows>> = self.types.iter().map(|_| None).collect();
        let mut cells = Vec::new();
        let mut received = letters.add_tombstones();
        records::each(chunk, |span, message| {
            received += 1;
            let line = &bytes[span.start..span.end];
            let too_large = too_large(chunk.whole_length(line.len()), &self.limits);
            let number = match too_large.map_or_else(|| self.number(line, message), Err) {
                Ok(number) => number,
                Err(fault) => return letters.add(span.position, None, &fault, line),
            };
            let (event_type, from_message) = (&self.types[number], &self.from_message[number]);
            let read = read(line, event_type, self.config.time, from_message, &mut cells)
                .and_then(|()| from_message.fill(&event_type.fields, message, &mut cells));
            match read.err().or_else(|| time_fault(event_type, &cells, times)) {
                Some(fault) => letters.add(span.position, Some(&event_type.name), &fault, line),
                None => all[number].get_or_insert_with(|| Rows::new(event_type)).push(
                    &cells,
                    span.start,
                    line.len(),
                    span.position,
                ),
            }
        })?;
        effects.tally.received += received;
        rows::send(all, chunk, &chunk.bytes, effects)?;
        letters.finish(effects);
        Ok(())
    }

    /// Number of a record's type.
    fn number(&self, line: &[u8], message: Option<Message<'_>>) -> Result<usize, Fault> {
        if let Some(told) = type_number(self.config.type_from.as_ref(), &self.names, message) {
            return told;
        }
        let Some(TypeFrom::Field(field)) = &self.config.type_from else { return Ok(0) };
        let name = type_name(line, field)?;
        self.names.find(name.as_bytes()).ok_or_else(|| {
            let message = format!("it names the type {}, which is not declared here", shown(name.as_bytes()));
            Fault::field(Reason::UnknownType, field, message)
        })
    }
}

impl Stage for JsonStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        rows::raw(input, effects, |chunk, effects| self.parse(chunk, effects))
    }
}

/// A row's cells, one a field.
pub(super) type Cells<'a> = Vec<Cell<'a>>;
