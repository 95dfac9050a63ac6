//! A file's schema and a type's schema come to a plan: what to read, what to skip, what to fill in.

use apache_avro::Schema;
use apache_avro::schema::{
    EnumSchema, InnerDecimalSchema, Name, NamesRef, Namespace, NamespaceRef, RecordField, RecordSchema, ResolvedSchema,
    UuidSchema,
};
use serde_json::Value;
use tidemill_core::{DecimalRepr, Field, FieldKind};

use super::datum::unscaled;
use crate::parse::cell::Cell;
use crate::parse::message::MessageFields;
use crate::parse::value;

/// How a record is read.
#[derive(Debug)]
pub(super) struct RecordPlan {
    /// One cell a field of the type: its default, or null where the file has the field.
    pub(super) defaults: Vec<Cell<'static>>,
    /// One step a field of the file.
    pub(super) steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Number and name of the type's field, and how it is read.
    Read(usize, String, Read),
    Skip(Skip),
}

/// How a value is read.
#[derive(Debug)]
pub(super) enum Read {
    Null,
    Boolean,
    /// int
    Int(Number),
    /// long
    Long(Number),
    Float,
    FloatAsDouble,
    Double,
    /// string and bytes
    Bytes(Blob),
    Fixed(usize, Blob),
    /// Number of the type's symbol for each of the file's, or the name of one that the type does not have.
    Enum(Vec<Result<i32, String>>),
    Array(Box<Read>),
    Map(Box<Read>),
    Record(RecordPlan),
    /// A union of the file.
    Union(Vec<Read>),
    /// A branch of a union that the field does not take.
    Refuse(Skip, String),
}

/// What becomes of a whole number.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Int,
    Long,
    Float,
    Double,
    /// A timestamp of a coarser unit.
    Times(i64),
    /// A timestamp of a finer unit.
    Divided(i64),
}

/// What becomes of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Blob {
    Bytes,
    Text,
    Uuid,
    /// Of this precision.
    Decimal(u8),
}

/// A value that nothing takes.
#[derive(Debug)]
pub(super) enum Skip {
    Bytes(usize),
    Number,
    Blob,
    /// All of these, one after the other.
    All(Vec<Skip>),
    Union(Vec<Skip>),
    /// Blocks of an array or map.
    Items(Box<Skip>),
}

impl Read {
    /// Whether values inside it have names of their own.
    pub(super) fn is_nested(&self) -> bool {
        match self {
            Self::Record(_) => true,
            Self::Array(inner) | Self::Map(inner) => inner.is_nested(),
            Self::Union(branches) => branches.iter().any(Self::is_nested),
            _ => false,
        }
    }
}

/// The plan for records of `file` as records of `own`, whose fields are `fields`. Those of `from_message` are not looked for.
///
/// # Errors
/// Why no record of the one can be one of the other.
pub(super) fn resolve(
    file: &Schema,
    own: &RecordSchema,
    fields: &[Field],
    from_message: &MessageFields,
) -> Result<RecordPlan, String> {
    let resolved = ResolvedSchema::try_from(file).map_err(|error| error.to_string())?;
    let Schema::Record(record) = file else { return Err("it is no record".into()) };
    let mut resolver = Resolver { names: resolved.get_names(), open: Vec::new() };
    resolver.record(record, None, own, fields, from_message)
}

struct Resolver<'s> {
    names: &'s NamesRef<'s>,
    /// Records around the one at hand: one that is among them refers to itself.
    open: Vec<Name>,
}

impl<'s> Resolver<'s> {
    fn enter(&mut self, record: &RecordSchema, space: NamespaceRef<'_>) -> Result<Namespace, String> {
        let name = record.name.fully_qualified_name(space).into_owned();
        if self.open.contains(&name) {
            return Err(format!("record `{}` refers to itself", name.fullname(None)));
        }
        let space = name.namespace().map(str::to_owned);
        self.open.push(name);
        Ok(space)
    }

