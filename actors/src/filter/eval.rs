//! Works out a bound expression, a column at a time.
//!
//! SQL's three values are held as two bit maps: rows for which a condition is true, and rows for which it is false.
//! Rows in neither are unknown.

use std::cmp::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch, StringViewArray};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::{DataType, TimeUnit};

use super::parser::Compare;
use super::typed::{Test, Typed};

/// Where a condition holds, and where it does not.
struct Truth {
    yes: BooleanBuffer,
    no: BooleanBuffer,
}

impl Truth {
    fn of(holds: BooleanBuffer, nulls: Option<&NullBuffer>) -> Self {
        match nulls {
            None => Self { no: !&holds, yes: holds },
            Some(nulls) => Self { yes: &holds & nulls.inner(), no: &!&holds & nulls.inner() },
        }
    }

    fn same(len: usize, value: bool) -> Self {
        let (yes, no) = (BooleanBuffer::new_set(len), BooleanBuffer::new_unset(len));
        if value { Self { yes, no } } else { Self { yes: no, no: yes } }
    }
}

/// The column is not of the type that the expression was bound to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {0} is not of its field's type")]
pub(super) struct WrongColumn(usize);

/// Rows of all of `records` for which the condition is true.
pub(super) fn passes(condition: &Typed, records: &RecordBatch) -> Result<BooleanBuffer, WrongColumn> {
    Ok(truth(condition, records)?.yes)
}

fn truth(condition: &Typed, records: &RecordBatch) -> Result<Truth, WrongColumn> {
    let len = records.num_rows();
    Ok(match condition {
        Typed::Constant(value) => Truth::same(len, *value),
        Typed::Not(inner) => {
            let Truth { yes, no } = truth(inner, records)?;
            Truth { yes: no, no: yes }
        }
        Typed::And(parts) => {
            let mut all = Truth::same(len, true);
            for part in parts {
                let part = truth(part, records)?;
                all = Truth { yes: &all.yes & &part.yes, no: &all.no | &part.no };
            }
            all
        }
        Typed::Or(parts) => {
            let mut any = Truth::same(len, false);
            for part in parts {
                let part = truth(part, records)?;
                any = Truth { yes: &any.yes | &part.yes, no: &any.no & &part.no };
            }
            any
        }
        Typed::IsNull { column, negated } => match records.column(*column).logical_nulls() {
            None => Truth::same(len, *negated),
            Some(nulls) => {
                let valid = nulls.into_inner();
                let null = !&valid;
                if *negated { Truth { yes: valid, no: null } } else { Truth { yes: null, no: valid } }
            }
        },
        Typed::Test { column, test } => {
            let array = records.column(*column);
            Truth::of(holds(array, test).ok_or(WrongColumn(*column))?, array.logical_nulls().as_ref())
        }
        Typed::Columns { left, op, right } => {
            let (first, second) = (records.column(*left), records.column(*right));
            let (a, b) = (Cells::of(first).ok_or(WrongColumn(*left))?, Cells::of(second).ok_or(WrongColumn(*right))?);
            let nulls = NullBuffer::union(first.logical_nulls().as_ref(), second.logical_nulls().as_ref());
            // What lies under a null is not looked at: an enum's code need not be one.
            let holds = BooleanBuffer::collect_bool(len, |row| {
                nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                    && a.order(&b, row).map_or(*op == Compare::NotEqual, |order| op.holds(order))
            });
            Truth::of(holds, nulls.as_ref())
        }
    })
}

