//! What moves through a topology: raw chunks as a source read them, then typed batches.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{RecordBatch, make_array};
use arrow_buffer::Buffer;
use arrow_data::transform::MutableArrayData;

use crate::effects::HourNote;
use crate::event_type::EventType;
use crate::message::Messages;
use crate::totals::Counts;

/// Where records came from. Positions are the source's own (for files: bytes of the decompressed stream).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name of the source in the topology.
    pub source: Arc<str>,
    /// Partition of the source.
    pub partition: Arc<str>,
    /// Position of the first record.
    pub first: u64,
    /// Position behind the last record.
    pub next: u64,
    /// The stage at which they enter a second time, as a replay of dead letters: those before it hand them on as they are. `None` for
    /// what a source has read.
    pub enters: Option<Arc<str>>,
}

impl Origin {
    /// The same behind the stage where the records entered.
    #[must_use]
    pub fn entered(self: &Arc<Self>) -> Arc<Self> {
        match self.enters {
            Some(_) => Arc::new(Self { enters: None, ..(**self).clone() }),
            None => self.clone(),
        }
    }
}

/// How the records of a raw chunk are told apart.
#[derive(Clone, Debug)]
pub enum Framing {
    /// Every record ends at a line feed; the last one of a file may lack it. Empty lines are no records.
    /// The position of a record is the chunk's `first` plus its offset in the bytes.
    Lines,
    /// Whole blocks of an Avro container file (count, size, data, sync marker), without its header,
    /// which is given here. The position of a record is that of its block.
    AvroBlocks {
        /// The file's header: magic, metadata, sync marker.
        header: Buffer,
    },
    /// Separate messages, each a record with a position of its own.
    Messages(Messages),
}

/// Bytes as a source read them: whole records, in order.
#[derive(Clone, Debug)]
pub struct RawChunk {
    /// Where they came from.
    pub origin: Arc<Origin>,
    /// The bytes, shared by everything that is parsed from them.
    pub bytes: Buffer,
    /// How they divide into records.
    pub framing: Framing,
    /// When they arrived, in milliseconds since 1970 (wall clock).
    pub arrived_at_ms: i64,
}

/// The original bytes of a batch's rows: row `i` is `raw[starts[i]..starts[i] + lens[i]]`
/// at position `origin.first + starts[i]` (lines), so that any stage can dead-letter a row as it was received.
#[derive(Clone, Debug, Default)]
pub struct RowOrigins {
    /// The chunk that the rows were parsed from; `None` for rows that a stage made.
    pub raw: Option<Buffer>,
    /// Offset of each row in `raw`.
    pub starts: Arc<[u32]>,
    /// Length of each row in bytes.
    pub lens: Arc<[u32]>,
    /// Position of each row, where it is not `origin.first` plus its start.
    pub positions: Option<Arc<[u64]>>,
}

/// Typed events of one type.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Their type.
    pub event_type: Arc<EventType>,
    /// One column a field of the type.
    pub records: RecordBatch,
    /// The rows that count, in ascending order; `None` means all.
    pub selection: Option<Arc<[u32]>>,
    /// The rows as they were received.
    pub rows: RowOrigins,
    /// The chunk they came from.
    pub origin: Arc<Origin>,
    /// When they arrived, in milliseconds since 1970.
    pub arrived_at_ms: i64,
    /// Bytes that the batch is counted with by queues: what its rows hold of the received bytes.
    pub payload_bytes: usize,
    /// What is counted of it. The runtime fills it in when the batch leaves the stage that has made it, which says `None`.
    pub counts: Option<Arc<Counts>>,
}

