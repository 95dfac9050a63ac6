//! Columns of text that point into the received bytes.
//!
//! The only unsafe code of the parser. `StringViewArray::try_new` would check the UTF-8 of each value again, which costs about
//! as much as all the rest of parsing a line. Here the chunk is checked once, as a whole; within it, a value that begins and ends
//! at character boundaries is valid too, and that takes two comparisons. Values of a chunk that is not valid as a whole are
//! checked one by one.

#![expect(unsafe_code, reason = "a check that has been made before is left out")]

use std::sync::Arc;

use arrow_array::StringViewArray;
use arrow_buffer::{Buffer, NullBuffer};

/// Longest text that a view holds itself.
const INLINE: usize = 12;

/// Received bytes that views may point into.
#[derive(Debug)]
pub(super) struct TextBuffer {
    bytes: Buffer,
    /// `bytes` is valid UTF-8 from its first byte to its last.
    valid: bool,
}

impl TextBuffer {
    /// Checks the bytes once. Only the first 4 GiB can be pointed into.
    pub(super) fn new(bytes: Buffer) -> Self {
        let valid = std::str::from_utf8(&bytes).is_ok();
        Self { bytes, valid }
    }
}

/// Views of one column, all into the same buffer.
#[derive(Debug)]
pub(super) struct TextViews<'a> {
    buffer: &'a TextBuffer,
    /// Each is either inline, or `start..end` of the buffer; and its text is valid UTF-8.
    views: Vec<u128>,
}

impl<'a> TextViews<'a> {
    pub(super) fn with_capacity(buffer: &'a TextBuffer, rows: usize) -> Self {
        Self { buffer, views: Vec::with_capacity(rows) }
    }

    /// Appends `start..end` of the buffer, or nothing (and `false`) if that is not valid UTF-8 or outside of the buffer.
    #[inline]
    #[must_use]
    pub(super) fn push(&mut self, start: usize, end: usize) -> bool {
        let bytes = self.buffer.bytes.as_slice();
        let Some(text) = bytes.get(start..end) else { return false };
        let valid = match self.buffer.valid {
            // SAFETY of `finish`: in valid text, what lies between two character boundaries is valid text.
            true => is_boundary(bytes, start) && is_boundary(bytes, end),
            false => std::str::from_utf8(text).is_ok(),
        };
        if !valid {
            return false;
        }
        let len = text.len();
        let view = if len <= INLINE {
            // The bytes behind the text are read with it and masked away, which spares a loop over its length.
            let wide = match bytes.get(start..start + 16) {
                Some(wide) => u128::from_le_bytes(wide.try_into().unwrap_or_default()),
                None => {
                    let mut wide = [0; 16];
                    wide[..len].copy_from_slice(text);
                    u128::from_le_bytes(wide)
                }
            };
            let mask = (1u128 << (8 * len)) - 1;
            len as u128 | (wide & mask) << 32
        } else {
            let (Ok(offset), Ok(len)) = (u32::try_from(start), u32::try_from(len)) else { return false };
            let prefix = u32::from_le_bytes([text[0], text[1], text[2], text[3]]);
            u128::from(len) | u128::from(prefix) << 32 | u128::from(offset) << 96
        };
        self.views.push(view);
        true
    }

    /// Appends an empty text.
    #[inline]
    pub(super) fn push_empty(&mut self) {
        self.views.push(0);
    }

    /// The column. `nulls`, if there are any, must be as many as the views.
    ///
    /// # Panics
    /// If they are not.
    pub(super) fn finish(self, nulls: Option<NullBuffer>) -> StringViewArray {
        assert!(nulls.as_ref().is_none_or(|nulls| nulls.len() == self.views.len()), "a null bit for every view");
        let buffers: Arc<[Buffer]> = Arc::new([self.buffer.bytes.clone()]);
        // SAFETY: all views were made by `push` and `push_empty`. Inline ones hold at most 12 bytes, with zeros behind them; the others
        // have the right prefix, point to the only buffer and lie within it. The text of each is valid UTF-8: see `push`.
        // The null buffer is of the same length.
        unsafe { StringViewArray::new_unchecked(self.views.into(), buffers, nulls) }
    }
}

/// Whether a character of valid UTF-8 begins at `at`, or the text ends there.
#[inline]
fn is_boundary(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(bytes: &[u8], spans: &[(usize, usize)]) -> (Vec<bool>, StringViewArray) {
        let buffer = TextBuffer::new(Buffer::from(bytes));
        let mut views = TextViews::with_capacity(&buffer, spans.len());
        let taken = spans.iter().map(|(start, end)| views.push(*start, *end)).collect();
        (taken, views.finish(None))
    }

    /// Every span of a text, as `try_new` judges it: the views must be the same, and valid.
    #[test]
    fn views_are_what_arrow_itself_would_make_of_each_span() {
        let text = "aé€😀 twelve bytes and some more, é";
        for bytes in [text.as_bytes().to_vec(), [text.as_bytes(), &[0xff]].concat()] {
            for start in 0..bytes.len() {
                for end in start..=bytes.len() {
                    let (taken, made) = column(&bytes, &[(start, end)]);
                    let expected = match bytes.len() == text.len() {
                        true => text.get(start..end),
                        false => std::str::from_utf8(&bytes[start..end]).ok(),
                    };
                    assert_eq!(taken[0], expected.is_some(), "{start}..{end}");
                    if let Some(expected) = expected {
                        assert_eq!(made.value(0), expected);
                        let (views, buffers, nulls) = made.into_parts();
                        StringViewArray::try_new(views, buffers, nulls).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn spans_outside_of_the_buffer_are_refused() {
        let (taken, made) = column(b"abc", &[(0, 4), (2, 1), (3, 3), (4, 4), (0, 3)]);
        assert_eq!(taken, [false, false, true, false, true]);
        assert_eq!(made.iter().flatten().collect::<Vec<_>>(), ["", "abc"]);
    }
}