/// The test of every value, nulls not looked at. `None` when the column is not what the test is for.
fn holds(array: &ArrayRef, test: &Test) -> Option<BooleanBuffer> {
    let len = array.len();
    Some(match test {
        Test::Fixed(value) => {
            if *value {
                BooleanBuffer::new_set(len)
            } else {
                BooleanBuffer::new_unset(len)
            }
        }
        Test::Whole { op, value } => match array.data_type() {
            DataType::Int32 => whole::<Int32Type>(array, *op, *value)?,
            DataType::Int64 => whole::<Int64Type>(array, *op, *value)?,
            DataType::Date32 => whole::<Date32Type>(array, *op, *value)?,
            DataType::Timestamp(TimeUnit::Millisecond, _) => whole::<TimestampMillisecondType>(array, *op, *value)?,
            _ => whole::<TimestampMicrosecondType>(array, *op, *value)?,
        },
        Test::WholeIn(values) => match array.data_type() {
            DataType::Int32 => any_of::<Int32Type, i64>(array, values)?,
            DataType::Int64 => any_of::<Int64Type, i64>(array, values)?,
            DataType::Date32 => any_of::<Date32Type, i64>(array, values)?,
            DataType::Timestamp(TimeUnit::Millisecond, _) => any_of::<TimestampMillisecondType, i64>(array, values)?,
            _ => any_of::<TimestampMicrosecondType, i64>(array, values)?,
        },
        Test::Real { op, value } => match array.data_type() {
            DataType::Float32 => real::<Float32Type>(array, *op, *value)?,
            _ => real::<Float64Type>(array, *op, *value)?,
        },
        Test::RealIn(values) => match array.data_type() {
            DataType::Float32 => any_of::<Float32Type, f64>(array, values)?,
            _ => any_of::<Float64Type, f64>(array, values)?,
        },
        Test::Text { op, value } => text(array.as_string_view_opt()?, *op, value),
        Test::TextIn(values) => {
            let array = array.as_string_view_opt()?;
            BooleanBuffer::collect_bool(len, |row| values.iter().any(|value| array.value(row) == value))
        }
        Test::Symbols(pass) => {
            let codes = array.as_dictionary_opt::<Int32Type>()?.keys().values();
            // The code of a null may be anything.
            BooleanBuffer::collect_bool(len, |row| {
                usize::try_from(codes[row]).ok().and_then(|code| pass.get(code).copied()).unwrap_or(false)
            })
        }
        Test::Boolean(wanted) => {
            let values = array.as_boolean_opt()?.values();
            if *wanted { values.clone() } else { !values }
        }
    })
}

/// One loop for each comparison, so that each becomes vector code.
fn compare<T: Copy + PartialOrd>(len: usize, op: Compare, value: T, at: impl Fn(usize) -> T) -> BooleanBuffer {
    match op {
        Compare::Equal => BooleanBuffer::collect_bool(len, |row| at(row) == value),
        Compare::NotEqual => BooleanBuffer::collect_bool(len, |row| at(row) != value),
        Compare::Less => BooleanBuffer::collect_bool(len, |row| at(row) < value),
        Compare::LessOrEqual => BooleanBuffer::collect_bool(len, |row| at(row) <= value),
        Compare::Greater => BooleanBuffer::collect_bool(len, |row| at(row) > value),
        Compare::GreaterOrEqual => BooleanBuffer::collect_bool(len, |row| at(row) >= value),
    }
}

fn whole<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &ArrayRef, op: Compare, value: i64) -> Option<BooleanBuffer> {
    let values = array.as_primitive_opt::<T>()?.values();
    Some(compare(values.len(), op, value, |row| values[row].into()))
}

fn real<T: ArrowPrimitiveType<Native: Into<f64>>>(array: &ArrayRef, op: Compare, value: f64) -> Option<BooleanBuffer> {
    let values = array.as_primitive_opt::<T>()?.values();
    Some(compare(values.len(), op, value, |row| values[row].into()))
}

fn any_of<T: ArrowPrimitiveType<Native: Into<V>>, V: PartialEq>(
    array: &ArrayRef,
    wanted: &[V],
) -> Option<BooleanBuffer> {
    let values = array.as_primitive_opt::<T>()?.values();
    Some(BooleanBuffer::collect_bool(values.len(), |row| wanted.contains(&values[row].into())))
}

