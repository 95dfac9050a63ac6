//! The stage `avro`: blocks of container files. Messages are in [`messages`](super::messages).

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::RecordSchema;
use arrow_buffer::Buffer;
use serde_json::Value;
use tidemill_core::{
    Effects, EventType, Framing, Input, Limits, Message, RawChunk, Reason, Stage, StageError, parse_avro_schema,
};

use super::Config;
use super::container::{Block, Codec, Header};
use super::datum::{Broken, Datums};
use super::messages::Writers;
use super::resolve::{RecordPlan, resolve};
use crate::parse::cell::Cell;
use crate::parse::config::TypeFrom;
use crate::parse::fault::{EventTimes, Fault, Letters, too_large};
use crate::parse::message::{MessageFields, type_number};
use crate::parse::names::Names;
use crate::parse::records::wrong_framing;
use crate::parse::rows::{self, Rows, time_fault};

/// Headers that are kept parsed.
const KEPT: usize = 8;
/// Most bytes that the blocks of a chunk may have uncompressed, together.
const MAX_CHUNK: usize = 1 << 30;

/// A worker of `avro`.
pub(super) struct AvroStage {
    pub(super) types: Vec<Known>,
    names: Names,
    pub(super) type_from: Option<TypeFrom>,
    pub(super) limits: Arc<Limits>,
    pub(super) writers: Writers,
    /// The files seen last, newest first. A file is a function of its header, so this is no state.
    files: Vec<(Buffer, Arc<Result<File, Fault>>)>,
}

/// A type, with its schema parsed.
pub(super) struct Known {
    pub(super) event_type: Arc<EventType>,
    pub(super) schema: RecordSchema,
    pub(super) from_message: MessageFields,
}

/// How the records of a writer are read.
pub(super) struct Writer {
    /// Number of the type.
    pub(super) number: usize,
    pub(super) plan: RecordPlan,
}

/// How the blocks of a file are read.
struct File {
    codec: Codec,
    sync: [u8; 16],
    writer: Writer,
}

/// A record of a block: where it is, and its cells.
struct Row<'d> {
    start: usize,
    end: usize,
    cells: Result<Vec<Cell<'d>>, Fault>,
}

impl AvroStage {
    pub(super) fn new(config: Config, types: &[Arc<EventType>], limits: Arc<Limits>) -> Result<Self, StageError> {
        let known = types.iter().map(|event_type| match Schema::parse_str(&event_type.schema_json) {
            Ok(Schema::Record(schema)) => {
                let from_message = MessageFields::of(&config.from_message, event_type);
                Ok(Known { event_type: event_type.clone(), schema, from_message })
            }
            Ok(_) => Err(StageError::new(format!("the schema of type `{}` is no record", event_type.name))),
            Err(error) => Err(StageError {
                message: format!("the schema of type `{}` can't be parsed", event_type.name),
                source: Some(Box::new(error)),
            }),
        });
        Ok(Self {
            types: known.collect::<Result<_, _>>()?,
            names: Names::new(types.iter().map(|event_type| &*event_type.name)),
            type_from: config.type_from,
            limits,
            writers: Writers::default(),
            files: Vec::new(),
        })
    }

