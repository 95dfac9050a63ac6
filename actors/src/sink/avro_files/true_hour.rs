//! The column that tells late events from the others where they are put into the next open hour.

use serde_json::{Value, json};
use tidemill_core::{EventType, Hour, StageError, parse_avro_schema, schema_fingerprint};

use crate::sink::container::put_long;

/// Name of the column, behind the fields of the type: the start of the hour that the event belongs to, when it is not the one that it is in.
pub(in crate::sink) const TRUE_HOUR: &str = "true_hour";

/// The schema of a type with the column, and its fingerprint.
pub(super) fn schema(event_type: &EventType) -> Result<(String, String), StageError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| StageError {
        message: format!("type `{}` can't be given the field `{TRUE_HOUR}`", event_type.name),
        source: Some(error),
    };
    let mut schema: Value = serde_json::from_str(&event_type.schema_json).map_err(|error| failed(error.into()))?;
    let field = json!({
        "name": TRUE_HOUR,
        "doc": "Start of the hour that a late event belongs to; null for events of this hour.",
        "type": ["null", { "type": "long", "logicalType": "timestamp-millis" }],
        "default": null,
    });
    let fields = schema.get_mut("fields").and_then(Value::as_array_mut);
    fields.ok_or_else(|| failed("its schema has no fields".into()))?.push(field);
    let parsed = parse_avro_schema(&schema).map_err(|error| failed(Box::new(error)))?;
    Ok((schema.to_string(), schema_fingerprint(&parsed)))
}

/// Appends the value for an event of that time in a directory of `hour`.
pub(super) fn put(time_ms: i64, hour: Hour, out: &mut Vec<u8>) {
    if time_ms >= hour.start_ms {
        return put_long(out, 0);
    }
    put_long(out, 1);
    put_long(out, Hour::of(time_ms, hour.width_ms).start_ms);
}
