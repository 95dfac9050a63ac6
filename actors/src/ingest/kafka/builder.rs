//! Messages of one partition on their way into a chunk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_buffer::Buffer;
use tidemill_core::{Framing, MessageTable, MessageTime, Messages, Origin, RawChunk, Span, framed};

use super::schemas::Found;
use crate::ingest::now_ms;
use crate::kafka::native::Message;

/// Collects messages. What it holds is copied: librdkafka frees a message as soon as it was looked at.
#[derive(Default)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    positions: Vec<u64>,
    values: Vec<Span>,
    /// Empty as long as no message has a key.
    keys: Vec<Span>,
    times: Vec<MessageTime>,
    headers: Vec<(Span, Span)>,
    /// Empty as long as no message has headers.
    header_ends: Vec<u32>,
    /// Schemas that the values refer to.
    schema_ids: BTreeSet<u32>,
}

impl Builder {
    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// When the newest message was made, or appended, in milliseconds since 1970.
    pub(super) fn newest_ms(&self) -> Option<i64> {
        match self.times.last()? {
            MessageTime::Unknown => None,
            MessageTime::Producer(ms) | MessageTime::Append(ms) => Some(*ms),
        }
    }

    /// Schemas that the values in it refer to, where [`Builder::note_schema`] was called for them.
    pub(super) fn schema_ids(&self) -> &BTreeSet<u32> {
        &self.schema_ids
    }

    /// Notes the schema that a value refers to.
    pub(super) fn note_schema(&mut self, message: &Message<'_>) {
        if let Some((id, _)) = message.value().and_then(framed) {
            self.schema_ids.insert(id);
        }
    }

    #[inline]
    pub(super) fn push(&mut self, position: u64, message: &Message<'_>) {
        let value = self.put(message.value());
        if let Some(key) = message.key() {
            self.keys.resize(self.positions.len(), Span::NONE);
            let key = self.put(Some(key));
            self.keys.push(key);
        } else if !self.keys.is_empty() {
            self.keys.push(Span::NONE);
        }
        let before = self.headers.len();
        message.headers(|name, value| {
            let name = self.put(Some(name));
            let value = self.put(value);
            self.headers.push((name, value));
        });
        if self.headers.len() > before || !self.header_ends.is_empty() {
            self.header_ends.resize(self.positions.len(), before as u32);
            self.header_ends.push(self.headers.len() as u32);
        }
        self.positions.push(position);
        self.values.push(value);
        self.times.push(message.time());
    }

    #[inline]
    fn put(&mut self, part: Option<&[u8]>) -> Span {
        let Some(part) = part else { return Span::NONE };
        let span = Span { start: self.bytes.len() as u32, len: part.len() as u32 };
        self.bytes.extend_from_slice(part);
        span
    }

    /// The chunk, behind which `next` is; `None` when it is empty.
    pub(super) fn take(
        &mut self,
        source: &Arc<str>,
        partition: &Arc<str>,
        topic: &Arc<str>,
        number: i32,
        schemas: BTreeMap<u32, Found>,
    ) -> Option<RawChunk> {
        let (first, last) = (*self.positions.first()?, *self.positions.last()?);
        let next = Self { bytes: Vec::with_capacity(self.bytes.len()), ..Self::default() };
        let built = std::mem::replace(self, next);
        let table = MessageTable {
            topic: topic.clone(),
            partition: number,
            positions: built.positions,
            values: built.values,
            keys: built.keys,
            times: built.times,
            headers: built.headers,
            header_ends: built.header_ends,
            schemas,
        };
        let origin =
            Origin { source: source.clone(), partition: partition.clone(), first, next: last + 1, enters: None };
        Some(RawChunk {
            origin: Arc::new(origin),
            bytes: Buffer::from_vec(built.bytes),
            framing: Framing::Messages(Messages::new(Arc::new(table))),
            arrived_at_ms: now_ms(),
        })
    }
}
