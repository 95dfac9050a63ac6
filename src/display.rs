//! What people see of a run: the live table, progress lines, the summary.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tidemill_core::DEAD_LETTER_TYPE;
use tidemill_runtime::{Ended, Status};

use crate::table;
use crate::terminal::{self, Size};

/// What is known of a run from its start.
pub(crate) struct Facts {
    pub(crate) resumed_from: u64,
    pub(crate) was_finished: bool,
}

/// What is assumed of a terminal that does not know its size.
const SIZE: Size = Size { columns: 80, rows: 24 };

/// What is shown while it runs; rates are those since it was shown last.
#[derive(Default)]
pub(crate) struct Screen {
    before: Option<(Instant, Status)>,
}

impl Screen {
    /// Draws the table in place of the last one.
    pub(crate) fn draw(&mut self, status: &Status) {
        let size = terminal::size(std::io::stderr()).unwrap_or(SIZE);
        let mut lines = table::lines(status, self.since(), size.columns);
        // The line that the cursor is in needs room too.
        lines.truncate(size.rows.saturating_sub(1));
        terminal::draw(lines);
        self.before = Some((Instant::now(), status.clone()));
    }

    /// Prints one line.
    pub(crate) fn line(&mut self, status: &Status) {
        let rate =
            self.since().map_or(0.0, |(elapsed, before)| per_second(received(status) - received(before), elapsed));
        let (open, sealed) = hours(status);
        eprintln!(
            "{}: {} events read, {}/s, {} hours open, {} sealed, cut {} ({} ms)",
            status.topology,
            count(received(status)),
            count(rate as u64),
            count(open),
            count(sealed),
            status.cut,
            status.cut_duration_ms
        );
        self.before = Some((Instant::now(), status.clone()));
    }

    fn since(&self) -> Option<(Duration, &Status)> {
        self.before.as_ref().map(|(at, status)| (at.elapsed(), status))
    }
}

/// Events that came out of sources.
pub(crate) fn received(status: &Status) -> u64 {
    status.stages.iter().filter(|stage| stage.is_parser).map(|stage| stage.tally.received).sum()
}

pub(crate) fn hours(status: &Status) -> (u64, u64) {
    let open = status.types.iter().map(|ty| ty.open_hours as u64).sum();
    (open, status.types.iter().map(|ty| ty.sealed_hours).sum())
}

pub(crate) fn per_second(number: u64, elapsed: Duration) -> f64 {
    number as f64 / elapsed.as_secs_f64().max(1e-9)
}

/// What a run has done, and where to look.
pub(crate) fn summary(
    before: &Status,
    after: &Status,
    elapsed: Duration,
    ended: Ended,
    facts: &Facts,
    outputs: &Path,
) -> String {
    let mut text = String::new();
    let start_of =
        |name: &str| before.stages.iter().find(|stage| stage.name == name).map(|stage| stage.tally).unwrap_or_default();
    let read = received(after) - received(before);
    let title = match ended {
        Ended::Finished if read == 0 && facts.was_finished => "nothing new: the input was read to its end before",
        Ended::Finished => "done: the input is at its end and everything is sealed",
        Ended::Stopped => "stopped: a last cut was made and open hours stay open; the next run goes on from here",
    };
    let _ = writeln!(text, "\n{}: {title}", after.topology);
    if facts.resumed_from > 0 && !(read == 0 && facts.was_finished) {
        let _ = writeln!(text, "  went on from  cut {}", facts.resumed_from);
    }
    let rate = count(per_second(read, elapsed) as u64);
    let _ = writeln!(text, "  read          {} events in {:.1} s ({rate}/s)", count(read), elapsed.as_secs_f64());
    let since = |pick: fn(&tidemill_core::Tally) -> u64| -> u64 {
        after.stages.iter().map(|stage| pick(&stage.tally) - pick(&start_of(&stage.name)).min(pick(&stage.tally))).sum()
    };
    let _ = writeln!(text, "  duplicates    {} dropped", count(since(|tally| tally.duplicates)));
    let _ = writeln!(
        text,
        "  dead letters  {} ({} of them late)",
        count(since(|tally| tally.dead + tally.late)),
        count(since(|tally| tally.late))
    );
    for stage in after.stages.iter().filter(|stage| stage.is_sink) {
        let rows = stage.tally.sent - start_of(&stage.name).sent.min(stage.tally.sent);
        if rows > 0 || stage.name != "dead_letters" {
            let _ = writeln!(text, "  written       {} rows by {}", count(rows), stage.name);
        }
    }
    let declared = || after.types.iter().filter(|ty| ty.name != DEAD_LETTER_TYPE);
    let sealed = declared().map(|ty| ty.sealed_hours).sum();
    let open = declared().map(|ty| ty.open_hours as u64).sum();
    let _ = writeln!(text, "  hours         {} sealed, {} open (of the declared types)", count(sealed), count(open));
    let restarts: u64 = after.stages.iter().map(|stage| stage.restarts).sum();
    if restarts > 0 {
        let _ =
            writeln!(text, "  restarts      {} workers were replaced after a failure; see the log", count(restarts));
    }
    let _ = writeln!(text, "  look at       {}", outputs.display());
    let _ = writeln!(text, "  check it      tidemill verify {}", outputs.display());
    if let Ended::Finished = ended {
        let _ = writeln!(
            text,
            "  again         the next run goes on from here; --fresh sets state and output aside and starts over"
        );
    }
    text
}

/// A number with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }
}
