//! Kinds of stages that fail now and then, and always on the poisonous event if they are told so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tidemill_core::{
    DEAD_LETTER_TYPE, Effects, EventType, Finding, Input, KindSpec, Origin, Seals, Stage, StageContext, StageError,
    StageInput, StageKind,
};

use tidemill_testkit::holds;

use crate::dice::Dice;
use crate::input::POISON;

/// Wraps a kind. It keeps the kind's name.
pub(crate) struct Shaky {
    pub(crate) inner: Arc<dyn StageKind>,
    pub(crate) trouble: Arc<Mutex<Trouble>>,
    pub(crate) is_poisoned: bool,
}

/// How many failures are left for all stages of a process.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) dice: Dice,
    pub(crate) left: u64,
    /// One call of so many fails.
    pub(crate) one_in: u64,
    /// What has failed: a second failure of the same would make the events suspect that are in it.
    /// The poisonous event cuts up what came together, so that origins tell only partitions.
    pub(crate) cuts_up: bool,
    pub(crate) struck: BTreeSet<(&'static str, String, u64)>,
}

impl Trouble {
    fn strikes(&mut self, kind: &'static str, origin: Option<&Origin>) -> bool {
        if self.left == 0 || !self.dice.one_in(self.one_in) {
            return false;
        }
        let what = origin.map_or_else(Default::default, |origin| {
            (origin.partition.to_string(), if self.cuts_up { 0 } else { origin.first })
        });
        let strikes = origin.is_none() || self.struck.insert((kind, what.0, what.1));
        self.left -= u64::from(strikes);
        strikes
    }
}

impl StageKind for Shaky {
    fn spec(&self) -> &'static KindSpec {
        self.inner.spec()
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        self.inner.plan(input)
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        let inner = self.inner.build(context)?;
        let kind = self.spec().name;
        Ok(Box::new(ShakyStage { kind, inner, trouble: self.trouble.clone(), is_poisoned: self.is_poisoned }))
    }
}

struct ShakyStage {
    kind: &'static str,
    inner: Box<dyn Stage>,
    trouble: Arc<Mutex<Trouble>>,
    is_poisoned: bool,
}

/// Dead letters are borne by all.
fn holds_poison(input: &Input) -> bool {
    let is_letters = matches!(input, Input::Rows(batch) if *batch.event_type.name == *DEAD_LETTER_TYPE);
    !is_letters && holds(input, POISON.as_bytes())
}

impl ShakyStage {
    /// Runs a call, and has it fail before, behind or by an error, when it is time for that.
    fn shaken<T>(
        &mut self,
        origin: Option<&Origin>,
        call: impl FnOnce(&mut dyn Stage) -> Result<T, StageError>,
    ) -> Result<T, StageError> {
        let how = {
            let mut trouble = self.trouble.lock().expect("it is not held while a stage panics");
            if trouble.strikes(self.kind, origin) { trouble.dice.below(3) } else { 3 }
        };
        assert!(how != 0, "a planned panic, before the call");
        let done = call(&mut *self.inner)?;
        assert!(how != 1, "a planned panic, after the call");
        if how == 2 { Err(StageError::new("a planned error")) } else { Ok(done) }
    }
}

impl Stage for ShakyStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        assert!(!(self.is_poisoned && holds_poison(input)), "this event can't be borne");
        let origin = match input {
            Input::Raw(chunk) => Some(chunk.origin.clone()),
            Input::Rows(batch) => Some(batch.origin.clone()),
            Input::Note(_) => return self.inner.process(input, effects),
        };
        self.shaken(origin.as_deref(), |stage| stage.process(input, effects))
    }

    fn seal(&mut self, seals: &Seals, effects: &mut Effects) -> Result<(), StageError> {
        self.shaken(None, |stage| stage.seal(seals, effects))
    }

    fn snapshot(&mut self, effects: &mut Effects) -> Result<Vec<u8>, StageError> {
        self.shaken(None, |stage| stage.snapshot(effects))
    }

    fn open_hours(&self) -> BTreeMap<Arc<str>, usize> {
        self.inner.open_hours()
    }
}
