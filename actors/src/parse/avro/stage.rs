//! The stage `avro`.

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::RecordSchema;
use arrow_buffer::Buffer;
use serde_json::Value;
use tidemill_core::{Effects, EventType, Framing, Input, Limits, RawChunk, Reason, Stage, StageError};

use super::container::{Block, Codec, Header};
use super::datum::{Broken, Datums};
use super::resolve::{RecordPlan, resolve};
use crate::parse::cell::Cell;
use crate::parse::fault::{EventTimes, Fault, Letters, too_large};
use crate::parse::records::wrong_framing;
use crate::parse::rows::{self, Rows, time_fault};

/// Headers that are kept parsed.
const KEPT: usize = 8;
/// Most bytes that the blocks of a chunk may have uncompressed, together.
const MAX_CHUNK: usize = 1 << 30;

/// A worker of `avro`.
pub(super) struct AvroStage {
    types: Vec<Known>,
    is_const: bool,
    limits: Arc<Limits>,
    /// The files seen last, newest first. A file is a function of its header, so this is no state.
    files: Vec<(Buffer, Arc<Result<File, Fault>>)>,
}

/// A type, with its schema parsed.
struct Known {
    event_type: Arc<EventType>,
    schema: RecordSchema,
}

/// How the blocks of a file are read.
struct File {
    codec: Codec,
    sync: [u8; 16],
    /// Number of the type.
    number: usize,
    plan: RecordPlan,
}

/// A record of a block: where it is, and its cells.
struct Row<'d> {
    start: usize,
    end: usize,
    cells: Result<Vec<Cell<'d>>, Fault>,
}

impl AvroStage {
    pub(super) fn new(types: &[Arc<EventType>], is_const: bool, limits: Arc<Limits>) -> Result<Self, StageError> {
        let known = types.iter().map(|event_type| match Schema::parse_str(&event_type.schema_json) {
            Ok(Schema::Record(schema)) => Ok(Known { event_type: event_type.clone(), schema }),
            Ok(_) => Err(StageError::new(format!("the schema of type `{}` is no record", event_type.name))),
            Err(error) => Err(StageError {
                message: format!("the schema of type `{}` can't be parsed", event_type.name),
                source: Some(Box::new(error)),
            }),
        });
        Ok(Self { types: known.collect::<Result<_, _>>()?, is_const, limits, files: Vec::new() })
    }

    fn parse(&mut self, chunk: &RawChunk, effects: &mut Effects) -> Result<(), StageError> {
        let Framing::AvroBlocks { header } = &chunk.framing else {
            return Err(wrong_framing("blocks of Avro container files; say `framing = \"avro\"` at the source"));
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
                Ok(file) => file.check(&block).map(|()| file).map_err(|fault| (Some(file.number), fault)),
                Err(fault) => Err((None, fault.clone())),
            };
            let decoded = decoded.and_then(|file| {
                let data =
                    file.codec.decompress(block.data).map_err(|why| (Some(file.number), unreadable(&block, &why)))?;
                Ok((file, data))
            });
            let decoded = match &decoded {
                Ok((file, data)) => match file.rows(&block, data) {
                    Ok(rows) => Ok((*file, data, rows)),
                    Err(why) => Err((Some(file.number), unreadable(&block, &why))),
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
            let event_type = &self.types[file.number].event_type;
            let base = raw.len();
            effects.tally.received += rows.len() as u64;
            for row in rows {
                let datum = &data[row.start..row.end];
                let cells = match too_large(datum.len() as u64, &self.limits) {
                    None => row.cells,
                    Some(fault) => Err(fault),
                };
                let cells = cells.and_then(|cells| match time_fault(event_type, &cells, times) {
                    None => Ok(cells),
                    Some(fault) => Err(fault),
                });
                match cells {
                    Ok(cells) => all[file.number].get_or_insert_with(|| Rows::new(event_type)).push(
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
        let schema = parse(&header.schema).map_err(|why| refused(format!("the file's schema: {why}")))?;
        let number = self.number(&schema)?;
        let Known { event_type, schema: own } = &self.types[number];
        let plan = resolve(&schema, own, &event_type.fields).map_err(|why| {
            refused(format!("the file's schema can't be resolved to that of type `{}`: {why}", event_type.name))
        })?;
        Ok(File { codec: header.codec, sync: header.sync, number, plan })
    }

    /// Number of the type that records of a file's schema have.
    fn number(&self, schema: &Schema) -> Result<usize, Fault> {
        let Schema::Record(record) = schema else {
            return Err(Fault::record(Reason::Malformed, "the file's schema is no record"));
        };
        if self.is_const {
            return Ok(0);
        }
        let (full, short) = (record.name.fullname(None), record.name.name.as_str());
        let find = |test: &dyn Fn(&Known) -> bool| self.types.iter().position(test);
        find(&|known| known.schema.name.fullname(None) == full)
            .or_else(|| find(&|known| *known.event_type.name == *full))
            .or_else(|| find(&|known| *known.event_type.name == *short))
            .or_else(|| find(&|known| known.schema.name.name == short))
            .or_else(|| (self.types.len() == 1).then_some(0))
            .ok_or_else(|| {
                let message = format!("the file's record is `{full}`, and no type declared here has that name");
                Fault::record(Reason::UnknownType, message)
            })
    }
}

/// A file's schema. A UUID in a fixed is taken as the fixed that it is: the library would read it as a string.
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
    Schema::parse(&json).map_err(|error| error.to_string())
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
            let cells = datums.record(&self.plan).map_err(|Broken(why)| Broken(format!("record {number}: {why}")))?;
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
