//! What is taken from the message around a record: its type, and fields with its key, headers, topic, place and time.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};
use tidemill_core::{
    DefaultValue, EventType, Field, FieldKind, Finding, Message, MessageTime, OptionSpec, OptionType, Reason,
};

use super::cell::Cell;
use super::config::TypeFrom;
use super::fault::{Fault, shown};
use super::names::Names;

/// The option `from_message`.
pub(super) const FROM_MESSAGE: OptionSpec = OptionSpec {
    name: "from_message",
    ty: OptionType::TextTable,
    default: DefaultValue::Toml("{}"),
    doc: "Fields that are not in the record but come from the Kafka message around it: \"key\" and \"header:NAME\" (into string or bytes), \
          \"topic\" (string), \"partition\" (int), \"offset\" (long), \"producer_time\" and \"append_time\" (timestamps; a message has one of \
          them, as its topic says). Without such a key, header or time the field is null, or if it is never null, the record is \
          `bad_value`.",
    shapes_state: false,
};

/// `from_message` as it is written: field and part.
pub(super) type FromMessage = Map<String, Value>;

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Key,
    Header(String),
    Topic,
    Partition,
    Offset,
    ProducerTime,
    AppendTime,
}

impl Part {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "key" => Self::Key,
            "topic" => Self::Topic,
            "partition" => Self::Partition,
            "offset" => Self::Offset,
            "producer_time" => Self::ProducerTime,
            "append_time" => Self::AppendTime,
            other => Self::Header(other.strip_prefix("header:").filter(|name| !name.is_empty())?.to_owned()),
        })
    }

    /// Whether a field of that kind can hold it.
    fn fits(&self, kind: &FieldKind) -> bool {
        match self {
            Self::Key | Self::Header(_) => matches!(kind, FieldKind::String | FieldKind::Bytes),
            Self::Topic => *kind == FieldKind::String,
            Self::Partition => matches!(kind, FieldKind::Int | FieldKind::Long),
            Self::Offset => *kind == FieldKind::Long,
            Self::ProducerTime | Self::AppendTime => kind.is_time(),
        }
    }

    fn holds(&self) -> &'static str {
        match self {
            Self::Key | Self::Header(_) => "a string or bytes",
            Self::Topic => "a string",
            Self::Partition => "an int or long",
            Self::Offset => "a long",
            Self::ProducerTime | Self::AppendTime => "timestamp-millis or timestamp-micros",
        }
    }
}

/// The fields of one type that come from the message, by their index.
#[derive(Clone, Debug, Default)]
pub(super) struct MessageFields(Vec<(usize, Part)>);

impl MessageFields {
    /// Those of a type. Everything that is wrong has been found by [`check`].
    pub(super) fn of(option: &FromMessage, event_type: &EventType) -> Self {
        let field = |(name, part): (&String, &Value)| Some((event_type.field(name)?.0, Part::parse(part.as_str()?)?));
        Self(option.iter().filter_map(field).collect())
    }

    /// Whether a field is one of them.
    pub(super) fn has(&self, field: usize) -> bool {
        self.0.iter().any(|(at, _)| *at == field)
    }

    /// Puts their cells into those of a record.
    pub(super) fn fill<'a>(
        &self,
        fields: &[Field],
        message: Option<Message<'a>>,
        cells: &mut [Cell<'a>],
    ) -> Result<(), Fault> {
        for (at, _) in &self.0 {
            cells[*at] = self.cell(*at, &fields[*at], message)?;
        }
        Ok(())
    }

    /// The cell of one field.
    pub(super) fn cell<'a>(&self, at: usize, field: &Field, message: Option<Message<'a>>) -> Result<Cell<'a>, Fault> {
        let Some((_, part)) = self.0.iter().find(|(known, _)| *known == at) else { return Ok(Cell::Null) };
        let cell = match message {
            Some(message) => value(part, field, message)?,
            None => Cell::Null,
        };
        if cell == Cell::Null && !field.is_nullable() {
            let message = format!("it is never null, and the message has no {}", name(part));
            return Err(Fault::field(Reason::BadValue, &field.name, message));
        }
        Ok(cell)
    }
}

fn name(part: &Part) -> String {
    match part {
        Part::Header(name) => format!("header `{name}`"),
        Part::Key => "key".to_owned(),
        Part::ProducerTime => "time of its producer".to_owned(),
        Part::AppendTime => "time of its broker".to_owned(),
        Part::Topic | Part::Partition | Part::Offset => "place: it is a line of a file".to_owned(),
    }
}

