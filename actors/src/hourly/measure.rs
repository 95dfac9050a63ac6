//! What is counted for each group: one vector a measure, one entry a group.
//!
//! Nulls are left out, as in SQL. A sum of whole numbers is kept in 128 bits, which can't overflow, and saturates at the ends
//! of a long when it is written; one of decimals in 192 bits, and saturates at 38 digits. Those of floats are exact
//! (`exact`). NaN is greater than every number.

use std::cmp::Ordering::{Greater, Less};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType,
};
use arrow_array::{
    Array, ArrayRef, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    TimestampMicrosecondArray, TimestampMillisecondArray,
};
use datasketches::hash::value::raw_bytes;
use datasketches::hll::{HllSketch, HllType, HllUnion};
use serde::{Deserialize, Serialize};
use tidemill_core::{Field, FieldKind};

use super::exact::ExactSum;
use super::interner::{Cell, for_cells};
use super::plan::{Function, Measure};

/// Registers of a sketch are 2 to the power of this: a standard error of 1.04 / sqrt(4096), 1.6 %.
const SKETCH_SIZE: u8 = 12;

/// A measure of all groups of an hour.
pub(super) enum Accumulator {
    Count(Vec<u64>),
    /// Sum, and number of values that are not null.
    Whole(Vec<(i128, u64)>),
    Real(Vec<(ExactSum, u64)>),
    Decimal(Vec<(DecimalSum, u64)>),
    WholeExtreme {
        greatest: bool,
        values: Vec<Option<i64>>,
    },
    RealExtreme {
        greatest: bool,
        values: Vec<Option<f64>>,
    },
    DecimalExtreme {
        greatest: bool,
        values: Vec<Option<i128>>,
    },
    Distinct(Vec<HllSketch>),
}

/// What two sketches have seen together.
fn union(known: &HllSketch, more: HllSketch) -> Option<HllSketch> {
    if known.is_empty() {
        return Some(more);
    }
    let mut union = HllUnion::new(SKETCH_SIZE).ok()?;
    union.update(known);
    union.update(&more);
    Some(union.to_sketch(HllType::Hll6))
}

impl Accumulator {
    pub(super) fn new(measure: &Measure) -> Self {
        let real = measure.of.as_ref().is_some_and(|field| matches!(field.kind, FieldKind::Float | FieldKind::Double));
        let decimal = measure.of.as_ref().is_some_and(|field| matches!(field.kind, FieldKind::Decimal { .. }));
        let greatest = measure.function == Function::Max;
        match measure.function {
            Function::Count => Self::Count(Vec::new()),
            Function::Distinct => Self::Distinct(Vec::new()),
            Function::Sum | Function::Mean if real => Self::Real(Vec::new()),
            Function::Sum | Function::Mean if decimal => Self::Decimal(Vec::new()),
            Function::Sum | Function::Mean => Self::Whole(Vec::new()),
            Function::Min | Function::Max if decimal => Self::DecimalExtreme { greatest, values: Vec::new() },
            Function::Min | Function::Max if real => Self::RealExtreme { greatest, values: Vec::new() },
            Function::Min | Function::Max => Self::WholeExtreme { greatest, values: Vec::new() },
        }
    }

    /// Takes the rows in, `groups` being the group of each and `len` the number of groups there are now.
    /// `None` when the column is not of its field's kind.
    pub(super) fn add(
        &mut self,
        of: Option<(&Field, &ArrayRef)>,
        rows: &[u32],
        groups: &[u32],
        len: usize,
    ) -> Option<()> {
        match (self, of) {
            (Self::Count(counts), _) => {
                counts.resize(len, 0);
                groups.iter().for_each(|group| counts[*group as usize] += 1);
            }
            (Self::Whole(sums), Some((_, array))) => {
                sums.resize(len, (0, 0));
                for_whole(array, rows, groups, |group, value| {
                    let sum = &mut sums[group];
                    *sum = (sum.0 + i128::from(value), sum.1 + 1);
                })?;
            }
            (Self::Real(sums), Some((_, array))) => {
                sums.resize(len, Default::default());
                for_real(array, rows, groups, |group, value| {
                    let (sum, count) = &mut sums[group];
                    sum.add(value);
                    *count += 1;
                })?;
            }
            (Self::Decimal(sums), Some((_, array))) => {
                sums.resize(len, Default::default());
                for_values::<Decimal128Type, i128>(array, rows, groups, |group, value| {
                    let (sum, count) = &mut sums[group];
                    sum.add(value);
                    *count += 1;
                })?;
            }
            (Self::DecimalExtreme { greatest, values }, Some((_, array))) => {
                values.resize(len, None);
                let greatest = *greatest;
                let each = |group: usize, value| keep(&mut values[group], value, greatest);
                for_values::<Decimal128Type, i128>(array, rows, groups, each)?;
            }
            (Self::WholeExtreme { greatest, values }, Some((_, array))) => {
                values.resize(len, None);
                let greatest = *greatest;
                for_whole(array, rows, groups, |group, value| keep(&mut values[group], value, greatest))?;
            }
            (Self::RealExtreme { greatest, values }, Some((_, array))) => {
                values.resize(len, None);
                let greatest = *greatest;
                for_real(array, rows, groups, |group, value| keep_real(&mut values[group], value, greatest))?;
            }
            (Self::Distinct(sketches), Some((field, array))) => {
                while sketches.len() < len {
                    sketches.push(HllSketch::new(SKETCH_SIZE, HllType::Hll6).ok()?);
                }
                add_distinct(sketches, (field, array), rows, groups)?;
            }
            (_, None) => return None,
        }
        Some(())
    }