impl Batch {
    /// Number of selected rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.selection.as_ref().map_or(self.records.num_rows(), |rows| rows.len())
    }

    /// Whether no row is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The selected rows' indexes into the columns.
    #[inline]
    pub fn indexes(&self) -> impl Iterator<Item = usize> + '_ {
        let all = if self.selection.is_some() { 0 } else { self.records.num_rows() };
        let some = self.selection.as_deref().unwrap_or(&[]);
        (0..all).chain(some.iter().map(|row| *row as usize))
    }

    /// The same batch with only these rows (indexes into the columns, ascending). Copies no column.
    #[must_use]
    pub fn select(&self, rows: Vec<u32>) -> Self {
        let all = self.len().max(1);
        let payload_bytes = self.payload_bytes * rows.len() / all;
        Self { selection: Some(rows.into()), payload_bytes, ..self.clone() }
    }

    /// The selected rows as a record batch of their own. Free when all rows are selected, else copies the columns' views.
    ///
    /// # Panics
    /// Never: the selection is made of valid row numbers.
    #[must_use]
    pub fn compact(&self) -> RecordBatch {
        let Some(selection) = &self.selection else { return self.records.clone() };
        let runs = runs(selection);
        let columns = self.records.columns().iter().map(|column| {
            let all = column.to_data();
            let mut kept = MutableArrayData::new(vec![&all], false, selection.len());
            for run in &runs {
                kept.try_extend(0, run.start, run.end).expect("no more than there was");
            }
            make_array(kept.freeze())
        });
        RecordBatch::try_new(self.records.schema(), columns.collect()).expect("columns of one length, as before")
    }

    /// Position of `row` in its partition.
    #[must_use]
    pub fn position(&self, row: usize) -> u64 {
        match (&self.rows.positions, self.rows.starts.get(row)) {
            (Some(positions), _) => positions[row],
            (None, Some(start)) => self.origin.first + u64::from(*start),
            (None, None) => self.origin.first,
        }
    }

    /// The bytes that `row` was received as; empty when they are not known.
    #[must_use]
    pub fn received(&self, row: usize) -> &[u8] {
        match &self.rows.raw {
            Some(raw) if row < self.rows.starts.len() => {
                let start = self.rows.starts[row] as usize;
                &raw[start..start + self.rows.lens[row] as usize]
            }
            _ => &[],
        }
    }

    /// Bytes that queues count the batch with: what was received plus 16 bytes a value, and for the hash of each id.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.payload_bytes + self.len() * (self.records.num_columns() + 1) * 16
    }
}

/// What a stage is given.
#[derive(Clone, Debug)]
pub enum Input {
    /// Records that are yet to be parsed.
    Raw(RawChunk),
    /// Typed events.
    Rows(Batch),
    /// What an earlier stage has to say about an hour.
    Note(HourNote),
}

impl Input {
    /// Bytes that queues count it with.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        match self {
            Self::Raw(chunk) => chunk.bytes.len(),
            Self::Rows(batch) => batch.weight_bytes(),
            Self::Note(_) => 0,
        }
    }

    /// How many records it holds; `None` for those that are told apart by the stage that parses them.
    #[must_use]
    pub fn records(&self) -> Option<u64> {
        match self {
            Self::Rows(batch) => Some(batch.len() as u64),
            Self::Note(_) => Some(0),
            Self::Raw(chunk) => match &chunk.framing {
                Framing::Messages(messages) => Some(messages.len() as u64),
                Framing::Lines | Framing::AvroBlocks { .. } => None,
            },
        }
    }

    /// Its events, if they are parsed.
    #[must_use]
    pub fn rows(&self) -> Option<&Batch> {
        match self {
            Self::Rows(batch) => Some(batch),
            Self::Raw(_) | Self::Note(_) => None,
        }
    }

    /// Splits it into two halves at a record's border, to find the record that makes a stage fail.
    /// `None` when it holds a single record (or, for Avro blocks, a single block).
    #[must_use]
    pub fn split(&self) -> Option<(Self, Self)> {
        match self {
            Self::Note(_) => None,
            Self::Rows(batch) => {
                let mut rows: Vec<u32> = batch.indexes().map(|row| row as u32).collect();
                if rows.len() < 2 {
                    return None;
                }
                let tail = rows.split_off(rows.len() / 2);
                Some((Self::Rows(batch.select(rows)), Self::Rows(batch.select(tail))))
            }
            Self::Raw(chunk) => chunk.split().map(|(head, tail)| (Self::Raw(head), Self::Raw(tail))),
        }
    }
}

