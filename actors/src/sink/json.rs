//! Values of Arrow columns as text and as JSON.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType,
};
use jiff::Timestamp;
use serde_json::{Map, Number, Value};
use tidemill_core::{Field, FieldKind, format_time_ms};

/// One value as JSON: bytes in hex, times in RFC 3339, decimals as text (a JSON number would lose digits).
pub(super) fn json_of(field: &Field, array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match &field.kind {
        FieldKind::Boolean => array.as_boolean().value(row).into(),
        FieldKind::Int => array.as_primitive::<Int32Type>().value(row).into(),
        FieldKind::Long => array.as_primitive::<Int64Type>().value(row).into(),
        FieldKind::Float => float(f64::from(array.as_primitive::<Float32Type>().value(row))),
        FieldKind::Double => float(array.as_primitive::<Float64Type>().value(row)),
        FieldKind::Bytes => hex(array.as_binary_view().value(row)).into(),
        FieldKind::String | FieldKind::Uuid => array.as_string_view().value(row).into(),
        FieldKind::TimestampMillis => {
            format_time_ms(array.as_primitive::<TimestampMillisecondType>().value(row)).into()
        }
        FieldKind::TimestampMicros => format_micros(array.as_primitive::<TimestampMicrosecondType>().value(row)).into(),
        FieldKind::Date => format_date(array.as_primitive::<Date32Type>().value(row)).into(),
        FieldKind::Enum(symbols) => {
            let key = array.as_dictionary::<Int32Type>().keys().value(row);
            usize::try_from(key)
                .ok()
                .and_then(|key| symbols.get(key))
                .map_or(Value::Null, |symbol| symbol.clone().into())
        }
        FieldKind::Fixed(_) => hex(array.as_fixed_size_binary().value(row)).into(),
        FieldKind::Decimal { scale, .. } => {
            format_decimal(array.as_primitive::<Decimal128Type>().value(row), i64::from(*scale)).into()
        }
        FieldKind::Array(item) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|at| json_of(item, items.as_ref(), at)).collect()
        }
        FieldKind::Map(value) => {
            let entries = array.as_map().value(row);
            let keys = entries.column(0).as_string_view();
            let pair = |at| (keys.value(at).to_owned(), json_of(value, entries.column(1).as_ref(), at));
            Value::Object((0..entries.len()).map(pair).collect())
        }
        FieldKind::Record(fields) => {
            let columns = array.as_struct().columns().iter();
            let member = |(field, column): (&Field, &arrow_array::ArrayRef)| {
                (field.name.clone(), json_of(field, column.as_ref(), row))
            };
            Value::Object(fields.iter().zip(columns).map(member).collect::<Map<_, _>>())
        }
    }
}

/// A scalar as text; `None` when it is null.
pub(super) fn scalar_text(field: &Field, array: &dyn Array, row: usize) -> Option<String> {
    match json_of(field, array, row) {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// A number, or the text of what JSON has no number for.
pub(super) fn float(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 3339; the bare number when it is no date of the calendar.
pub(super) fn format_micros(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |time| time.to_string())
}

/// `2024-02-29`; the bare number of days when it is no date of the calendar.
pub(super) fn format_date(days: i32) -> String {
    let time = format_time_ms(i64::from(days) * 86_400_000);
    time.split_once('T').map_or_else(|| days.to_string(), |(date, _)| date.to_owned())
}

/// A decimal's text, with exactly `scale` digits behind the point.
pub(super) fn format_decimal(unscaled: i128, scale: i64) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = unscaled.unsigned_abs().to_string();
    match usize::try_from(scale) {
        Ok(0) => format!("{sign}{digits}"),
        Ok(scale) => {
            let digits = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            format!("{sign}{whole}.{fraction}")
        }
        Err(_) => format!("{sign}{digits}{}", "0".repeat(scale.unsigned_abs() as usize)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit() {
        assert_eq!(format_decimal(-5, 2), "-0.05");
        assert_eq!(format_decimal(12_345, 2), "123.45");
        assert_eq!(format_decimal(12_345, 0), "12345");
        assert_eq!(format_decimal(i128::MIN, 38), "-1.70141183460469231731687303715884105728");
    }

    #[test]
    fn dates_before_1970_are_dates() {
        assert_eq!(format_date(-1), "1969-12-31");
        assert_eq!(format_micros(-1), "1969-12-31T23:59:59.999999Z");
    }
}
