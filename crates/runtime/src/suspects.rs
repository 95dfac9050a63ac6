//! Events that kill the process: a stack overflow or an abort in a stage can't be caught, only found at the next start.
//!
//! Before each call into a stage, its worker marks in a file of its own which events it has in hand, and when the item is done, that it has none. Marks
//! that a start finds were in hand when the process died. That may be chance (`kill -9`), so it takes four deaths: a range that two of them have
//! in common is gone through event by event, each marked; an event that had its mark at two deaths is not given to the stage any more, and becomes a dead
//! letter. A run that ends well forgets all of it.
//!
//! ```text
//! <state>/suspects/<stage>.<worker>.<epoch>   0, or 1 and a range in postcard; 4 KiB, written in place
//!                  known                      what starts have found so far, JSON
//! ```
//!
//! The marks are in the page cache: they outlive the process, not the machine, which no event brings down. Cost: two writes of some
//! 50 bytes, a microsecond each, for each item of a stage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::Input;

use crate::error::RunError;
use crate::host::{Host, HostFile, Open};
use crate::item::Part;
use crate::logs::make_dirs;

const KNOWN: &str = "known";
/// Room for a mark is taken when its file is made: later writes need none.
const MARK_BYTES: usize = 4_096;
/// Ranges that are kept; with more, the oldest are forgotten.
const KNOWN_MAX: usize = 64;
/// Deaths after which a range is gone through event by event, or an event is convicted.
const DEATHS: u32 = 2;

/// Events of one partition that a stage had in hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    source: Arc<str>,
    partition: Arc<str>,
    /// Position of the first and the last of them.
    first: u64,
    last: u64,
    /// Of a single event, its number among those of the same position.
    single: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    stage: Arc<str>,
    range: Range,
    deaths: u32,
}

/// What is known of deaths before this start.
pub(crate) struct Suspects {
    host: Arc<dyn Host>,
    dir: PathBuf,
    known: Vec<Known>,
}

/// A worker's mark. It goes with the worker: one that fails is no death.
pub(crate) struct Mark {
    host: Arc<dyn Host>,
    path: PathBuf,
    file: Option<Box<dyn HostFile>>,
}

impl Range {
    /// What an input holds; nothing of a remark.
    pub(crate) fn of(input: &Input) -> Option<Self> {
        let (origin, first, last, single) = match input {
            Input::Note(_) => return None,
            Input::Raw(chunk) => {
                let origin = &chunk.origin;
                (
                    origin,
                    origin.first,
                    origin.next.saturating_sub(1).max(origin.first),
                    input.split().is_none().then_some(0),
                )
            }
            Input::Rows(batch) => {
                let row = batch.indexes().next()?;
                let first = batch.position(row);
                let last = match &batch.selection {
                    Some(rows) => rows.last().map_or(row, |row| *row as usize),
                    None => batch.records.num_rows() - 1,
                };
                let last = batch.position(last);
                let same = (0..row).rev().take_while(|other| batch.position(*other) == first).count();
                (&batch.origin, first, last, (batch.len() == 1).then_some(same as u32))
            }
        };
        let (source, partition) = (origin.source.clone(), origin.partition.clone());
        Some(Self { source, partition, first, last, single })
    }

    /// What an item's parts hold, as far as they come from one portion of a source: those of one call do.
    pub(crate) fn covering(parts: &[Part]) -> Option<Self> {
        let origin = parts.iter().find_map(|part| match part.input() {
            Input::Raw(chunk) => Some(&chunk.origin),
            Input::Rows(batch) => Some(&batch.origin),
            Input::Note(_) => None,
        })?;
        let (source, partition) = (origin.source.clone(), origin.partition.clone());
        let last = origin.next.saturating_sub(1).max(origin.first);
        Some(Self { source, partition, first: origin.first, last, single: None })
    }

    fn meets(&self, other: &Self) -> bool {
        (&self.source, &self.partition) == (&other.source, &other.partition)
            && self.first <= other.last
            && other.first <= self.last
    }
}

