//! Fields of an event type: the Avro view and the Arrow view of the same thing.
//!
//! | Avro | Arrow |
//! | --- | --- |
//! | boolean, int, long, float, double | Boolean, Int32, Int64, Float32, Float64 |
//! | string, uuid (logical) | Utf8View |
//! | bytes | BinaryView |
//! | timestamp-millis, timestamp-micros | Timestamp(ms or us, "UTC") |
//! | date | Date32 |
//! | enum | Dictionary(Int32, Utf8), the values being the symbols in schema order |
//! | fixed | FixedSizeBinary |
//! | decimal (bytes or fixed), precision to 38 | Decimal128 |
//! | array, map, record | List, Map, Struct |
//! | union of null and one other | the other, nullable |

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::{
    ArraySchema, DecimalSchema, EnumSchema, FixedSchema, InnerDecimalSchema, MapSchema, RecordSchema, UuidSchema,
};
use arrow_array::{Array, RecordBatch, TimestampMicrosecondArray, TimestampMillisecondArray};
use arrow_schema::{DataType, TimeUnit};

/// One field of an event type.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name, as in the Avro schema.
    pub name: String,
    /// What it holds.
    pub kind: FieldKind,
    /// Whether, and in which order of the union, it may be null.
    pub nullability: Nullability,
}

/// Whether a field may be null; the order matters for the bytes that Avro writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nullability {
    /// Never null.
    Required,
    /// `["null", X]`: branch 0 is null.
    NullFirst,
    /// `[X, "null"]`: branch 1 is null.
    NullLast,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum FieldKind {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Uuid,
    TimestampMillis,
    TimestampMicros,
    Date,
    /// The symbols, in schema order.
    Enum(Arc<[String]>),
    /// Size in bytes.
    Fixed(usize),
    Decimal {
        precision: u8,
        scale: i8,
        repr: DecimalRepr,
    },
    /// The item: a field named `item`.
    Array(Box<Field>),
    /// The value: a field named `value`; keys are strings.
    Map(Box<Field>),
    Record(Arc<[Field]>),
}

/// How Avro carries a decimal's unscaled two's-complement big-endian number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalRepr {
    /// In `bytes`, of the shortest length.
    Bytes,
    /// In a `fixed` of this size.
    Fixed(usize),
}

/// Why an Avro schema can't be an event type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The text is no Avro schema.
    #[error("it is not an Avro schema: {0}")]
    Avro(#[source] Box<apache_avro::Error>),
    /// The schema is not a record.
    #[error("an event type must be an Avro record, this is {0}")]
    NotARecord(String),
    /// A field has a type that Tidemill does not carry.
    #[error("field `{field}` has type {found}, which can't be carried; {help}")]
    Unsupported {
        /// Path of the field.
        field: String,
        /// The Avro type that was found.
        found: String,
        /// What to do.
        help: &'static str,
    },
}

impl FieldKind {
    /// The name as Avro has it (logical types by their logical name).
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes => "bytes",
            Self::String => "string",
            Self::Uuid => "uuid",
            Self::TimestampMillis => "timestamp-millis",
            Self::TimestampMicros => "timestamp-micros",
            Self::Date => "date",
            Self::Enum(_) => "enum",
            Self::Fixed(_) => "fixed",
            Self::Decimal { .. } => "decimal",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Record(_) => "record",
        }
    }

    /// Whether it is a timestamp, which an event's time field must be.
    #[must_use]
    pub fn is_time(&self) -> bool {
        matches!(self, Self::TimestampMillis | Self::TimestampMicros)
    }

    /// Whether it is a single value that text can carry (all but array, map and record).
    #[must_use]
    pub fn is_scalar(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Map(_) | Self::Record(_))
    }

    /// The Arrow type of the column.
    #[must_use]
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Bytes => DataType::BinaryView,
            Self::String | Self::Uuid => DataType::Utf8View,
            Self::TimestampMillis => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::TimestampMicros => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
            Self::Enum(_) => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            Self::Fixed(size) => DataType::FixedSizeBinary(i32::try_from(*size).unwrap_or(i32::MAX)),
            Self::Decimal { precision, scale, .. } => DataType::Decimal128(*precision, *scale),
            Self::Array(item) => DataType::List(Arc::new(item.arrow())),
            Self::Map(value) => {
                let key = arrow_schema::Field::new("key", DataType::Utf8View, false);
                let entries = DataType::Struct(vec![key, value.arrow()].into());
                DataType::Map(Arc::new(arrow_schema::Field::new("entries", entries, false)), false)
            }
            Self::Record(fields) => DataType::Struct(fields.iter().map(Field::arrow).collect()),
        }
    }
}

impl Field {
    /// Whether it may be null.
    #[must_use]
    pub fn is_nullable(&self) -> bool {
        self.nullability != Nullability::Required
    }

    /// The Arrow field.
    #[must_use]
    pub fn arrow(&self) -> arrow_schema::Field {
        arrow_schema::Field::new(&self.name, self.kind.arrow(), self.is_nullable())
    }
}

