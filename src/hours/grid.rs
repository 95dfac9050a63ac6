//! Hours as a grid of characters: a line for each type, a column for each hour.

use std::fmt::Write as _;

use super::{Report, Row, State};
use crate::display::count;
use crate::terminal::cut;

/// Longer names of types are cut.
const LABEL_MAX: usize = 32;
/// Hours that are told one by one below the grid, of each type.
const TOLD_MAX: usize = 3;

/// The report in lines of at most so many columns: of the hours, the newest that there is room for.
pub(crate) fn grid(report: &Report, columns: usize) -> String {
    let labels: Vec<String> = report.types.iter().map(|row| cut(&row.label(&report.types), LABEL_MAX)).collect();
    let label = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let room = (columns.saturating_sub(label + 2) / 2).max(1);
    let starts = &report.starts_ms[report.starts_ms.len().saturating_sub(room)..];
    let mut text = String::new();
    head(report, starts, label, &mut text);
    for (row, name) in report.types.iter().zip(&labels) {
        let _ = write!(text, "{name:<label$} ");
        for start in starts {
            let hour = row.hours.iter().find(|hour| hour.start_ms == *start);
            let _ = write!(text, " {}", hour.map_or('.', |hour| hour.state.symbol()));
        }
        text.push('\n');
    }
    let legend: Vec<String> = State::ALL.iter().map(|state| format!("{} {}", state.symbol(), state.name())).collect();
    let _ = writeln!(text, "\n{}   . nothing known", legend.join("   "));
    report.types.iter().for_each(|row| notes(report, row, &mut text));
    if report.topology.is_none() {
        text.push_str("\nThe state that this output belongs to is not on this machine: open hours are not known.\n");
    }
    if report.is_partial {
        text.push_str("\nNot all of what was published was looked at: what is shown as missing may be there. Name a shorter time with --since.\n");
    }
    text
}

/// The days above the hours, whose digits stand below one another.
fn head(report: &Report, starts: &[i64], label: usize, text: &mut String) {
    let times: Vec<String> = starts.iter().map(|start| tidemill_core::format_time_ms(*start)).collect();
    let mut days = " ".repeat(label + 1);
    let mut last = "";
    for (index, time) in times.iter().enumerate() {
        let day = time.get(..10).unwrap_or_default();
        let at = label + 2 + 2 * index;
        if day != last && days.chars().count() < at {
            let _ = write!(days, "{:<width$}{day}", "", width = at - days.chars().count());
            last = day;
        }
    }
    let _ = writeln!(text, "{days}");
    let digits = if report.hour_ms < 3_600_000 { &[11, 12, 14, 15][..] } else { &[11, 12][..] };
    for digit in digits {
        let row = times.iter().map(|time| format!(" {}", time.get(*digit..digit + 1).unwrap_or_default()));
        let _ = writeln!(text, "{}{}", " ".repeat(label + 1), row.collect::<String>());
    }
}

/// What somebody should look at.
fn notes(report: &Report, row: &Row, text: &mut String) {
    let name = row.label(&report.types);
    for (state, what) in [
        (State::Overdue, "open beyond its time"),
        (State::Missing, "missing"),
        (State::Partial, "sealed without partitions that gave nothing"),
    ] {
        let hours: Vec<&str> =
            row.hours.iter().filter(|hour| hour.state == state).map(|hour| hour.start.as_str()).collect();
        if hours.is_empty() {
            continue;
        }
        let more = if hours.len() > TOLD_MAX { format!(" and {} more", hours.len() - TOLD_MAX) } else { String::new() };
        let told: Vec<&str> = hours.iter().take(TOLD_MAX).copied().collect();
        let _ = writeln!(text, "{name}: {what}: {}{more}", told.join(", "));
        if let (State::Overdue, Some(partition)) = (state, &row.held_by) {
            let at = row.watermark.as_deref().unwrap_or("no time at all");
            let _ = writeln!(text, "    waits for {partition}; event time has come to {at}");
        }
    }
    let late: u64 = row.hours.iter().map(|hour| hour.late).sum();
    if late > 0 {
        let _ = writeln!(text, "{name}: {} late events in further revisions", count(late));
    }
    if let Some(since) = &row.revising_since {
        let _ = writeln!(text, "{name}: late events wait for their revision since {since}");
    }
}
