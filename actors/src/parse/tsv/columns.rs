//! The second pass: one column of one type at a time, from text to Arrow.

use std::sync::Arc;

use arrow_array::builder::BinaryViewBuilder;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType,
};
use arrow_array::{ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, PrimitiveArray, new_null_array};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, NullBufferBuilder};
use arrow_schema::ArrowError;
use tidemill_core::{FieldKind, Reason};

use super::layout::FieldLayout;
use super::nulls::Nulls;
use crate::parse::fault::{EventTimes, Fault, expected};
use crate::parse::time::{self, NoTime, TimeForm, Unit};
use crate::parse::value;
use crate::parse::views::{TextBuffer, TextViews};

/// The lines of one type.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) text: &'a TextBuffer,
    pub(super) ends: &'a [u32],
    pub(super) firsts: &'a [u32],
    /// Columns of a line.
    pub(super) width: usize,
}

impl Lines<'_> {
    /// Where `column` of the line with that first end is. A carriage return at the end of the line is no part of it.
    #[inline]
    fn span(&self, first: u32, column: usize) -> (usize, usize) {
        let at = first as usize + column;
        let (start, end) = (self.ends[at - 1].wrapping_add(1) as usize, self.ends[at] as usize);
        let returned = column + 1 == self.width && end > start && self.bytes[end - 1] == b'\r';
        (start, end - usize::from(returned))
    }

    /// Where a line is in the bytes: offset and length.
    #[inline]
    pub(super) fn line(&self, first: u32) -> (u32, u32) {
        let start = self.ends[first as usize - 1].wrapping_add(1);
        let (_, end) = self.span(first, self.width - 1);
        (start, end as u32 - start)
    }
}

/// Rows with a fault: the first fault of each.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Empty as long as there are none, else one a row.
    marked: Vec<bool>,
    pub(super) found: Vec<(usize, Fault)>,
}

impl Faults {
    #[cold]
    pub(super) fn add(&mut self, row: usize, rows: usize, fault: Fault) {
        self.marked.resize(rows, false);
        if !std::mem::replace(&mut self.marked[row], true) {
            self.found.push((row, fault));
        }
    }

    pub(super) fn has(&self, row: usize) -> bool {
        self.marked.get(row).copied().unwrap_or(false)
    }
}

/// What columns are made with.
pub(super) struct Builder<'a> {
    pub(super) lines: Lines<'a>,
    pub(super) nulls: &'a Nulls,
    pub(super) form: TimeForm,
    pub(super) faults: Faults,
}