    /// Appends what is held of a group, for [`merge`](Self::merge).
    pub(super) fn encode(&self, group: usize, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
        let taken = std::mem::take(out);
        *out = match self {
            Self::Count(counts) => postcard::to_extend(&counts[group], taken),
            Self::Whole(sums) => postcard::to_extend(&sums[group], taken),
            Self::Real(sums) => postcard::to_extend(&sums[group], taken),
            Self::Decimal(sums) => postcard::to_extend(&sums[group], taken),
            Self::WholeExtreme { values, .. } => postcard::to_extend(&values[group], taken),
            Self::RealExtreme { values, .. } => postcard::to_extend(&values[group], taken),
            Self::DecimalExtreme { values, .. } => postcard::to_extend(&values[group], taken),
            Self::Distinct(sketches) => postcard::to_extend(&sketches[group].serialize(), taken),
        }?;
        Ok(())
    }

    /// Adds what was held of a group elsewhere to one that may be new, and returns the bytes behind it. The same as if
    /// the
    /// values themselves were added. `None` when the bytes are not of this measure.
    pub(super) fn merge<'b>(&mut self, group: usize, bytes: &'b [u8]) -> Option<&'b [u8]> {
        fn slot<T: Default>(of: &mut Vec<T>, group: usize) -> &mut T {
            if of.len() <= group {
                of.resize_with(group + 1, T::default);
            }
            &mut of[group]
        }
        match self {
            Self::Count(counts) => {
                let (count, rest): (u64, _) = postcard::take_from_bytes(bytes).ok()?;
                *slot(counts, group) += count;
                Some(rest)
            }
            Self::Whole(sums) => {
                let ((sum, count), rest): ((i128, u64), _) = postcard::take_from_bytes(bytes).ok()?;
                let known = slot(sums, group);
                *known = (known.0 + sum, known.1 + count);
                Some(rest)
            }
            Self::Real(sums) => {
                let ((sum, count), rest): ((ExactSum, u64), _) = postcard::take_from_bytes(bytes).ok()?;
                let known = slot(sums, group);
                known.0.merge(sum);
                known.1 += count;
                Some(rest)
            }
            Self::Decimal(sums) => {
                let ((sum, count), rest): ((DecimalSum, u64), _) = postcard::take_from_bytes(bytes).ok()?;
                let known = slot(sums, group);
                known.0.merge(sum);
                known.1 += count;
                Some(rest)
            }
            Self::WholeExtreme { greatest, values } => {
                let (value, rest): (Option<i64>, _) = postcard::take_from_bytes(bytes).ok()?;
                let known = slot(values, group);
                value.into_iter().for_each(|value| keep(known, value, *greatest));
                Some(rest)
            }
            Self::DecimalExtreme { greatest, values } => {
                let (value, rest): (Option<i128>, _) = postcard::take_from_bytes(bytes).ok()?;
                let known = slot(values, group);
                value.into_iter().for_each(|value| keep(known, value, *greatest));
                Some(rest)
            }
            Self::RealExtreme { greatest, values } => {
                let (value, rest): (Option<f64>, _) = postcard::take_from_bytes(bytes).ok()?;
                let known = slot(values, group);
                value.into_iter().for_each(|value| keep_real(known, value, *greatest));
                Some(rest)
            }
            Self::Distinct(sketches) => {
                let (sketch, rest): (Vec<u8>, _) = postcard::take_from_bytes(bytes).ok()?;
                while sketches.len() <= group {
                    sketches.push(HllSketch::new(SKETCH_SIZE, HllType::Hll6).ok()?);
                }
                sketches[group] = union(&sketches[group], HllSketch::deserialize(&sketch).ok()?)?;
                Some(rest)
            }
        }
    }

    /// The values of these groups as a column of the output type.
    pub(super) fn column(&self, measure: &Measure, groups: &[u32]) -> ArrayRef {
        let groups = groups.iter().map(|group| *group as usize);
        let kind = measure.of.as_ref().map(|field| &field.kind);
        match self {
            Self::Count(counts) => Arc::new(Int64Array::from_iter_values(groups.map(|group| counts[group] as i64))),
            Self::Distinct(sketches) => {
                // The estimate that does not depend on the order of the values.
                let estimate = |group: usize| sketches[group].composite_estimate().round() as i64;
                Arc::new(Int64Array::from_iter_values(groups.map(estimate)))
            }
            Self::Whole(sums) if measure.function == Function::Mean => {
                let mean = |(sum, count): (i128, u64)| (count > 0).then(|| sum as f64 / count as f64);
                Arc::new(groups.map(|group| mean(sums[group])).collect::<Float64Array>())
            }
            Self::Whole(sums) => {
                let sum =
                    |(sum, count): (i128, u64)| (count > 0).then(|| sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
                Arc::new(groups.map(|group| sum(sums[group])).collect::<Int64Array>())
            }
            Self::Real(sums) => {
                let mean = measure.function == Function::Mean;
                let value = |(sum, count): &(ExactSum, u64)| match *count {
                    0 => None,
                    count => Some(sum.over(if mean { count } else { 1 })),
                };
                Arc::new(groups.map(|group| value(&sums[group])).collect::<Float64Array>())
            }
            Self::Decimal(sums) if measure.function == Function::Mean => {
                let scale = match kind {
                    Some(FieldKind::Decimal { scale, .. }) => i32::from(*scale),
                    _ => 0,
                };
                let mean = |(sum, count): &(DecimalSum, u64)| (*count > 0).then(|| sum.over(*count, scale));
                Arc::new(groups.map(|group| mean(&sums[group])).collect::<Float64Array>())
            }
            Self::Decimal(sums) => {
                let sum = |(sum, count): &(DecimalSum, u64)| (*count > 0).then(|| sum.saturated());
                decimals(groups.map(|group| sum(&sums[group])), kind, Some(DECIMAL_DIGITS))
            }
            Self::DecimalExtreme { values, .. } => decimals(groups.map(|group| values[group]), kind, None),
            Self::WholeExtreme { values, .. } => {
                let values = groups.map(|group| values[group]);
                match kind {
                    Some(FieldKind::Int) => Arc::new(values.map(|value| Some(value? as i32)).collect::<Int32Array>()),
                    Some(FieldKind::Date) => Arc::new(values.map(|value| Some(value? as i32)).collect::<Date32Array>()),
                    Some(FieldKind::TimestampMillis) => {
                        Arc::new(values.collect::<TimestampMillisecondArray>().with_timezone("UTC"))
                    }
                    Some(FieldKind::TimestampMicros) => {
                        Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
                    }
                    _ => Arc::new(values.collect::<Int64Array>()),
                }
            }
            Self::RealExtreme { values, .. } => {
                let values = groups.map(|group| values[group]);
                match kind {
                    Some(FieldKind::Float) => {
                        Arc::new(values.map(|value| Some(value? as f32)).collect::<Float32Array>())
                    }
                    _ => Arc::new(values.collect::<Float64Array>()),
                }
            }
        }
    }
}

