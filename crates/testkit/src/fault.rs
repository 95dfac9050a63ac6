//! Kinds of stages that fail when a plan says so, and else do what the kind within them does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidemill_core::{
    Batch, Effects, EventType, Finding, HourTotals, Input, KindSpec, Role, Seals, Stage, StageContext, StageError,
    StageInput, StageKind,
};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It panics before the stage has seen the input.
    PanicBefore,
    /// It panics after the stage has dealt with the input: its state has changed, its effects are lost.
    PanicAfter,
    /// It returns an error after the stage has dealt with the input.
    Error,
    /// It never comes back.
    Hang,
    /// It brings the process down.
    Abort,
    /// It gives a false account of its records.
    Miscount,
    /// It does nothing with an input, and says nothing of it.
    Ignore,
    /// One of its events gets lost: of those that it sends, or else, in a sink, of those that it writes.
    Lose,
    /// One of its events is there twice.
    Repeat,
    /// One of its events is there twice in place of another: their number is right.
    Exchange,
    /// It takes so much longer, and every call after it a twentieth of that, so that the run still goes on when it comes back.
    Freeze(std::time::Duration),
    /// It takes so much longer, so that what is in front of it runs ahead.
    Delay(std::time::Duration),
}

/// Which calls fail.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// The n-th call of `process` (from 1), counted over all workers and their replacements.
    Call(u64),
    /// All of them.
    Always,
    /// The first call whose input holds these bytes, as they were received.
    Once(Vec<u8>),
    /// Every call whose input holds these bytes, as they were received.
    Bytes(Vec<u8>),
}

/// A kind that fails as planned.
pub struct Faulty {
    inner: Arc<dyn StageKind>,
    fault: Fault,
    trigger: Trigger,
    calls: Arc<AtomicU64>,
    was_frozen: Arc<AtomicBool>,
    has_been_due: Arc<AtomicBool>,
    recovery: Arc<Mutex<Recovery>>,
}

/// When it failed, and how long it took until a stage that was built later had dealt with something.
#[derive(Default)]
struct Recovery {
    failed_at: Option<Instant>,
    took: Option<Duration>,
}

impl Faulty {
    /// Wraps a kind. It keeps the kind's name, so it takes its place in a registry.
    #[must_use]
    pub fn new(inner: Arc<dyn StageKind>, fault: Fault, trigger: Trigger) -> Self {
        Self {
            inner,
            fault,
            trigger,
            calls: Arc::default(),
            was_frozen: Arc::default(),
            has_been_due: Arc::default(),
            recovery: Arc::default(),
        }
    }

    /// How long it took from the first failure until a stage that was built after it had dealt with an input; `None` when that has not happened.
    ///
    /// # Panics
    /// When somebody panicked while looking at it.
    #[must_use]
    pub fn recovery(&self) -> Option<Duration> {
        self.recovery.lock().expect("nobody panicked while looking at it").took
    }
}

impl StageKind for Faulty {
    fn spec(&self) -> &'static KindSpec {
        self.inner.spec()
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        self.inner.plan(input)
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        let inner = self.inner.build(context)?;
        Ok(Box::new(FaultyStage {
            inner,
            fault: self.fault,
            trigger: self.trigger.clone(),
            calls: self.calls.clone(),
            was_frozen: self.was_frozen.clone(),
            has_been_due: self.has_been_due.clone(),
            recovery: self.recovery.clone(),
            built_at: Instant::now(),
            is_sink: self.inner.spec().role == Role::Sink,
        }))
    }
}

/// Whether the bytes of an input, as they were received, hold these.
#[must_use]
pub fn holds(input: &Input, part: &[u8]) -> bool {
    let holds = |bytes: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    match input {
        Input::Raw(chunk) => holds(&chunk.bytes),
        Input::Rows(batch) => batch.indexes().any(|row| holds(batch.received(row))),
        Input::Note(_) => false,
    }
}

struct FaultyStage {
    inner: Box<dyn Stage>,
    fault: Fault,
    trigger: Trigger,
    calls: Arc<AtomicU64>,
    was_frozen: Arc<AtomicBool>,
    has_been_due: Arc<AtomicBool>,
    recovery: Arc<Mutex<Recovery>>,
    built_at: Instant,
    is_sink: bool,
}

