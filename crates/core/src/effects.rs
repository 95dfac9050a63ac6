//! What a call into a stage wants done. The runtime does it when, and only when, the call has succeeded.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::dead_letter::DeadLetter;
use crate::hour::Hour;
use crate::pieces::PieceChanges;
use crate::totals::{HourTotals, Totals};

/// The effects of one call into a stage.
///
/// A stage does no I/O of its own: it says here what is to leave it. That makes a call whole or not at all,
/// and lets the runtime repeat a call after a failure without doing anything twice.
#[derive(Debug, Default)]
pub struct Effects {
    /// Events for the stages behind this one.
    pub batches: Vec<Batch>,
    /// Remarks on hours for the stages behind this one.
    pub notes: Vec<HourNote>,
    /// Events that could not be dealt with.
    pub dead: Vec<DeadLetter>,
    /// Bytes to append to Logs, in order. A Log begins to exist with its first append.
    pub appends: Vec<(LogName, Vec<u8>)>,
    /// Logs that become files for readers with the next cut, in this order.
    pub publications: Vec<Publication>,
    /// Logs that are not needed any more once the next cut is committed.
    pub retired: Vec<LogName>,
    /// At a barrier: what changed of the state that is kept in [pieces](crate::PieceReader), by name; `None` for a
    /// piece
    /// that is gone. A name is not empty.
    pub pieces: PieceChanges,
    /// At a barrier, of a sink that says what it [holds](crate::Stage::holds): what it has closed by it.
    pub closed: Vec<HourTotals>,
    /// At a barrier: types of which producers have sent more events than came, and how many more were noticed.
    pub missing: Vec<(Arc<str>, u64)>,
    /// At a barrier: types that the stage makes, of which late rows wait for the end of a revision.
    pub revising: Vec<Arc<str>>,
    /// What became of the records of the call.
    pub tally: Tally,
}

/// Where a Log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Home {
    /// In the state directory: for the stage itself to read when it is restored.
    State,
    /// In the staging directory of the output root: to be published.
    Output,
    /// Beside it: a whole file that came with a [`Request`](crate::Request), which is published as it is. No stage appends to it.
    Request,
}

/// Names an append-only file of one stage. Stages of different names never share a Log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogName {
    /// Where it is kept.
    pub home: Home,
    /// Unique within the stage, for ever: a name is not used again after it was published or retired.
    /// Letters, digits, `-`, `_`, `.` and `=` only; at most 200 bytes.
    pub name: String,
}

/// A Log that becomes a file at `path` under the output root. The file never changes afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The Log; it ends with this.
    pub log: LogName,
    /// Path below the output root, with `/` between its parts; no part is empty, `.` or `..`.
    pub path: String,
    /// What is there already is replaced, in one step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaces: bool,
}

/// A remark on an hour of a type, for the manifests of the sinks behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourNote {
    /// The type.
    pub event_type: Arc<str>,
    /// The hour.
    pub hour: Hour,
    /// Duplicates dropped since the last note for this hour.
    pub duplicates: u64,
    /// Events that a limit refused since then: the hour is short of them.
    pub refused: u64,
    /// What a stage counted since its last note for this hour: the runtime says it at every barrier of each stage, for events that have left it,
    /// and of a sink itself, for those that have come.
    pub counted: Option<Counted>,
    /// What producers have sent of it, and what is missing.
    pub accounts: Option<Accounts>,
}

/// What producers have sent of an hour, since the last remark on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// The cut that they end with: those that come by several ways are told by it.
    pub cut: u64,
    /// One a producer.
    pub producers: Vec<Account>,
}

/// What a producer has sent of an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub producer: Arc<str>,
    /// Events that came.
    pub events: u64,
    /// Numbers that it has used, and of which nothing came.
    pub missing: u64,
    /// Numbers of which it is not known any more whether anything came: there were too many gaps at a time.
    pub unknown: u64,
    /// Events that came and had been told as missing.
    pub found: u64,
}

/// What a stage counted of an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The cut that the count ends with: one that comes by several ways is told by it.
    pub cut: u64,
    /// The stage, or the sink itself.
    pub stage: Arc<str>,
    /// Of its events.
    pub totals: Totals,
}

/// What became of the records of a call: `received` equals the sum of all the others (invariant I8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Records that came in.
    pub received: u64,
    /// Records that went on, or were written by a sink.
    pub sent: u64,
    /// Records that were dropped as duplicates.
    pub duplicates: u64,
    /// Records for an hour that is sealed; they are among the dead letters too, but not in `dead`.
    pub late: u64,
    /// Records that became dead letters for any other reason.
    pub dead: u64,
    /// Records that the stage was asked to leave out.
    pub filtered: u64,
    /// Records that went into aggregates.
    pub absorbed: u64,
    /// How many came when their hour was sealed, and were not refused for it: they are part of a later revision, or of a later hour. They
    /// are counted above, too.
    #[serde(default)]
    pub taken_late: u64,
    /// How many a limit refused: manifests of their hours say so. They are among the dead letters, and in `dead`.
    #[serde(default)]
    pub refused: u64,
}

impl HourNote {
    /// A remark that says nothing yet.
    #[must_use]
    pub fn on(event_type: Arc<str>, hour: Hour) -> Self {
        Self { event_type, hour, duplicates: 0, refused: 0, counted: None, accounts: None }
    }
}

impl<'a> std::iter::Sum<&'a Self> for Tally {
    fn sum<I: Iterator<Item = &'a Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |mut all, tally| {
            all.add(tally);
            all
        })
    }
}

impl Tally {
    /// Whether every record that came in is accounted for.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.received == self.sent + self.duplicates + self.late + self.dead + self.filtered + self.absorbed
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.sent += other.sent;
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.dead += other.dead;
        self.filtered += other.filtered;
        self.absorbed += other.absorbed;
        self.taken_late += other.taken_late;
        self.refused += other.refused;
    }
}
