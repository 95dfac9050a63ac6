//! The rows of a sealed hour.

use std::sync::Arc;

use arrow_array::builder::{BinaryViewBuilder, FixedSizeBinaryBuilder, StringViewBuilder};
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int32Array,
    Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use tidemill_core::{EventType, Field, FieldKind};

use super::groups::Groups;
use super::interner::{Cell, Held, order, short_bytes};
use super::layers::Table;
use super::plan::Plan;

/// Rows of a batch at most.
const BATCH_ROWS: usize = 8192;

/// Numbers of groups in order of their values.
pub(super) fn in_order(plan: &Plan, of: &Groups) -> Vec<u32> {
    let members = of.members();
    let mut groups: Vec<u32> = (0..of.len() as u32).collect();
    let ranks: Vec<Vec<u32>> =
        plan.groups.iter().enumerate().map(|(at, field)| ranks(&field.kind, of.values(at))).collect();
    groups.sort_unstable_by(|a, b| {
        let rank = |group: &u32| {
            let group = *group as usize;
            ranks.iter().zip(&members).map(move |(ranks, members)| ranks[members[group] as usize])
        };
        rank(a).cmp(rank(b))
    });
    groups
}

/// All groups of a table, in order of their values.
pub(super) fn records(plan: &Plan, output: &EventType, input: &str, start_ms: i64, table: &Table) -> Vec<RecordBatch> {
    let members = table.groups.members();
    let groups = in_order(plan, &table.groups);
    let batch = |groups: &[u32]| {
        let mut types = StringViewBuilder::new();
        groups.iter().for_each(|_| types.append_value(input));
        let hours = TimestampMillisecondArray::from_value(start_ms, groups.len()).with_timezone("UTC");
        let mut columns: Vec<ArrayRef> = vec![Arc::new(hours), Arc::new(types.finish())];
        for (at, field) in plan.groups.iter().enumerate() {
            let values = table.groups.values(at);
            let cells = groups.iter().map(|group| values[members[at][*group as usize] as usize].cell());
            columns.push(column(field, cells));
        }
        for (measure, accumulator) in plan.measures.iter().zip(&table.measures) {
            columns.push(accumulator.column(measure, groups));
        }
        RecordBatch::try_new(output.arrow.clone(), columns).expect("the columns are made after the output type")
    };
    groups.chunks(BATCH_ROWS).map(batch).collect()
}

/// Place of each value in the order of all.
fn ranks(kind: &FieldKind, values: &[Held]) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..values.len() as u32).collect();
    numbers.sort_unstable_by(|a, b| order(kind, &values[*a as usize], &values[*b as usize]));
    let mut ranks = vec![0; values.len()];
    numbers.iter().enumerate().for_each(|(rank, number)| ranks[*number as usize] = rank as u32);
    ranks
}

fn column<'a>(field: &Field, cells: impl Iterator<Item = Cell<'a>>) -> ArrayRef {
    fn words<'a>(cells: impl Iterator<Item = Cell<'a>>) -> impl Iterator<Item = Option<u128>> {
        cells.map(|cell| match cell {
            Cell::Word(word) => Some(word),
            Cell::Null | Cell::Long(_) => None,
        })
    }
    let longs = |word: Option<u128>| word.map(|word| word as i64);
    let ints = |word: Option<u128>| word.map(|word| word as i32);
    let reals = |word: Option<u128>| word.map(|word| f64::from_bits(word as u64));
    match &field.kind {
        FieldKind::Boolean => Arc::new(words(cells).map(|word| Some(word? != 0)).collect::<BooleanArray>()),
        FieldKind::Int => Arc::new(words(cells).map(ints).collect::<Int32Array>()),
        FieldKind::Date => Arc::new(words(cells).map(ints).collect::<Date32Array>()),
        FieldKind::Long => Arc::new(words(cells).map(longs).collect::<Int64Array>()),
        FieldKind::TimestampMillis => {
            Arc::new(words(cells).map(longs).collect::<TimestampMillisecondArray>().with_timezone("UTC"))
        }
        FieldKind::TimestampMicros => {
            Arc::new(words(cells).map(longs).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        FieldKind::Float => {
            Arc::new(words(cells).map(reals).map(|value| Some(value? as f32)).collect::<Float32Array>())
        }
        FieldKind::Double => Arc::new(words(cells).map(reals).collect::<Float64Array>()),
        FieldKind::Decimal { precision, scale, .. } => {
            let array: Decimal128Array = words(cells).map(|word| Some(word? as i128)).collect();
            Arc::new(array.with_precision_and_scale(*precision, *scale).expect("precision and scale of the input type"))
        }
        FieldKind::Enum(symbols) => {
            let codes: Int32Array = words(cells).map(ints).collect();
            let symbols = StringArray::from_iter_values(symbols.iter());
            Arc::new(DictionaryArray::new(codes, Arc::new(symbols)))
        }
        FieldKind::Bytes => {
            let mut builder = BinaryViewBuilder::new();
            for_bytes(cells, |bytes| builder.append_option(bytes));
            Arc::new(builder.finish())
        }
        FieldKind::Fixed(size) => {
            let mut builder = FixedSizeBinaryBuilder::new(i32::try_from(*size).unwrap_or(i32::MAX));
            for_bytes(cells, |bytes| match bytes {
                Some(bytes) => builder.append_value(bytes).expect("the size of the input type"),
                None => builder.append_null(),
            });
            Arc::new(builder.finish())
        }
        FieldKind::String | FieldKind::Uuid => {
            let mut builder = StringViewBuilder::new();
            for_bytes(cells, |bytes| {
                let text = bytes.map(|bytes| std::str::from_utf8(bytes).expect("it came from a column of text"));
                builder.append_option(text);
            });
            Arc::new(builder.finish())
        }
        FieldKind::Array(_) | FieldKind::Map(_) | FieldKind::Record(_) => {
            unreachable!("groups are made of single values")
        }
    }
}

fn for_bytes<'a>(cells: impl Iterator<Item = Cell<'a>>, mut each: impl FnMut(Option<&[u8]>)) {
    cells.for_each(|cell| match cell {
        Cell::Null => each(None),
        Cell::Word(word) => each(Some(short_bytes(&word.to_le_bytes()))),
        Cell::Long(bytes) => each(Some(bytes)),
    });
}
