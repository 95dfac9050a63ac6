//! JSON text straight into cells, without a tree of values in between.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tidemill_core::{EventType, Field, FieldKind, Reason};

use super::stage::Cells;
use crate::parse::cell::Cell;
use crate::parse::fault::{Fault, expected};
use crate::parse::message::MessageFields;
use crate::parse::time::{self, NoTime, TimeForm, Unit};
use crate::parse::value;

/// Reads a record into `cells`, one a field of its type. Those that come from the message are left for it to fill.
pub(super) fn read<'de>(
    line: &'de [u8],
    event_type: &EventType,
    form: TimeForm,
    from_message: &MessageFields,
    cells: &mut Cells<'de>,
) -> Result<(), Fault> {
    let mut fault = None;
    cells.clear();
    let record =
        Record { fields: &event_type.fields, form, from_message: Some(from_message), fault: &mut fault, cells };
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let read = record.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    read.map_err(|error| {
        fault.map_or_else(
            || not_json(&error),
            // Only the time of the event itself has a reason of its own.
            |fault| match fault {
                (Some(NoTime::Range), fault) if fault.is_of(&event_type.fields[event_type.time].name) => {
                    fault.because(Reason::TimeOutOfRange)
                }
                (_, fault) => fault,
            },
        )
    })
}

/// The text of the member that names the type.
pub(super) fn type_name<'de>(line: &'de [u8], field: &str) -> Result<Cow<'de, str>, Fault> {
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let read = TypeName { field, found: &mut found }.deserialize(&mut deserializer);
    match (found, read) {
        (Some(Some(name)), _) => Ok(name),
        (Some(None), _) => Err(Fault::field(Reason::Malformed, field, "it names the type, so it must be text")),
        (None, Err(error)) => Err(not_json(&error)),
        (None, Ok(())) => {
            Err(Fault::record(Reason::Malformed, format!("there is no field `{field}`, which names the type")))
        }
    }
}

#[cold]
fn not_json(error: &serde_json::Error) -> Fault {
    Fault::record(Reason::Malformed, format!("it is not a JSON object: {error}"))
}

/// A text that may point into the input.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

struct TypeName<'a, 'de> {
    field: &'a str,
    /// The text; inner `None` when the member is something else.
    found: &'a mut Option<Option<Cow<'de, str>>>,
}

impl<'de> DeserializeSeed<'de> for TypeName<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TypeName<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Text)? {
            if key == self.field {
                *self.found = Some(None);
                *self.found = Some(Some(map.next_value_seed(Text)?));
                // The rest is read with the record; this ends the reading here.
                return Err(A::Error::custom("found"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// A fault, and for times, what kind of it.
type Found = Option<(Option<NoTime>, Fault)>;

/// The members of an object as the fields of a record.
struct Record<'a, 'de> {
    fields: &'a [Field],
    form: TimeForm,
    /// Not for records within records.
    from_message: Option<&'a MessageFields>,
    fault: &'a mut Found,
    cells: &'a mut Cells<'de>,
}

impl<'de> DeserializeSeed<'de> for Record<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Record<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let count = self.fields.len();
        self.cells.resize(count, Cell::Missing);
        let mut next = 0;
        while let Some(at) = map.next_key_seed(Key { fields: self.fields, next })? {
            let Some(at) = at else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            next = at + 1;
            let field = &self.fields[at];
            if self.from_message.is_some_and(|fields| fields.has(at)) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if self.cells[at] != Cell::Missing {
                let fault = Fault::field(Reason::Malformed, &field.name, "it is given twice");
                return fail(self.fault, (None, fault));
            }
            self.cells[at] = map.next_value_seed(Value { field, form: self.form, fault: self.fault })?;
        }
        for (at, (field, cell)) in self.fields.iter().zip(&mut *self.cells).enumerate() {
            if *cell == Cell::Missing {
                if self.from_message.is_some_and(|fields| fields.has(at)) {
                    continue;
                }
                if !field.is_nullable() {
                    let fault = Fault::field(Reason::BadValue, &field.name, "it is missing, and is never null");
                    return fail(self.fault, (None, fault));
                }
                *cell = Cell::Null;
            }
        }
        Ok(())
    }
}

#[cold]
fn fail<T, E: serde::de::Error>(slot: &mut Found, fault: (Option<NoTime>, Fault)) -> Result<T, E> {
    *slot = Some(fault);
    Err(E::custom("see the fault"))
}

/// A member's name to the number of its field. `next` is where it most likely is: writers keep an order.
struct Key<'a> {
    fields: &'a [Field],
    next: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let next = self.next.min(self.fields.len());
        Ok((next..self.fields.len()).chain(0..next).find(|at| self.fields[*at].name == name))
    }
}

/// The value of a field.
struct Value<'a> {
    field: &'a Field,
    form: TimeForm,
    fault: &'a mut Found,
}

