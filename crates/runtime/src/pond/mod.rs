//! Ponds: bounded queues on disk between regions.
//!
//! The end that is written to ([`writer`]) is a stage like any other: its segments are Logs, so a cut, going back to one and a torn tail are what
//! they are for all Logs. The end that is read from ([`reader`]) is a source, whose position is the offset of the next record. What is
//! between them is in [`shared`]: readers see the bytes that the last cut of the region that writes has, and no more.
//!
//! Hours and fullness travel in order: a barrier with horizons leaves a record of them, at which the reader waits for a barrier of its
//! own region; and what has been consumed reaches the writer on its barriers only, so that it does the same when it is replayed.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
pub(crate) mod reader;
mod record;
pub(crate) mod shared;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use tidemill_core::{Home, LogName};

use crate::logs::Lengths;

/// A segment is named by the offset of its first byte, so that names sort.
const PREFIX: &str = "segment-";

/// The Log of the segment that begins at an offset.
fn segment_log(base: u64) -> LogName {
    LogName { home: Home::State, name: format!("{PREFIX}{base:016x}") }
}

/// Offsets of the first byte that is in the segments, and behind the last.
pub(crate) fn extent(lengths: &Lengths) -> (u64, u64) {
    let segments = || lengths.iter().filter_map(|(log, length)| Some((segment_base(log)?, *length)));
    let first = segments().map(|(base, _)| base).min().unwrap_or(0);
    (first, segments().map(|(base, length)| base + length).max().unwrap_or(0))
}

/// Where the segment of a Log begins.
fn segment_base(log: &LogName) -> Option<u64> {
    u64::from_str_radix(log.name.strip_prefix(PREFIX)?, 16).ok()
}
