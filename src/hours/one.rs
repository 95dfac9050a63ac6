//! All about one hour.

use std::fmt::Write as _;

use tidemill_actors::sink::{Manifest, Mode};
use tidemill_core::{format_time_ms, parse_time_ms};

use super::{Hour, Report, Row, State};
use crate::display::count;

/// Positions that are told of a directory.
const POSITIONS_MAX: usize = 24;

/// The start of an hour as it is written: a time, whose minutes and seconds may be left out, in UTC.
pub(crate) fn hour_start_ms(text: &str) -> Result<i64, String> {
    let whole = ["", "Z", ":00Z", ":00:00Z", "T00:00:00Z"].into_iter();
    let mut times = whole.filter_map(|rest| parse_time_ms(&format!("{text}{rest}")).ok());
    times.next().ok_or_else(|| format!("`{text}` is not the start of an hour such as 2025-03-01T10"))
}

/// The hour that begins then, in words; of each sink that has it.
pub(crate) fn one(report: &Report, start_ms: i64) -> String {
    let mut text = String::new();
    for row in &report.types {
        let hour = row.hours.iter().find(|hour| hour.start_ms == start_ms);
        let sink = row.sink.as_ref().map_or_else(String::new, |sink| format!(", sink {sink}"));
        let state = hour.map_or("nothing is known of it", |hour| hour.state.name());
        let _ = writeln!(text, "{} {}{sink}: {state}", row.event_type, format_time_ms(start_ms));
        if let Some(owner) = &row.owner {
            let _ = writeln!(text, "  owner            {owner}");
        }
        match hour {
            Some(hour) if !hour.revisions.is_empty() => {
                published(hour, &row.manifests, start_ms + report.hour_ms, &mut text);
            }
            _ => unpublished(report, row, hour, &mut text),
        }
        text.push('\n');
    }
    text
}

fn published(hour: &Hour, manifests: &[Manifest], end_ms: i64, text: &mut String) {
    let _ = writeln!(text, "  events           {}, {} of them late", count(hour.events), count(hour.late));
    let _ = writeln!(text, "  duplicates       {} dropped", count(hour.duplicates_dropped));
    if hour.refused > 0 {
        let _ = writeln!(text, "  refused          {} by a limit; they are dead letters", count(hour.refused));
    }
    for (source, partitions) in &hour.not_waited_for {
        let _ = writeln!(text, "  not waited for   {source}: {}", partitions.join(", "));
    }
    for revision in &hour.revisions {
        let how = match revision.mode {
            Mode::Complete => "events before the seal",
            Mode::Append => "late events, to be read beside the others",
            Mode::Delta => "rows to be added to the others",
            Mode::Replace => "read in place of those before it",
        };
        let after = parse_time_ms(&revision.sealed_at).unwrap_or(end_ms) - end_ms;
        let reason = serde_json::to_value(revision.reason).unwrap_or_default();
        let _ = writeln!(text, "  revision {:<7} {}: {how}", revision.revision, count(revision.events));
        let _ = writeln!(
            text,
            "    sealed         {}, {} s after its end ({})",
            revision.sealed_at,
            after / 1_000,
            reason.as_str().unwrap_or_default()
        );
        let of_revision = manifests.iter().filter(|manifest| manifest.revision == revision.revision);
        of_revision.for_each(|manifest| directory(manifest, text));
    }
}

/// What one directory says of itself.
fn directory(manifest: &Manifest, text: &mut String) {
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let _ = writeln!(text, "    directory      {}", manifest.path);
    let _ = writeln!(text, "      files        {}, {} bytes", manifest.files.len(), count(bytes));
    if let (Some(first), Some(last)) = (&manifest.event_time.min, &manifest.event_time.max) {
        let _ = writeln!(text, "      event time   {first} to {last}");
    }
    if let Some(ids) = &manifest.ids {
        let _ = writeln!(text, "      ids          {} ({})", ids.sum, ids.algorithm);
    }
    let partitions = manifest.positions.iter().flat_map(|(source, partitions)| {
        partitions.iter().map(move |(partition, position)| format!("{source}/{partition}: {position}"))
    });
    for (number, position) in partitions.enumerate() {
        if number == POSITIONS_MAX {
            let _ = writeln!(text, "                   and more: --json");
            break;
        }
        let _ = writeln!(text, "      {:<12} {position}", if number == 0 { "all before" } else { "" });
    }
}

fn unpublished(report: &Report, row: &Row, hour: Option<&Hour>, text: &mut String) {
    let unknown = || "not known: no process runs the topology here".to_owned();
    let _ = writeln!(text, "  sealed before    {}", row.sealed_before.as_deref().unwrap_or("no hour is sealed"));
    match hour.map(|hour| hour.state) {
        Some(State::Open | State::Overdue) => {
            let at = row.watermark.clone().unwrap_or_else(unknown);
            let _ = writeln!(text, "  event time       {at}");
            let _ = writeln!(text, "  waits for        {}", row.held_by.clone().unwrap_or_else(unknown));
            if let Some(overdue_ms) = hour.and_then(|hour| hour.overdue_ms) {
                let _ = writeln!(text, "  overdue by       {} s", overdue_ms / 1_000);
            }
        }
        Some(State::Unpublished) => {
            let _ = writeln!(text, "  It is sealed, and waits to be published: `tidemill status` and the log say why.");
        }
        Some(State::Missing) => {
            let _ = writeln!(
                text,
                "  It is sealed, and its directory is not in {}: `tidemill verify` says what else is missing.",
                report.output_root
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::hour_start_ms;

    #[test]
    fn the_start_of_an_hour_may_be_short() {
        let day = 1_740_787_200_000;
        for text in ["2025-03-01T10", "2025-03-01T10:00", "2025-03-01T10:00Z", "2025-03-01T10:00:00Z"] {
            assert_eq!(hour_start_ms(text), Ok(day + 10 * 3_600_000), "{text}");
        }
        assert_eq!(hour_start_ms("2025-03-01"), Ok(day));
        assert!(hour_start_ms("ten").unwrap_err().contains("`ten`"));
    }
}
