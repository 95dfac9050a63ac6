//! Hours by type: which are open, sealed, revised, overdue or missing.
//!
//! What is published is read from manifests; what is open, and how far each type is sealed, from the state directory that the output root belongs
//! to, if it is on this machine; what an open hour waits for, from the process that runs the topology, if there is one.

mod gather;
mod grid;
mod html;
mod one;

use std::collections::BTreeMap;

use serde::Serialize;
use tidemill_actors::sink::{Manifest, Mode, Revision};
use tidemill_core::{SealReason, format_time_ms};

pub(crate) use gather::{Wanted, gather, revisions};
pub(crate) use grid::grid;
pub(crate) use html::html;
pub(crate) use one::{hour_start_ms, one};

/// Hours of all types in some time.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) output_root: String,
    /// When it was made.
    pub(crate) at: String,
    /// The hours in it begin at or after this.
    pub(crate) since: String,
    /// And before this.
    pub(crate) until: String,
    pub(crate) hour_ms: i64,
    pub(crate) topology: Option<String>,
    /// When the last cut was made, as far as the state is known here.
    pub(crate) cut_at: Option<String>,
    /// Whether a process runs the topology.
    pub(crate) is_running: bool,
    /// Not all of what was published was looked at: what is shown as missing may be there.
    pub(crate) is_partial: bool,
    pub(crate) types: Vec<Row>,
    #[serde(skip)]
    pub(crate) starts_ms: Vec<i64>,
}

/// Hours of a type in one sink.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) event_type: String,
    /// `None` when nothing of the type was published.
    pub(crate) sink: Option<String>,
    pub(crate) owner: Option<String>,
    /// Hours that end at or before it are sealed.
    pub(crate) sealed_before: Option<String>,
    /// How far event time has come, while a process runs.
    pub(crate) watermark: Option<String>,
    /// The partition that holds it.
    pub(crate) held_by: Option<String>,
    /// Since when late events wait for their revision.
    pub(crate) revising_since: Option<String>,
    /// Those that anything is known of.
    pub(crate) hours: Vec<Hour>,
    /// Manifests of their revisions, if they are asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) manifests: Vec<Manifest>,
}

/// What is known of an hour.
#[derive(Debug, Serialize)]
pub(crate) struct Hour {
    pub(crate) start: String,
    #[serde(skip)]
    pub(crate) start_ms: i64,
    pub(crate) state: State,
    /// Of all its revisions as they are to be read.
    pub(crate) events: u64,
    /// Events that came when the hour was sealed, as far as they were taken; of aggregates, nothing is known.
    pub(crate) late: u64,
    pub(crate) duplicates_dropped: u64,
    /// Events that a limit refused.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) refused: u64,
    pub(crate) revisions: Vec<Published>,
    /// Partitions that its seal did not wait for, by source.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) not_waited_for: BTreeMap<String, Vec<String>>,
    /// How long it is open beyond its end and the allowed lateness, by the clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overdue_ms: Option<i64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What is to be said of an hour first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It takes events.
    Open,
    /// It takes events, and should have been sealed by the clock.
    Overdue,
    /// It is sealed, and has events.
    Sealed,
    /// It is sealed without events.
    Empty,
    /// It is sealed, and some partitions were not waited for.
    Partial,
    /// It is sealed, and late events came in further revisions.
    Revised,
    /// It is sealed, and waits to be published.
    Unpublished,
    /// It should be published, and is not.
    Missing,
}

/// A revision that is published, over all directories that it has.
#[derive(Debug, Serialize)]
pub(crate) struct Published {
    pub(crate) revision: u32,
    pub(crate) mode: Mode,
    pub(crate) events: u64,
    pub(crate) sealed_at: String,
    pub(crate) reason: SealReason,
    /// The directory below the output root; the first of several where fields are in the path.
    pub(crate) path: String,
    pub(crate) directories: usize,
}

impl State {
    pub(crate) const ALL: [Self; 8] = [
        Self::Sealed,
        Self::Revised,
        Self::Empty,
        Self::Partial,
        Self::Open,
        Self::Overdue,
        Self::Unpublished,
        Self::Missing,
    ];

    pub(crate) fn symbol(self) -> char {
        match self {
            Self::Open => 'o',
            Self::Overdue => '!',
            Self::Sealed => '#',
            Self::Empty => '0',
            Self::Partial => '?',
            Self::Revised => '+',
            Self::Unpublished => '>',
            Self::Missing => 'x',
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Overdue => "overdue",
            Self::Sealed => "sealed",
            Self::Empty => "sealed, no events",
            Self::Partial => "sealed, not all waited for",
            Self::Revised => "revised",
            Self::Unpublished => "sealed, not published yet",
            Self::Missing => "missing",
        }
    }
}

impl Row {
    /// The type, and the sink where there are several of the type.
    pub(crate) fn label(&self, rows: &[Self]) -> String {
        let is_one_of_several = rows.iter().filter(|row| row.event_type == self.event_type).count() > 1;
        match &self.sink {
            Some(sink) if is_one_of_several => format!("{} ({sink})", self.event_type),
            _ => self.event_type.clone(),
        }
    }
}

impl Hour {
    /// A sealed hour, by its revisions.
    fn sealed(mut revisions: Vec<&Revision>) -> Option<Self> {
        revisions.sort_by_key(|revision| (revision.manifest.revision, &revision.manifest.path));
        let start_ms = revisions.first()?.start_ms;
        let mut hour = Self {
            start: format_time_ms(start_ms),
            start_ms,
            state: State::Sealed,
            events: 0,
            late: 0,
            duplicates_dropped: 0,
            refused: 0,
            revisions: Vec::new(),
            not_waited_for: BTreeMap::new(),
            overdue_ms: None,
        };
        for revision in revisions {
            let manifest = &revision.manifest;
            hour.not_waited_for.extend(manifest.not_waited_for.clone());
            match hour.revisions.last_mut().filter(|last| last.revision == manifest.revision) {
                Some(last) => {
                    last.events += manifest.count;
                    last.directories += 1;
                }
                None => {
                    hour.duplicates_dropped += manifest.duplicates_dropped;
                    hour.refused += manifest.refused;
                    hour.revisions.push(Published {
                        revision: manifest.revision,
                        mode: manifest.mode,
                        events: manifest.count,
                        sealed_at: manifest.sealed_at.clone(),
                        reason: manifest.reason,
                        path: manifest.path.clone(),
                        directories: 1,
                    });
                }
            }
        }
        for revision in &hour.revisions {
            match revision.mode {
                Mode::Complete | Mode::Delta => hour.events += revision.events,
                Mode::Append => {
                    hour.events += revision.events;
                    hour.late += revision.events;
                }
                Mode::Replace => hour.events = revision.events,
            }
        }
        if !hour.not_waited_for.is_empty() {
            hour.state = State::Partial;
        } else if hour.revisions.iter().any(|revision| revision.revision > 0) {
            hour.state = State::Revised;
        } else if hour.events == 0 {
            hour.state = State::Empty;
        }
        Some(hour)
    }

    /// An hour of which nothing is published.
    fn unpublished(start_ms: i64, state: State, overdue_ms: Option<i64>) -> Self {
        Self {
            start: format_time_ms(start_ms),
            start_ms,
            state,
            events: 0,
            late: 0,
            duplicates_dropped: 0,
            refused: 0,
            revisions: Vec::new(),
            not_waited_for: BTreeMap::new(),
            overdue_ms,
        }
    }
}
