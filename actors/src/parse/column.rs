//! Arrow columns that grow by one cell at a time.

use std::sync::Arc;

use arrow_array::builder::{BinaryViewBuilder, StringViewBuilder};
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType,
};
use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, ListArray, MapArray, PrimitiveArray, StringArray,
    StructArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType};
use tidemill_core::{Field, FieldKind};

use super::cell::Cell;

/// A column of one field.
pub(super) struct Column {
    kind: FieldKind,
    data_type: DataType,
    nulls: NullBufferBuilder,
    values: Values,
}

enum Values {
    Boolean(Vec<bool>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Text(StringViewBuilder),
    Bytes(BinaryViewBuilder),
    Fixed(Vec<u8>, usize),
    Decimal(Vec<i128>),
    List { offsets: Vec<i32>, items: Box<Column> },
    Map { offsets: Vec<i32>, keys: StringViewBuilder, values: Box<Column> },
    Record(Vec<Column>),
}

impl Column {
    pub(super) fn new(field: &Field) -> Self {
        let values = match &field.kind {
            FieldKind::Boolean => Values::Boolean(Vec::new()),
            FieldKind::Int | FieldKind::Date | FieldKind::Enum(_) => Values::Int(Vec::new()),
            FieldKind::Long | FieldKind::TimestampMillis | FieldKind::TimestampMicros => Values::Long(Vec::new()),
            FieldKind::Float => Values::Float(Vec::new()),
            FieldKind::Double => Values::Double(Vec::new()),
            FieldKind::String | FieldKind::Uuid => Values::Text(StringViewBuilder::new()),
            FieldKind::Bytes => Values::Bytes(BinaryViewBuilder::new()),
            FieldKind::Fixed(size) => Values::Fixed(Vec::new(), *size),
            FieldKind::Decimal { .. } => Values::Decimal(Vec::new()),
            FieldKind::Array(item) => Values::List { offsets: vec![0], items: Box::new(Self::new(item)) },
            FieldKind::Map(value) => {
                let (keys, values) = (StringViewBuilder::new(), Box::new(Self::new(value)));
                Values::Map { offsets: vec![0], keys, values }
            }
            FieldKind::Record(fields) => Values::Record(fields.iter().map(Self::new).collect()),
        };
        Self { kind: field.kind.clone(), data_type: field.kind.arrow(), nulls: NullBufferBuilder::new(1024), values }
    }

    fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Appends a cell. One that the field does not take (there is none, see [`Cell`]) is appended as null.
    pub(super) fn push(&mut self, cell: &Cell<'_>) {
        let valid = match (&mut self.values, cell) {
            (Values::Boolean(values), Cell::Boolean(value)) => {
                values.push(*value);
                true
            }
            (Values::Int(values), Cell::Int(value)) => {
                values.push(*value);
                true
            }
            (Values::Long(values), Cell::Long(value)) => {
                values.push(*value);
                true
            }
            (Values::Float(values), Cell::Float(value)) => {
                values.push(*value);
                true
            }
            (Values::Double(values), Cell::Double(value)) => {
                values.push(*value);
                true
            }
            (Values::Text(values), Cell::Text(value)) => {
                values.append_value(value);
                true
            }
            (Values::Bytes(values), Cell::Bytes(value)) => {
                values.append_value(value);
                true
            }
            (Values::Fixed(values, size), Cell::Bytes(value)) if value.len() == *size => {
                values.extend_from_slice(value);
                true
            }
            (Values::Decimal(values), Cell::Decimal(value)) => {
                values.push(*value);
                true
            }
            (Values::List { offsets, items }, Cell::List(cells)) => {
                cells.iter().for_each(|cell| items.push(cell));
                offsets.push(items.len() as i32);
                true
            }
            (Values::Map { offsets, keys, values }, Cell::Map(entries)) => {
                for (key, value) in entries {
                    keys.append_value(key);
                    values.push(value);
                }
                offsets.push(values.len() as i32);
                true
            }
            (Values::Record(columns), Cell::Record(cells)) => {
                columns.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
                true
            }
            (values, _) => {
                values.push_nothing();
                false
            }
        };
        self.nulls.append(valid);
    }