    fn record(
        &mut self,
        file: &'s RecordSchema,
        space: NamespaceRef<'_>,
        own: &RecordSchema,
        fields: &[Field],
        from_message: &MessageFields,
    ) -> Result<RecordPlan, String> {
        let space = self.enter(file, space)?;
        let mut defaults: Vec<Option<Cell<'static>>> = vec![None; fields.len()];
        let mut steps = Vec::with_capacity(file.fields.len());
        let matching: Vec<Option<usize>> = (own.fields.iter().enumerate())
            .map(|(number, field)| source(file, field).filter(|_| !from_message.has(number)))
            .collect();
        for (_, default) in defaults.iter_mut().enumerate().filter(|(number, _)| from_message.has(*number)) {
            *default = Some(Cell::Null);
        }
        for (at, from) in file.fields.iter().enumerate() {
            steps.push(match matching.iter().position(|matched| *matched == Some(at)) {
                None => Step::Skip(self.skip(&from.schema, space.as_deref())?),
                Some(number) => {
                    let (field, own) = (&fields[number], &own.fields[number]);
                    let read = self.read(&from.schema, space.as_deref(), strip(&own.schema), field);
                    let read = read.map_err(|error| format!("field `{}`: {error}", field.name))?;
                    defaults[number] = Some(Cell::Null);
                    Step::Read(number, field.name.clone(), read)
                }
            });
        }
        self.open.pop();
        let filled = fields.iter().zip(&own.fields).zip(defaults).map(|((field, own), filled)| match filled {
            Some(cell) => Ok(cell),
            None => {
                let value = own.default.as_ref();
                let cell = value.and_then(|value| default(field, &own.schema, value));
                cell.ok_or_else(|| format!("it has no field `{}`, for which the type has no default", field.name))
            }
        });
        Ok(RecordPlan { defaults: filled.collect::<Result<_, _>>()?, steps })
    }

    fn read(&mut self, file: &'s Schema, space: NamespaceRef<'_>, own: &Schema, field: &Field) -> Result<Read, String> {
        let number = |number| Ok(Read::Long(number));
        let mismatch = || Err(format!("it has {}, the type {}", name(file), field.kind.name()));
        match (file, &field.kind) {
            (Schema::Ref { name }, _) => {
                let (schema, space) = self.named(name, space)?;
                self.read(schema, space.as_deref(), own, field)
            }
            (Schema::Union(union), _) => {
                let branches = union.variants().iter().map(|branch| match self.read(branch, space, own, field) {
                    Ok(read) => Ok(read),
                    Err(message) => Ok(Read::Refuse(self.skip(branch, space)?, message)),
                });
                Ok(Read::Union(branches.collect::<Result<_, String>>()?))
            }
            (Schema::Null, _) if field.is_nullable() => Ok(Read::Null),
            (Schema::Null, _) => Err("it has null, the type is never null".into()),
            (Schema::Boolean, FieldKind::Boolean) => Ok(Read::Boolean),
            (Schema::Int | Schema::Date | Schema::TimeMillis, kind) => match kind {
                FieldKind::Int | FieldKind::Date => Ok(Read::Int(Number::Int)),
                FieldKind::Long => Ok(Read::Int(Number::Long)),
                FieldKind::Float => Ok(Read::Int(Number::Float)),
                FieldKind::Double => Ok(Read::Int(Number::Double)),
                _ => mismatch(),
            },
            (schema, FieldKind::Long) if is_long(schema) => number(Number::Long),
            (schema, FieldKind::Float) if is_long(schema) => number(Number::Float),
            (schema, FieldKind::Double) if is_long(schema) => number(Number::Double),
            (schema, FieldKind::TimestampMillis) if is_long(schema) => number(match schema {
                Schema::TimestampMicros | Schema::LocalTimestampMicros => Number::Divided(1_000),
                Schema::TimestampNanos | Schema::LocalTimestampNanos => Number::Divided(1_000_000),
                _ => Number::Long,
            }),
            (schema, FieldKind::TimestampMicros) if is_long(schema) => number(match schema {
                Schema::TimestampMillis | Schema::LocalTimestampMillis => Number::Times(1_000),
                Schema::TimestampNanos | Schema::LocalTimestampNanos => Number::Divided(1_000),
                _ => Number::Long,
            }),
            (Schema::Float, FieldKind::Float) => Ok(Read::Float),
            (Schema::Float, FieldKind::Double) => Ok(Read::FloatAsDouble),
            (Schema::Double, FieldKind::Double) => Ok(Read::Double),
            (Schema::String | Schema::Uuid(UuidSchema::String), FieldKind::Uuid) => Ok(Read::Bytes(Blob::Uuid)),
            (Schema::Bytes | Schema::Uuid(UuidSchema::Bytes), FieldKind::Decimal { precision, .. }) => {
                Ok(Read::Bytes(Blob::Decimal(*precision)))
            }
            (file, kind) if is_blob(file) => blob(kind).map_or_else(mismatch, Ok),
            (Schema::Decimal(decimal), FieldKind::Decimal { precision, scale, .. }) => {
                if i128::from(*scale) != decimal.scale as i128 {
                    return Err(format!("it has a decimal of scale {}, the type one of {scale}", decimal.scale));
                }
                match &decimal.inner {
                    InnerDecimalSchema::Fixed(fixed) => Ok(Read::Fixed(fixed.size, Blob::Decimal(*precision))),
                    InnerDecimalSchema::Bytes => Ok(Read::Bytes(Blob::Decimal(*precision))),
                }
            }
            (Schema::Decimal(decimal), kind) => {
                let read = match &decimal.inner {
                    InnerDecimalSchema::Fixed(inner) => fixed(inner.size, kind),
                    InnerDecimalSchema::Bytes => blob(kind),
                };
                read.map_or_else(mismatch, Ok)
            }
            (Schema::Fixed(inner) | Schema::Uuid(UuidSchema::Fixed(inner)), kind) => {
                fixed(inner.size, kind).map_or_else(mismatch, Ok)
            }
            (Schema::Duration(_), FieldKind::Fixed(12)) => Ok(Read::Fixed(12, Blob::Bytes)),
            (Schema::Enum(symbols), FieldKind::Enum(own_symbols)) => {
                Ok(Read::Enum(enumerate(symbols, own_symbols, own)))
            }
            (Schema::Array(array), FieldKind::Array(item)) => {
                let Schema::Array(own) = own else { return mismatch() };
                Ok(Read::Array(Box::new(self.read(&array.items, space, strip(&own.items), item)?)))
            }
            (Schema::Map(map), FieldKind::Map(value)) => {
                let Schema::Map(own) = own else { return mismatch() };
                Ok(Read::Map(Box::new(self.read(&map.types, space, strip(&own.types), value)?)))
            }
            (Schema::Record(record), FieldKind::Record(fields)) => {
                let Schema::Record(own) = own else { return mismatch() };
                Ok(Read::Record(self.record(record, space, own, fields, &MessageFields::default())?))
            }
            _ => mismatch(),
        }
    }