fn value<'a>(part: &Part, field: &Field, message: Message<'a>) -> Result<Cell<'a>, Fault> {
    let bytes = |bytes: Option<&'a [u8]>| match (bytes, &field.kind) {
        (None, _) => Ok(Cell::Null),
        (Some(bytes), FieldKind::Bytes) => Ok(Cell::Bytes(Cow::Borrowed(bytes))),
        (Some(bytes), _) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cell::Text(Cow::Borrowed(text))),
            Err(_) => Err(Fault::value(&field.name, bytes, "valid UTF-8")),
        },
    };
    let time = |ms: i64| match &field.kind {
        FieldKind::TimestampMicros => Cell::Long(ms.saturating_mul(1_000)),
        _ => Cell::Long(ms),
    };
    match part {
        Part::Key => bytes(message.key()),
        Part::Header(name) => bytes(message.header(name)),
        Part::Topic => Ok(Cell::Text(Cow::Borrowed(message.topic()))),
        Part::Partition if field.kind == FieldKind::Int => Ok(Cell::Int(message.partition())),
        Part::Partition => Ok(Cell::Long(message.partition().into())),
        Part::Offset => Ok(Cell::Long(message.position() as i64)),
        Part::ProducerTime => Ok(match message.time() {
            MessageTime::Producer(ms) => time(ms),
            MessageTime::Append(_) | MessageTime::Unknown => Cell::Null,
        }),
        Part::AppendTime => Ok(match message.time() {
            MessageTime::Append(ms) => time(ms),
            MessageTime::Producer(_) | MessageTime::Unknown => Cell::Null,
        }),
    }
}

/// Everything that is wrong with `from_message`.
pub(super) fn check(option: &FromMessage, types: &[Arc<EventType>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, text) in option {
        let text = text.as_str().unwrap_or_default();
        let error = |code, message: String| Finding::error(code, "from_message", message).item(name.clone());
        let Some(part) = Part::parse(text) else {
            let help = "the parts are \"key\", \"header:NAME\", \"topic\", \"partition\", \"offset\", \"producer_time\" and \"append_time\"";
            findings.push(error("bad-message-part", format!("a message has no part `{text}`")).help(help));
            continue;
        };
        for known in types {
            match known.field(name) {
                None => {
                    let names: Vec<&str> = known.fields.iter().map(|field| field.name.as_str()).collect();
                    let message = format!("type `{}` has no field `{name}`", known.name);
                    findings.push(error("unknown-field", message).help(format!("its fields are {}", names.join(", "))));
                }
                Some((_, field)) if !part.fits(&field.kind) => {
                    let (kind, holds) = (field.kind.name(), part.holds());
                    let message =
                        format!("field `{name}` of type `{}` is {kind}, and \"{text}\" needs {holds}", known.name);
                    findings.push(error("wrong-field-kind", message).help("change the schema, or take another part"));
                }
                Some(_) => {}
            }
        }
    }
    findings
}

