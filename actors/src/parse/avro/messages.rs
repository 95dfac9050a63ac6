//! Messages that begin with the id of their writer's schema.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::{Effects, Message, Messages, RawChunk, Reason, StageError, framed};

use super::datum::{Broken, Datums};
use super::stage::{AvroStage, Writer};
use crate::parse::cell::Cell;
use crate::parse::fault::{EventTimes, Fault, Letters, too_large};
use crate::parse::rows::{self, Rows, time_fault};

/// Writers that are kept; one more begins anew.
const KEPT: usize = 1_000;

/// How the records of known writers are read, by schema id and, where the message tells it, number of the type. An id names the
/// same schema for ever, so this is no state.
#[derive(Default)]
pub(super) struct Writers(BTreeMap<(u32, Option<usize>), Known>);

/// A writer, or why its records can't be read.
type Known = Arc<Result<Writer, Fault>>;

impl AvroStage {
    pub(super) fn parse_messages(
        &mut self,
        chunk: &RawChunk,
        messages: &Messages,
        effects: &mut Effects,
    ) -> Result<(), StageError> {
        let times = EventTimes::of(chunk, &self.limits);
        let mut letters = Letters::new(chunk);
        let mut all: Vec<Option<Rows>> = self.types.iter().map(|_| None).collect();
        effects.tally.received += letters.add_tombstones();
        for message in messages.iter(&chunk.bytes) {
            let Some(value) = message.value() else { continue };
            effects.tally.received += 1;
            let opened = match too_large(value.len() as u64, &self.limits) {
                Some(fault) => Err(fault),
                None => self.unwrapped(message, value, messages),
            };
            let (writer, datum) = match opened.as_ref().map(|(writer, datum)| (&**writer, *datum)) {
                Ok((Ok(writer), datum)) => (writer, datum),
                Ok((Err(fault), _)) | Err(fault) => {
                    letters.add(message.position(), None, fault, value);
                    continue;
                }
            };
            let own = &self.types[writer.number];
            let (event_type, from_message) = (&own.event_type, &own.from_message);
            let cells = read(writer, datum).and_then(|mut cells| {
                from_message.fill(&event_type.fields, Some(message), &mut cells)?;
                time_fault(event_type, &cells, times).map_or(Ok(cells), Err)
            });
            match cells {
                Ok(cells) => all[writer.number].get_or_insert_with(|| Rows::new(event_type)).push(
                    &cells,
                    message.span().start as usize,
                    value.len(),
                    message.position(),
                ),
                Err(fault) => letters.add(message.position(), Some(&event_type.name), &fault, value),
            }
        }
        rows::send(all, chunk, &chunk.bytes, effects)?;
        letters.finish(effects);
        Ok(())
    }

    /// How the writer of a message is read, and the datum in it.
    fn unwrapped<'m>(
        &mut self,
        message: Message<'_>,
        value: &'m [u8],
        messages: &Messages,
    ) -> Result<(Known, &'m [u8]), Fault> {
        let Some((id, datum)) = framed(value) else {
            let found = "the message does not begin with a zero byte and the id of a schema";
            return Err(Fault::record(Reason::Malformed, found));
        };
        self.writer_of(id, message, messages).map(|writer| (writer, datum))
    }

    fn writer_of(&mut self, id: u32, message: Message<'_>, messages: &Messages) -> Result<Known, Fault> {
        let key = (id, self.told(message)?);
        if let Some(known) = self.writers.0.get(&key) {
            return Ok(known.clone());
        }
        let unknown = |why: &str| Fault::record(Reason::UnknownSchema, format!("schema {id}: {why}"));
        match messages.table().schemas.get(&id) {
            None => Err(unknown("the source did not look it up; say `framing = \"avro\"` there")),
            // It may be registered later, so this is not kept.
            Some(Err(why)) => Err(unknown(why)),
            Some(Ok(text)) => {
                let made = Arc::new(self.writer(text, key.1));
                if self.writers.0.len() >= KEPT {
                    self.writers.0.clear();
                }
                self.writers.0.insert(key, made.clone());
                Ok(made)
            }
        }
    }
}

/// The cells of a message's datum.
fn read<'d>(writer: &Writer, datum: &'d [u8]) -> Result<Vec<Cell<'d>>, Fault> {
    let malformed = |why: String| Fault::record(Reason::Malformed, format!("the datum can't be decoded: {why}"));
    let mut datums = Datums::new(datum);
    let cells = datums.record(&writer.plan).map_err(|Broken(why)| malformed(why))?;
    match datum.len() - datums.at() {
        0 => cells,
        left => Err(malformed(format!("{left} bytes are left behind it"))),
    }
}
