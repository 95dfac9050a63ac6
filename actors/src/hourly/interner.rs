//! The values of a column as small numbers, in order of their first appearance.

use std::cmp::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::NullBuffer;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde::{Deserialize, Serialize};
use tidemill_core::FieldKind;
use xxhash_rust::xxh3::xxh3_64;

/// A value of a group field.
///
/// Numbers are sign-extended, floats are the bits of a double with one zero and one NaN, texts and bytes of at most 12 bytes
/// are as an Arrow view has them: length in the low 4 bytes, then the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    Null,
    Word(u128),
    Long(&'a [u8]),
}

/// A value that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Held {
    Null,
    Word(u128),
    Long(Box<[u8]>),
}

impl Held {
    pub(super) fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Word(word) => Cell::Word(*word),
            Self::Long(bytes) => Cell::Long(bytes),
        }
    }
}

/// The bytes of a short text: its view, little-endian.
pub(super) fn short_bytes(view: &[u8; 16]) -> &[u8] {
    let len = usize::from(view[0]).min(12);
    &view[4..4 + len]
}

/// Order of two values: null first, numbers by value, texts and bytes by bytes, enums in schema order.
pub(super) fn order(kind: &FieldKind, a: &Held, b: &Held) -> Ordering {
    let bytes = matches!(kind, FieldKind::String | FieldKind::Uuid | FieldKind::Bytes | FieldKind::Fixed(_));
    match (a.cell(), b.cell()) {
        (Cell::Null, Cell::Null) => Ordering::Equal,
        (Cell::Null, _) => Ordering::Less,
        (_, Cell::Null) => Ordering::Greater,
        (Cell::Word(a), Cell::Word(b)) if bytes => short_bytes(&a.to_le_bytes()).cmp(short_bytes(&b.to_le_bytes())),
        (Cell::Word(a), Cell::Word(b)) if matches!(kind, FieldKind::Float | FieldKind::Double) => {
            f64::from_bits(a as u64).total_cmp(&f64::from_bits(b as u64))
        }
        (Cell::Word(a), Cell::Word(b)) => (a as i128).cmp(&(b as i128)),
        (Cell::Word(a), Cell::Long(b)) => short_bytes(&a.to_le_bytes()).cmp(b),
        (Cell::Long(a), Cell::Word(b)) => a.cmp(short_bytes(&b.to_le_bytes())),
        (Cell::Long(a), Cell::Long(b)) => a.cmp(b),
    }
}

/// Calls `each` with the cell of every row. The kind of the column is looked at once, not for every row.
/// `None` when the array is not of that kind.
pub(super) fn for_cells<'a>(
    array: &'a ArrayRef,
    kind: &FieldKind,
    rows: &[u32],
    each: impl FnMut(Cell<'a>),
) -> Option<()> {
    let nulls = array.logical_nulls();
    let nulls = nulls.as_ref().filter(|nulls| nulls.null_count() > 0);
    fn run<'a>(
        nulls: Option<&NullBuffer>,
        rows: &[u32],
        mut each: impl FnMut(Cell<'a>),
        cell: impl Fn(usize) -> Cell<'a>,
    ) {
        match nulls {
            None => rows.iter().for_each(|row| each(cell(*row as usize))),
            Some(nulls) => rows.iter().for_each(|row| {
                let row = *row as usize;
                each(if nulls.is_null(row) { Cell::Null } else { cell(row) });
            }),
        }
    }
    fn whole<'a>(value: i128) -> Cell<'a> {
        Cell::Word(value as u128)
    }
    fn real<'a>(value: f64) -> Cell<'a> {
        let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
        Cell::Word(value.to_bits().into())
    }
    macro_rules! primitive {
        ($type:ty, $cell:expr) => {{
            let values = array.as_primitive_opt::<$type>()?.values();
            run(nulls, rows, each, |row| $cell(values[row].into()))
        }};
    }
    match kind {
        FieldKind::String | FieldKind::Uuid => {
            let array = array.as_string_view_opt()?;
            let views = array.views();
            run(nulls, rows, each, |row| match views[row] {
                view if view as u32 <= 12 => Cell::Word(view),
                _ => Cell::Long(array.value(row).as_bytes()),
            });
        }
        FieldKind::Bytes => {
            let array = array.as_binary_view_opt()?;
            let views = array.views();
            run(nulls, rows, each, |row| match views[row] {
                view if view as u32 <= 12 => Cell::Word(view),
                _ => Cell::Long(array.value(row)),
            });
        }
        FieldKind::Fixed(_) => {
            let array = array.as_fixed_size_binary_opt()?;
            run(nulls, rows, each, |row| Cell::Long(array.value(row)));
        }
        FieldKind::Enum(_) => {
            let codes = array.as_dictionary_opt::<Int32Type>()?.keys().values();
            run(nulls, rows, each, |row| whole(codes[row].into()));
        }
        FieldKind::Boolean => {
            let values = array.as_boolean_opt()?.values();
            run(nulls, rows, each, |row| whole(values.value(row).into()));
        }
        FieldKind::Int => primitive!(Int32Type, whole),
        FieldKind::Date => primitive!(Date32Type, whole),
        FieldKind::Long => primitive!(Int64Type, whole),
        FieldKind::TimestampMillis => primitive!(TimestampMillisecondType, whole),
        FieldKind::TimestampMicros => primitive!(TimestampMicrosecondType, whole),
        FieldKind::Decimal { .. } => primitive!(Decimal128Type, whole),
        FieldKind::Float => primitive!(Float32Type, real),
        FieldKind::Double => primitive!(Float64Type, real),
        FieldKind::Array(_) | FieldKind::Map(_) | FieldKind::Record(_) => return None,
    }
    Some(())
}

/// Values and their numbers.
#[derive(Default)]
pub(super) struct Interner {
    pub(super) values: Vec<Held>,
    null: Option<u32>,
    words: HashTable<(u128, u32)>,
    /// Numbers of the long values.
    longs: HashTable<u32>,
}

impl Interner {
    /// The number of a value, which may be a new one.
    #[inline]
    pub(super) fn number(&mut self, cell: Cell<'_>) -> u32 {
        let next = self.values.len() as u32;
        match cell {
            Cell::Null => *self.null.get_or_insert_with(|| {
                self.values.push(Held::Null);
                next
            }),
            Cell::Word(word) => {
                match self.words.entry(hash(word), |(known, _)| *known == word, |(known, _)| hash(*known)) {
                    Entry::Occupied(known) => known.get().1,
                    Entry::Vacant(slot) => {
                        slot.insert((word, next));
                        self.values.push(Held::Word(word));
                        next
                    }
                }
            }
            Cell::Long(bytes) => {
                let values = &self.values;
                let rehash = |number: &u32| match &values[*number as usize] {
                    Held::Long(bytes) => xxh3_64(bytes),
                    _ => 0,
                };
                match self.longs.entry(xxh3_64(bytes), |number| is_long(values, *number, bytes), rehash) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(slot) => {
                        slot.insert(next);
                        self.values.push(Held::Long(bytes.into()));
                        next
                    }
                }
            }
        }
    }
}

fn is_long(values: &[Held], number: u32, bytes: &[u8]) -> bool {
    matches!(&values[number as usize], Held::Long(known) if **known == *bytes)
}

#[inline]
pub(super) fn hash(word: u128) -> u64 {
    let low = (word as u64) ^ 0x2d35_8dcc_aa6c_78a5;
    let high = ((word >> 64) as u64) ^ 0x8bb8_4b93_962e_acc9;
    let product = u128::from(low) * u128::from(high);
    (product as u64) ^ ((product >> 64) as u64)
}
