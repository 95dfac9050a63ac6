//! What one commit says: all of it in a base record, and in others what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::{CutId, Horizon, LogName, Positions, Publication, Tally};
use tidemill_topology::Fingerprint;

use crate::pieces::Extent;
use crate::producers;
use crate::reached::Reached;
use crate::silence::Silences;

/// One commit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Whether everything before it is void.
    pub(crate) base: bool,
    pub(crate) cut: CutId,
    /// Wall clock, milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// Positions at the barrier, of partitions that moved since the cut before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) positions: Positions,
    /// Partitions that have no position any more, by source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) gone: Names,
    /// How far partitions have come that gave something since the cut before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) progress: Seen,
    /// Types whose horizon moved.
    pub(crate) horizons: Vec<Horizon>,
    /// Starts of hours that have had events since the cut before, and had none before that; in base records, of all
    /// that are not sealed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) opened: Hours,
    /// Types with late events that are in no revision yet, with the wall clock of the first cut that has any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) revising: BTreeMap<Arc<str>, i64>,
    /// Producers that were heard of since the cut before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) producers: producers::ByType,
    /// For how long partitions have been silent, by source, where it is not as in the cut before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) silent: BTreeMap<Arc<str>, Silences>,
    /// In base records: what cuts up to this one publish, and was not published yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) outbox: BTreeMap<CutId, Batch>,
    /// The pieces of the stages' state.
    pub(crate) pieces: Option<Extent>,
    /// What the cut says of each stage.
    pub(crate) stages: BTreeMap<Arc<str>, StageRecord>,
    /// Fingerprint of the topology; in base records only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Number of the run that it belongs to: processes that go on to the same ends are one.
    #[serde(default)]
    pub(crate) run: u64,
    /// It is of a run to the end of the input.
    #[serde(default)]
    pub(crate) until_end: bool,
    /// Where that run ends; said when more of it is known, and in base records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ends: Option<Ends>,
    /// What had become of records in all stages when that run began.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(crate) before: Tally,
    /// All ends are reached: nothing is read any more until everything is sealed.
    #[serde(default)]
    pub(crate) closing: bool,
    /// The input was read to its end and everything is sealed.
    #[serde(default)]
    pub(crate) finished: bool,
}

fn is_nothing(tally: &Tally) -> bool {
    *tally == Tally::default()
}

/// How far partitions have come, by source.
pub(crate) type Seen = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Reached>>;

/// Partitions by source.
pub(crate) type Names = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// Starts of hours, by type.
pub(crate) type Hours = BTreeMap<Arc<str>, BTreeSet<i64>>;

/// Positions behind the last records of a run to the end, by source and partition.
pub(crate) type Ends = BTreeMap<Arc<str>, BTreeMap<Arc<str>, u64>>;

/// What one cut publishes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// By stage, in order.
    pub(crate) publications: BTreeMap<Arc<str>, Vec<Publication>>,
    /// Of types whose hours it seals: where the hours end that were sealed before it.
    pub(crate) published_before_ms: BTreeMap<Arc<str>, i64>,
    /// When its barrier began, in milliseconds since 1970.
    pub(crate) at_ms: i64,
}

impl Batch {
    /// How many files it has.
    pub(crate) fn files(&self) -> usize {
        self.publications.values().map(Vec::len).sum()
    }
}

/// What a cut says of one stage.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StageRecord {
    /// Lengths of the Logs that were written since the cut before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) logs: Vec<(LogName, u64)>,
    /// Logs that become files, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) publications: Vec<Publication>,
    /// Logs that are not needed any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) retired: Vec<LogName>,
    /// What became of all its records.
    pub(crate) tally: Tally,
}
