//! Places in a text: lines, columns, and what lies inside a TOML string.

use std::ops::Range;

use serde::Serialize;

/// A place for people: both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A text and where its lines begin.
pub(crate) struct Text<'a> {
    pub(crate) source: &'a str,
    starts: Vec<usize>,
}

impl<'a> Text<'a> {
    pub(crate) fn new(source: &'a str) -> Self {
        let starts = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { source, starts }
    }

    /// Line and column of a byte; one inside a character counts as that character.
    pub(crate) fn position(&self, byte: usize) -> Position {
        let byte = byte.min(self.source.len());
        let line = self.starts.partition_point(|start| *start <= byte) - 1;
        let before = self.source[self.starts[line]..].char_indices();
        let column = before.take_while(|(at, c)| self.starts[line] + at + c.len_utf8() <= byte).count();
        Position { line: line + 1, column: column + 1 }
    }

    /// Byte range of a line (counted from 1), without its line end.
    pub(crate) fn line(&self, line: usize) -> Range<usize> {
        let start = self.starts[line - 1];
        let end = self.starts.get(line).map_or(self.source.len(), |next| next - 1);
        start..start + self.source[start..end].trim_end_matches('\r').len()
    }

    /// Where bytes `range` of a string's value are in the source; `literal` is the string with its quotes.
    /// The whole literal when they can't be told.
    pub(crate) fn inside(&self, literal: Range<usize>, value: &str, range: Range<usize>) -> Range<usize> {
        let Some(offsets) = self.source.get(literal.clone()).and_then(|raw| value_offsets(raw, value)) else {
            return literal;
        };
        match (offsets.get(range.start), offsets.get(range.end)) {
            (Some(start), Some(end)) if range.start <= range.end => literal.start + start..literal.start + end,
            _ => literal,
        }
    }
}

/// For each byte of a TOML string's value, and for its end, the offset in the literal. `None` when the two do not agree.
fn value_offsets(raw: &str, value: &str) -> Option<Vec<usize>> {
    let (quotes, escapes) = match raw {
        _ if raw.starts_with("\"\"\"") => (3, true),
        _ if raw.starts_with("'''") => (3, false),
        _ if raw.starts_with('"') => (1, true),
        _ if raw.starts_with('\'') => (1, false),
        _ => return None,
    };
    let end = raw.len().checked_sub(quotes).filter(|end| *end >= quotes)?;
    let mut at = quotes;
    if quotes == 3 {
        at += [("\r\n", 2), ("\n", 1)].iter().find(|(feed, _)| raw[at..].starts_with(feed)).map_or(0, |(_, len)| *len);
    }
    let mut offsets = Vec::with_capacity(value.len() + 1);
    while at < end {
        let c = raw[at..].chars().next()?;
        let (source_len, value_len) = match (c, escapes) {
            ('\\', true) => {
                let kind = raw[at + 1..].chars().next()?;
                let hex = |digits: usize| {
                    let code = u32::from_str_radix(raw.get(at + 2..at + 2 + digits)?, 16).ok()?;
                    Some((2 + digits, char::from_u32(code)?.len_utf8()))
                };
                match kind {
                    'x' => hex(2)?,
                    'u' => hex(4)?,
                    'U' => hex(8)?,
                    _ if kind.is_whitespace() => {
                        let rest = &raw[at + 1..end];
                        (1 + rest.len() - rest.trim_start().len(), 0)
                    }
                    _ => (1 + kind.len_utf8(), 1),
                }
            }
            _ => (c.len_utf8(), c.len_utf8()),
        };
        offsets.extend(std::iter::repeat_n(at, value_len));
        at += source_len;
    }
    offsets.push(end);
    (offsets.len() == value.len() + 1).then_some(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(raw: &str, value: &str, range: Range<usize>) -> String {
        let text = Text::new(raw);
        raw[text.inside(0..raw.len(), value, range)].to_owned()
    }

    #[test]
    fn columns_count_characters() {
        let text = Text::new("a = 1\r\nåß = \"日本\" # x\n");
        assert_eq!(text.position(0), Position { line: 1, column: 1 });
        let at = text.source.find('#').unwrap();
        assert_eq!(text.position(at), Position { line: 2, column: 11 });
        assert_eq!(text.position(usize::MAX), Position { line: 3, column: 1 });
        assert_eq!(&text.source[text.line(1)], "a = 1");
        assert_eq!(text.line(3), text.source.len()..text.source.len());
    }

    #[test]
    fn bytes_of_a_value_are_found_behind_escapes() {
        assert_eq!(found(r#""ab\"cd""#, "ab\"cd", 3..5), "cd");
        assert_eq!(found(r#""\u00e9x""#, "éx", 2..3), "x");
        assert_eq!(found(r#""\tx""#, "\tx", 0..1), r"\t");
        assert_eq!(found(r"'a\b'", r"a\b", 1..3), r"\b");
        assert_eq!(found("\"\"\"\nab\\\n   cd\"\"\"", "abcd", 2..4), "cd");
    }

    #[test]
    fn what_does_not_agree_is_the_whole_string() {
        assert_eq!(found("\"abc\"", "other", 0..1), "\"abc\"");
        assert_eq!(found("\"abc\"", "abc", 2..9), "\"abc\"");
        assert_eq!(found("\"", "", 0..0), "\"");
    }
}
