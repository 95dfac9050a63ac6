//! What the tests of the three stages have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::Array;
use arrow_buffer::Buffer;
use serde_json::{Map, Value};
use tidemill_core::{
    Effects, EventType, Finding, Framing, Input, Limits, MessageTable, MessageTime, Messages, Options, RawChunk,
    Reason, Span, Stage, StageInput, StageKind,
};
use tidemill_testkit::Start;

/// When chunks arrive: 2013-01-02T00:00:00Z.
pub(super) const ARRIVED: i64 = 1_357_084_800_000;

/// A type of these fields (JSON of Avro fields) whose time is `at`.
pub(super) fn event_type(name: &str, fields: &str) -> Arc<EventType> {
    let schema = format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#);
    Arc::new(EventType::new(name, &schema, "at", &[], None).unwrap())
}

pub(super) const AT: &str = r#"{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}"#;

/// Options as the topology hands them over: defaults filled in.
pub(super) fn input(kind: &dyn StageKind, options: Value, types: &[Arc<EventType>]) -> StageInput {
    let mut all = Map::new();
    for option in kind.spec().options {
        if let tidemill_core::DefaultValue::Toml(text) = option.default {
            all.insert(option.name.into(), serde_json::from_str(text).unwrap());
        }
    }
    let Value::Object(given) = options else { panic!("options are a table") };
    all.extend(given);
    let limits = Limits { max_event_bytes: 200, ..tidemill_testkit::limits() };
    StageInput { name: "parse".into(), options: Options(all), types: types.to_vec(), limits: Arc::new(limits) }
}

pub(super) fn build(kind: &dyn StageKind, options: Value, types: &[Arc<EventType>]) -> Box<dyn Stage> {
    tidemill_testkit::build(kind, &input(kind, options, types), Start::default()).unwrap()
}

pub(super) fn findings(kind: &dyn StageKind, options: Value, types: &[Arc<EventType>]) -> Vec<Finding> {
    kind.plan(&input(kind, options, types)).unwrap_err()
}

pub(super) fn chunk(bytes: &[u8], first: u64, framing: Framing) -> RawChunk {
    let origin = tidemill_testkit::origin(first, first + bytes.len() as u64);
    RawChunk { origin: Arc::new(origin), bytes: Buffer::from(bytes), framing, arrived_at_ms: ARRIVED }
}

/// Messages without keys, times and headers.
pub(super) fn messages(positions: &[u64], starts: &[u32], lens: &[u32]) -> Framing {
    Framing::Messages(Messages::new(Arc::new(MessageTable {
        topic: "plays".into(),
        partition: 0,
        positions: positions.to_vec(),
        values: starts.iter().zip(lens).map(|(start, len)| Span { start: *start, len: *len }).collect(),
        keys: Vec::new(),
        times: positions.iter().map(|_| MessageTime::Unknown).collect(),
        headers: Vec::new(),
        header_ends: Vec::new(),
        schemas: BTreeMap::new(),
    })))
}

/// The effects of one call; the books must balance.
pub(super) fn run(stage: &mut dyn Stage, chunk: RawChunk) -> Effects {
    let mut effects = Effects::default();
    stage.process(&Input::Raw(chunk), &mut effects).unwrap();
    assert!(effects.tally.is_conserved(), "{:?}", effects.tally);
    assert_eq!(effects.tally.dead, effects.dead.len() as u64);
    assert_eq!(effects.tally.sent, effects.batches.iter().map(|batch| batch.len() as u64).sum::<u64>());
    effects
}

/// The same of lines.
pub(super) fn lines(stage: &mut dyn Stage, text: &[u8]) -> Effects {
    run(stage, chunk(text, 0, Framing::Lines))
}

/// Selected rows: type, position, the text of each column (`null` for nulls), the bytes as received.
pub(super) fn rows(effects: &Effects) -> Vec<(String, u64, Vec<String>, Vec<u8>)> {
    let mut rows = Vec::new();
    for batch in &effects.batches {
        for row in batch.indexes() {
            let cells = batch.records.columns().iter().map(|column| cell(column.as_ref(), row));
            let received = batch.received(row).to_vec();
            rows.push((batch.event_type.name.to_string(), batch.position(row), cells.collect(), received));
        }
    }
    rows
}

/// The cells of the selected rows.
pub(super) fn cells(effects: &Effects) -> Vec<Vec<String>> {
    rows(effects).into_iter().map(|(_, _, cells, _)| cells).collect()
}

fn cell(column: &dyn Array, row: usize) -> String {
    use arrow_array::cast::AsArray;
    use arrow_array::types::*;
    use arrow_schema::{DataType, TimeUnit};
    if column.is_null(row) {
        return "null".into();
    }
    let list = |items: &dyn Array| (0..items.len()).map(|at| cell(items, at)).collect::<Vec<_>>().join(",");
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).to_string(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Date32 => column.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value(row).to_string(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            column.as_primitive::<TimestampMillisecondType>().value(row).to_string()
        }
        DataType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Utf8View => column.as_string_view().value(row).to_owned(),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::BinaryView => format!("{:02x?}", column.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => format!("{:02x?}", column.as_fixed_size_binary().value(row)),
        DataType::Dictionary(..) => {
            let dictionary = column.as_dictionary::<Int32Type>();
            cell(dictionary.values().as_ref(), dictionary.keys().value(row) as usize)
        }
        DataType::List(_) => format!("[{}]", list(column.as_list::<i32>().value(row).as_ref())),
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let pair =
                |at| format!("{}={}", cell(entries.column(0).as_ref(), at), cell(entries.column(1).as_ref(), at));
            format!("{{{}}}", (0..entries.len()).map(pair).collect::<Vec<_>>().join(","))
        }
        DataType::Struct(_) => {
            let fields = column.as_struct().columns().iter().map(|field| cell(field.as_ref(), row));
            format!("({})", fields.collect::<Vec<_>>().join(","))
        }
        other => panic!("no column is {other}"),
    }
}

/// Position and reason of each dead letter.
pub(super) fn dead(effects: &Effects) -> Vec<(u64, Reason)> {
    effects.dead.iter().map(|letter| (letter.position, letter.reason)).collect()
}

/// Parses a chunk by halves down to single records; all rows and dead letters, in the order of their types and positions.
pub(super) fn in_parts(stage: &mut dyn Stage, whole: RawChunk) -> (Vec<String>, Vec<String>) {
    fn part(stage: &mut dyn Stage, input: Input, out: &mut (Vec<String>, Vec<String>)) {
        if let Some((head, tail)) = input.split() {
            part(stage, head, out);
            part(stage, tail, out);
        } else if let Input::Raw(chunk) = input {
            let (rows, dead) = summary(&run(stage, chunk));
            out.0.extend(rows);
            out.1.extend(dead);
        }
    }
    let mut out = Default::default();
    part(stage, Input::Raw(whole), &mut out);
    out.0.sort();
    out.1.sort();
    out
}

/// The same of one call.
pub(super) fn summary(effects: &Effects) -> (Vec<String>, Vec<String>) {
    let mut rows: Vec<String> = rows(effects).iter().map(|row| format!("{row:?}")).collect();
    let letter = |letter: &tidemill_core::DeadLetter| {
        let tidemill_core::DeadLetter { position, event_type, reason, message, payload, .. } = letter;
        format!("{position} {event_type:?} {reason:?} {message} {payload:?}")
    };
    let mut dead: Vec<String> = effects.dead.iter().map(letter).collect();
    rows.sort();
    dead.sort();
    (rows, dead)
}
