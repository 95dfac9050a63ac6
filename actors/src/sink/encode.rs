//! Rows of Arrow columns to Avro, without anything in between.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType,
};
use arrow_array::{
    Array, BinaryViewArray, BooleanArray, FixedSizeBinaryArray, RecordBatch, StringViewArray, StructArray,
};
use arrow_buffer::NullBuffer;
use tidemill_core::{DecimalRepr, Field, FieldKind, Nullability, StageError};

use super::container::{put_bytes, put_long};

/// The columns of one batch, ready to be written row by row. Making it costs nothing per row, except that decimals in a
/// `fixed` are looked through for values that do not fit.
pub(super) struct RowEncoder<'a>(Vec<Column<'a>>);

struct Column<'a> {
    union: Union<'a>,
    values: Values<'a>,
}

/// What is written before a value.
enum Union<'a> {
    Required,
    /// No value of this batch is null: the branch of the values.
    Value(u8),
    /// Which values are null, the branch of null, the branch of the values.
    Nullable(&'a NullBuffer, u8, u8),
}

enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int(&'a [i32]),
    Long(&'a [i64]),
    Float(&'a [f32]),
    Double(&'a [f64]),
    Text(&'a StringViewArray),
    Bytes(&'a BinaryViewArray),
    Fixed(&'a FixedSizeBinaryArray),
    Decimal(&'a [i128], DecimalRepr),
    List(&'a [i32], Box<Column<'a>>),
    Map(&'a [i32], &'a StringViewArray, Box<Column<'a>>),
    Record(Vec<Column<'a>>),
}

impl<'a> RowEncoder<'a> {
    /// Encoders of `fields`, which are columns `columns` of `records`.
    pub(super) fn new(
        fields: &[Field],
        columns: impl Iterator<Item = usize>,
        records: &'a RecordBatch,
    ) -> Result<Self, StageError> {
        columns.map(|at| Column::new(&fields[at], records.column(at).as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Appends a row.
    #[inline]
    pub(super) fn put(&self, row: usize, out: &mut Vec<u8>) {
        for column in &self.0 {
            column.put(row, out);
        }
    }
}

impl<'a> Column<'a> {
    fn new(field: &Field, array: &'a dyn Array) -> Result<Self, StageError> {
        let wrong = |what: String| StageError::new(format!("field `{}` {what}", field.name));
        if *array.data_type() != field.kind.arrow() {
            return Err(wrong(format!("arrives as {}, not as {}", array.data_type(), field.kind.arrow())));
        }
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
        let union = match (field.nullability, nulls) {
            (Nullability::Required, None) => Union::Required,
            (Nullability::Required, Some(_)) => return Err(wrong("is null, which its schema does not allow".into())),
            (Nullability::NullFirst, None) => Union::Value(1),
            (Nullability::NullLast, None) => Union::Value(0),
            (Nullability::NullFirst, Some(nulls)) => Union::Nullable(nulls, 0, 1),
            (Nullability::NullLast, Some(nulls)) => Union::Nullable(nulls, 1, 0),
        };
        let values = match &field.kind {
            FieldKind::Boolean => Values::Boolean(array.as_boolean()),
            FieldKind::Int => Values::Int(array.as_primitive::<Int32Type>().values()),
            FieldKind::Date => Values::Int(array.as_primitive::<Date32Type>().values()),
            FieldKind::Long => Values::Long(array.as_primitive::<Int64Type>().values()),
            FieldKind::TimestampMillis => Values::Long(array.as_primitive::<TimestampMillisecondType>().values()),
            FieldKind::TimestampMicros => Values::Long(array.as_primitive::<TimestampMicrosecondType>().values()),
            FieldKind::Float => Values::Float(array.as_primitive::<Float32Type>().values()),
            FieldKind::Double => Values::Double(array.as_primitive::<Float64Type>().values()),
            FieldKind::String | FieldKind::Uuid => Values::Text(array.as_string_view()),
            FieldKind::Bytes => Values::Bytes(array.as_binary_view()),
            FieldKind::Fixed(_) => Values::Fixed(array.as_fixed_size_binary()),
            FieldKind::Enum(symbols) => {
                let dictionary = array.as_dictionary::<Int32Type>();
                if dictionary.values().len() != symbols.len() {
                    return Err(wrong("does not carry the symbols of its enum".into()));
                }
                Values::Int(dictionary.keys().values())
            }
            FieldKind::Decimal { repr, .. } => {
                let decimals = array.as_primitive::<Decimal128Type>();
                if let DecimalRepr::Fixed(size @ ..16) = repr {
                    let fits = |value: &i128| shortest(*value) <= *size;
                    if let Some(value) = decimals.iter().flatten().find(|value| !fits(value)) {
                        return Err(wrong(format!("holds the unscaled decimal {value}, beyond {size} bytes")));
                    }
                }
                Values::Decimal(decimals.values(), *repr)
            }
            FieldKind::Array(item) => {
                let list = array.as_list::<i32>();
                Values::List(list.value_offsets(), Box::new(Self::new(item, list.values().as_ref())?))
            }
            FieldKind::Map(value) => {
                let map = array.as_map();
                let column = Self::new(value, map.values().as_ref())?;
                Values::Map(map.value_offsets(), map.keys().as_string_view(), Box::new(column))
            }
            FieldKind::Record(fields) => Values::Record(record(fields, array.as_struct())?),
        };
        Ok(Self { union, values })
    }

    #[inline]
    fn put(&self, row: usize, out: &mut Vec<u8>) {
        match self.union {
            Union::Required => {}
            Union::Value(value) => out.push(value * 2),
            Union::Nullable(nulls, null, value) => {
                if nulls.is_null(row) {
                    out.push(null * 2);
                    return;
                }
                out.push(value * 2);
            }
        }
        match &self.values {
            Values::Text(array) => put_view(out, array.views()[row], || array.value(row).as_bytes()),
            Values::Long(values) => put_long(out, values[row]),
            Values::Int(values) => put_long(out, i64::from(values[row])),
            Values::Boolean(array) => out.push(u8::from(array.value(row))),
            Values::Float(values) => out.extend_from_slice(&values[row].to_le_bytes()),
            Values::Double(values) => out.extend_from_slice(&values[row].to_le_bytes()),
            Values::Bytes(array) => put_view(out, array.views()[row], || array.value(row)),
            Values::Fixed(array) => out.extend_from_slice(array.value(row)),
            Values::Decimal(values, repr) => put_decimal(out, values[row], *repr),
            Values::List(offsets, item) => {
                for at in items(offsets, row, out) {
                    item.put(at, out);
                }
                out.push(0);
            }
            Values::Map(offsets, keys, value) => {
                for at in items(offsets, row, out) {
                    put_bytes(out, keys.value(at).as_bytes());
                    value.put(at, out);
                }
                out.push(0);
            }
            Values::Record(columns) => columns.iter().for_each(|column| column.put(row, out)),
        }
    }
}

/// Columns of a nested record. A field that may not be null is null in Arrow where the whole record is, which is no fault.
fn record<'a>(fields: &[Field], array: &'a StructArray) -> Result<Vec<Column<'a>>, StageError> {
    let column = |(field, column): (&Field, &'a arrow_array::ArrayRef)| {
        let hidden = match (field.nullability, column.nulls(), array.nulls()) {
            (Nullability::Required, Some(inner), Some(outer)) => outer.contains(inner),
            _ => false,
        };
        if hidden {
            let open = Field { nullability: Nullability::NullFirst, ..field.clone() };
            return Column::new(&open, column.as_ref()).map(|column| Column { union: Union::Required, ..column });
        }
        Column::new(field, column.as_ref())
    };
    fields.iter().zip(array.columns()).map(column).collect()
}

/// The items of `row`; writes their number unless there are none, in which case the end marker is all that follows.
#[inline]
fn items(offsets: &[i32], row: usize, out: &mut Vec<u8>) -> std::ops::Range<usize> {
    let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
    if to > from {
        put_long(out, (to - from) as i64);
    }
    from..to
}

/// Appends a view's bytes with their length. Up to 12 bytes lie in the view itself: length and bytes go in one copy of a
/// fixed size, cut afterwards.
#[inline]
fn put_view<'a>(out: &mut Vec<u8>, view: u128, long: impl FnOnce() -> &'a [u8]) {
    let len = view as u32;
    if len <= 12 {
        let bytes = ((view >> 32 << 8) | u128::from(len * 2)).to_le_bytes();
        let end = out.len() + 1 + len as usize;
        out.extend_from_slice(&bytes);
        out.truncate(end);
    } else {
        put_bytes(out, long());
    }
}

fn put_decimal(out: &mut Vec<u8>, value: i128, repr: DecimalRepr) {
    match repr {
        DecimalRepr::Bytes => put_bytes(out, &value.to_be_bytes()[16 - shortest(value)..]),
        DecimalRepr::Fixed(size) => out.extend_from_slice(&value.to_be_bytes()[16 - size..]),
    }
}

/// Bytes of the shortest two's complement form.
fn shortest(value: i128) -> usize {
    let bits = 129 - if value < 0 { value.leading_ones() } else { value.leading_zeros() };
    (bits as usize).div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_take_as_few_bytes_as_keep_the_sign() {
        let long = |value| {
            let mut out = Vec::new();
            put_decimal(&mut out, value, DecimalRepr::Bytes);
            out
        };
        assert_eq!(long(0), [2, 0]);
        assert_eq!(long(127), [2, 127]);
        assert_eq!(long(128), [4, 0, 128]);
        assert_eq!(long(-128), [2, 128]);
        assert_eq!(long(-129), [4, 0xff, 0x7f]);
        assert_eq!(long(i128::MIN).len(), 17);
    }

    #[test]
    fn views_of_every_length_are_written_with_their_length() {
        let texts: Vec<String> = (0..40).map(|len| "x".repeat(len)).collect();
        let array = StringViewArray::from_iter_values(&texts);
        for (row, text) in texts.iter().enumerate() {
            let (mut out, mut plain) = (vec![9], vec![9]);
            put_view(&mut out, array.views()[row], || array.value(row).as_bytes());
            put_bytes(&mut plain, text.as_bytes());
            assert_eq!(out, plain);
        }
    }
}
