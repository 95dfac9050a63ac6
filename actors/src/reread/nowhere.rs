//! `@nowhere`: takes the place of a sink that is to get nothing.

use std::sync::Arc;

use tidemill_core::{
    Effects, EventType, Finding, Guarantee, Input, KindSpec, Role, Shape, Stage, StageContext, StageError, StageInput,
    StageKind, State,
};

/// The kind `@nowhere`.
pub struct Nowhere;

static SPEC: KindSpec = KindSpec {
    name: "@nowhere",
    role: Role::Sink,
    summary: "Takes events and forgets them, in the region that they are in.",
    details: "",
    options: &[],
    input: Shape::Rows,
    output: Shape::Nothing,
    state: State::Stateful,
    guarantee: Some(Guarantee::Transactional),
};

impl StageKind for Nowhere {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn plan(&self, _input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        Ok(Vec::new())
    }

    fn build(&self, _context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        Ok(Box::new(NowhereStage))
    }
}

struct NowhereStage;

impl Stage for NowhereStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        let rows = input.rows().map_or(0, |batch| batch.len() as u64);
        effects.tally.received += rows;
        effects.tally.sent += rows;
        Ok(())
    }
}