    fn parse(&mut self, chunk: &RawChunk, effects: &mut Effects) -> Result<(), StageError> {
        let header = match &chunk.framing {
            Framing::AvroBlocks { header } => header,
            Framing::Messages(messages) => return self.parse_messages(chunk, messages, effects),
            Framing::Lines => return Err(wrong_framing("Avro; say `framing = \"avro\"` at the source")),
        };
        let file = self.file(header);
        let times = EventTimes::of(chunk, &self.limits);
        let mut letters = Letters::new(chunk);
        let mut all: Vec<Option<Rows>> = self.types.iter().map(|_| None).collect();
        let mut raw = Vec::new();
        let bytes = chunk.bytes.as_slice();
        let mut at = 0;
        while at < bytes.len() {
            let position = letters.position(at);
            let block = match Block::at(bytes, at) {
                Ok(block) => block,
                Err(Broken(why)) => {
                    effects.tally.received += 1;
                    let fault = Fault::record(Reason::Malformed, format!("the block is not whole: {why}"));
                    letters.add(position, None, &fault, &bytes[at..]);
                    break;
                }
            };
            at = block.end;
            let decoded = match &*file {
                Ok(file) => file.check(&block).map(|()| file).map_err(|fault| (Some(file.writer.number), fault)),
                Err(fault) => Err((None, fault.clone())),
            };
            let decoded = decoded.and_then(|file| {
                let data = file
                    .codec
                    .decompress(block.data)
                    .map_err(|why| (Some(file.writer.number), unreadable(&block, &why)))?;
                Ok((file, data))
            });
            let decoded = match &decoded {
                Ok((file, data)) => match file.rows(&block, data) {
                    Ok(rows) => Ok((*file, data, rows)),
                    Err(why) => Err((Some(file.writer.number), unreadable(&block, &why))),
                },
                Err(refused) => Err(refused.clone()),
            };
            let (file, data, rows) = match decoded {
                Ok(decoded) => decoded,
                Err((number, fault)) => {
                    effects.tally.received += 1;
                    let event_type = number.map(|number| &self.types[number].event_type.name);
                    letters.add(position, event_type, &fault, &bytes[block.start..block.end]);
                    continue;
                }
            };
            if raw.len() + data.len() > MAX_CHUNK {
                let message = format!("the blocks at {position} have more than {MAX_CHUNK} bytes uncompressed");
                return Err(StageError::new(message));
            }
            let Known { event_type, from_message, .. } = &self.types[file.writer.number];
            let base = raw.len();
            effects.tally.received += rows.len() as u64;
            for row in rows {
                let datum = &data[row.start..row.end];
                let cells = match too_large(datum.len() as u64, &self.limits) {
                    None => row.cells,
                    Some(fault) => Err(fault),
                };
                let cells = cells.and_then(|mut cells| {
                    from_message.fill(&event_type.fields, None, &mut cells)?;
                    Ok(cells)
                });
                let cells = cells.and_then(|cells| match time_fault(event_type, &cells, times) {
                    None => Ok(cells),
                    Some(fault) => Err(fault),
                });
                match cells {
                    Ok(cells) => all[file.writer.number].get_or_insert_with(|| Rows::new(event_type)).push(
                        &cells,
                        base + row.start,
                        datum.len(),
                        position,
                    ),
                    Err(fault) => letters.add(position, Some(&event_type.name), &fault, datum),
                }
            }
            raw.extend_from_slice(data);
        }
        rows::send(all, chunk, &Buffer::from_vec(raw), effects)?;
        letters.finish(effects);
        Ok(())
    }

    /// The file with that header.
    fn file(&mut self, header: &Buffer) -> Arc<Result<File, Fault>> {
        let at = self.files.iter().position(|(known, _)| known.as_slice() == header.as_slice());
        let entry = match at {
            Some(at) => self.files.remove(at),
            None => (header.clone(), Arc::new(self.open(header))),
        };
        self.files.truncate(KEPT - 1);
        self.files.insert(0, entry.clone());
        entry.1
    }

    fn open(&self, header: &[u8]) -> Result<File, Fault> {
        let refused = |message: String| Fault::record(Reason::Malformed, message);
        let header = Header::parse(header).map_err(|Broken(why)| refused(format!("the file's header: {why}")))?;
        let number = type_number(self.type_from.as_ref(), &self.names, None).transpose()?;
        // A file carries its schema: what is wrong with it is wrong with the file.
        let writer = self.writer(&header.schema, number).map_err(|fault| match fault.reason {
            Reason::UnknownSchema => fault.because(Reason::Malformed),
            _ => fault,
        })?;
        Ok(File { codec: header.codec, sync: header.sync, writer })
    }

