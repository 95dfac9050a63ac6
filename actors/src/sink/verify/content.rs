//! The events of a file: counted, hashed and timed anew.

use std::path::Path;

use apache_avro::types::Value;
use tidemill_core::{DEAD_LETTER_TYPE, Hour, format_time_ms, key_hash, schema_fingerprint};

use super::report::FaultCode;
use crate::sink::avro_files::TRUE_HOUR;
use crate::sink::cat::unscaled;
use crate::sink::container::TYPE_KEY;
use crate::sink::manifest::{FileEntry, Manifest};
use crate::sink::reader::OpenFile;

/// What the files of a directory hold together.
#[derive(Default)]
pub(super) struct Content {
    pub(super) rows: u64,
    pub(super) id_sum: u128,
    pub(super) min_ms: Option<i64>,
    pub(super) max_ms: Option<i64>,
    /// Late events of earlier hours.
    pub(super) earlier: u64,
}

/// What a file should be.
pub(super) struct Expected<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) entry: &'a FileEntry,
    pub(super) hour: Hour,
}

/// Reads a file's events into `content`; what is wrong goes to `fault`.
pub(super) fn read_content(
    path: &Path,
    expected: &Expected<'_>,
    content: &mut Content,
    fault: &mut dyn FnMut(FaultCode, String),
) {
    let file = match OpenFile::open(path) {
        Ok(file) => file,
        Err(error) => return fault(FaultCode::BadFile, error.to_string()),
    };
    let Expected { manifest, entry, hour } = expected;
    let metadata = |key: &str| file.metadata.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
    let mut compare = |what: &str, found: Option<String>, stated: &str| {
        if found.as_deref() != Some(stated) {
            let found = found.unwrap_or_else(|| "none".to_owned());
            fault(FaultCode::BadFile, format!("its {what} is {found}, the manifest says {stated}"));
        }
    };
    compare("type", metadata(TYPE_KEY), &manifest.event_type);
    compare("codec", metadata("avro.codec"), &entry.codec);
    compare("schema", Some(schema_fingerprint(&file.schema)), &entry.schema_fingerprint);
    let ids: &[String] = manifest.ids.as_ref().map_or(&[], |ids| &ids.fields);
    let mut columns: Option<(usize, Vec<usize>)> = None;
    let mut key = Vec::new();
    let mut strangers = 0u64;
    let mut earlier = 0u64;
    let mut stranger = None;
    for (number, record) in file.records.enumerate() {
        let members = match record {
            Ok(Value::Record(members)) => members,
            Ok(_) => return fault(FaultCode::BadFile, format!("event {number} is not a record")),
            Err(error) => return fault(FaultCode::BadFile, format!("event {number} can't be read: {error}")),
        };
        let (time, ids) = match &columns {
            Some(columns) => columns,
            None => {
                let column = |name: &String| members.iter().position(|(member, _)| member == name);
                let found = ids.iter().map(column).collect::<Option<Vec<_>>>();
                let (Some(time), Some(found)) = (column(&manifest.event_time.field), found) else {
                    return fault(FaultCode::BadFile, "it lacks the field of the time or of the id".to_owned());
                };
                columns.insert((time, found))
            }
        };
        let time_ms = match members[*time].1 {
            Value::TimestampMillis(time) => time,
            Value::TimestampMicros(time) => time.div_euclid(1_000),
            _ => return fault(FaultCode::BadFile, format!("the time of event {number} is no timestamp")),
        };
        // Dead letters that come behind their hour's seal are put into a later one, and so may others be that say so.
        let own_hour_ms = Hour::of(time_ms, hour.width_ms).start_ms;
        let says_so = members.last().is_some_and(|(name, value)| {
            let hour = Value::Union(1, Box::new(Value::TimestampMillis(own_hour_ms)));
            name == TRUE_HOUR && *value == hour
        });
        earlier += u64::from(says_so && time_ms < hour.start_ms);
        let early = time_ms < hour.start_ms && manifest.event_type != DEAD_LETTER_TYPE && !says_so;
        if early || time_ms >= hour.end_ms() {
            strangers += 1;
            stranger.get_or_insert((number, time_ms));
        }
        content.rows += 1;
        content.min_ms = Some(content.min_ms.map_or(time_ms, |min| min.min(time_ms)));
        content.max_ms = Some(content.max_ms.map_or(time_ms, |max| max.max(time_ms)));
        if manifest.ids.is_some() {
            key.clear();
            for at in ids {
                if !put_key(&members[*at].1, &mut key) {
                    return fault(FaultCode::BadFile, format!("the id of event {number} is no single value"));
                }
            }
            content.id_sum = content.id_sum.wrapping_add(key_hash(&key));
        }
    }
    content.earlier += earlier;
    if let Some((number, time_ms)) = stranger {
        let message = format!(
            "{strangers} events are not of the hour; the first is event {number}, at {}",
            format_time_ms(time_ms)
        );
        fault(FaultCode::WrongHour, message);
    }
}

/// Appends the key bytes of a value (see `docs/manifest.md`); false when it is none that an id can have.
fn put_key(value: &Value, key: &mut Vec<u8>) -> bool {
    let mut push = |bytes: &[u8]| {
        key.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        key.extend_from_slice(bytes);
    };
    match value {
        Value::String(text) | Value::Enum(_, text) => push(text.as_bytes()),
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => push(bytes),
        Value::Boolean(value) => push(&[u8::from(*value)]),
        Value::Int(value) | Value::Date(value) => push(&i64::from(*value).to_le_bytes()),
        Value::Long(value) | Value::TimestampMillis(value) | Value::TimestampMicros(value) => {
            push(&value.to_le_bytes());
        }
        Value::Float(value) => push(&f64::from(*value).to_bits().to_le_bytes()),
        Value::Double(value) => push(&value.to_bits().to_le_bytes()),
        Value::Decimal(decimal) => match unscaled(decimal) {
            Some(number) => push(&number.to_le_bytes()),
            None => return false,
        },
        _ => return false,
    }
    true
}