    pub(super) fn finish(mut self) -> Result<ArrayRef, ArrowError> {
        let len = self.len();
        let nulls = self.nulls.finish();
        let data_type = self.data_type;
        Ok(match (self.values, &self.kind) {
            (Values::Boolean(values), _) => Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls)),
            (Values::Int(values), FieldKind::Enum(symbols)) => {
                let keys = PrimitiveArray::<Int32Type>::new(values.into(), nulls);
                let symbols = StringArray::from_iter_values(symbols.iter());
                Arc::new(DictionaryArray::try_new(keys, Arc::new(symbols))?)
            }
            (Values::Int(values), FieldKind::Date) => primitive::<Date32Type>(values, nulls, data_type),
            (Values::Int(values), _) => primitive::<Int32Type>(values, nulls, data_type),
            (Values::Long(values), FieldKind::TimestampMillis) => {
                primitive::<TimestampMillisecondType>(values, nulls, data_type)
            }
            (Values::Long(values), FieldKind::TimestampMicros) => {
                primitive::<TimestampMicrosecondType>(values, nulls, data_type)
            }
            (Values::Long(values), _) => primitive::<Int64Type>(values, nulls, data_type),
            (Values::Float(values), _) => primitive::<Float32Type>(values, nulls, data_type),
            (Values::Double(values), _) => primitive::<Float64Type>(values, nulls, data_type),
            (Values::Decimal(values), _) => primitive::<Decimal128Type>(values, nulls, data_type),
            (Values::Text(mut values), _) => Arc::new(values.finish()),
            (Values::Bytes(mut values), _) => Arc::new(values.finish()),
            (Values::Fixed(values, size), _) => {
                let size =
                    i32::try_from(size).map_err(|_| ArrowError::ParseError(format!("a fixed of {size} bytes")))?;
                Arc::new(FixedSizeBinaryArray::try_new_with_len(size, Buffer::from_vec(values), nulls, len)?)
            }
            (Values::List { offsets, items }, _) => {
                let DataType::List(item) = data_type else { return Err(unlike(&data_type)) };
                Arc::new(ListArray::try_new(item, checked(offsets)?, items.finish()?, nulls)?)
            }
            (Values::Map { offsets, mut keys, values }, _) => {
                let DataType::Map(entries, ordered) = data_type else { return Err(unlike(&data_type)) };
                let DataType::Struct(fields) = entries.data_type() else { return Err(unlike(entries.data_type())) };
                let columns: Vec<ArrayRef> = vec![Arc::new(keys.finish()), values.finish()?];
                let pairs = StructArray::try_new(fields.clone(), columns, None)?;
                Arc::new(MapArray::try_new(entries, checked(offsets)?, pairs, nulls, ordered)?)
            }
            (Values::Record(columns), _) => {
                let DataType::Struct(fields) = data_type else { return Err(unlike(&data_type)) };
                let columns = columns.into_iter().map(Self::finish).collect::<Result<_, _>>()?;
                Arc::new(StructArray::try_new_with_length(fields, columns, nulls, len)?)
            }
        })
    }
}

impl Values {
    /// Appends what stands under a null.
    fn push_nothing(&mut self) {
        match self {
            Self::Boolean(values) => values.push(false),
            Self::Int(values) => values.push(0),
            Self::Long(values) => values.push(0),
            Self::Float(values) => values.push(0.0),
            Self::Double(values) => values.push(0.0),
            Self::Text(values) => values.append_null(),
            Self::Bytes(values) => values.append_null(),
            Self::Fixed(values, size) => values.resize(values.len() + *size, 0),
            Self::Decimal(values) => values.push(0),
            Self::List { offsets, .. } | Self::Map { offsets, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0))
            }
            Self::Record(columns) => columns.iter_mut().for_each(|column| column.push(&Cell::Null)),
        }
    }
}

fn primitive<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<NullBuffer>,
    data_type: DataType,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(data_type))
}

fn checked(offsets: Vec<i32>) -> Result<OffsetBuffer<i32>, ArrowError> {
    if !offsets.is_sorted() {
        return Err(ArrowError::OffsetOverflowError(offsets.len()));
    }
    Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
}

#[cold]
fn unlike(data_type: &DataType) -> ArrowError {
    ArrowError::SchemaError(format!("a column can't be {data_type}"))
}
