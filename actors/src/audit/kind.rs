//! The description of the kind, and the type of its rows.

use std::sync::Arc;

use serde_json::json;
use tidemill_core::{
    EventType, Finding, KindSpec, Late, LatePolicy, RevisionMode, Role, Shape, Stage, StageContext, StageError,
    StageInput, StageKind, State,
};

use super::stage::AuditStage;

pub(super) struct Audit;

static SPEC: KindSpec = KindSpec {
    name: "audit",
    role: Role::Stage,
    summary: "Makes events of what the stages before it counted, by type and hour.",
    details: "Takes events, counts none of them and hands none on: it sends rows of a type of its own, named like the stage, for a sink of any kind. When an hour is \
sealed there is a row for each stage before it that has let events of the hour out: `hour`, `event_type`, `stage`, `events` (how many), `ids` (the order-free hash of their ids, \
as in manifests; null when the type has none), `is_late` (they are events that came when the hour was sealed, where the type takes them: to be added to the rows before), `cut` and \
`told_at` (the cut that seals the hour, and its wall clock). What stages hand on and take is compared at every cut without it; these rows are for whoever compares them with what is \
elsewhere. Rows of a type whose hour is sealed later than those of the rows are a revision.

Counts of all hours that are open are kept in memory, some 100 bytes for each hour and stage.",
    options: &[],
    input: Shape::Rows,
    output: Shape::Rows,
    state: State::Stateful,
    guarantee: None,
};

impl StageKind for Audit {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        let made = row_type(&input.name, &input.types);
        made.map(|made| vec![Arc::new(made)]).map_err(|errors| {
            let finding =
                |error: tidemill_core::TypeError| Finding::error("bad-output-type", "from", error.to_string());
            errors.into_iter().map(finding).collect()
        })
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        Ok(Box::new(AuditStage::new(context)?))
    }
}

/// The type of the rows: as late as any of those that they tell of, and as urgent.
fn row_type(stage: &str, types: &[Arc<EventType>]) -> Result<EventType, Vec<tidemill_core::TypeError>> {
    let time = json!({ "type": "long", "logicalType": "timestamp-millis" });
    let schema = json!({
        "type": "record", "name": "Counted", "doc": "What a stage counted of an hour of a type.",
        "fields": [
            { "name": "hour", "type": time, "doc": "Start of the hour." },
            { "name": "event_type", "type": "string" },
            { "name": "stage", "type": "string", "doc": "The stage that let the events out." },
            { "name": "events", "type": "long" },
            { "name": "ids", "type": ["null", "string"], "doc": "The order-free hash of their ids, 32 hex digits." },
            { "name": "is_late", "type": "boolean", "doc": "They came when the hour was sealed." },
            { "name": "cut", "type": "long", "doc": "The cut that seals the hour, or ends its revision." },
            { "name": "told_at", "type": time, "doc": "Wall clock of its barrier." },
        ]
    });
    let id = ["hour", "event_type", "stage", "cut"].map(str::to_owned);
    let revising = types.iter().filter(|of| of.late.policy != LatePolicy::DeadLetter);
    let within_ms = revising.clone().map(|of| of.late.within_ms).max().unwrap_or_default();
    let delay_ms = revising.map(|of| of.late.delay_ms).max();
    let delay_ms = delay_ms.or_else(|| types.iter().map(|of| of.late.delay_ms).max()).unwrap_or_default();
    // An hour of the rows may be sealed before that of a type which brings nothing for now.
    let late = Late { policy: LatePolicy::Revise, within_ms, delay_ms, mode: RevisionMode::Append };
    let tier = types.iter().map(|of| of.tier).max().unwrap_or_default();
    let made = EventType::new(stage, &schema.to_string(), "hour", &id, None)?;
    Ok(made.with_late(late).with_tier(tier).with_made_of(types.iter()))
}
