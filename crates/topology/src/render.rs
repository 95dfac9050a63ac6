//! Diagnostics as text, in the manner of rustc.

use std::fmt::Write;
use std::ops::Range;

use tidemill_core::Severity;
use unicode_width::UnicodeWidthChar;

use crate::codes::TOPOLOGY_UNREADABLE;
use crate::diagnostic::{Diagnostic, severity_name};
use crate::text::Text;

/// Columns of source that are shown of a line; longer lines are cut around the place.
const SHOWN_COLUMNS: usize = 110;
/// Columns shown before the place when a line is cut.
const LEAD_COLUMNS: usize = 40;
const TAB: &str = "    ";

struct Paint(bool);

impl Paint {
    fn paint(&self, style: &str, text: &str) -> String {
        if self.0 && !text.is_empty() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn severity(&self, severity: Severity, text: &str) -> String {
        self.paint(if severity == Severity::Error { "1;31" } else { "1;33" }, text)
    }
    fn gutter(&self, text: &str) -> String {
        self.paint("1;34", text)
    }
    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }
}

impl Diagnostic {
    /// The diagnostic as lines of text, with the line of `source_text` (what was loaded) that it is about, and a last line feed.
    #[must_use]
    pub fn render(&self, source_text: &str, color: bool) -> String {
        let (text, paint) = (Text::new(source_text), Paint(color));
        let last = self.related.iter().map(|related| related.line).chain([self.line]).max().unwrap_or(1);
        let width = last.to_string().len();
        let mut out = String::new();
        let title = format!("{}[{}]", severity_name(self.severity), self.code);
        let message = printable(&self.message);
        let mut lines = message.lines();
        let first = lines.next().unwrap_or_default();
        let _ = writeln!(out, "{}{}", paint.severity(self.severity, &title), paint.bold(&format!(": {first}")));
        for line in lines {
            let _ = writeln!(out, "  {line}");
        }
        let place = |line: usize, column: usize| format!("{}:{line}:{column}", self.file.display());
        if self.code == TOPOLOGY_UNREADABLE {
            let _ = writeln!(out, "{:width$}{} {}", "", paint.gutter("-->"), self.file.display());
        } else {
            let _ = writeln!(out, "{:width$}{} {}", "", paint.gutter("-->"), place(self.line, self.column));
            let underline = |marks: &str| paint.severity(self.severity, marks);
            snippet(&mut out, &text, width, &paint, &self.span, '^', &underline);
        }
        if let Some(help) = &self.help {
            let bar = format!("{:width$} {}", "", paint.gutter("="));
            let _ = writeln!(out, "{:width$} {}", "", paint.gutter("|"));
            let help = printable(help);
            for (number, line) in help.lines().enumerate() {
                let _ = match number {
                    0 => writeln!(out, "{bar} {}: {line}", paint.bold("help")),
                    _ => writeln!(out, "{:width$}         {line}", ""),
                };
            }
        }
        for related in &self.related {
            let _ = writeln!(out, "{}{}", paint.paint("1;32", "note"), paint.bold(&format!(": {}", related.message)));
            let _ = writeln!(out, "{:width$}{} {}", "", paint.gutter("-->"), place(related.line, related.column));
            snippet(&mut out, &text, width, &paint, &related.span, '-', &|marks| paint.gutter(marks));
        }
        out
    }
}

fn snippet(
    out: &mut String,
    text: &Text<'_>,
    width: usize,
    paint: &Paint,
    span: &Range<usize>,
    mark: char,
    color: &dyn Fn(&str) -> String,
) {
    let line = text.position(span.start).line;
    let (shown, marks) = underlined(text, line, span, mark);
    let bar = paint.gutter("|");
    let _ = writeln!(out, "{:width$} {bar}", "");
    let space = if shown.is_empty() { "" } else { " " };
    let _ = writeln!(out, "{} {bar}{space}{shown}", paint.gutter(&format!("{line:>width$}")));
    let gap = marks.len() - marks.trim_start().len();
    let _ = writeln!(out, "{:width$} {bar} {:gap$}{}", "", "", color(&marks[gap..]));
}

