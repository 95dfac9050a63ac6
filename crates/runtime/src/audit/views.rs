//! Whether rows that a stage hands on as they came are rows that it was given, each once.
//!
//! A stage that selects rows shares the columns of its input. So it can be seen, whatever the stage says, that no row of them leaves it twice, and
//! none that an earlier stage has left out; that none is missing is what its tally says.

use std::sync::Arc;

use tidemill_core::{Batch, Hour, IdSum, TimeColumn, Totals};

use super::check::Mismatch;

/// The first row that left the stage more often than it came.
pub(crate) fn wrong_row(stage: &str, inputs: &[&Batch], outputs: &[Batch], bucket_ms: i64) -> Option<Mismatch> {
    inputs.iter().enumerate().find_map(|(at, input)| {
        // Parts of an item may be halves of one batch.
        if inputs[..at].iter().any(|earlier| shares(earlier, input)) {
            return None;
        }
        let given: Vec<&Batch> = inputs[at..].iter().copied().filter(|other| shares(input, other)).collect();
        let views: Vec<&Batch> = outputs.iter().filter(|output| shares(input, output)).collect();
        let wrong = match (&given[..], &views[..]) {
            (_, []) => None,
            ([given], [view]) if is_proper(given, view) => None,
            (given, views) => too_many(given, views),
        }?;
        let time = TimeColumn::of(&input.records, input.event_type.time).map(|column| column.ms(wrong.row));
        let id = input.counts.as_ref().map_or(0, |counts| counts.id(wrong.row));
        let totals = |events: usize| Totals { events: events as u64, ids: IdSum(id.wrapping_mul(events as u128)) };
        Some(Mismatch {
            place: format!("in `{stage}`, the event at {}:{}", input.origin.partition, input.position(wrong.row)),
            event_type: input.event_type.name.clone(),
            hour: time.map(|time| Hour::of(time, bucket_ms)),
            expected: totals(wrong.came),
            found: totals(wrong.left),
        })
    })
}

struct Wrong {
    row: usize,
    came: usize,
    left: usize,
}

fn shares(input: &Batch, output: &Batch) -> bool {
    match (input.records.columns().first(), output.records.columns().first()) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

/// The usual case in one pass: rows ascend, and are among those given, which ascend too.
fn is_proper(given: &Batch, view: &Batch) -> bool {
    let Some(rows) = &view.selection else { return given.selection.is_none() };
    let ascend = rows.windows(2).all(|pair| pair[0] < pair[1]);
    ascend
        && match &given.selection {
            None => rows.last().is_none_or(|row| (*row as usize) < given.records.num_rows()),
            Some(given) => {
                let mut left = given.iter();
                rows.iter().all(|row| left.any(|known| known == row))
            }
        }
}

/// The same for any number of batches of the same columns.
fn too_many(given: &[&Batch], views: &[&Batch]) -> Option<Wrong> {
    let sorted = |batches: &[&Batch]| {
        let mut rows: Vec<usize> = batches.iter().flat_map(|batch| batch.indexes()).collect();
        rows.sort_unstable();
        rows
    };
    let (given, left) = (sorted(given), sorted(views));
    let times = |rows: &[usize], row: usize| {
        rows.partition_point(|other| *other <= row) - rows.partition_point(|other| *other < row)
    };
    left.chunk_by(|a, b| a == b).find_map(|same| {
        let row = *same.first()?;
        let came = times(&given, row);
        (same.len() > came).then_some(Wrong { row, came, left: same.len() })
    })
}