impl RawChunk {
    /// Full length of a record of which the chunk holds `held` bytes: a source may hand on the beginning only of a line that
    /// is too long, as a chunk of its own whose origin covers all of it (with its line feed).
    #[must_use]
    pub fn whole_length(&self, held: usize) -> u64 {
        let span = self.origin.next.saturating_sub(self.origin.first);
        let is_beginning = matches!(self.framing, Framing::Lines) && span > self.bytes.len() as u64;
        if is_beginning { span } else { held as u64 }
    }

    /// The records before a position, which is that of a record; `None` when there are none.
    #[must_use]
    pub fn before(&self, position: u64) -> Option<Self> {
        if position <= self.origin.first {
            return None;
        }
        if position >= self.origin.next {
            return Some(self.clone());
        }
        match &self.framing {
            Framing::Lines | Framing::AvroBlocks { .. } => {
                let length = usize::try_from(position - self.origin.first).ok()?.min(self.bytes.len());
                Some(self.part(0, length, self.framing.clone()))
            }
            Framing::Messages(messages) => {
                let count = messages.iter(&self.bytes).take_while(|message| message.position() < position).count();
                let (head, _) = messages.split_at(count);
                let origin = Origin { next: position, ..(*self.origin).clone() };
                (count > 0).then(|| Self { origin: Arc::new(origin), framing: Framing::Messages(head), ..self.clone() })
            }
        }
    }

    fn split(&self) -> Option<(Self, Self)> {
        match &self.framing {
            Framing::Lines => {
                let middle = self.bytes.len() / 2;
                let feed = |from: usize, to: usize| self.bytes[from..to].iter().position(|byte| *byte == b'\n');
                let end = self.bytes.len().saturating_sub(1);
                let cut = match feed(middle.min(end), end) {
                    Some(at) => middle + at + 1,
                    None => self.bytes[..middle].iter().rposition(|byte| *byte == b'\n')? + 1,
                };
                Some((self.part(0, cut, Framing::Lines), self.part(cut, self.bytes.len(), Framing::Lines)))
            }
            Framing::AvroBlocks { header } => {
                let mut ends = avro_block_ends(&self.bytes);
                ends.pop();
                let cut = *ends.get(ends.len().checked_sub(1)? / 2)?;
                let framing = || Framing::AvroBlocks { header: header.clone() };
                Some((self.part(0, cut, framing()), self.part(cut, self.bytes.len(), framing())))
            }
            Framing::Messages(messages) => {
                let (head, tail) = messages.split_at(messages.len() / 2);
                if head.is_empty() {
                    return None;
                }
                let middle = tail.iter(&self.bytes).next()?.position();
                let half = |first: u64, next: u64, messages: Messages| {
                    let origin = Origin { first, next, ..(*self.origin).clone() };
                    Self { origin: Arc::new(origin), framing: Framing::Messages(messages), ..self.clone() }
                };
                Some((half(self.origin.first, middle, head), half(middle, self.origin.next, tail)))
            }
        }
    }

    fn part(&self, from: usize, to: usize, framing: Framing) -> Self {
        let origin = Origin {
            first: self.origin.first + from as u64,
            next: if to == self.bytes.len() { self.origin.next } else { self.origin.first + to as u64 },
            ..(*self.origin).clone()
        };
        Self { origin: Arc::new(origin), bytes: self.bytes.slice_with_length(from, to - from), framing, ..self.clone() }
    }
}

/// Ends of the Avro container blocks in `bytes`, as far as they are whole.
fn avro_block_ends(bytes: &[u8]) -> Vec<usize> {
    fn long(bytes: &[u8], at: &mut usize) -> Option<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *bytes.get(*at)?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        None
    }
    let mut ends = Vec::new();
    let mut at = 0;
    while let (Some(_), Some(size)) = (long(bytes, &mut at), long(bytes, &mut at)) {
        let Some(end) = usize::try_from(size).ok().and_then(|size| at.checked_add(size + 16)) else { break };
        if end > bytes.len() {
            break;
        }
        ends.push(end);
        at = end;
    }
    ends
}