    fn skip(&mut self, file: &'s Schema, space: NamespaceRef<'_>) -> Result<Skip, String> {
        Ok(match file {
            Schema::Null => Skip::Bytes(0),
            Schema::Boolean => Skip::Bytes(1),
            Schema::Float => Skip::Bytes(4),
            Schema::Double => Skip::Bytes(8),
            Schema::Duration(fixed) | Schema::Fixed(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                Skip::Bytes(fixed.size)
            }
            Schema::Int | Schema::Date | Schema::TimeMillis | Schema::Enum(_) => Skip::Number,
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Fixed(fixed) => Skip::Bytes(fixed.size),
                InnerDecimalSchema::Bytes => Skip::Blob,
            },
            blob if is_blob(blob) => Skip::Blob,
            Schema::Array(array) => Skip::Items(Box::new(self.skip(&array.items, space)?)),
            Schema::Map(map) => Skip::Items(Box::new(Skip::All(vec![Skip::Blob, self.skip(&map.types, space)?]))),
            Schema::Union(union) => {
                Skip::Union(union.variants().iter().map(|branch| self.skip(branch, space)).collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => {
                let space = self.enter(record, space)?;
                let parts = record.fields.iter().map(|field| self.skip(&field.schema, space.as_deref()));
                let parts = parts.collect::<Result<_, _>>()?;
                self.open.pop();
                Skip::All(parts)
            }
            Schema::Ref { name } => {
                let (schema, space) = self.named(name, space)?;
                self.skip(schema, space.as_deref())?
            }
            schema if is_long(schema) => Skip::Number,
            schema => return Err(format!("it has {}, which can't be read", name(schema))),
        })
    }

    fn named(&self, name: &Name, space: NamespaceRef<'_>) -> Result<(&'s Schema, Namespace), String> {
        let name = name.fully_qualified_name(space);
        let schema = self.names.get(&*name).ok_or_else(|| format!("it has no type `{}`", name.fullname(None)))?;
        Ok((schema, name.namespace().map(str::to_owned)))
    }
}

/// Number of the file's field for one of the type: that of its name, else that of an alias.
fn source(file: &RecordSchema, own: &RecordField) -> Option<usize> {
    let named = |name: &str| file.fields.iter().position(|field| field.name == name);
    named(&own.name).or_else(|| own.aliases.iter().find_map(|alias| named(alias)))
}

/// What a nullable field holds when it is not null.
fn strip(schema: &Schema) -> &Schema {
    match schema {
        Schema::Union(union) => {
            union.variants().iter().find(|branch| !matches!(branch, Schema::Null)).unwrap_or(schema)
        }
        schema => schema,
    }
}

/// Whether it is written as a length and so many bytes.
fn is_blob(schema: &Schema) -> bool {
    matches!(
        schema,
        Schema::Bytes | Schema::String | Schema::Uuid(UuidSchema::Bytes | UuidSchema::String) | Schema::BigDecimal
    )
}

/// How such a value is read where its own type asks for nothing else.
fn blob(kind: &FieldKind) -> Option<Read> {
    match kind {
        FieldKind::String => Some(Read::Bytes(Blob::Text)),
        FieldKind::Bytes => Some(Read::Bytes(Blob::Bytes)),
        _ => None,
    }
}

/// How a fixed of so many bytes is read.
fn fixed(size: usize, kind: &FieldKind) -> Option<Read> {
    let blob = match kind {
        FieldKind::Fixed(own) if *own == size => Blob::Bytes,
        FieldKind::Uuid if size == 16 => Blob::Uuid,
        FieldKind::Decimal { precision, repr: DecimalRepr::Fixed(own), .. } if *own == size => {
            Blob::Decimal(*precision)
        }
        _ => return None,
    };
    Some(Read::Fixed(size, blob))
}

fn is_long(schema: &Schema) -> bool {
    use Schema::{
        LocalTimestampMicros, LocalTimestampMillis, LocalTimestampNanos, Long, TimeMicros, TimestampMicros,
        TimestampMillis, TimestampNanos,
    };
    matches!(
        schema,
        Long | TimeMicros
            | TimestampMillis
            | TimestampMicros
            | TimestampNanos
            | LocalTimestampMillis
            | LocalTimestampMicros
            | LocalTimestampNanos
    )
}

fn enumerate(file: &EnumSchema, symbols: &[String], own: &Schema) -> Vec<Result<i32, String>> {
    let number = |symbol: &String| symbols.iter().position(|known| known == symbol).map(|at| at as i32);
    let default = match own {
        Schema::Enum(own) => own.default.as_ref().and_then(number),
        _ => None,
    };
    file.symbols.iter().map(|symbol| number(symbol).or(default).ok_or_else(|| symbol.clone())).collect()
}

fn name(schema: &Schema) -> String {
    let debug = format!("{schema:?}");
    debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_lowercase()
}

/// A default as the schema writes it; `None` when it does not fit the field.
fn default(field: &Field, schema: &Schema, json: &Value) -> Option<Cell<'static>> {
    let own = strip(schema);
    let text = || json.as_str();
    // In defaults, each character up to U+00FF stands for one byte.
    let bytes = || -> Option<Vec<u8>> { text()?.chars().map(|c| u8::try_from(c).ok()).collect() };
    if json.is_null() {
        return field.is_nullable().then_some(Cell::Null);
    }
    Some(match &field.kind {
        FieldKind::Boolean => Cell::Boolean(json.as_bool()?),
        FieldKind::Int | FieldKind::Date => Cell::Int(i32::try_from(json.as_i64()?).ok()?),
        FieldKind::Long | FieldKind::TimestampMillis | FieldKind::TimestampMicros => Cell::Long(json.as_i64()?),
        FieldKind::Float => Cell::Float(json.as_f64()? as f32),
        FieldKind::Double => Cell::Double(json.as_f64()?),
        FieldKind::String => Cell::Text(text()?.to_owned().into()),
        FieldKind::Uuid => Cell::Text(text().filter(|text| value::is_uuid(text.as_bytes()))?.to_owned().into()),
        FieldKind::Bytes => Cell::Bytes(bytes()?.into()),
        FieldKind::Fixed(size) => Cell::Bytes(bytes().filter(|bytes| bytes.len() == *size)?.into()),
        FieldKind::Decimal { precision, .. } => {
            Cell::Decimal(unscaled(&bytes()?).filter(|value| value::fits(*value, *precision))?)
        }
        FieldKind::Enum(symbols) => {
            Cell::Int(symbols.iter().position(|symbol| Some(symbol.as_str()) == text())? as i32)
        }
        FieldKind::Array(item) => {
            let Schema::Array(own) = own else { return None };
            Cell::List(json.as_array()?.iter().map(|json| default(item, &own.items, json)).collect::<Option<_>>()?)
        }
        FieldKind::Map(value) => {
            let Schema::Map(own) = own else { return None };
            let entry = |(key, json): (&String, &Value)| Some((key.clone().into(), default(value, &own.types, json)?));
            Cell::Map(json.as_object()?.iter().map(entry).collect::<Option<_>>()?)
        }
        FieldKind::Record(fields) => {
            let Schema::Record(own) = own else { return None };
            let json = json.as_object()?;
            let cell = |(field, own): (&Field, &RecordField)| {
                default(field, &own.schema, json.get(&field.name).or(own.default.as_ref())?)
            };
            Cell::Record(fields.iter().zip(&own.fields).map(cell).collect::<Option<_>>()?)
        }
    })
}