    /// How records of a writer with that schema are read, as records of the type with that number if it is told.
    pub(super) fn writer(&self, schema: &str, number: Option<usize>) -> Result<Writer, Fault> {
        let refused = |message: String| Fault::record(Reason::UnknownSchema, message);
        let schema = parse(schema).map_err(|why| refused(format!("the writer's schema: {why}")))?;
        let number = number.map_or_else(|| self.number(&schema), Ok)?;
        let Known { event_type, schema: own, from_message } = &self.types[number];
        let plan = resolve(&schema, own, &event_type.fields, from_message).map_err(|why| {
            refused(format!("the writer's schema can't be resolved to that of type `{}`: {why}", event_type.name))
        })?;
        Ok(Writer { number, plan })
    }

    /// Number of the type of a message, where the message tells it.
    pub(super) fn told(&self, message: Message<'_>) -> Result<Option<usize>, Fault> {
        type_number(self.type_from.as_ref(), &self.names, Some(message)).transpose()
    }

    /// Number of the type that records of a writer's schema have.
    fn number(&self, schema: &Schema) -> Result<usize, Fault> {
        let Schema::Record(record) = schema else {
            return Err(Fault::record(Reason::UnknownSchema, "the writer's schema is no record"));
        };
        if matches!(self.type_from, Some(TypeFrom::Const(_))) {
            return Ok(0);
        }
        let (full, short) = (record.name.fullname(None), record.name.name());
        let find = |test: &dyn Fn(&Known) -> bool| self.types.iter().position(test);
        find(&|known| known.schema.name.fullname(None) == full)
            .or_else(|| find(&|known| *known.event_type.name == *full))
            .or_else(|| find(&|known| *known.event_type.name == *short))
            .or_else(|| find(&|known| known.schema.name.name() == short))
            .or_else(|| (self.types.len() == 1).then_some(0))
            .ok_or_else(|| {
                let message = format!("the writer's record is `{full}`, and no type declared here has that name");
                Fault::record(Reason::UnknownType, message)
            })
    }
}

/// A writer's schema. A UUID in a fixed is taken as the fixed that it is: of its default, the library counts the bytes
/// in UTF-8.
fn parse(schema: &str) -> Result<Schema, String> {
    fn without_fixed_uuid(json: &mut Value) {
        match json {
            Value::Array(items) => items.iter_mut().for_each(without_fixed_uuid),
            Value::Object(members) => {
                let is = |key: &str, text: &str| members.get(key).and_then(Value::as_str) == Some(text);
                if is("type", "fixed") && is("logicalType", "uuid") {
                    members.remove("logicalType");
                }
                members.values_mut().for_each(without_fixed_uuid);
            }
            _ => {}
        }
    }
    let mut json = serde_json::from_str(schema).map_err(|error| error.to_string())?;
    without_fixed_uuid(&mut json);
    parse_avro_schema(&json).map_err(|error| error.to_string())
}

#[cold]
fn unreadable(block: &Block<'_>, Broken(why): &Broken) -> Fault {
    Fault::record(Reason::Malformed, format!("the block of {} records can't be decoded: {why}", block.count))
}

impl File {
    fn check(&self, block: &Block<'_>) -> Result<(), Fault> {
        if block.sync == self.sync {
            return Ok(());
        }
        Err(unreadable(block, &Broken("it does not end with the sync marker of its file".into())))
    }

    /// All records of a block, or why it can't be decoded.
    fn rows<'d>(&self, block: &Block<'_>, data: &'d [u8]) -> Result<Vec<Row<'d>>, Broken> {
        let mut datums = Datums::new(data);
        let mut rows = Vec::new();
        for number in 0..block.count {
            let start = datums.at();
            let cells =
                datums.record(&self.writer.plan).map_err(|Broken(why)| Broken(format!("record {number}: {why}")))?;
            rows.push(Row { start, end: datums.at(), cells });
        }
        match data.len() - datums.at() {
            0 if block.count >= 0 => Ok(rows),
            left => Err(Broken(format!("{left} bytes are left behind its last record"))),
        }
    }
}

impl Stage for AvroStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        rows::raw(input, effects, |chunk, effects| self.parse(chunk, effects))
    }
}
