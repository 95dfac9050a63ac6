//! What is outside: two kinds of sinks, and what they were given for good.
//!
//! `atomic` shows what it is given when it is flushed, all at once, with the offset up to which it was delivered; a flush that fails may have been done all the
//! same. `keyed` keeps what it is given by the name of its delivery; what was not flushed may be lost with the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidemill_core::{Batch, CutId, DeliveryId, Guarantee, KindSpec, Resume, Sink, SinkContext, SinkError, SinkKind};

use crate::dice::Dice;
use crate::machine::Process;

/// What lies outside, for ever.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// What `atomic` shows: the ids of the rows of each delivery, in order.
    pub(crate) shown: Vec<(DeliveryId, Vec<String>)>,
    /// Offset behind the last of them, in each pond.
    pub(crate) cursors: BTreeMap<Arc<str>, u64>,
    /// What `keyed` keeps.
    pub(crate) kept: BTreeMap<DeliveryId, Vec<String>>,
    pub(crate) violations: Vec<String>,
}

/// What one process has of it.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) outside: Arc<Mutex<Outside>>,
    pub(crate) process: Process,
    pub(crate) dice: Arc<Mutex<Dice>>,
    /// Takes nothing between these times.
    pub(crate) closed_ms: Option<(i64, i64)>,
}

/// Which rows are refused, whenever they come.
pub(crate) fn is_refused(id: &str) -> bool {
    id.ends_with("13")
}

pub(crate) struct Atomic(pub(crate) Reach);
pub(crate) struct Keyed(pub(crate) Reach);

static ATOMIC: KindSpec = KindSpec::sink("atomic", "Shows what it is given at once.", Guarantee::Transactional, &[]);
static KEYED: KindSpec = KindSpec::sink("keyed", "Keeps what it is given by name.", Guarantee::Idempotent, &[]);

/// They have none.
#[derive(serde::Deserialize)]
pub(crate) struct NoOptions {}

type Delivered = Vec<(DeliveryId, Vec<String>)>;

pub(crate) struct OpenAtomic {
    reach: Reach,
    cursors: BTreeMap<Arc<str>, u64>,
    taken: Delivered,
}

pub(crate) struct OpenKeyed {
    reach: Reach,
    taken: Delivered,
}

impl Reach {
    fn outside(&self) -> MutexGuard<'_, Outside> {
        self.outside.lock().expect("nobody panicked")
    }

    fn one_in(&self, times: u64) -> bool {
        self.dice.lock().expect("nobody panicked").one_in(times)
    }

    /// Whether it answers. A dead process reaches nothing.
    fn answers(&self) -> Result<(), SinkError> {
        let closed = self.closed_ms.is_some_and(|(from, to)| (from..to).contains(&self.process.now_ms()));
        if self.process.is_dead() || closed || self.one_in(30) {
            let source = "a planned outage".into();
            return Err(SinkError::Retry { after: Duration::from_millis(20), source });
        }
        Ok(())
    }

    /// Whether it takes what it is given.
    fn takes(&self) -> Result<(), SinkError> {
        self.answers()?;
        if self.one_in(100) { Err(SinkError::Fatal { source: "a planned failure".into() }) } else { Ok(()) }
    }
}

/// Ids of the rows that are taken, and the rows that are not.
fn divide(batch: &Batch) -> (Vec<String>, Vec<(usize, String)>) {
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for row in batch.indexes() {
        let received = String::from_utf8_lossy(batch.received(row));
        let id = received.split('\t').nth(1).unwrap_or_default();
        match is_refused(id) {
            true => refused.push((row, "not this one".to_owned())),
            false => taken.push(id.to_owned()),
        }
    }
    (taken, refused)
}

fn outcome(rows: Vec<(usize, String)>) -> Result<(), SinkError> {
    if rows.is_empty() { Ok(()) } else { Err(SinkError::Reject { rows }) }
}

impl SinkKind for Atomic {
    type Config = NoOptions;
    type Sink = OpenAtomic;

    fn spec(&self) -> &'static KindSpec {
        &ATOMIC
    }

    async fn open(&self, _: &NoOptions, _: &SinkContext, _: Option<Resume>) -> Result<OpenAtomic, SinkError> {
        self.0.answers()?;
        // What the outside says counts: a flush may have been done whose cut was not.
        let cursors = self.0.outside().cursors.clone();
        Ok(OpenAtomic { reach: self.0.clone(), cursors, taken: Vec::new() })
    }
}

impl Sink for OpenAtomic {
    async fn write(&mut self, batch: &Batch, id: DeliveryId) -> Result<(), SinkError> {
        self.reach.takes()?;
        let (taken, refused) = divide(batch);
        let cursor = self.cursors.entry(id.pond.clone()).or_default();
        if id.offset >= *cursor {
            *cursor = id.offset + 1;
            self.taken.push((id, taken));
        }
        outcome(refused)
    }

    async fn flush(&mut self, _: CutId) -> Result<Resume, SinkError> {
        self.reach.takes()?;
        let is_lost = self.reach.one_in(25);
        let is_done = !is_lost || self.reach.one_in(2);
        if is_done {
            let mut outside = self.reach.outside();
            outside.shown.append(&mut self.taken);
            outside.cursors.clone_from(&self.cursors);
        }
        if is_lost {
            return Err(SinkError::Fatal { source: "nobody knows what became of the flush".into() });
        }
        Ok(self.cursors.values().flat_map(|cursor| cursor.to_le_bytes()).collect())
    }
}

impl SinkKind for Keyed {
    type Config = NoOptions;
    type Sink = OpenKeyed;

    fn spec(&self) -> &'static KindSpec {
        &KEYED
    }

    async fn open(&self, _: &NoOptions, _: &SinkContext, _: Option<Resume>) -> Result<OpenKeyed, SinkError> {
        self.0.answers()?;
        Ok(OpenKeyed { reach: self.0.clone(), taken: Vec::new() })
    }
}

impl Sink for OpenKeyed {
    async fn write(&mut self, batch: &Batch, id: DeliveryId) -> Result<(), SinkError> {
        self.reach.takes()?;
        let (taken, refused) = divide(batch);
        self.taken.push((id, taken));
        outcome(refused)
    }

    async fn flush(&mut self, _: CutId) -> Result<Resume, SinkError> {
        self.reach.takes()?;
        let mut outside = self.reach.outside();
        for (id, rows) in self.taken.drain(..) {
            if let Some(known) = outside.kept.get(&id)
                && *known != rows
            {
                outside.violations.push(format!("{id} was delivered with other rows than the first time"));
            }
            outside.kept.insert(id, rows);
        }
        Ok(Resume::new())
    }
}
