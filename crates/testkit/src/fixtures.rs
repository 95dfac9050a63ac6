//! Values that tests of single stages, sources and sinks begin with. A test names what it is about and takes the
//! rest from here:
//! `Limits { max_groups: 2, ..limits() }`.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow_array::{ArrayRef, RecordBatch};
use tidemill_core::{
    Batch, EventType, Limits, LogName, LogReader, NoPieces, Origin, PieceReader, RowOrigins, Seals, Stage,
    StageContext, StageInput, StageKind, StateKey,
};

/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 3_600_000;

/// Hours, no lateness, and far more of everything than a test has.
#[must_use]
pub fn limits() -> Limits {
    Limits {
        bucket_ms: HOUR_MS,
        allowed_lateness_ms: 0,
        hold_at_most_ms: 6 * HOUR_MS,
        max_ahead_ms: 600_000,
        max_open_hours: 1_000,
        max_groups: 100_000,
        max_path_values: 1_000,
        max_event_bytes: 1 << 20,
    }
}

/// The first barrier, which seals nothing.
#[must_use]
pub fn seals() -> Seals {
    Seals {
        cut: 1,
        at_ms: 0,
        horizons: Vec::new(),
        revised: Vec::new(),
        without: BTreeMap::new(),
        positions: BTreeMap::new(),
        is_whole: true,
        positions_of: Vec::new(),
        consumed: BTreeMap::new(),
        request: None,
    }
}

/// Positions of the partition `p` of the source `s`, from `first` to the one before `next`.
#[must_use]
pub fn origin(first: u64, next: u64) -> Origin {
    Origin { source: "s".into(), partition: "p".into(), first, next, enters: None }
}

/// All rows of these columns, without the bytes that they were parsed from.
///
/// # Panics
/// When the columns are not those of the type.
#[must_use]
pub fn batch(event_type: &Arc<EventType>, columns: Vec<ArrayRef>) -> Batch {
    Batch {
        event_type: event_type.clone(),
        records: RecordBatch::try_new(event_type.arrow.clone(), columns).expect("columns as in the schema"),
        selection: None,
        rows: RowOrigins::default(),
        origin: Arc::new(origin(0, 1)),
        arrived_at_ms: 0,
        payload_bytes: 100,
        counts: None,
    }
}

/// A stage without Logs.
pub struct NoLogs;

impl LogReader for NoLogs {
    fn open(&self, log: &LogName) -> std::io::Result<Box<dyn Read>> {
        Err(std::io::Error::new(std::io::ErrorKind::NotFound, log.name.clone()))
    }
}

/// The pieces of one stage, in memory.
#[derive(Clone, Debug, Default)]
pub struct KeptPieces(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl KeptPieces {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().expect("nobody panics with the pieces in hand")
    }

    /// A cut: what changed is in force.
    pub fn apply(&self, changes: &[(String, Option<Vec<u8>>)]) {
        let mut kept = self.kept();
        for (name, bytes) in changes {
            assert!(!name.is_empty(), "a piece without a name");
            match bytes {
                Some(bytes) => drop(kept.insert(name.clone(), bytes.clone())),
                None => drop(kept.remove(name)),
            }
        }
    }

    /// Others that hold the same.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self(Arc::new(Mutex::new(self.kept().clone())))
    }

    /// How many there are, and their bytes.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let kept = self.kept();
        (kept.len(), kept.values().map(Vec::len).sum())
    }
}

impl PieceReader for KeptPieces {
    fn names(&self, prefix: &str) -> Vec<String> {
        self.kept().keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        self.kept().get(name).cloned().ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, name))
    }
}

/// Plans a stage and builds it as the runtime does: at its first start, or from a snapshot.
///
/// # Errors
/// Why it can't be planned or built.
pub fn build(kind: &dyn StageKind, input: &StageInput, from: Start<'_>) -> Result<Box<dyn Stage>, String> {
    let outputs = kind.plan(input).map_err(|findings| format!("{findings:?}"))?;
    let context = StageContext {
        input: input.clone(),
        outputs,
        state_id: "5eed".into(),
        key: &StateKey::new([0x5e; 16]),
        topology: "t".into(),
        sealed_before_ms: from.sealed_before_ms.clone(),
        snapshot: from.snapshot,
        pieces: from.pieces,
        memory_bytes: from.memory_bytes,
        gives_way: 0,
        logs: from.logs,
    };
    kind.build(&context).map_err(|error| error.to_string())
}

/// What a stage is built from.
#[derive(Clone)]
pub struct Start<'a> {
    /// Horizon of each type: hours that end at or before it are sealed.
    pub sealed_before_ms: BTreeMap<Arc<str>, i64>,
    /// What it returned at the cut; `None` at the first start.
    pub snapshot: Option<&'a [u8]>,
    /// Its pieces at that cut.
    pub pieces: Arc<dyn PieceReader>,
    /// How much state it may keep in memory.
    pub memory_bytes: u64,
    /// Its Logs at that cut.
    pub logs: &'a dyn LogReader,
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self {
            sealed_before_ms: BTreeMap::new(),
            snapshot: None,
            pieces: Arc::new(NoPieces),
            memory_bytes: 512 << 20,
            logs: &NoLogs,
        }
    }
}