/// Keeps the greater of two values, or the less.
fn keep<T: Copy + PartialOrd>(held: &mut Option<T>, value: T, greatest: bool) {
    if held.is_none_or(|held| if greatest { value > held } else { value < held }) {
        *held = Some(value);
    }
}

/// The same of floats, NaN being greater than every number.
fn keep_real(held: &mut Option<f64>, value: f64, greatest: bool) {
    let value = if value.is_nan() { f64::NAN } else { value };
    let better = |held: f64| value.total_cmp(&held) == if greatest { Greater } else { Less };
    if held.is_none_or(better) {
        *held = Some(value);
    }
}

fn add_distinct(
    sketches: &mut [HllSketch],
    (field, array): (&Field, &ArrayRef),
    rows: &[u32],
    groups: &[u32],
) -> Option<()> {
    let mut groups = groups.iter();
    for_cells(array, &field.kind, rows, |cell| {
        let Some(group) = groups.next() else { return };
        let sketch = &mut sketches[*group as usize];
        match cell {
            Cell::Null => {}
            Cell::Word(word) => sketch.update(raw_bytes::from_slice(&word.to_le_bytes())),
            Cell::Long(bytes) => sketch.update(raw_bytes::from_slice(bytes)),
        }
    })
}

/// Digits of a sum of decimals.
pub(super) const DECIMAL_DIGITS: u8 = 38;
/// The greatest number of so many digits.
const DECIMAL_MAX: i128 = 10_i128.pow(DECIMAL_DIGITS as u32) - 1;

