//! A status as a table: for the live display, and for `tidemill status`.

use std::time::Duration;

use tidemill_runtime::{PondStatus, SourceStatus, StageStatus, Status};

use crate::display::{count, hours, per_second, received};
use crate::terminal::cut;

const HEAD: [&str; 9] = ["stage", "in", "in/s", "duplicates", "late", "dead", "waiting", "busy", "again"];
/// What figures that change much take at least, so that the columns stand still.
const WIDTHS_MIN: [usize; 9] = [5, 9, 9, 0, 5, 5, 0, 5, 0];
/// Longer names are cut where there is not room for everything.
const NAME_MAX: usize = 20;

/// That sealed hours wait so long to be published is worth a line.
const UNPUBLISHED_MS: u64 = 5_000;

type Cells = [String; HEAD.len()];

enum Row {
    Cells(Cells),
    /// A remark on the source or stage above.
    Note(String),
}

/// The status in lines of at most so many columns; with a status of some time before, rates too. Columns for which there is no
/// room are left off, from the right.
pub(crate) fn lines(status: &Status, since: Option<(Duration, &Status)>, columns: usize) -> Vec<String> {
    let mut rows = vec![Row::Cells(HEAD.map(str::to_owned))];
    for source in &status.sources {
        let before = since.and_then(|(elapsed, before)| {
            before.sources.iter().find(|other| other.name == source.name).map(|other| (elapsed, other))
        });
        rows.push(Row::Cells(source_cells(source, before)));
        rows.extend(source.waits_for.iter().map(|what| Row::Note(format!("waits: {what}"))));
    }
    for stage in &status.stages {
        let before = since.and_then(|(elapsed, before)| {
            before.stages.iter().find(|other| other.name == stage.name).map(|other| (elapsed, other))
        });
        rows.push(Row::Cells(stage_cells(stage, before)));
        rows.extend(stage.waits_for.iter().map(|what| Row::Note(format!("waits: {what}"))));
        let filling = |pond: &&PondStatus| pond.node == stage.name && pond.unread_bytes > pond.max_bytes / 100;
        rows.extend(status.ponds.iter().filter(filling).map(|pond| Row::Note(pond_note(pond))));
    }
    let parked = status.regions.iter().filter_map(|region| Some((&region.name, region.fault.as_ref()?)));
    rows.extend(parked.map(|(name, fault)| Row::Note(format!("region {name} is down: {fault}"))));
    let unpublished = status.regions.iter().filter(|region| region.unpublished_ms >= UNPUBLISHED_MS);
    rows.extend(unpublished.map(|region| {
        let (name, files, seconds) = (&region.name, region.unpublished_files, region.unpublished_ms / 1_000);
        Row::Note(format!(
            "region {name}: {files} files of sealed hours are not published for {seconds} s; see the log"
        ))
    }));
    let wrong = status.mismatches.iter();
    rows.extend(wrong.map(|found| {
        let times = found.count;
        Row::Note(format!("audit: events were lost, repeated or exchanged ({times} times; the last: {})", found.last))
    }));
    let widths = widths(&rows, columns);
    let lines = rows.iter().map(|row| match row {
        Row::Cells(cells) => line(cells, &widths),
        Row::Note(what) => format!("    {what}"),
    });
    [title(status, since)].into_iter().chain(lines).map(|line| cut(&line, columns)).collect()
}

/// Said of a pond of which more than a hundredth waits.
fn pond_note(pond: &PondStatus) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let full = if pond.is_full { ", full" } else { "" };
    format!(
        "pond {}: {:.1} MiB not delivered, of {:.0} MiB{full}",
        pond.name,
        mib(pond.unread_bytes),
        mib(pond.max_bytes)
    )
}

fn title(status: &Status, since: Option<(Duration, &Status)>) -> String {
    let (open, sealed) = hours(status);
    let rate = since.map(|(elapsed, before)| per_second(received(status).saturating_sub(received(before)), elapsed));
    format!(
        "{}  {} events{}  hours: {} open, {} sealed  cut {} ({} ms)  held {:.1} MiB",
        status.topology,
        count(received(status)),
        rate.map(|rate| format!(", {}/s", count(rate as u64))).unwrap_or_default(),
        count(open),
        count(sealed),
        status.cut,
        status.cut_duration_ms,
        status.held_bytes as f64 / f64::from(1 << 20)
    )
}

/// Widths of the columns that have room.
fn widths(rows: &[Row], columns: usize) -> Vec<usize> {
    let cells = rows.iter().filter_map(|row| if let Row::Cells(cells) = row { Some(cells) } else { None });
    let mut widths = WIDTHS_MIN;
    for cells in cells {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    // Before each column is a space, before the first are two.
    let needed = |widths: &[usize]| widths.iter().map(|width| width + 1).sum::<usize>() + 1;
    if needed(&widths) > columns {
        widths[0] = widths[0].min(NAME_MAX);
    }
    let fit = (1..=HEAD.len()).rev().find(|fit| needed(&widths[..*fit]) <= columns);
    widths[..fit.unwrap_or(1)].to_vec()
}

fn line(cells: &Cells, widths: &[usize]) -> String {
    let figures = cells.iter().zip(widths).skip(1).map(|(cell, width)| format!(" {cell:>width$}"));
    let width = widths[0];
    [format!("  {:<width$}", cut(&cells[0], width))].into_iter().chain(figures).collect()
}

fn source_cells(source: &SourceStatus, before: Option<(Duration, &SourceStatus)>) -> Cells {
    let busy = before.map(|(elapsed, before)| busy(source.busy_ns.saturating_sub(before.busy_ns), 1, elapsed));
    let mut cells = Cells::default();
    cells[0] = source.name.clone();
    cells[7] = busy.unwrap_or_default();
    cells[8] = source.restarts.to_string();
    cells
}

fn stage_cells(stage: &StageStatus, before: Option<(Duration, &StageStatus)>) -> Cells {
    let rate = before.map(|(elapsed, before)| {
        count(per_second(stage.tally.received.saturating_sub(before.tally.received), elapsed) as u64)
    });
    let workers = stage.workers.len().max(1);
    let busy = before.map(|(elapsed, before)| busy(stage.busy_ns.saturating_sub(before.busy_ns), workers, elapsed));
    [
        stage.name.clone(),
        count(stage.tally.received),
        rate.unwrap_or_default(),
        count(stage.tally.duplicates),
        count(stage.tally.late),
        count(stage.tally.dead),
        stage.queue_items.to_string(),
        busy.unwrap_or_default(),
        stage.restarts.to_string(),
    ]
}

fn busy(nanos: u64, workers: usize, elapsed: Duration) -> String {
    let share = Duration::from_nanos(nanos).as_secs_f64() / elapsed.as_secs_f64().max(1e-9) / workers as f64;
    format!("{:.0} %", (share * 100.0).min(100.0))
}
