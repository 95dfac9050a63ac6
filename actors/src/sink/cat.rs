//! The records of a container file as JSON lines.

use std::io::Write;
use std::path::{Path, PathBuf};

use apache_avro::schema::{ArraySchema, DecimalSchema, MapSchema, RecordSchema};
use apache_avro::types::Value;
use apache_avro::{Decimal, Schema};
use serde_json::{Map, Value as Json};
use tidemill_core::format_time_ms;

use super::json::{float, format_date, format_decimal, format_micros, hex};
use super::reader::{OpenFile, ReadError};

/// Why a file can't be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatError {
    /// The file can't be opened.
    #[error("can't open {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file can't be read.
    #[error("{path}, record {record}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Number of the record that could not be read, from 0.
        record: u64,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The output does not take more.
    #[error("can't write the records")]
    Write(#[from] std::io::Error),
}

/// Writes the first `limit` records (all without one) of an Avro container file as JSON lines; returns how many there were.
/// Times are RFC 3339, bytes hex, decimals text, numbers that JSON lacks text. Reads block by block, about 1 µs a record.
///
/// # Errors
/// See [`CatError`].
pub fn cat(path: &Path, limit: Option<u64>, out: &mut dyn Write) -> Result<u64, CatError> {
    let file = open(path)?;
    let limit = limit.unwrap_or(u64::MAX);
    let mut shown = 0;
    let mut records = file.records;
    while shown < limit {
        let Some(record) = records.next() else { break };
        let record = record.map_err(|error| CatError::read(path, shown, Box::new(error)))?;
        serde_json::to_writer(&mut *out, &to_json(record, &file.schema)).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
        shown += 1;
    }
    out.flush()?;
    Ok(shown)
}

/// Opens a file for its records.
pub(super) fn open(path: &Path) -> Result<OpenFile, CatError> {
    OpenFile::open(path).map_err(|error| match error {
        // Told by the system; other errors of this kind are about what the file holds.
        ReadError::Io(source) if source.raw_os_error().is_some() => CatError::Open { path: path.to_owned(), source },
        error => CatError::read(path, 0, error),
    })
}

impl CatError {
    pub(super) fn read(path: &Path, record: u64, error: impl Into<ReadError>) -> Self {
        Self::Read { path: path.to_owned(), record, source: error.into().into() }
    }
}

fn to_json(value: Value, schema: &Schema) -> Json {
    match (value, schema) {
        (Value::Union(branch, value), Schema::Union(union)) => {
            to_json(*value, union.variants().get(branch as usize).unwrap_or(&Schema::Null))
        }
        (Value::Union(_, value), other) => to_json(*value, other),
        (Value::Record(members), Schema::Record(RecordSchema { fields, .. })) => {
            let member = |((name, value), field): ((String, Value), &apache_avro::schema::RecordField)| {
                (name, to_json(value, &field.schema))
            };
            Json::Object(members.into_iter().zip(fields).map(member).collect())
        }
        (Value::Record(members), _) => {
            Json::Object(members.into_iter().map(|(name, value)| (name, to_json(value, &Schema::Null))).collect())
        }
        (Value::Array(items), schema) => {
            let item = if let Schema::Array(ArraySchema { items, .. }) = schema { items } else { &Schema::Null };
            items.into_iter().map(|value| to_json(value, item)).collect()
        }
        (Value::Map(entries), schema) => {
            let types = if let Schema::Map(MapSchema { types, .. }) = schema { types } else { &Schema::Null };
            let mut sorted: Vec<_> = entries.into_iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(sorted.into_iter().map(|(key, value)| (key, to_json(value, types))).collect::<Map<_, _>>())
        }
        (Value::Decimal(decimal), Schema::Decimal(DecimalSchema { scale, .. })) => match unscaled(&decimal) {
            Some(number) => format_decimal(number, i64::try_from(*scale).unwrap_or_default()).into(),
            None => format!("{decimal:?}").into(),
        },
        (Value::Null, _) => Json::Null,
        (Value::Boolean(value), _) => value.into(),
        (Value::Int(value) | Value::TimeMillis(value), _) => value.into(),
        (Value::Long(value) | Value::TimeMicros(value), _) => value.into(),
        (Value::Float(value), _) => float(f64::from(value)),
        (Value::Double(value), _) => float(value),
        (Value::Bytes(bytes) | Value::Fixed(_, bytes), _) => hex(&bytes).into(),
        (Value::String(text) | Value::Enum(_, text), _) => text.into(),
        (Value::Date(days), _) => format_date(days).into(),
        (Value::TimestampMillis(value), _) => format_time_ms(value).into(),
        (Value::TimestampMicros(value), _) => format_micros(value).into(),
        (Value::Uuid(value), _) => value.to_string().into(),
        (other, _) => format!("{other:?}").into(),
    }
}

/// The unscaled number of a decimal of up to 16 bytes.
pub(super) fn unscaled(decimal: &Decimal) -> Option<i128> {
    let bytes = Vec::try_from(decimal).ok()?;
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [sign; 16];
    all.get_mut(16usize.checked_sub(bytes.len())?..)?.copy_from_slice(&bytes);
    Some(i128::from_be_bytes(all))
}