/// A sum of decimals, as a number of their last digit: `high` times 2^64, and `low`. Neither overflows before 2^63
/// values.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct DecimalSum {
    high: i128,
    low: i128,
}

impl DecimalSum {
    fn merge(&mut self, other: Self) {
        self.high += other.high;
        self.low += other.low;
    }

    fn add(&mut self, value: i128) {
        self.high += value >> 64;
        self.low += value & i128::from(u64::MAX);
    }

    /// The sum, when 128 bits have room for it; otherwise what is above the last 64 bits.
    fn whole(self) -> Result<i128, i128> {
        let high = self.high + (self.low >> 64);
        let low = self.low & i128::from(u64::MAX);
        i64::try_from(high).map(|high| i128::from(high) << 64 | low).map_err(|_| high)
    }

    /// The sum, or the greatest or least number that has room for it.
    fn saturated(self) -> i128 {
        match self.whole() {
            Ok(sum) => sum.clamp(-DECIMAL_MAX, DECIMAL_MAX),
            Err(high) if high < 0 => -DECIMAL_MAX,
            Err(_) => DECIMAL_MAX,
        }
    }

    fn over(self, count: u64, scale: i32) -> f64 {
        let sum = self.whole().map_or_else(|high| high as f64 * 2_f64.powi(64), |sum| sum as f64);
        sum / (count as f64 * 10_f64.powi(scale))
    }
}

/// A column of decimals, of their field's precision unless it is said.
fn decimals(values: impl Iterator<Item = Option<i128>>, kind: Option<&FieldKind>, digits: Option<u8>) -> ArrayRef {
    let (precision, scale) = match kind {
        Some(FieldKind::Decimal { precision, scale, .. }) => (*precision, *scale),
        _ => (DECIMAL_DIGITS, 0),
    };
    let array: Decimal128Array = values.collect();
    let array = array.with_precision_and_scale(digits.unwrap_or(precision), scale);
    Arc::new(array.expect("precision and scale of the input type"))
}

fn for_whole(array: &ArrayRef, rows: &[u32], groups: &[u32], each: impl FnMut(usize, i64)) -> Option<()> {
    use arrow_schema::{DataType, TimeUnit};
    match array.data_type() {
        DataType::Int32 => for_values::<Int32Type, i64>(array, rows, groups, each),
        DataType::Date32 => for_values::<Date32Type, i64>(array, rows, groups, each),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            for_values::<TimestampMillisecondType, i64>(array, rows, groups, each)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            for_values::<TimestampMicrosecondType, i64>(array, rows, groups, each)
        }
        _ => for_values::<Int64Type, i64>(array, rows, groups, each),
    }
}

fn for_real(array: &ArrayRef, rows: &[u32], groups: &[u32], each: impl FnMut(usize, f64)) -> Option<()> {
    match array.data_type() {
        arrow_schema::DataType::Float32 => for_values::<Float32Type, f64>(array, rows, groups, each),
        _ => for_values::<Float64Type, f64>(array, rows, groups, each),
    }
}

fn for_values<T: ArrowPrimitiveType<Native: Into<V>>, V>(
    array: &ArrayRef,
    rows: &[u32],
    groups: &[u32],
    mut each: impl FnMut(usize, V),
) -> Option<()> {
    let array = array.as_primitive_opt::<T>()?;
    let values = array.values();
    let pairs = rows.iter().map(|row| *row as usize).zip(groups.iter().map(|group| *group as usize));
    match array.nulls() {
        None => pairs.for_each(|(row, group)| each(group, values[row].into())),
        Some(nulls) => {
            pairs.filter(|(row, _)| nulls.is_valid(*row)).for_each(|(row, group)| each(group, values[row].into()));
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_decimals_is_exact_in_any_order_and_saturates() {
        let sum = |values: &[i128]| {
            let mut sum = DecimalSum::default();
            values.iter().for_each(|value| sum.add(*value));
            sum
        };
        assert_eq!(sum(&[-1, 1_250, 999_999]).saturated(), 1_001_248);
        assert_eq!(sum(&[-1, 1]).saturated(), 0);
        assert_eq!(sum(&[DECIMAL_MAX; 1_000]).saturated(), DECIMAL_MAX);
        assert_eq!(sum(&[-DECIMAL_MAX; 1_000]).saturated(), -DECIMAL_MAX);
        let mut over = vec![DECIMAL_MAX; 1_000];
        over.extend([-DECIMAL_MAX; 999]);
        assert_eq!(sum(&over).saturated(), DECIMAL_MAX);
        assert_eq!(sum(&[-1, 1_250]).over(2, 2), 6.245);
        assert_eq!(sum(&[DECIMAL_MAX; 1_000]).over(1_000, 38), 1.0);
    }
}
