//! What the targets have in common: types of events, and stages as a topology would build them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::Array;
use arrow_buffer::Buffer;
use serde_json::{Map, Value};
use tidemill_core::{
    DefaultValue, Effects, EventType, Framing, Input, Limits, MessageTable, MessageTime, Messages, Options, RawChunk,
    Span, Stage, StageInput,
};
use tidemill_testkit::Start;

/// When chunks arrive: 2013-01-02T00:00:00Z.
const ARRIVED: i64 = 1_357_084_800_000;
/// In front of messages: the name of their header, and its two usual values.
const HEADERS: &[u8] = b"typeplaystop";

/// A type of these fields (JSON of Avro fields) whose time is `at`.
pub fn event_type(name: &str, fields: &str) -> Arc<EventType> {
    Arc::new(EventType::new(name, &schema(name, fields), "at", &[], None).expect("a right type"))
}

/// The schema of such a type.
pub fn schema(name: &str, fields: &str) -> String {
    format!(r#"{{"type":"record","name":"{name}","fields":[{AT},{fields}]}}"#)
}

const AT: &str = r#"{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}"#;

/// One field of each kind that holds a single value.
pub const SCALARS: &str = r#"{"name":"b","type":["null","boolean"]},{"name":"i","type":["null","int"]},{"name":"l","type":["null","long"]},
    {"name":"f","type":["null","float"]},{"name":"d","type":["null","double"]},{"name":"by","type":["null","bytes"]},{"name":"s","type":"string"},
    {"name":"u","type":["null",{"type":"string","logicalType":"uuid"}]},{"name":"us","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
    {"name":"da","type":["null",{"type":"int","logicalType":"date"}]},{"name":"e","type":["null",{"type":"enum","name":"E","symbols":["A","BB"]}]},
    {"name":"fx","type":["null",{"type":"fixed","name":"F","size":2}]},
    {"name":"de","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]}"#;

/// Fields that hold others.
pub const NESTED: &str = r#"{"name":"list","type":["null",{"type":"array","items":["null","int"]}]},{"name":"map","type":["null",{"type":"map","values":"string"}]},
    {"name":"rec","type":["null",{"type":"record","name":"R","fields":[{"name":"x","type":"int"},
    {"name":"y","type":["null",{"type":"array","items":{"type":"record","name":"S","fields":[{"name":"z","type":"string"}]}}]}]}]}"#;

/// What chunks of a layout are.
pub enum Form {
    Lines,
    /// A container file: its header ends with the first place of [`SYNC`].
    Avro,
    /// Each a byte of length and so many bytes; 255 has no value. The schemas by id.
    Messages(BTreeMap<u32, Result<Arc<str>, Arc<str>>>),
}

/// The sync marker of container files here.
pub const SYNC: &[u8; 16] = b"0123456789abcdef";

/// A stage that parses, and what it is given.
pub struct Layout {
    pub kind: &'static str,
    pub options: Value,
    pub types: Vec<Arc<EventType>>,
    pub form: Form,
}

impl Layout {
    fn stage(&self) -> Box<dyn Stage> {
        let kinds = tidemill_actors::stage_kinds();
        let kind = kinds.iter().find(|kind| kind.spec().name == self.kind).expect("a kind that there is");
        let mut options = Map::new();
        for option in kind.spec().options {
            if let DefaultValue::Toml(text) = option.default {
                options.insert(option.name.into(), serde_json::from_str(text).expect("also JSON"));
            }
        }
        options.extend(self.options.as_object().expect("a table").clone());
        let limits = Limits { max_event_bytes: 200, ..tidemill_testkit::limits() };
        let (types, limits) = (self.types.clone(), Arc::new(limits));
        let input = StageInput { name: "parse".into(), options: Options(options), types, limits };
        tidemill_testkit::build(kind.as_ref(), &input, Start::default()).expect("right options")
    }

    fn chunk(&self, bytes: &[u8]) -> RawChunk {
        let (first, bytes, framing) = match &self.form {
            Form::Lines => (0, bytes.to_vec(), Framing::Lines),
            Form::Avro => {
                let sync = bytes.windows(SYNC.len()).position(|window| window == SYNC);
                let (header, blocks) = bytes.split_at(sync.map_or(0, |at| at + SYNC.len()));
                (header.len(), blocks.to_vec(), Framing::AvroBlocks { header: Buffer::from(header) })
            }
            Form::Messages(schemas) => {
                let (bytes, table) = messages(bytes, schemas.clone());
                (0, bytes, Framing::Messages(Messages::new(Arc::new(table))))
            }
        };
        let (first, next) = (first as u64, (first + bytes.len()) as u64);
        let origin = tidemill_testkit::origin(first, next);
        RawChunk { origin: Arc::new(origin), bytes: Buffer::from_vec(bytes), framing, arrived_at_ms: ARRIVED }
    }

    /// Parses a chunk, and its halves, which must come to the same.
    pub fn run(&self, bytes: &[u8]) {
        let mut stage = self.stage();
        let whole = Input::Raw(self.chunk(bytes));
        let sums = process(&mut *stage, &whole);
        if let Some((head, tail)) = whole.split() {
            let (head, tail) = (process(&mut *stage, &head), process(&mut *stage, &tail));
            assert_eq!([head.0 + tail.0, head.1 + tail.1, head.2 + tail.2], [sums.0, sums.1, sums.2]);
        }
    }
}

/// Messages with keys, times and headers, as their bytes say.
fn messages(bytes: &[u8], schemas: BTreeMap<u32, Result<Arc<str>, Arc<str>>>) -> (Vec<u8>, MessageTable) {
    let mut table = MessageTable {
        topic: "play".into(),
        partition: 7,
        positions: Vec::new(),
        values: Vec::new(),
        keys: Vec::new(),
        times: Vec::new(),
        headers: Vec::new(),
        header_ends: Vec::new(),
        schemas,
    };
    let all = [HEADERS, bytes].concat();
    let mut at = HEADERS.len();
    while let Some(length) = all.get(at) {
        let start = at + 1;
        let len = usize::from(*length).min(all.len() - start);
        let value = Span { start: start as u32, len: len as u32 };
        let tombstone = *length == u8::MAX;
        at = if tombstone { start } else { start + len };
        let head = all.get(start..start + 8).map(|head| i64::from_le_bytes(head.try_into().expect("eight bytes")));
        let number = table.positions.len();
        table.positions.push(number as u64 * 2);
        table.values.push(if tombstone { Span::NONE } else { value });
        table.keys.push(if number % 2 == 0 || tombstone { Span::NONE } else { value });
        table.times.push(match (number % 3, head) {
            (0, Some(ms)) => MessageTime::Append(ms),
            (1, _) => MessageTime::Producer(ARRIVED),
            _ => MessageTime::Unknown,
        });
        let named = [Some(Span { start: 4, len: 4 }), Some(Span { start: 8, len: 4 }), None, Some(Span::NONE)];
        table.headers.extend(named[number % 4].map(|value| (Span { start: 0, len: 4 }, value)));
        table.header_ends.push(table.headers.len() as u32);
    }
    (all, table)
}

/// Received, sent and dead of one call. The books must balance, and every row must be what its schema says.
fn process(stage: &mut dyn Stage, input: &Input) -> (u64, u64, u64) {
    let mut effects = Effects::default();
    stage.process(input, &mut effects).expect("a stage that parses deals with everything");
    let tally = effects.tally;
    assert!(tally.is_conserved(), "{tally:?}");
    assert_eq!(tally.dead + tally.late, effects.dead.len() as u64);
    assert_eq!(tally.sent, effects.batches.iter().map(|batch| batch.len() as u64).sum::<u64>());
    for batch in &effects.batches {
        for row in batch.indexes() {
            let _ = (batch.position(row), batch.received(row));
        }
        for column in batch.compact().columns() {
            column.to_data().validate_full().expect("columns hold what their type says");
        }
    }
    (tally.received, tally.sent, tally.dead + tally.late)
}
