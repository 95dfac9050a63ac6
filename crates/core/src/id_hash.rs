//! The order-free hash of ids, and the bytes of an id.
//!
//! *Key bytes* of an event: for each id field in the order of the topology, the length of its bytes as an unsigned
//! 32-bit little-endian number, then its bytes. The bytes of a value are: UTF-8 for string, uuid and enum (the symbol); the bytes
//! themselves for bytes and fixed; 8 bytes little-endian for int, long, date and the timestamps (in their own unit);
//! the IEEE 754 bits of the value as a double, 8 bytes little-endian, for float and double; one byte, 0 or 1, for boolean;
//! 16 bytes little-endian (two's complement, unscaled) for decimal.
//!
//! *Id hash* of a set of events: the sum modulo 2^128 of XXH3-128 (seed 0) of each event's key bytes, as 32 hex digits,
//! most significant first. A sum, not an exclusive or, which would hide an id that is there twice.

use std::ops::{Add, AddAssign};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType,
};
use arrow_array::{
    BinaryViewArray, BooleanArray, FixedSizeBinaryArray, PrimitiveArray, RecordBatch, StringArray, StringViewArray,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_128;

use crate::event_type::EventType;
use crate::schema::FieldKind;

/// Name of the algorithm, as manifests have it.
#[must_use]
pub fn ids_algorithm() -> &'static str {
    "sum128-xxh3_128-v1"
}

/// Hash of one event's key bytes.
#[must_use]
#[inline]
pub fn key_hash(key_bytes: &[u8]) -> u128 {
    xxh3_128(key_bytes)
}

/// The order-free hash of a set of ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdSum(pub u128);

impl Add for IdSum {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl AddAssign<u128> for IdSum {
    fn add_assign(&mut self, hash: u128) {
        self.0 = self.0.wrapping_add(hash);
    }
}

impl AddAssign for IdSum {
    fn add_assign(&mut self, other: Self) {
        *self += other.0;
    }
}

impl std::fmt::Display for IdSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for IdSum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IdSum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The id columns of one batch.
pub struct KeyColumns<'a>(Vec<KeyColumn<'a>>);