impl Suspects {
    /// Takes account of the marks that the last process left, and begins anew.
    pub(crate) fn take(host: Arc<dyn Host>, state: &Path) -> Result<Self, RunError> {
        let dir = state.join("suspects");
        make_dirs(&*host, &dir)?;
        let mut known: Vec<Known> = match host.read(&dir.join(KNOWN)) {
            // What can't be read is only lost evidence.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let mut marks = Vec::new();
        for path in host.list(&dir).map_err(RunError::io("list", &dir))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if name == KNOWN {
                continue;
            }
            if let (Some(stage), Some(range)) = (name.rsplitn(3, '.').nth(2), read_mark(&*host, &path)) {
                marks.push((Arc::from(stage), range));
            }
            host.remove(&path).map_err(RunError::io("remove", &path))?;
        }
        // One process can die of the same thing only once.
        let mut counted: Vec<(Arc<str>, Range)> = Vec::new();
        for (stage, range) in marks {
            if !counted.iter().any(|(other, counted)| *other == stage && counted.meets(&range)) {
                note(&mut known, stage.clone(), range.clone());
                counted.push((stage, range));
            }
        }
        let excess = known.len().saturating_sub(KNOWN_MAX);
        known.drain(..excess);
        let suspects = Self { host, dir, known };
        suspects.keep()?;
        Ok(suspects)
    }

    fn keep(&self) -> Result<(), RunError> {
        let path = self.dir.join(KNOWN);
        if self.known.is_empty() {
            return Ok(());
        }
        let new = self.dir.join("known.new");
        let bytes = serde_json::to_vec(&self.known).map_err(|error| RunError::Internal(error.to_string()))?;
        let write = |bytes: &[u8]| self.host.open(&new, Open::Create)?.write_at(bytes, 0);
        write(&bytes).map_err(RunError::io("write", &new))?;
        self.host.rename(&new, &path, true).map_err(RunError::io("write", &path))
    }

    /// The run has ended well: nobody died.
    pub(crate) fn forget(&self) {
        self.remove(|_| true);
    }

    /// The process ends on purpose, with whatever in hand: that is no death.
    pub(crate) fn forget_marks(&self) {
        self.remove(|name| name != KNOWN);
    }

    /// A worker hangs and was replaced: its mark is no evidence.
    pub(crate) fn forget_mark(&self, stage: &str, worker: usize, epoch: u64) {
        let _ = self.host.remove(&self.path(stage, worker, epoch));
    }

    fn remove(&self, which: impl Fn(&str) -> bool) {
        for path in self.host.list(&self.dir).into_iter().flatten() {
            if path.file_name().and_then(|name| name.to_str()).is_some_and(&which) {
                let _ = self.host.remove(&path);
            }
        }
    }

    fn path(&self, stage: &str, worker: usize, epoch: u64) -> PathBuf {
        self.dir.join(format!("{stage}.{worker}.{epoch}"))
    }

    /// The mark of a new worker.
    pub(crate) fn mark(&self, stage: &str, worker: usize, epoch: u64) -> Mark {
        let path = self.path(stage, worker, epoch);
        let made = self.host.open(&path, Open::Create);
        let made = made.and_then(|file| file.write_at(&[0; MARK_BYTES], 0).map(|()| file));
        if let Err(error) = &made {
            tracing::warn!(%stage, path = %path.display(), %error, "an event that kills the process will not be found");
        }
        Mark { host: self.host.clone(), path, file: made.ok() }
    }

    /// Whether there is any suspicion at all.
    pub(crate) fn are_any(&self) -> bool {
        !self.known.is_empty()
    }

    /// Whether a stage goes through an input event by event.
    pub(crate) fn is_suspect(&self, stage: &str, range: &Range) -> bool {
        let ranges = self.known.iter().filter(|known| *known.stage == *stage && known.deaths >= DEATHS);
        ranges.into_iter().any(|known| known.range.meets(range))
    }

    /// How often the process died on this single event, if that is too often.
    pub(crate) fn convicts(&self, stage: &str, range: &Range) -> Option<u32> {
        range.single?;
        let known = self.known.iter().find(|known| *known.stage == *stage && known.range == *range)?;
        (known.deaths >= DEATHS).then_some(known.deaths)
    }
}

/// Counts a death. Ranges that were read in other portions meet in the part that they have in common; of single events each is by itself.
fn note(known: &mut Vec<Known>, stage: Arc<str>, range: Range) {
    let is_same = |other: &Range| match (range.single, other.single) {
        (None, None) => other.meets(&range),
        _ => *other == range,
    };
    match known.iter_mut().find(|known| known.stage == stage && is_same(&known.range)) {
        Some(known) => {
            known.deaths += 1;
            known.range.first = known.range.first.max(range.first);
            known.range.last = known.range.last.min(range.last);
        }
        None => known.push(Known { stage, range, deaths: 1 }),
    }
}

