//! Messages of a partitioned log, such as Kafka, as a source hands them on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A part of a chunk's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of its first byte.
    pub start: u32,
    /// Its length in bytes.
    pub len: u32,
}

impl Span {
    /// What is not there, which is something else than what is empty.
    pub const NONE: Self = Self { start: 0, len: u32::MAX };

    /// Whether it is there.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.len != u32::MAX
    }

    /// Its bytes; `None` when it is not there.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> Option<&[u8]> {
        self.is_some().then(|| &bytes[self.start as usize..self.start as usize + self.len as usize])
    }
}

/// What a message that refers to a schema begins with: this byte, then the schema's id in four bytes, the most significant
/// first. Behind them is the Avro datum (Confluent's documentation of its schema registry, "Wire format").
pub const SCHEMA_MAGIC: u8 = 0;

/// The schema id that a value begins with, and the datum behind it; `None` when it does not begin so.
#[must_use]
#[inline]
pub fn framed(value: &[u8]) -> Option<(u32, &[u8])> {
    let (head, datum) = value.split_first_chunk::<5>()?;
    let [magic, id @ ..] = *head;
    (magic == SCHEMA_MAGIC).then(|| (u32::from_be_bytes(id), datum))
}

/// The timestamp of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageTime {
    /// It has none.
    Unknown,
    /// The producer set it; milliseconds since 1970.
    Producer(i64),
    /// The broker set it when it appended the message; milliseconds since 1970.
    Append(i64),
}

/// Messages of one partition in order of position, column by column. Spans are parts of the chunk's bytes.
#[derive(Debug)]
pub struct MessageTable {
    /// The topic.
    pub topic: Arc<str>,
    /// Number of the partition in its topic.
    pub partition: i32,
    /// Position of each message, ascending; there may be gaps.
    pub positions: Vec<u64>,
    /// Value of each message.
    pub values: Vec<Span>,
    /// Key of each message; empty when none has one.
    pub keys: Vec<Span>,
    /// Timestamp of each message.
    pub times: Vec<MessageTime>,
    /// Names and values of the headers of all messages, one message behind the other.
    pub headers: Vec<(Span, Span)>,
    /// End of each message's headers in `headers`; empty when no message has any.
    pub header_ends: Vec<u32>,
    /// Schemas that messages refer to by the id in their first bytes, where the source looked them up: the text, or why
    /// there is none.
    pub schemas: BTreeMap<u32, Result<Arc<str>, Arc<str>>>,
}

/// Some consecutive messages of a table.
#[derive(Clone, Debug)]
pub struct Messages {
    table: Arc<MessageTable>,
    range: Range<usize>,
}

impl Messages {
    /// All messages of a table.
    #[must_use]
    pub fn new(table: Arc<MessageTable>) -> Self {
        let range = 0..table.values.len();
        Self { table, range }
    }

    /// The table that they are from.
    #[must_use]
    pub fn table(&self) -> &MessageTable {
        &self.table
    }

    /// Number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The messages; `bytes` are those of the chunk.
    pub fn iter<'a>(&'a self, bytes: &'a [u8]) -> impl ExactSizeIterator<Item = Message<'a>> + 'a {
        self.range.clone().map(move |index| Message { table: &self.table, bytes, index })
    }

    /// The message at a position; `bytes` are those of the chunk.
    #[must_use]
    pub fn find<'a>(&'a self, bytes: &'a [u8], position: u64) -> Option<Message<'a>> {
        let positions = &self.table.positions[self.range.clone()];
        let index = self.range.start + positions.binary_search(&position).ok()?;
        Some(Message { table: &self.table, bytes, index })
    }

    /// The first `count` messages, and the others.
    #[must_use]
    pub fn split_at(&self, count: usize) -> (Self, Self) {
        let middle = (self.range.start + count).min(self.range.end);
        let part = |range| Self { table: self.table.clone(), range };
        (part(self.range.start..middle), part(middle..self.range.end))
    }
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    table: &'a MessageTable,
    bytes: &'a [u8],
    index: usize,
}

impl<'a> Message<'a> {
    /// The topic that it is from.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        &self.table.topic
    }

    /// Number of its partition in the topic.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.table.partition
    }

    /// Its position in the partition.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.table.positions[self.index]
    }

    /// Where its value is in the chunk's bytes; [`Span::NONE`] for a tombstone.
    #[must_use]
    pub fn span(&self) -> Span {
        self.table.values[self.index]
    }

    /// Its value; `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.span().of(self.bytes)
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.table.keys.get(self.index)?.of(self.bytes)
    }

    /// Its timestamp.
    #[must_use]
    pub fn time(&self) -> MessageTime {
        self.table.times[self.index]
    }

    /// The value of its last header with that name; `None` when there is no such header or it has no value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let end = *self.table.header_ends.get(self.index)? as usize;
        let start = self.index.checked_sub(1).map_or(0, |before| self.table.header_ends[before] as usize);
        let named = |(key, _): &&(Span, Span)| key.of(self.bytes) == Some(name.as_bytes());
        self.table.headers[start..end].iter().rev().find(named)?.1.of(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u32, len: u32) -> Span {
        Span { start, len }
    }

    #[test]
    fn a_message_knows_its_parts_after_a_split_too() {
        let bytes = b"onekeynamevaluenameother";
        let table = MessageTable {
            topic: "t".into(),
            partition: 0,
            positions: vec![7, 9],
            values: vec![span(0, 3), Span::NONE],
            keys: vec![Span::NONE, span(3, 3)],
            times: vec![MessageTime::Unknown, MessageTime::Append(5)],
            headers: vec![(span(6, 4), span(10, 5)), (span(15, 4), span(19, 5)), (span(6, 4), Span::NONE)],
            header_ends: vec![2, 3],
            schemas: BTreeMap::new(),
        };
        let (head, tail) = Messages::new(Arc::new(table)).split_at(1);
        let first = head.iter(bytes).next().unwrap();
        assert_eq!((first.position(), first.value(), first.key()), (7, Some(&b"one"[..]), None));
        assert_eq!((first.header("name"), first.header("nam")), (Some(&b"other"[..]), None));
        let second = tail.iter(bytes).next().unwrap();
        assert_eq!((second.position(), second.value(), second.key()), (9, None, Some(&b"key"[..])));
        assert_eq!((second.header("name"), second.time()), (None, MessageTime::Append(5)));
        assert_eq!((head.len(), tail.len(), tail.split_at(1).1.is_empty()), (1, 1, true));
        assert_eq!(tail.find(bytes, 9).map(|message| message.position()), Some(9));
        assert!(tail.find(bytes, 7).is_none() && head.find(bytes, 8).is_none());
    }

    #[test]
    fn a_value_is_framed_only_behind_a_zero_byte_and_four_of_the_id() {
        assert_eq!(framed(b"\0\0\0\x01\x02rest"), Some((258, &b"rest"[..])));
        assert_eq!(framed(b"\0\0\0\x01\x02"), Some((258, &b""[..])));
        for other in [&b"\0\0\0\x01"[..], b"\x01\0\0\x01\x02", b""] {
            assert_eq!(framed(other), None);
        }
    }
}
