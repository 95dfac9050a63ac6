//! The terminal that a run is watched on: a table that is drawn over itself, and log lines above it. Both go through here, so that
//! neither destroys the other.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard};

use unicode_width::UnicodeWidthChar;

/// Lines of the table that stands at the end of the terminal now.
static TABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// How large a terminal is, in characters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// The size of a terminal; `None` when it is none, or does not know.
pub(crate) fn size(of: impl AsFd) -> Option<Size> {
    let size = rustix::termios::tcgetwinsize(of).ok()?;
    let (columns, rows) = (usize::from(size.ws_col), usize::from(size.ws_row));
    (columns > 0 && rows > 0).then_some(Size { columns, rows })
}

/// Draws a table in place of the last one, on standard error. No line may be wider than the terminal, and there may not be more of
/// them than fit above the cursor.
pub(crate) fn draw(lines: Vec<String>) {
    let mut table = lock();
    let frame = format!("{}{}", erase(&table), text(&lines));
    *table = lines;
    put(frame.as_bytes());
}

/// Leaves the table where it is: what comes now goes below it.
pub(crate) fn release() {
    lock().clear();
}

/// Writes log lines above the table, one for each call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLines;

impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let table = lock();
        // In one call, so that nobody sees a terminal without its table.
        put(&[erase(&table).as_bytes(), line, text(&table).as_bytes()].concat());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock() -> MutexGuard<'static, Vec<String>> {
    TABLE.lock().expect("no code panics while it holds the table")
}

/// A run does not depend on whether anybody watches it.
fn put(bytes: &[u8]) {
    let _ = io::stderr().lock().write_all(bytes);
}

/// Puts the cursor where the table begins, and clears what is below.
fn erase(table: &[String]) -> String {
    if table.is_empty() { String::new() } else { format!("\r\x1b[{}A\x1b[J", table.len()) }
}

fn text(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

/// A text as one line of at most so many columns; `…` stands for what was cut off.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    let printable = || text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let width = |c: char| c.width().unwrap_or(0);
    if printable().map(width).sum::<usize>() <= columns {
        return printable().collect();
    }
    let mut room = columns.saturating_sub(1);
    let kept = printable().take_while(|c| {
        let fits = width(*c) <= room;
        room = room.saturating_sub(width(*c));
        fits
    });
    kept.chain((columns > 0).then_some('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn a_line_is_cut_by_its_width_and_has_no_breaks() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("a\nb\x1b[A", 9), "a b [A");
        assert_eq!(cut("漢字漢字", 6), "漢字…");
        assert_eq!((cut("ab", 1), cut("ab", 0)), ("…".to_owned(), String::new()));
    }
}