impl Value<'_> {
    #[cold]
    fn refuse<T, E: serde::de::Error>(self, found: &str, error: Option<NoTime>) -> Result<T, E> {
        let mut wanted = expected(&self.field.kind, self.form);
        if self.field.is_nullable() {
            wanted.push_str(", or null");
        }
        let fault = Fault::value(&self.field.name, found.as_bytes(), &wanted);
        fail(self.fault, (error, fault))
    }

    fn time<E: serde::de::Error>(self, found: &str, time: Result<i64, NoTime>) -> Result<Cell<'static>, E> {
        match time {
            Ok(value) => Ok(Cell::Long(value)),
            Err(error) => self.refuse(found, Some(error)),
        }
    }

    fn text<'a, E: serde::de::Error>(self, text: Cow<'a, str>) -> Result<Cell<'a>, E> {
        let bytes = text.as_bytes();
        let cell = match &self.field.kind {
            FieldKind::String => Some(Cell::Text(text.clone())),
            FieldKind::Uuid => value::is_uuid(bytes).then(|| Cell::Text(text.clone())),
            FieldKind::Enum(symbols) => {
                symbols.iter().position(|symbol| *symbol == *text).map(|number| Cell::Int(number as i32))
            }
            FieldKind::Date => time::date(bytes).map(Cell::Int),
            FieldKind::Decimal { precision, scale, .. } => value::decimal(bytes, *precision, *scale).map(Cell::Decimal),
            FieldKind::Bytes | FieldKind::Fixed(_) => {
                let mut decoded = Vec::with_capacity(bytes.len() / 2);
                let right = value::hex(bytes, &mut decoded);
                let fits = !matches!(self.field.kind, FieldKind::Fixed(size) if decoded.len() != size);
                right.filter(|()| fits).map(|()| Cell::Bytes(Cow::Owned(decoded)))
            }
            kind => match unit(kind) {
                Some(unit) => {
                    let time = self.form.parse(bytes, unit);
                    return self.time(&text, time);
                }
                None => None,
            },
        };
        cell.map_or_else(|| self.refuse(&text, None), Ok)
    }

    fn whole<E: serde::de::Error>(self, number: i128) -> Result<Cell<'static>, E> {
        let long = i64::try_from(number);
        let cell = match &self.field.kind {
            FieldKind::Int => i32::try_from(number).ok().map(Cell::Int),
            FieldKind::Long => long.ok().map(Cell::Long),
            FieldKind::Float => Some(Cell::Float(number as f32)),
            FieldKind::Double => Some(Cell::Double(number as f64)),
            FieldKind::Decimal { precision, scale, .. } => {
                let factor = u32::try_from(*scale).ok().and_then(|scale| 10i128.checked_pow(scale));
                let unscaled = factor.and_then(|factor| number.checked_mul(factor));
                unscaled.filter(|value| value::fits(*value, *precision)).map(Cell::Decimal)
            }
            kind => match unit(kind) {
                Some(unit) if self.form != TimeForm::Iso8601 => {
                    let time = long.map_err(|_| NoTime::Range).and_then(|number| self.form.whole(number, unit));
                    return self.time(&number.to_string(), time);
                }
                _ => None,
            },
        };
        cell.map_or_else(|| self.refuse(&number.to_string(), None), Ok)
    }
}

/// What a timestamp counts.
fn unit(kind: &FieldKind) -> Option<Unit> {
    match kind {
        FieldKind::TimestampMillis => Some(Unit::Millis),
        FieldKind::TimestampMicros => Some(Unit::Micros),
        _ => None,
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Cell<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Cell<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&expected(&self.field.kind, self.form))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Cell<'de>, E> {
        if self.field.is_nullable() { Ok(Cell::Null) } else { self.refuse("null", None) }
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Cell<'de>, E> {
        match self.field.kind {
            FieldKind::Boolean => Ok(Cell::Boolean(value)),
            _ => self.refuse(if value { "true" } else { "false" }, None),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Cell<'de>, E> {
        self.whole(number.into())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Cell<'de>, E> {
        self.whole(number.into())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Cell<'de>, E> {
        // The shortest text that stands for this number, which is what was written, up to 15 digits.
        let text = number.to_string();
        match &self.field.kind {
            FieldKind::Double => Ok(Cell::Double(number)),
            FieldKind::Float if (number as f32).is_finite() => Ok(Cell::Float(number as f32)),
            kind => match unit(kind) {
                Some(unit) if self.form != TimeForm::Iso8601 => {
                    let time = self.form.parse(text.as_bytes(), unit);
                    self.time(&text, time)
                }
                _ => self.refuse(&text, None),
            },
        }
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Cell<'de>, E> {
        self.text(Cow::Borrowed(text))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cell<'de>, E> {
        self.text(Cow::<'de, str>::Owned(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Cell<'de>, A::Error> {
        let FieldKind::Array(item) = &self.field.kind else { return self.refuse("[...]", None) };
        let mut cells = Vec::new();
        let mut inner = None;
        loop {
            let value = Value { field: item, form: self.form, fault: &mut inner };
            match items.next_element_seed(value) {
                Ok(Some(cell)) => cells.push(cell),
                Ok(None) => return Ok(Cell::List(cells)),
                Err(error) => return Err(self.outer(inner, error)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell<'de>, A::Error> {
        let mut inner = None;
        let read = match &self.field.kind {
            FieldKind::Record(fields) => {
                let mut cells = Vec::new();
                let record =
                    Record { fields, form: self.form, from_message: None, fault: &mut inner, cells: &mut cells };
                record.visit_map(map).map(|()| Cell::Record(cells))
            }
            FieldKind::Map(field) => {
                let mut entries = Vec::new();
                loop {
                    let key = match map.next_key_seed(Text) {
                        Ok(Some(key)) => key,
                        Ok(None) => break Ok(Cell::Map(entries)),
                        Err(error) => break Err(error),
                    };
                    match map.next_value_seed(Value { field, form: self.form, fault: &mut inner }) {
                        Ok(cell) => entries.push((key, cell)),
                        Err(error) => break Err(error),
                    }
                }
            }
            _ => return self.refuse("{...}", None),
        };
        read.map_err(|error| self.outer(inner, error))
    }
}

impl Value<'_> {
    /// Takes over the fault of a value inside this one.
    #[cold]
    fn outer<E>(self, inner: Found, error: E) -> E {
        *self.fault = inner.map(|(_, fault)| (None, fault.inside(&self.field.name)));
        error
    }
}