/// Ascending row numbers as ranges without gaps, so that neighbours are copied together.
fn runs(rows: &[u32]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for row in rows.iter().map(|row| *row as usize) {
        match runs.last_mut() {
            Some(run) if run.end == row => run.end += 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::TimestampMillisecondType;

    use super::*;

    fn lines(text: &str) -> RawChunk {
        let origin = Origin {
            source: "s".into(),
            partition: "p".into(),
            first: 100,
            next: 100 + text.len() as u64,
            enters: None,
        };
        RawChunk {
            origin: Arc::new(origin),
            bytes: Buffer::from(text.as_bytes()),
            framing: Framing::Lines,
            arrived_at_ms: 0,
        }
    }

    fn leaves(input: Input) -> Vec<(u64, String)> {
        match input.split() {
            Some((head, tail)) => [leaves(head), leaves(tail)].concat(),
            None => {
                let Input::Raw(chunk) = input else { unreachable!() };
                vec![(chunk.origin.first, String::from_utf8(chunk.bytes.to_vec()).unwrap())]
            }
        }
    }

    #[test]
    fn splitting_lines_ends_at_single_lines_with_their_positions() {
        let parts = leaves(Input::Raw(lines("a\nbb\n\nccc\nd")));
        let text: String = parts.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(text, "a\nbb\n\nccc\nd");
        assert!(parts.iter().all(|(_, text)| text.trim_matches('\n').lines().count() <= 1), "{parts:?}");
        assert!(parts.contains(&(102, "bb\n".into())), "{parts:?}");
        assert!(parts.contains(&(110, "d".into())), "{parts:?}");
    }

    #[test]
    fn what_is_before_a_position_is_whole_records() {
        let chunk = lines("a\nbb\n\nccc\nd");
        let before = |position: u64| {
            let part = chunk.before(position)?;
            assert_eq!((part.origin.first, part.origin.next), (100, position.min(chunk.origin.next)));
            Some(String::from_utf8(part.bytes.to_vec()).unwrap())
        };
        assert_eq!(before(100), None);
        assert_eq!(before(102).as_deref(), Some("a\n"));
        assert_eq!(before(110).as_deref(), Some("a\nbb\n\nccc\n"));
        assert_eq!(before(1000).as_deref(), Some("a\nbb\n\nccc\nd"));
    }

    #[test]
    fn one_long_line_does_not_split() {
        assert!(Input::Raw(lines("aaaaaaaaaaaaaaaaaaaaaa\n")).split().is_none());
        assert!(Input::Raw(lines("aaaaaaaaaaaaaaaaaaaaaa")).split().is_none());
    }

    #[test]
    fn selected_rows_are_copied_whether_they_are_neighbours_or_not() {
        assert_eq!(runs(&[0, 1, 4, 6, 7]), [0..2, 4..5, 6..8]);
        assert_eq!(runs(&[]), []);
        let schema = r#"{"type":"record","name":"R","fields":[
            {"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}},
            {"name":"s","type":["null","string"]}]}"#;
        let event_type = Arc::new(EventType::new("r", schema, "t", &[], None).unwrap());
        let texts = [Some("a"), None, Some("longer than twelve bytes"), Some("b"), None, Some("c")];
        let columns: Vec<arrow_array::ArrayRef> = vec![
            Arc::new(arrow_array::TimestampMillisecondArray::from_iter_values(0..6).with_timezone("UTC")),
            Arc::new(arrow_array::StringViewArray::from_iter(texts)),
        ];
        let batch = Batch {
            records: RecordBatch::try_new(event_type.arrow.clone(), columns).unwrap(),
            event_type,
            selection: None,
            rows: RowOrigins::default(),
            origin: lines("").origin,
            arrived_at_ms: 0,
            payload_bytes: 0,
            counts: None,
        };
        assert_eq!(batch.compact(), batch.records);
        let kept = batch.select(vec![1, 2, 5]).compact();
        assert_eq!(kept.column(0).as_primitive::<TimestampMillisecondType>().values(), &[1, 2, 5]);
        let texts: Vec<Option<&str>> = kept.column(1).as_string_view().iter().collect();
        assert_eq!(texts, [None, Some("longer than twelve bytes"), Some("c")]);
    }
}
