//! The hours of a type that take events: open ones, and revisions of sealed ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};
use tidemill_core::{Account, Accounts, Counted, EventType, Hour, HourNote, LatePolicy, Reason, Tally, Totals};

use super::directory::Directory;
use super::files::Files;
use super::pending::Pending;
use crate::by_hour::ByHour;
use crate::sink::container::Format;
use crate::sink::manifest::ManifestAccount;

/// A type that the sink takes.
pub(super) struct TypeState {
    pub(super) event_type: Arc<EventType>,
    pub(super) format: Arc<Format>,
    /// Columns whose values are in the path.
    pub(super) path_fields: Vec<usize>,
    pub(super) sealed_before_ms: i64,
    /// Hours that end at or before it take no late events. It moves with seals only, by what the type says at the time: of what was sealed under
    /// another policy, or before there was this sink, nobody knows the last revision.
    pub(super) given_up_ms: i64,
    /// An hour with events was sealed.
    pub(super) has_begun: bool,
    /// Hours that take events, by start: open ones, and revisions of sealed ones.
    pub(super) hours: BTreeMap<i64, OpenHour>,
    /// The further revisions of hours that are not given up.
    pub(super) revised: ByHour<Revised>,
    /// What earlier stages have said, by start of the hour.
    pub(super) noted: ByHour<Noted>,
}

/// The further revisions of an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Revised {
    /// Number of the last one.
    pub(super) last: u32,
    /// The first one that is read: it stands for those before it.
    pub(super) first: u32,
}

/// What earlier stages have said of an hour since its last revision.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Noted {
    /// Duplicates dropped.
    pub(super) duplicates: u64,
    /// Events that a limit refused, here or before.
    pub(super) refused: u64,
    /// Counts by name of the stage, and of the sink itself, with the cut of the last.
    pub(super) counted: BTreeMap<String, (u64, Totals)>,
    /// The cut of the last accounts.
    accounts_cut: u64,
    /// Producers by name.
    pub(super) producers: BTreeMap<String, ManifestAccount>,
}

impl TypeState {
    /// Opens a directory of an hour.
    pub(super) fn open(
        &mut self,
        files: &mut Files,
        hour: Hour,
        path: String,
        values: BTreeMap<String, String>,
    ) -> usize {
        let next = || self.revised.get(hour.start_ms).map_or(0, |revised| revised.last).saturating_add(1);
        let revision = if hour.end_ms() <= self.sealed_before_ms { next() } else { 0 };
        let open = self.hours.entry(hour.start_ms).or_insert_with(|| OpenHour::new(revision));
        let id = files.next_directory;
        files.next_directory += 1;
        let pending = Pending::new(id, self.format.clone());
        let made = Directory::new(id, self.event_type.clone(), hour, open.revision, path.clone(), values, pending);
        let directory = files.insert(made);
        open.by_path.insert(path, directory);
        directory
    }

    /// A row of the hour becomes a dead letter.
    pub(super) fn refuse(&mut self, hour: Hour, reason: Reason, tally: &mut Tally) {
        let is_moved = self.event_type.late.policy == LatePolicy::NextHour && hour.end_ms() <= self.sealed_before_ms;
        let hour = if is_moved { Hour::of(self.sealed_before_ms, hour.width_ms) } else { hour };
        match reason {
            Reason::Late => tally.late += 1,
            _ => tally.dead += 1,
        }
        if reason == Reason::TooManyPathValues {
            tally.refused += 1;
            self.noted.entry(hour.start_ms).refused += 1;
        }
    }

    /// Takes note of a remark.
    pub(super) fn note(&mut self, note: &HourNote) {
        if note.hour.end_ms() <= self.given_up_ms {
            return;
        }
        let noted = self.noted.entry(note.hour.start_ms);
        noted.duplicates += note.duplicates;
        noted.refused += note.refused;
        if let Some(Accounts { cut, producers }) = note.accounts.as_ref().filter(|told| told.cut > noted.accounts_cut) {
            noted.accounts_cut = *cut;
            for Account { producer, events, missing, unknown, found } in producers {
                let known = noted.producers.entry(producer.to_string()).or_default();
                known.events += events;
                known.missing += missing;
                known.unknown += unknown;
                known.found += found;
            }
        }
        if let Some(Counted { cut, stage, totals }) = &note.counted {
            let (known_cut, known) = match noted.counted.get_mut(&**stage) {
                Some(known) => known,
                None => noted.counted.entry(stage.to_string()).or_default(),
            };
            // Stages that take from one and lead to one bring its remarks twice.
            if *cut > *known_cut {
                *known_cut = *cut;
                *known += *totals;
            }
        }
    }

    /// Forgets what is needed for hours only that take late events.
    pub(super) fn forget(&mut self, width_ms: i64) {
        let given_up = i64::MIN..self.given_up_ms.saturating_sub(width_ms).saturating_add(1);
        let is_open = |start_ms: i64| self.hours.contains_key(&start_ms);
        self.revised.remove_range_unless(given_up.clone(), is_open);
        self.noted.remove_range_unless(given_up, is_open);
    }
}

/// An hour that takes events, or a revision of one.
pub(super) struct OpenHour {
    /// 0 until it is sealed.
    pub(super) revision: u32,
    pub(super) by_path: BTreeMap<String, usize>,
    /// Finds a directory without making its path: bytes of the path's fields.
    pub(super) by_key: HashTable<(Box<[u8]>, usize)>,
}

impl OpenHour {
    pub(super) fn new(revision: u32) -> Self {
        Self { revision, by_path: BTreeMap::new(), by_key: HashTable::new() }
    }
}
