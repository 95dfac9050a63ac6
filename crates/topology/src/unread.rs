//! What is said of a topology file of which there is no text.

use std::io::{Error, ErrorKind};
use std::ops::Range;
use std::path::Path;

use tidemill_core::Severity;

use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::text::Text;

/// Says that a topology file can't be read. It is about no place of it.
#[must_use]
pub fn unreadable(path: &Path, error: &Error) -> Diagnostic {
    let help = match error.kind() {
        ErrorKind::NotFound => "is the name right? It is looked up from the directory that you are in",
        ErrorKind::IsADirectory => "name a file in it",
        ErrorKind::PermissionDenied => "allow the user that runs this to read it",
        _ => "see to it that the file can be read, and try again",
    };
    let message = format!("the topology can't be read: {error}");
    diagnostic(path, codes::TOPOLOGY_UNREADABLE, message, help, "", 0..0)
}

/// Text and diagnostic of a topology file that is not UTF-8; `None` when it is.
#[must_use]
pub fn not_utf8(path: &Path, bytes: &[u8]) -> Option<(String, Diagnostic)> {
    let at = std::str::from_utf8(bytes).err()?.valid_up_to();
    let text = String::from_utf8_lossy(bytes).into_owned();
    let message = format!("the topology is not UTF-8: no character begins with byte {:#04x}", bytes[at]);
    // Up to there the shown text is the file's; then comes what stands for the bytes that are none.
    let span = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
    let found = diagnostic(path, codes::NOT_UTF8, message, "save the file as UTF-8", &text, span);
    Some((text, found))
}

fn diagnostic(
    path: &Path,
    code: &'static str,
    message: String,
    help: &str,
    text: &str,
    span: Range<usize>,
) -> Diagnostic {
    let text = Text::new(text);
    let (start, end) = (text.position(span.start), text.position(span.end));
    Diagnostic {
        severity: Severity::Error,
        code,
        message,
        file: path.to_owned(),
        span,
        line: start.line,
        column: start.column,
        end_line: end.line,
        end_column: end.column,
        help: Some(help.to_owned()),
        related: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_is_no_character_is_underlined() {
        let (text, found) = not_utf8(Path::new("x.toml"), b"a = 1\nb = \"\xe9t\xe9\"\n").unwrap();
        assert_eq!((found.line, found.column, found.end_column), (2, 6, 7));
        let rendered = found.render(&text, false);
        assert!(rendered.contains("2 | b = \"\u{fffd}t\u{fffd}\"\n  |      ^\n"), "{rendered}");
        assert!(not_utf8(Path::new("x.toml"), "é".as_bytes()).is_none());
    }

    #[test]
    fn a_file_without_text_is_named_without_a_place() {
        let rendered = unreadable(Path::new("x.toml"), &ErrorKind::NotFound.into()).render("", false);
        assert!(rendered.contains(" --> x.toml\n") && !rendered.contains('^'), "{rendered}");
    }
}
