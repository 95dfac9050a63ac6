//! Stages: the steps of a topology between sources and what is outside.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use crate::batch::Input;
use crate::effects::{Effects, LogName};
use crate::event_type::EventType;
use crate::hour::Hour;
use crate::kind::{Finding, KindSpec, Options};
use crate::pieces::PieceReader;
use crate::seal::Seals;
use crate::state_key::StateKey;
use crate::totals::HourTotals;

/// Widths and limits that hold for the whole topology.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Width of an hour in milliseconds: 1 minute to 1 day.
    pub bucket_ms: i64,
    /// How long after an hour's end (in event time) its events are still taken, in milliseconds.
    pub allowed_lateness_ms: i64,
    /// How long a partition that gives nothing, and is not proven to have nothing, may hold hours open, in milliseconds.
    pub hold_at_most_ms: i64,
    /// How far ahead of its arrival an event may be, in milliseconds.
    pub max_ahead_ms: i64,
    /// Hours open at the same time, over all types, in a region: more of them are told of.
    pub max_open_hours: usize,
    /// Groups open at the same time in one stage: more of them are told of.
    pub max_groups: usize,
    /// Different values that a path may take in one hour of a type.
    pub max_path_values: usize,
    /// Longest record in bytes.
    pub max_event_bytes: usize,
}

impl Limits {
    /// Start of the first hour that stays open when event time has come to `at_ms`: those before it may be sealed.
    #[must_use]
    pub fn open_from_ms(&self, at_ms: i64) -> i64 {
        Hour::of(at_ms.saturating_sub(self.allowed_lateness_ms), self.bucket_ms).start_ms
    }

    /// The part of a path template that tells the hours of one type apart: down to the hour when there are several a day,
    /// and to the minute when there are several an hour.
    #[must_use]
    pub fn hour_path(&self) -> &'static str {
        match self.bucket_ms {
            ..3_600_000 => "year={year}/month={month}/day={day}/hour={hour}/minute={minute}",
            3_600_000..86_400_000 => "year={year}/month={month}/day={day}/hour={hour}",
            86_400_000.. => "year={year}/month={month}/day={day}",
        }
    }
}

/// What a stage is planned with.
#[derive(Clone, Debug)]
pub struct StageInput {
    /// Name of the stage in the topology.
    pub name: Arc<str>,
    /// Its options, checked, with defaults filled in.
    pub options: Options,
    /// Types that can arrive: what the inputs send, narrowed as the topology says. For a stage that parses: every type
    /// declared in the topology, narrowed likewise.
    pub types: Vec<Arc<EventType>>,
    /// Limits of the topology.
    pub limits: Arc<Limits>,
}

/// What a stage is built with.
pub struct StageContext<'a> {
    /// As it was planned.
    pub input: StageInput,
    /// The types it sends, as its kind's `plan` gave them.
    pub outputs: Vec<Arc<EventType>>,
    /// Identity of the state directory, in hex: part of the names of published files.
    pub state_id: Arc<str>,
    /// The secret of the state directory.
    pub key: &'a StateKey,
    /// Name of the topology.
    pub topology: Arc<str>,
    /// Horizon of each type as of the snapshot: hours that end at or before it are sealed.
    pub sealed_before_ms: BTreeMap<Arc<str>, i64>,
    /// What `snapshot` returned at the cut to go on from; `None` at the first start.
    pub snapshot: Option<&'a [u8]>,
    /// The stage's pieces. It may keep them.
    pub pieces: Arc<dyn PieceReader>,
    /// How many bytes of state it may keep in memory: what it has beyond that it leaves in its pieces.
    pub memory_bytes: u64,
    /// The stage's Logs, as long as they were at that cut.
    pub logs: &'a dyn LogReader,
    /// By how many steps of niceness its thread gives way to those of more urgent regions; threads that it starts inherit that. 0 for most.
    pub gives_way: i32,
}

/// Reads a stage's Logs when it is restored.
pub trait LogReader {
    /// Opens a Log of the stage from its beginning; it ends at its length in the cut.
    ///
    /// # Errors
    /// When there is no such Log, or it can't be read.
    fn open(&self, log: &LogName) -> std::io::Result<Box<dyn Read>>;
}

/// Why a call failed. The worker is restarted and the call repeated; if it fails again, the input is halved until the one
/// record is found that makes it fail, which becomes a dead letter.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    /// What failed, and where.
    pub message: String,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StageError {
    /// An error without a cause.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }
}

/// One step of a topology: a deterministic function of its snapshot and its inputs.
///
/// Each stage runs on a thread of its own, so calls may compute for long, but they do no I/O: what is to leave the stage
/// goes into [`Effects`], and leaves only when the call has returned `Ok`. After an `Err` or a panic the value is dropped
/// and a new one is built from the last snapshot; the calls since then are repeated.
pub trait Stage: Send {
    /// Deals with one input. `effects.tally` must account for every record of it.
    ///
    /// # Errors
    /// See [`StageError`].
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError>;

    /// Called at every barrier, before `snapshot`: closes the hours that end at or before a horizon.
    ///
    /// # Errors
    /// See [`StageError`].
    fn seal(&mut self, _seals: &Seals, _effects: &mut Effects) -> Result<(), StageError> {
        Ok(())
    }

    /// All that is needed to go on from here, beyond what is in Logs and in pieces. It is written whole at every cut,
    /// so
    /// what may be large belongs into [`Effects::pieces`], where the stage puts what has changed. Appends that are
    /// still
    /// pending go into `effects` first. Called once a cut; cost counts. Stateless kinds return nothing.
    ///
    /// # Errors
    /// See [`StageError`].
    fn snapshot(&mut self, _effects: &mut Effects) -> Result<Vec<u8>, StageError> {
        Ok(Vec::new())
    }

    /// What a sink has written of the hours that it holds open, counted where it writes: asked when it is built and
    /// behind
    /// every snapshot, and compared with what it was given. `None` for a stage that does not say. All hours at first,
    /// then
    /// those whose totals have changed since it was asked before; zero of one that it holds no more. The hour is the
    /// one
    /// that an event went into. Dead letters of such a sink have to be made by
    /// [`DeadLetter::of_row`](crate::DeadLetter::of_row), from the batches that it was
    /// given: what it refused is known from them.
    fn holds(&mut self) -> Option<Vec<HourTotals>> {
        None
    }

    /// Hours that the stage holds open now, by type, for the display and the metrics.
    fn open_hours(&self) -> BTreeMap<Arc<str>, usize> {
        BTreeMap::new()
    }
}

/// A kind of stage, or of sink that writes through Logs.
pub trait StageKind: Send + Sync + 'static {
    /// Name, options and documentation.
    fn spec(&self) -> &'static KindSpec;

    /// Checks the options against the types that arrive, and says which types the stage sends (none for a sink).
    ///
    /// # Errors
    /// Everything that is wrong.
    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>>;

    /// What is probably not as meant although the stage can run. Asked only when `plan` found nothing wrong.
    fn warnings(&self, _input: &StageInput) -> Vec<Finding> {
        Vec::new()
    }

    /// Builds a worker's value, from the snapshot if there is one.
    ///
    /// # Errors
    /// See [`StageError`].
    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError>;
}
