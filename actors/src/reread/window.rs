//! `@window`: lets events of a time and of some types pass.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::{
    Batch, Effects, EventType, Finding, Input, KindSpec, OptionsError, Role, Shape, Stage, StageContext, StageError,
    StageInput, StageKind, State, TimeColumn,
};

/// The kind `@window`.
pub struct Window;

/// Its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowConfig {
    /// First instant, in milliseconds since 1970.
    pub from_ms: i64,
    /// First instant behind it.
    pub until_ms: i64,
    /// Types that pass; `None` means all.
    pub types: Option<BTreeSet<String>>,
}

static SPEC: KindSpec = KindSpec {
    name: "@window",
    role: Role::Stage,
    summary: "Lets events of a time and of some types pass.",
    details: "",
    options: &[],
    input: Shape::Rows,
    output: Shape::Rows,
    state: State::Stateless,
    guarantee: None,
};

impl StageKind for Window {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        Ok(input.types.clone())
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        let failed = |error: OptionsError| StageError {
            message: format!("stage `{}`", context.input.name),
            source: Some(error.into()),
        };
        Ok(Box::new(WindowStage(context.input.options.parse().map_err(failed)?)))
    }
}

struct WindowStage(WindowConfig);

impl WindowStage {
    fn has(&self, time_ms: i64) -> bool {
        (self.0.from_ms..self.0.until_ms).contains(&time_ms)
    }

    fn takes(&self, event_type: &str) -> bool {
        self.0.types.as_ref().is_none_or(|types| types.contains(event_type))
    }

    fn select(&self, batch: &Batch) -> Result<Vec<u32>, StageError> {
        let name = &batch.event_type.name;
        if !self.takes(name) {
            return Ok(Vec::new());
        }
        let times = TimeColumn::of(&batch.records, batch.event_type.time)
            .ok_or_else(|| StageError::new(format!("the time column of type `{name}` is no timestamp")))?;
        Ok(batch.indexes().filter(|row| self.has(times.ms(*row))).map(|row| row as u32).collect())
    }
}

impl Stage for WindowStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        match input {
            Input::Rows(batch) => {
                let rows = self.select(batch)?;
                effects.tally.received += batch.len() as u64;
                effects.tally.sent += rows.len() as u64;
                effects.tally.filtered += (batch.len() - rows.len()) as u64;
                if !rows.is_empty() {
                    effects.batches.push(batch.select(rows));
                }
            }
            Input::Note(note) => {
                let overlaps = note.hour.start_ms < self.0.until_ms && self.0.from_ms < note.hour.end_ms();
                if overlaps && self.takes(&note.event_type) {
                    effects.notes.push(note.clone());
                }
            }
            Input::Raw(_) => return Err(StageError::new("a window takes typed events, not raw records")),
        }
        Ok(())
    }
}
