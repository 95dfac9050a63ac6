//! The records of a chunk of lines or messages.

use tidemill_core::{Framing, Message, Messages, RawChunk, StageError};

/// One record: its place in the chunk's bytes, without the line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) position: u64,
}

/// Offset of the first record: behind a byte order mark at the very beginning of a partition.
pub(super) fn first_offset(chunk: &RawChunk) -> usize {
    if chunk.origin.first == 0 && chunk.bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }
}

/// Refuses chunks whose offsets do not fit 32 bits; the runtime then halves them.
pub(super) fn check_size(chunk: &RawChunk) -> Result<(), StageError> {
    if u32::try_from(chunk.bytes.len()).is_ok_and(|len| len < u32::MAX) {
        return Ok(());
    }
    let (len, source) = (chunk.bytes.len(), &chunk.origin.source);
    Err(StageError::new(format!("a chunk of source `{source}` has {len} bytes, more than 4 GiB")))
}

/// `end` without the line end that a record may have before it.
#[inline]
pub(super) fn without_line_end(bytes: &[u8], start: usize, end: usize) -> usize {
    let end = if end > start && bytes[end - 1] == b'\n' { end - 1 } else { end };
    if end > start && bytes[end - 1] == b'\r' { end - 1 } else { end }
}

/// The messages of a chunk that have a value, and where it is, without the line end that it may have.
pub(super) fn messages<'a>(
    chunk: &'a RawChunk,
    messages: &'a Messages,
) -> impl Iterator<Item = (Span, Message<'a>)> + 'a {
    messages.iter(&chunk.bytes).filter(|message| message.span().is_some()).map(|message| {
        let (span, position) = (message.span(), message.position());
        let start = span.start as usize;
        let end = without_line_end(&chunk.bytes, start, start + span.len as usize);
        (Span { start, end, position }, message)
    })
}

/// Calls `record` with each record of a chunk, and the message that it is. Empty lines are no records, empty messages are.
pub(super) fn each<'a>(
    chunk: &'a RawChunk,
    mut record: impl FnMut(Span, Option<Message<'a>>),
) -> Result<(), StageError> {
    check_size(chunk)?;
    let bytes = chunk.bytes.as_slice();
    match &chunk.framing {
        Framing::Messages(all) => messages(chunk, all).for_each(|(span, message)| record(span, Some(message))),
        Framing::Lines => {
            let mut start = first_offset(chunk);
            for feed in memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]) {
                let end = without_line_end(bytes, start, feed);
                if end > start {
                    record(Span { start, end, position: chunk.origin.first + start as u64 }, None);
                }
                start = feed + 1;
            }
        }
        Framing::AvroBlocks { .. } => return Err(wrong_framing("lines or messages, not Avro blocks")),
    }
    Ok(())
}

/// The stage was wired to what it does not take.
#[cold]
pub(super) fn wrong_framing(takes: &str) -> StageError {
    StageError::new(format!("this stage takes {takes}"))
}