/// The line as it is shown, and the marks under what belongs to `span` (of several lines only the first is shown).
fn underlined(text: &Text<'_>, line: usize, span: &Range<usize>, mark: char) -> (String, String) {
    let bytes = text.line(line);
    let mut cells: Vec<(String, usize, bool)> = Vec::new();
    for (at, c) in text.source[bytes.clone()].char_indices() {
        let at = bytes.start + at;
        let (shown, columns) = cell(c);
        // A character that has no width of its own belongs to the one before it.
        match cells.last_mut() {
            Some(last) if columns == 0 => last.0.push_str(&shown),
            _ => cells.push((shown, columns, span.start <= at && at < span.end)),
        }
    }
    if !cells.iter().any(|cell| cell.2) {
        // An empty place, or the end of the line.
        let at = text.source[bytes.start..span.start.clamp(bytes.start, bytes.end)].chars().count();
        match cells.get_mut(at) {
            Some(cell) => cell.2 = true,
            None => cells.push((String::new(), 1, true)),
        }
    }
    let total: usize = cells.iter().map(|cell| cell.1).sum();
    let before: usize = cells.iter().take_while(|cell| !cell.2).map(|cell| cell.1).sum();
    let from = if total <= SHOWN_COLUMNS { 0 } else { before.saturating_sub(LEAD_COLUMNS) };
    let (mut shown, mut marks, mut column) = (String::new(), String::new(), 0);
    if from > 0 {
        shown.push_str("...");
        marks.push_str("   ");
    }
    for (cell, columns, marked) in cells {
        column += columns;
        if column <= from {
            continue;
        }
        if column > from + SHOWN_COLUMNS {
            shown.push_str("...");
            break;
        }
        shown.push_str(&cell);
        marks.extend(std::iter::repeat_n(if marked { mark } else { ' ' }, columns));
    }
    (shown.trim_end().to_owned(), marks.trim_end().to_owned())
}

/// A character as it is shown, and the columns it takes. Those that would move the cursor or turn the text round are replaced.
fn cell(c: char) -> (String, usize) {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match c {
        '\t' => (TAB.to_owned(), TAB.len()),
        _ if turns || c.is_control() => ('\u{fffd}'.to_string(), 1),
        _ => (c.to_string(), c.width().unwrap_or(1)),
    }
}

/// A message without characters that a terminal would act on.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c.to_string() } else { cell(c).0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(source: &str, what: &str) -> (String, String) {
        let start = source.find(what).unwrap();
        let text = Text::new(source);
        underlined(&text, text.position(start).line, &(start..start + what.len()), '^')
    }

    #[test]
    fn the_underline_is_below_its_text_behind_tabs_and_wide_characters() {
        let (shown, under) = marks("\tname = \"日本\" # x", "# x");
        assert_eq!(shown, "    name = \"日本\" # x");
        assert_eq!(under, "                  ^^^");
        let (_, under) = marks("a = \"日本\"", "日本");
        assert_eq!(under, "     ^^^^");
    }

    #[test]
    fn a_combining_mark_adds_no_column() {
        let (_, under) = marks("e\u{301} = 1", "1");
        assert_eq!(under, "    ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let source = format!("x = \"{}\" # here {}", "a".repeat(500), "b".repeat(500));
        let (shown, under) = marks(&source, "here");
        assert!(shown.starts_with("...aaa") && shown.ends_with("b..."), "{shown}");
        assert_eq!(shown.find("here"), under.find("^^^^"));
        assert!(shown.len() < SHOWN_COLUMNS + 10);
    }

    #[test]
    fn a_place_that_is_longer_than_what_is_shown_is_cut_too() {
        let source = format!("x = \"{}\"", "a".repeat(5_000));
        let (shown, under) = marks(&source, &source[4..]);
        assert!(shown.ends_with("...") && under.len() <= SHOWN_COLUMNS, "{under}");
    }

    #[test]
    fn an_empty_place_at_the_end_of_a_line_or_file_has_one_mark() {
        for (source, at, under) in [("ab\ncd", 2, "  ^"), ("ab", 2, "  ^"), ("", 0, "^"), ("ab\r\n", 2, "  ^")] {
            let text = Text::new(source);
            assert_eq!(underlined(&text, text.position(at).line, &(at..at), '^').1, under, "{source:?}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let (shown, _) = marks("a = \"\u{1b}[31m\u{202e}x\"", "x");
        assert_eq!(shown, "a = \"\u{fffd}[31m\u{fffd}x\"");
    }
}