fn text(array: &StringViewArray, op: Compare, value: &str) -> BooleanBuffer {
    let views = array.views();
    // A text of up to 12 bytes is all in its view, so that one comparison of 16 bytes does.
    let short = (value.len() <= 12).then(|| {
        let mut view = [0; 16];
        view[..4].copy_from_slice(&(value.len() as u32).to_le_bytes());
        view[4..4 + value.len()].copy_from_slice(value.as_bytes());
        u128::from_le_bytes(view)
    });
    match (op, short) {
        (Compare::Equal, Some(short)) => BooleanBuffer::collect_bool(views.len(), |row| views[row] == short),
        (Compare::NotEqual, Some(short)) => BooleanBuffer::collect_bool(views.len(), |row| views[row] != short),
        _ => compare(views.len(), op, value, |row| array.value(row)),
    }
}

/// A column whose values are compared with those of another.
enum Cells<'a> {
    Int(&'a [i32]),
    Long(&'a [i64]),
    Float(&'a [f32]),
    Double(&'a [f64]),
    /// Microseconds in a unit.
    Time(&'a [i64], i128),
    Text(&'a StringViewArray),
    Symbols(&'a [i32], &'a arrow_array::StringArray),
    Boolean(&'a BooleanBuffer),
}

/// One value.
enum Cell<'a> {
    Whole(i128),
    Real(f64),
    Text(&'a str),
    Boolean(bool),
}

impl<'a> Cells<'a> {
    fn of(array: &'a ArrayRef) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Int32 => Self::Int(array.as_primitive::<Int32Type>().values()),
            DataType::Date32 => Self::Int(array.as_primitive::<Date32Type>().values()),
            DataType::Int64 => Self::Long(array.as_primitive::<Int64Type>().values()),
            DataType::Float32 => Self::Float(array.as_primitive::<Float32Type>().values()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>().values()),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Self::Time(array.as_primitive::<TimestampMillisecondType>().values(), 1_000)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Time(array.as_primitive::<TimestampMicrosecondType>().values(), 1)
            }
            DataType::Utf8View => Self::Text(array.as_string_view()),
            DataType::Boolean => Self::Boolean(array.as_boolean().values()),
            _ => {
                let dictionary = array.as_dictionary_opt::<Int32Type>()?;
                Self::Symbols(dictionary.keys().values(), dictionary.values().as_string_opt()?)
            }
        })
    }

    fn cell(&self, row: usize) -> Cell<'a> {
        match self {
            Self::Int(values) => Cell::Whole(values[row].into()),
            Self::Long(values) => Cell::Whole(values[row].into()),
            Self::Float(values) => Cell::Real(values[row].into()),
            Self::Double(values) => Cell::Real(values[row]),
            Self::Time(values, unit) => Cell::Whole(i128::from(values[row]) * unit),
            Self::Text(array) => Cell::Text(array.value(row)),
            Self::Symbols(codes, symbols) => Cell::Text(symbols.value(codes[row] as usize)),
            Self::Boolean(values) => Cell::Boolean(values.value(row)),
        }
    }

    fn order(&self, other: &Self, row: usize) -> Option<Ordering> {
        match (self.cell(row), other.cell(row)) {
            (Cell::Whole(a), Cell::Whole(b)) => Some(a.cmp(&b)),
            (Cell::Real(a), Cell::Real(b)) => a.partial_cmp(&b),
            (Cell::Whole(a), Cell::Real(b)) => whole_and_real(a, b),
            (Cell::Real(a), Cell::Whole(b)) => whole_and_real(b, a).map(Ordering::reverse),
            (Cell::Text(a), Cell::Text(b)) => Some(a.cmp(b)),
            (Cell::Boolean(a), Cell::Boolean(b)) => Some(a.cmp(&b)),
            _ => None,
        }
    }
}

/// Exact, other than by making the whole number a double. `None` for NaN.
fn whole_and_real(whole: i128, real: f64) -> Option<Ordering> {
    if real.is_nan() {
        return None;
    }
    let floor = real.floor();
    Some(whole.cmp(&(floor as i128)).then(if floor < real { Ordering::Less } else { Ordering::Equal }))
}