impl Builder<'_> {
    /// The column of a field; `event_time` is given for the type's time field.
    pub(super) fn column(
        &mut self,
        layout: &FieldLayout,
        event_time: Option<EventTimes>,
    ) -> Result<ArrayRef, ArrowError> {
        let Some(column) = layout.column else {
            return Ok(new_null_array(&layout.data_type, self.lines.firsts.len()));
        };
        let plain = |value: Option<_>| value.ok_or(Reason::BadValue);
        Ok(match &layout.field.kind {
            FieldKind::Int => {
                self.primitive::<Int32Type>(layout, column, |text| value::int(text).ok_or(Reason::BadValue))
            }
            FieldKind::Long => {
                self.primitive::<Int64Type>(layout, column, |text| value::long(text).ok_or(Reason::BadValue))
            }
            FieldKind::Float => {
                self.primitive::<Float32Type>(layout, column, |text| value::float(text).ok_or(Reason::BadValue))
            }
            FieldKind::Double => {
                self.primitive::<Float64Type>(layout, column, |text| value::double(text).ok_or(Reason::BadValue))
            }
            FieldKind::Date => self.primitive::<Date32Type>(layout, column, |text| plain(time::date(text))),
            FieldKind::Decimal { precision, scale, .. } => {
                let parse = |text: &[u8]| value::decimal(text, *precision, *scale).ok_or(Reason::BadValue);
                self.primitive::<Decimal128Type>(layout, column, parse)
            }
            FieldKind::TimestampMillis => {
                self.times::<TimestampMillisecondType>(layout, column, Unit::Millis, event_time)
            }
            FieldKind::TimestampMicros => {
                self.times::<TimestampMicrosecondType>(layout, column, Unit::Micros, event_time)
            }
            FieldKind::Boolean => {
                let (values, nulls) = self.values(layout, column, |text| value::boolean(text).ok_or(Reason::BadValue));
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            FieldKind::String => self.texts(layout, column, |_| true),
            FieldKind::Uuid => self.texts(layout, column, value::is_uuid),
            FieldKind::Enum(_) => self.symbols(layout, column)?,
            FieldKind::Bytes => self.bytes(layout, column),
            FieldKind::Fixed(size) => self.fixed(layout, column, *size)?,
            kind @ (FieldKind::Array(_) | FieldKind::Map(_) | FieldKind::Record(_)) => {
                let message = format!("field `{}` is {}", layout.field.name, expected(kind, self.form));
                return Err(ArrowError::ParseError(message));
            }
        })
    }

    /// Calls `each` with every row of a column: its span, or `None` for null.
    #[inline]
    fn each(
        &mut self,
        layout: &FieldLayout,
        column: usize,
        mut each: impl FnMut(Option<(usize, usize)>) -> Result<(), Reason>,
    ) -> Option<NullBuffer> {
        let lines = self.lines;
        let rows = lines.firsts.len();
        let mut fail = |row: usize, (start, end): (usize, usize), reason| {
            let fault = bad_value(layout, reason, &lines.bytes[start..end]);
            self.faults.add(row, rows, fault);
        };
        if !layout.field.is_nullable() {
            for (row, first) in lines.firsts.iter().enumerate() {
                let span = lines.span(*first, column);
                if let Err(reason) = each(Some(span)) {
                    fail(row, span, reason);
                }
            }
            return None;
        }
        let empty_is_null = layout.field.kind != FieldKind::String;
        let mut valid = NullBufferBuilder::new(rows);
        for (row, first) in lines.firsts.iter().enumerate() {
            let span = lines.span(*first, column);
            let text = &lines.bytes[span.0..span.1];
            let null = text.is_empty() && empty_is_null || self.nulls.are(text);
            valid.append(!null);
            if let Err(reason) = each((!null).then_some(span)) {
                fail(row, span, reason);
            }
        }
        valid.finish()
    }

    /// The values of a column; 0 or the like in rows that are null or at fault.
    #[inline]
    fn values<T: Copy + Default>(
        &mut self,
        layout: &FieldLayout,
        column: usize,
        parse: impl Fn(&[u8]) -> Result<T, Reason>,
    ) -> (Vec<T>, Option<NullBuffer>) {
        let bytes = self.lines.bytes;
        let mut values = Vec::with_capacity(self.lines.firsts.len());
        let nulls = self.each(layout, column, |span| {
            let value = span.map_or(Ok(T::default()), |(start, end)| parse(&bytes[start..end]));
            values.push(value.unwrap_or_default());
            value.map(|_| ())
        });
        (values, nulls)
    }

    fn primitive<T: ArrowPrimitiveType>(
        &mut self,
        layout: &FieldLayout,
        column: usize,
        parse: impl Fn(&[u8]) -> Result<T::Native, Reason>,
    ) -> ArrayRef {
        let (values, nulls) = self.values(layout, column, parse);
        Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(layout.data_type.clone()))
    }

    fn times<T: ArrowPrimitiveType<Native = i64>>(
        &mut self,
        layout: &FieldLayout,
        column: usize,
        unit: Unit,
        event_time: Option<EventTimes>,
    ) -> ArrayRef {
        let form = self.form;
        let too_far = if event_time.is_some() { Reason::TimeOutOfRange } else { Reason::BadValue };
        let reason = |error| if error == NoTime::Range { too_far } else { Reason::BadValue };
        // The form is the same for all rows: decided here, the loop over them needs no branch on it.
        let (values, nulls) = match form {
            TimeForm::Iso8601 => {
                self.values(layout, column, |text| TimeForm::Iso8601.parse(text, unit).map_err(reason))
            }
            form => self.values(layout, column, |text| form.parse(text, unit).map_err(reason)),
        };
        if let Some(times) = event_time {
            for (row, value) in values.iter().enumerate() {
                let ms = unit.to_ms(*value);
                if !times.takes(ms) {
                    self.faults.add(row, values.len(), times.fault(&layout.field.name, ms));
                }
            }
        }
        Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(layout.data_type.clone()))
    }

    fn texts(&mut self, layout: &FieldLayout, column: usize, check: impl Fn(&[u8]) -> bool) -> ArrayRef {
        let bytes = self.lines.bytes;
        let mut views = TextViews::with_capacity(self.lines.text, self.lines.firsts.len());
        let nulls = self.each(layout, column, |span| {
            if let Some((start, end)) = span {
                if check(&bytes[start..end]) && views.push(start, end) {
                    return Ok(());
                }
                views.push_empty();
                return Err(Reason::BadValue);
            }
            views.push_empty();
            Ok(())
        });
        Arc::new(views.finish(nulls))
    }

    fn symbols(&mut self, layout: &FieldLayout, column: usize) -> Result<ArrayRef, ArrowError> {
        let Some(symbols) = &layout.symbols else {
            return Err(ArrowError::ParseError(format!("field `{}` has no symbols", layout.field.name)));
        };
        let find = |text: &[u8]| symbols.names.find(text).map(|number| number as i32).ok_or(Reason::BadValue);
        let (keys, nulls) = self.values(layout, column, find);
        let keys = PrimitiveArray::<Int32Type>::new(keys.into(), nulls);
        Ok(Arc::new(DictionaryArray::try_new(keys, symbols.dictionary.clone())?))
    }

    fn bytes(&mut self, layout: &FieldLayout, column: usize) -> ArrayRef {
        let bytes = self.lines.bytes;
        let mut values = BinaryViewBuilder::with_capacity(self.lines.firsts.len());
        let mut decoded = Vec::new();
        self.each(layout, column, |span| {
            let Some((start, end)) = span else {
                values.append_null();
                return Ok(());
            };
            decoded.clear();
            let right = value::hex(&bytes[start..end], &mut decoded);
            values.append_value(&decoded);
            right.ok_or(Reason::BadValue)
        });
        Arc::new(values.finish())
    }

    fn fixed(&mut self, layout: &FieldLayout, column: usize, size: usize) -> Result<ArrayRef, ArrowError> {
        let bytes = self.lines.bytes;
        let rows = self.lines.firsts.len();
        let mut values = Vec::with_capacity(rows * size);
        let nulls = self.each(layout, column, |span| {
            let end = values.len() + size;
            let right = match span {
                Some((start, stop)) => value::hex(&bytes[start..stop], &mut values).filter(|()| values.len() == end),
                None => Some(()),
            };
            values.resize(end, 0);
            right.ok_or(Reason::BadValue)
        });
        let size = i32::try_from(size).map_err(|_| ArrowError::ParseError(format!("a fixed of {size} bytes")))?;
        Ok(Arc::new(FixedSizeBinaryArray::try_new_with_len(size, Buffer::from_vec(values), nulls, rows)?))
    }
}

#[cold]
fn bad_value(layout: &FieldLayout, reason: Reason, text: &[u8]) -> Fault {
    let name = &layout.field.name;
    if reason == Reason::TimeOutOfRange {
        let message = format!("the event time {} is outside the years 1 to 9999", crate::parse::fault::shown(text));
        return Fault::field(reason, name, message);
    }
    let expected = if std::str::from_utf8(text).is_err() { "valid UTF-8" } else { &layout.expected };
    Fault::value(name, text, expected)
}