/// The number of a record's type where the message tells it; `None` where something else does.
pub(super) fn type_number(
    type_from: Option<&TypeFrom>,
    names: &Names,
    message: Option<Message<'_>>,
) -> Option<Result<usize, Fault>> {
    let (told, what) = match type_from? {
        TypeFrom::Header(header) => (message.map(|message| message.header(header)), format!("header `{header}`")),
        TypeFrom::Topic(_) => (message.map(|message| Some(message.topic().as_bytes())), "topic".to_owned()),
        TypeFrom::Column(_) | TypeFrom::Field(_) | TypeFrom::Const(_) => return None,
    };
    Some(match told {
        None => Err(Fault::record(Reason::Malformed, format!("it is no message, so no {what} names its type"))),
        Some(None) => Err(Fault::record(Reason::Malformed, format!("it has no {what}, which names its type"))),
        Some(Some(name)) => names.find(name).ok_or_else(|| {
            let message = format!("its {what} names the type {}, which is not declared here", shown(name));
            Fault::record(Reason::UnknownType, message)
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidemill_core::{MessageTable, Messages, Span};

    use super::*;

    fn play() -> Arc<EventType> {
        let schema = r#"{"type":"record","name":"P","fields":[
            {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
            {"name":"who","type":"string"},
            {"name":"trace","type":["null","bytes"]},
            {"name":"place","type":"long"}]}"#;
        Arc::new(EventType::new("play", schema, "at", &[], None).unwrap())
    }

    fn option(pairs: &[(&str, &str)]) -> FromMessage {
        pairs.iter().map(|(field, part)| ((*field).to_owned(), Value::from(*part))).collect()
    }

    fn codes(pairs: &[(&str, &str)]) -> Vec<&'static str> {
        check(&option(pairs), &[play()]).iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn parts_have_to_fit_their_fields() {
        let all = [("at", "append_time"), ("who", "key"), ("trace", "header:x"), ("place", "offset")];
        assert_eq!(codes(&all), Vec::<&str>::new());
        assert_eq!(codes(&[("who", "kye")]), ["bad-message-part"]);
        assert_eq!(codes(&[("who", "header:")]), ["bad-message-part"]);
        assert_eq!(codes(&[("whom", "key")]), ["unknown-field"]);
        assert_eq!(codes(&[("who", "offset"), ("at", "topic"), ("place", "key")]), ["wrong-field-kind"; 3]);
    }

    #[test]
    fn cells_come_from_the_message_and_are_null_or_at_fault_without() {
        let bytes = b"valuekeyxheader\xff";
        let span = |start, len| Span { start, len };
        let table = MessageTable {
            topic: "plays".into(),
            partition: 2,
            positions: vec![40, 41],
            values: vec![span(0, 5), span(0, 5)],
            keys: vec![span(5, 3), span(15, 1)],
            times: vec![MessageTime::Append(7), MessageTime::Producer(8)],
            headers: vec![(span(8, 1), span(9, 6))],
            header_ends: vec![1, 1],
            schemas: BTreeMap::new(),
        };
        let messages = Messages::new(Arc::new(table));
        let play = play();
        let all = [("at", "append_time"), ("who", "key"), ("trace", "header:x"), ("place", "partition")];
        let fields = MessageFields::of(&option(&all), &play);
        let filled = |message| {
            let mut cells = vec![Cell::Missing; 4];
            fields.fill(&play.fields, message, &mut cells).map(|()| cells).map_err(|fault| fault.text())
        };
        let mut all = messages.iter(bytes);
        let cells = filled(all.next()).unwrap();
        assert_eq!(cells[0], Cell::Long(7_000));
        assert_eq!(cells[1], Cell::Text("key".into()));
        assert_eq!(cells[2], Cell::Bytes(b"header"[..].into()));
        assert_eq!(cells[3], Cell::Long(2));
        let second = all.next();
        assert!(filled(second).unwrap_err().contains("time of its broker"));
        assert_eq!(fields.cell(2, &play.fields[2], second), Ok(Cell::Null));
        assert!(fields.cell(1, &play.fields[1], second).unwrap_err().text().contains("UTF-8"));
        assert!(filled(None).is_err());
    }

    #[test]
    fn headers_and_topics_name_types() {
        let bytes = b"typeplaystop";
        let span = |start, len| Span { start, len };
        let table = MessageTable {
            topic: "stop".into(),
            partition: 0,
            positions: vec![1, 2],
            values: vec![span(0, 0), span(0, 0)],
            keys: Vec::new(),
            times: vec![MessageTime::Unknown; 2],
            headers: vec![(span(0, 4), span(4, 5))],
            header_ends: vec![1, 1],
            schemas: BTreeMap::new(),
        };
        let messages = Messages::new(Arc::new(table));
        let names = Names::new(["stop", "plays"]);
        let header = TypeFrom::Header("type".to_owned());
        let number = |from: &TypeFrom, message| {
            type_number(Some(from), &names, message).map(|told| told.map_err(|fault| fault.reason))
        };
        let all: Vec<_> = messages.iter(bytes).collect();
        assert_eq!(number(&header, Some(all[0])), Some(Ok(1)));
        assert_eq!(number(&header, Some(all[1])), Some(Err(Reason::Malformed)));
        assert_eq!(number(&TypeFrom::Topic(true), Some(all[0])), Some(Ok(0)));
        assert_eq!(number(&TypeFrom::Topic(true), None), Some(Err(Reason::Malformed)));
        assert_eq!(number(&TypeFrom::Const("stop".to_owned()), Some(all[0])), None);
        let few = Names::new(["plays"]);
        assert_eq!(type_number(Some(&TypeFrom::Topic(true)), &few, Some(all[0])).map(|told| told.is_err()), Some(true));
    }
}