/// One id column.
enum KeyColumn<'a> {
    Text(&'a StringViewArray),
    Symbol(&'a PrimitiveArray<Int32Type>, &'a StringArray),
    Bytes(&'a BinaryViewArray),
    Fixed(&'a FixedSizeBinaryArray),
    Boolean(&'a BooleanArray),
    Int(&'a PrimitiveArray<Int32Type>),
    Date(&'a PrimitiveArray<Date32Type>),
    Long(&'a PrimitiveArray<Int64Type>),
    Millis(&'a PrimitiveArray<TimestampMillisecondType>),
    Micros(&'a PrimitiveArray<TimestampMicrosecondType>),
    Float(&'a PrimitiveArray<Float32Type>),
    Double(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a PrimitiveArray<Decimal128Type>),
}

impl<'a> KeyColumns<'a> {
    /// The columns of `fields` (indexes into the type's fields; scalars only) in `records`.
    ///
    /// # Panics
    /// If `records` is not of the type.
    #[must_use]
    pub fn new(event_type: &EventType, fields: &[usize], records: &'a RecordBatch) -> Self {
        let column = |index: &usize| {
            let array = records.column(*index);
            match event_type.fields[*index].kind {
                FieldKind::String | FieldKind::Uuid => KeyColumn::Text(array.as_string_view()),
                FieldKind::Enum(_) => {
                    let dictionary = array.as_dictionary::<Int32Type>();
                    KeyColumn::Symbol(dictionary.keys(), dictionary.values().as_string())
                }
                FieldKind::Bytes => KeyColumn::Bytes(array.as_binary_view()),
                FieldKind::Fixed(_) => KeyColumn::Fixed(array.as_fixed_size_binary()),
                FieldKind::Boolean => KeyColumn::Boolean(array.as_boolean()),
                FieldKind::Int => KeyColumn::Int(array.as_primitive()),
                FieldKind::Date => KeyColumn::Date(array.as_primitive()),
                FieldKind::Long => KeyColumn::Long(array.as_primitive()),
                FieldKind::TimestampMillis => KeyColumn::Millis(array.as_primitive()),
                FieldKind::TimestampMicros => KeyColumn::Micros(array.as_primitive()),
                FieldKind::Float => KeyColumn::Float(array.as_primitive()),
                FieldKind::Double => KeyColumn::Double(array.as_primitive()),
                FieldKind::Decimal { .. } => KeyColumn::Decimal(array.as_primitive()),
                FieldKind::Array(_) | FieldKind::Map(_) | FieldKind::Record(_) => {
                    unreachable!("event types refuse ids that are not scalars")
                }
            }
        };
        Self(fields.iter().map(column).collect())
    }

    /// The text of `row`, when the key is a single string or uuid field. Saves copying it.
    #[must_use]
    #[inline]
    pub fn single_text(&self, row: usize) -> Option<&'a str> {
        match &self.0[..] {
            [KeyColumn::Text(array)] => Some(array.value(row)),
            _ => None,
        }
    }

    /// Looks at both ends of each row's text, where the key is a single text. The texts lie scattered over received
    /// bytes that another core wrote; looks that depend on nothing let their cache misses overlap, where working on one
    /// text after the other waits for each. To be called before a loop over the keys of a batch of some hundred rows.
    pub fn touch(&self, rows: impl Iterator<Item = usize>) {
        let ends = |row: usize| match self.single_text(row)?.as_bytes() {
            [first, .., last] => Some(first ^ last),
            few => few.first().copied(),
        };
        std::hint::black_box(rows.filter_map(ends).fold(0u8, |seen, byte| seen ^ byte));
    }

    /// Replaces `key` by the key bytes of `row`.
    #[inline]
    pub fn key_bytes(&self, row: usize, key: &mut Vec<u8>) {
        key.clear();
        for column in &self.0 {
            let long = match column {
                KeyColumn::Text(array) => {
                    push(key, array.value(row).as_bytes());
                    continue;
                }
                KeyColumn::Symbol(keys, symbols) => {
                    push(key, symbols.value(keys.value(row) as usize).as_bytes());
                    continue;
                }
                KeyColumn::Bytes(array) => {
                    push(key, array.value(row));
                    continue;
                }
                KeyColumn::Fixed(array) => {
                    push(key, array.value(row));
                    continue;
                }
                KeyColumn::Boolean(array) => {
                    push(key, &[u8::from(array.value(row))]);
                    continue;
                }
                KeyColumn::Decimal(array) => {
                    push(key, &array.value(row).to_le_bytes());
                    continue;
                }
                KeyColumn::Int(array) => i64::from(array.value(row)),
                KeyColumn::Date(array) => i64::from(array.value(row)),
                KeyColumn::Long(array) => array.value(row),
                KeyColumn::Millis(array) => array.value(row),
                KeyColumn::Micros(array) => array.value(row),
                KeyColumn::Float(array) => f64::from(array.value(row)).to_bits() as i64,
                KeyColumn::Double(array) => array.value(row).to_bits() as i64,
            };
            push(key, &long.to_le_bytes());
        }
    }
}

#[inline]
fn push(key: &mut Vec<u8>, bytes: &[u8]) {
    key.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    key.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(ids: &[&str]) -> String {
        let mut sum = IdSum::default();
        for id in ids {
            let mut key = Vec::new();
            push(&mut key, id.as_bytes());
            sum += key_hash(&key);
        }
        sum.to_string()
    }

    /// The published test vectors; `tests/readers/id_hash.py` checks them against the xxhash package of Python.
    #[test]
    fn the_id_hash_has_its_published_values() {
        let vectors: Vec<(Vec<String>, String)> =
            serde_json::from_str(include_str!("id_hash_vectors.json")).expect("vectors are JSON");
        assert!(vectors.len() >= 4);
        for (ids, expected) in vectors {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            assert_eq!(sum(&ids), expected, "{ids:?}");
        }
    }

    #[test]
    fn order_does_not_matter_and_a_pair_shows() {
        assert_eq!(sum(&["a", "b"]), sum(&["b", "a"]));
        assert_ne!(sum(&["a", "b", "b"]), sum(&["a"]));
        assert_ne!(sum(&["ab", "c"]), sum(&["a", "bc"]));
    }
}
