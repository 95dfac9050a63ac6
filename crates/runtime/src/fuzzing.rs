//! The readers of files as functions of bytes, for the targets in `fuzz/`. They panic when what was read does not come back as it was. And a ledger by
//! itself, for tests against a model of a disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tidemill_core::{Home, LogName, PartitionPosition, SourcePositions};

use crate::error::RunError;
use crate::host::Host;
use crate::ledger::{Committed, Ledger, MAGIC, Record, StageRecord, frame, records};

pub use crate::pond::fuzzing::pond_record;

/// Reads a ledger file. What it says is written as one record, as a start does, and read again.
///
/// # Errors
/// When the file is refused.
pub fn ledger(file: &[u8]) -> Result<(), RunError> {
    let path = Path::new("ledger");
    let committed = |file: &[u8]| {
        let mut committed = Committed::default();
        records(file, path)?.0.into_iter().for_each(|record| committed.apply(record));
        Ok(committed)
    };
    let base = frame(&committed(file)?.base())?;
    let again = committed(&[&MAGIC[..], &base].concat()).expect("a base that was just written");
    assert_eq!(frame(&again.base())?.escape_ascii().to_string(), base.escape_ascii().to_string());
    Ok(())
}

/// A ledger by itself, whose records have a position and the length of a Log that depend on their cut.
pub struct LedgerAlone {
    ledger: Ledger,
    committed: Committed,
}

/// What a ledger says: its last cut, the position in it, and the lengths of all Logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Number of the cut.
    pub cut: u64,
    /// The position.
    pub position: u64,
    /// Name and length of each Log.
    pub logs: BTreeMap<String, u64>,
}

impl Said {
    fn of(committed: &Committed) -> Self {
        let last = &committed.last;
        let position = |partitions: &SourcePositions| Some(partitions.get("p")?.next);
        let logs = committed.logs.values().flatten().map(|(log, length)| (log.name.clone(), *length)).collect();
        Self { cut: last.cut, position: committed.positions.get("s").and_then(position).unwrap_or(0), logs }
    }

    /// What follows from a cut with this position and this Log.
    #[must_use]
    pub fn with(&self, position: u64, log: &str, length: u64) -> Self {
        let mut next = Self { cut: self.cut + 1, position, logs: self.logs.clone() };
        next.logs.insert(log.to_owned(), length);
        next
    }
}

impl LedgerAlone {
    /// Opens it, as a region does. `act` is told what it says, at the moment when the effects of the last cut would be done.
    ///
    /// # Errors
    /// As the disk says, and when it is damaged.
    pub fn open(host: &Arc<dyn Host>, dir: &Path, act: impl FnOnce(Said)) -> Result<Self, RunError> {
        let opened = Ledger::open(host, dir, None, 1, |committed| {
            act(Said::of(committed));
            Ok(())
        })?;
        Ok(Self { ledger: opened.ledger, committed: opened.committed })
    }

    /// Appends a record; `log` is what changes since the one before.
    ///
    /// # Errors
    /// As the disk says. Unless a sync failed, it may be tried again.
    pub fn append(&mut self, next: &Said, log: &str) -> Result<(), RunError> {
        let position = PartitionPosition { next: next.position, resume: Arc::default(), ended: false };
        let name = LogName { home: Home::State, name: log.to_owned() };
        let stage = StageRecord { logs: vec![(name, next.logs[log])], ..StageRecord::default() };
        let mut record = Record {
            cut: next.cut,
            positions: BTreeMap::from([("s".into(), Arc::new(BTreeMap::from([("p".into(), position)])))]),
            stages: BTreeMap::from([("stage".into(), stage)]),
            ..Record::default()
        };
        self.committed.leave_out_known(&mut record);
        self.ledger.append(&record)?;
        self.committed.apply(record);
        Ok(())
    }

    /// Begins a new file, as one does that has grown large.
    ///
    /// # Errors
    /// As the disk says.
    pub fn rotate(&mut self) -> Result<(), RunError> {
        self.ledger.rotate_beyond(0, &self.committed)
    }
}