impl FaultyStage {
    fn fails(&self) {
        let mut recovery = self.recovery.lock().expect("nobody panicked while looking at it");
        recovery.failed_at.get_or_insert_with(Instant::now);
    }

    fn has_dealt(&self) {
        let mut recovery = self.recovery.lock().expect("nobody panicked while looking at it");
        if let (Some(failed_at), None) = (recovery.failed_at, recovery.took)
            && self.built_at > failed_at
        {
            recovery.took = Some(failed_at.elapsed());
        }
    }

    fn spoils(&self) -> bool {
        matches!(self.fault, Fault::Lose | Fault::Repeat | Fault::Exchange)
    }

    /// What becomes of a batch of two events and more.
    fn spoiled(&self, batch: &Batch) -> Vec<Batch> {
        let rows: Vec<u32> = batch.indexes().map(|row| row as u32).collect();
        let without_first = || batch.select(rows[1..].to_vec());
        let last = || batch.select(vec![rows[rows.len() - 1]]);
        match self.fault {
            Fault::Lose => vec![without_first()],
            Fault::Repeat => vec![batch.clone(), last()],
            _ => vec![without_first(), last()],
        }
    }

    fn is_due(&self, input: &Input) -> bool {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        match &self.trigger {
            Trigger::Call(n) => call == *n,
            Trigger::Always => true,
            Trigger::Once(part) => holds(input, part) && !self.has_been_due.swap(true, Ordering::SeqCst),
            Trigger::Bytes(part) => holds(input, part),
        }
    }
}

impl Stage for FaultyStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        let is_due = self.is_due(input);
        if is_due && self.fault == Fault::PanicBefore {
            self.fails();
            panic!("a planned panic, before the call");
        }
        match input {
            Input::Rows(_) if is_due && self.fault == Fault::Ignore => {}
            Input::Rows(batch) if is_due && self.spoils() && self.is_sink => {
                // The sink says that it has dealt with all of them.
                for part in self.spoiled(batch) {
                    self.inner.process(&Input::Rows(part), effects)?;
                }
                let (came, went) = (batch.len() as u64, effects.tally.received);
                effects.tally.received = came;
                effects.tally.sent = (effects.tally.sent + came).saturating_sub(went);
            }
            _ => self.inner.process(input, effects)?,
        }
        if is_due
            && self.spoils()
            && let Some(batch) = effects.batches.pop()
        {
            effects.batches.extend(self.spoiled(&batch));
        }
        if is_due {
            self.fails();
        }
        assert!(!(is_due && self.fault == Fault::PanicAfter), "a planned panic, after the call");
        match self.fault {
            Fault::Error if is_due => Err(StageError::new("a planned error")),
            Fault::Abort if is_due => std::process::abort(),
            Fault::Miscount if is_due => {
                effects.tally.received += 1;
                Ok(())
            }
            Fault::Hang if is_due => loop {
                std::thread::park();
            },
            Fault::Freeze(pause) if is_due => {
                self.was_frozen.store(true, Ordering::SeqCst);
                std::thread::sleep(pause);
                Ok(())
            }
            Fault::Freeze(pause) if self.was_frozen.load(Ordering::SeqCst) => {
                std::thread::sleep(pause / 20);
                Ok(())
            }
            Fault::Delay(pause) if is_due => {
                std::thread::sleep(pause);
                Ok(())
            }
            _ => {
                self.has_dealt();
                Ok(())
            }
        }
    }

    fn seal(&mut self, seals: &Seals, effects: &mut Effects) -> Result<(), StageError> {
        self.inner.seal(seals, effects)
    }

    fn snapshot(&mut self, effects: &mut Effects) -> Result<Vec<u8>, StageError> {
        self.inner.snapshot(effects)
    }

    fn holds(&mut self) -> Option<Vec<HourTotals>> {
        self.inner.holds()
    }

    fn open_hours(&self) -> BTreeMap<Arc<str>, usize> {
        self.inner.open_hours()
    }
}