impl Mark {
    /// The stage is given this next.
    pub(crate) fn set(&self, range: Option<&Range>) {
        let (Some(file), Some(range)) = (&self.file, range) else { return };
        let mut bytes = vec![1];
        if let Ok(more) = postcard::to_stdvec(range) {
            bytes.extend(more);
        }
        let _ = file.write_at(&bytes, 0);
    }

    /// It has nothing in hand.
    pub(crate) fn clear(&self) {
        if let Some(file) = &self.file {
            let _ = file.write_at(&[0], 0);
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = self.host.remove(&self.path);
    }
}

fn read_mark(host: &dyn Host, path: &Path) -> Option<Range> {
    let bytes = host.read(path).ok()?;
    let (1, rest) = bytes.split_first().map(|(first, rest)| (*first, rest))? else { return None };
    postcard::take_from_bytes(rest).ok().map(|(range, _)| range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    fn range(first: u64, last: u64, single: Option<u32>) -> Range {
        Range { source: "s".into(), partition: "p".into(), first, last, single }
    }

    /// A process that dies with this in hand; what the next start knows.
    fn dies(dir: &Path, in_hand: &Range) -> Suspects {
        let suspects = Suspects::take(Arc::new(System), dir).unwrap();
        let mark = suspects.mark("parse", 0, 0);
        mark.set(Some(in_hand));
        std::mem::forget(mark);
        Suspects::take(Arc::new(System), dir).unwrap()
    }

    #[test]
    fn four_deaths_convict_one_event_and_chance_convicts_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let event = range(40, 40, Some(0));
        let known = dies(dir.path(), &range(0, 99, None));
        assert!(!known.is_suspect("parse", &event), "it may have been chance");
        let known = dies(dir.path(), &range(30, 130, None));
        assert!(known.is_suspect("parse", &event) && !known.is_suspect("other", &event));
        assert!(!known.is_suspect("parse", &range(100, 130, None)), "only what both had in hand");
        let known = dies(dir.path(), &range(41, 41, Some(0)));
        assert_eq!(known.convicts("parse", &event), None);
        let known = dies(dir.path(), &event);
        assert_eq!(known.convicts("parse", &event), None);
        let known = dies(dir.path(), &event);
        assert_eq!(known.convicts("parse", &event), Some(2));
        assert_eq!(known.convicts("parse", &range(41, 41, Some(0))), None);
        known.forget();
        assert!(!Suspects::take(Arc::new(System), dir.path()).unwrap().is_suspect("parse", &event));
    }

    #[test]
    fn a_worker_that_has_nothing_in_hand_is_no_witness() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            let suspects = Suspects::take(Arc::new(System), dir.path()).unwrap();
            let mark = suspects.mark("parse.with.points", 0, 7);
            mark.set(Some(&range(0, 9, None)));
            mark.clear();
            std::mem::forget(mark);
            // Nor is one that has failed: it is dropped with something in hand.
            suspects.mark("other", 0, 0).set(Some(&range(0, 9, None)));
            // Nor one that was given up.
            let stuck = suspects.mark("stuck", 1, 2);
            stuck.set(Some(&range(0, 9, None)));
            suspects.forget_mark("stuck", 1, 2);
            std::mem::forget(stuck);
        }
        assert!(Suspects::take(Arc::new(System), dir.path()).unwrap().known.is_empty());
    }

    #[test]
    fn events_of_one_position_are_judged_each_by_itself_and_a_start_counts_one_death() {
        let dir = tempfile::tempdir().unwrap();
        let (third, fifth) = (range(7, 7, Some(3)), range(7, 7, Some(5)));
        for event in [&third, &third, &fifth, &fifth] {
            dies(dir.path(), event);
        }
        let known = Suspects::take(Arc::new(System), dir.path()).unwrap();
        assert_eq!((known.convicts("parse", &third), known.convicts("parse", &fifth)), (Some(2), Some(2)));
        let dir = tempfile::tempdir().unwrap();
        let suspects = Suspects::take(Arc::new(System), dir.path()).unwrap();
        for worker in 0..3 {
            let mark = suspects.mark("parse", worker, 0);
            mark.set(Some(&range(0, 9, None)));
            std::mem::forget(mark);
        }
        assert!(!Suspects::take(Arc::new(System), dir.path()).unwrap().is_suspect("parse", &range(0, 9, None)));
    }
}