/// The fields of an Avro record schema.
///
/// # Errors
/// See [`SchemaError`].
pub fn fields_of(schema: &Schema) -> Result<Vec<Field>, SchemaError> {
    let Schema::Record(record) = schema else {
        return Err(SchemaError::NotARecord(avro_name(schema)));
    };
    record_fields(record, "")
}

fn record_fields(record: &RecordSchema, prefix: &str) -> Result<Vec<Field>, SchemaError> {
    record.fields.iter().map(|field| field_of(&field.name, &field.schema, prefix)).collect()
}

fn field_of(name: &str, schema: &Schema, prefix: &str) -> Result<Field, SchemaError> {
    let path = format!("{prefix}{name}");
    let (schema, nullability) = match schema {
        Schema::Union(union) => match union.variants() {
            [Schema::Null, other] => (other, Nullability::NullFirst),
            [other, Schema::Null] => (other, Nullability::NullLast),
            _ => {
                let help = "use a union of \"null\" and one other type";
                return Err(SchemaError::Unsupported { field: path, found: "union".into(), help });
            }
        },
        other => (other, Nullability::Required),
    };
    Ok(Field { name: name.to_owned(), kind: kind_of(schema, &path)?, nullability })
}

fn kind_of(schema: &Schema, path: &str) -> Result<FieldKind, SchemaError> {
    let unsupported = |help| SchemaError::Unsupported { field: path.to_owned(), found: avro_name(schema), help };
    let prefix = format!("{path}.");
    Ok(match schema {
        Schema::Boolean => FieldKind::Boolean,
        Schema::Int => FieldKind::Int,
        Schema::Long => FieldKind::Long,
        Schema::Float => FieldKind::Float,
        Schema::Double => FieldKind::Double,
        // `parse_avro_schema` makes bytes of a uuid in bytes.
        Schema::Bytes | Schema::Uuid(UuidSchema::Bytes) => FieldKind::Bytes,
        Schema::String => FieldKind::String,
        Schema::Uuid(UuidSchema::String) => FieldKind::Uuid,
        Schema::Uuid(UuidSchema::Fixed(_)) => {
            return Err(unsupported("keep the uuid in a string, or the fixed without its logical type"));
        }
        Schema::TimestampMillis => FieldKind::TimestampMillis,
        Schema::TimestampMicros => FieldKind::TimestampMicros,
        Schema::Date => FieldKind::Date,
        Schema::Enum(EnumSchema { symbols, .. }) => FieldKind::Enum(symbols.clone().into()),
        Schema::Fixed(FixedSchema { size, .. }) => FieldKind::Fixed(*size),
        Schema::Decimal(DecimalSchema { precision, scale, inner }) => {
            let repr = match inner {
                InnerDecimalSchema::Fixed(fixed) if fixed.size <= 16 => DecimalRepr::Fixed(fixed.size),
                InnerDecimalSchema::Bytes => DecimalRepr::Bytes,
                InnerDecimalSchema::Fixed(_) => return Err(unsupported("a decimal's fixed holds at most 16 bytes")),
            };
            match (u8::try_from(*precision), i8::try_from(*scale)) {
                (Ok(precision @ 1..=38), Ok(scale)) => FieldKind::Decimal { precision, scale, repr },
                _ => return Err(unsupported("a decimal has at most 38 digits")),
            }
        }
        Schema::Array(ArraySchema { items, .. }) => FieldKind::Array(Box::new(field_of("item", items, &prefix)?)),
        Schema::Map(MapSchema { types, .. }) => FieldKind::Map(Box::new(field_of("value", types, &prefix)?)),
        Schema::Record(record) => FieldKind::Record(record_fields(record, &prefix)?.into()),
        Schema::Ref { .. } => return Err(unsupported("write the type out where it is used")),
        _ => return Err(unsupported("see `tidemill kinds` for the types there are")),
    })
}

fn avro_name(schema: &Schema) -> String {
    let debug = format!("{schema:?}");
    debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_lowercase()
}

/// A batch's column of event times, read in milliseconds.
pub enum TimeColumn<'a> {
    /// timestamp-millis
    Millis(&'a TimestampMillisecondArray),
    /// timestamp-micros
    Micros(&'a TimestampMicrosecondArray),
}

impl<'a> TimeColumn<'a> {
    /// Column `index` of `records`; `None` when it is no timestamp.
    #[must_use]
    pub fn of(records: &'a RecordBatch, index: usize) -> Option<Self> {
        let column = records.column(index).as_any();
        column.downcast_ref().map(Self::Millis).or_else(|| column.downcast_ref().map(Self::Micros))
    }

    /// Event time of `row` in milliseconds (microseconds are rounded down).
    #[must_use]
    #[inline]
    pub fn ms(&self, row: usize) -> i64 {
        match self {
            Self::Millis(array) => array.value(row),
            Self::Micros(array) => array.value(row).div_euclid(1_000),
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Millis(array) => array.len(),
            Self::Micros(array) => array.len(),
        }
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
