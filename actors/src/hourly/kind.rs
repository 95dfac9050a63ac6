//! The description of the kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::{
    DefaultValue, EventType, Finding, KindSpec, Late, OptionSpec, OptionType, PieceChanges, RevisionMode, Role, Shape,
    Stage, StageContext, StageError, StageInput, StageKind, State,
};

use super::output;
use super::plan::{Config, Plan};
use super::snapshot;
use super::stage::{HourlyStage, InputType};

pub(super) struct Hourly;

static SPEC: KindSpec = KindSpec {
    name: "hourly",
    role: Role::Stage,
    summary: "Makes one row for each group of events of an hour.",
    details: "It sends a type of its own, named like the stage: `hour` (timestamp-millis, the start of the hour), \
`event_type`, the fields of `group_by`, then the measures. The rows of an hour leave when it is sealed, ordered by \
their group. Those of a type whose own hour is sealed later are a revision of it. The id is hour, event type and \
group fields; when a group field may be null, the type has no id.

Measures: `count()` counts events (long). `sum(f)` of int and long is a long that saturates. Of float and double it \
is a double: the one that is nearest to the exact sum, in whatever order the events came. Of decimals it is a decimal \
of 38 digits that saturates. `min(f)` and `max(f)` are of the field's type, also for decimals, dates and timestamps; \
`mean(f)` is a double, of floats the one that is nearest to the exact mean. `approx_distinct(f)` is a long, from a \
HyperLogLog sketch with a standard error of 1.6 %, near exact below some hundred values. Nulls are left out, as in \
SQL: without a value that is not null, sum, min, max and mean are null. NaN is greater than every number. Float \
groups take 0 and -0 as one, and all NaN.

Events that come when the hour of their type is sealed become dead letters `late`, unless the type has `late = \
\"revise\"` or `\"next_hour\"`.

Memory: some 150 bytes a group; a measure takes 16 to 24, a sum or mean of floats 80 to 600, a sketch up to 3 KiB. \
Hours beyond the stage's share of `runtime.state_memory` lie in the state directory.",
    options: &[
        OptionSpec {
            name: "group_by",
            ty: OptionType::FieldList { min_items: 0 },
            default: DefaultValue::Toml("[]"),
            doc: "Fields whose values make the groups: single values, in every type that arrives and of the same Avro \
type there. Without any, an hour of a type is one group.",
            shapes_state: true,
        },
        OptionSpec {
            name: "measures",
            ty: OptionType::Measures,
            default: DefaultValue::Required,
            doc: "Fields of the rows and what they hold, such as { events = \"count()\", played = \"sum(ms_played)\" }.",
            shapes_state: true,
        },
        OptionSpec {
            name: "late_rows",
            ty: OptionType::Choice(&["restated", "delta"]),
            default: DefaultValue::Toml("\"restated\""),
            doc: "What a revision holds where types have `late = \"revise\"`. `restated`: all rows of the hour anew, \
which are read in place of the earlier ones; for that, the groups of sealed hours are kept for `late_within`. \
`delta`: rows of the late events alone, to be added to the earlier ones of their group, and of min \
and max the less or greater taken; without mean and approx_distinct, which can't be added.",
            shapes_state: false,
        },
    ],
    input: Shape::Rows,
    output: Shape::Rows,
    state: State::Stateful,
    guarantee: None,
};

impl StageKind for Hourly {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        let (_, output) = planned(input)?;
        Ok(vec![Arc::new(output)])
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        let input = &context.input;
        let (plan, made) = planned(input).map_err(|findings| {
            let messages: Vec<String> = findings.into_iter().map(|finding| finding.message).collect();
            StageError::new(format!("the options do not fit the types: {}", messages.join("; ")))
        })?;
        // The very type that the stages behind were planned with.
        let output = context.outputs.iter().find(|planned| planned.name == made.name).cloned();
        let column = |of: &EventType, name: &str| {
            let missing = || StageError::new(format!("type `{}` has no field `{name}`", of.name));
            of.field(name).map(|(index, _)| index).ok_or_else(missing)
        };
        let input_type = |of: &Arc<EventType>| {
            let groups = plan.groups.iter().map(|field| column(of, &field.name));
            let measures = plan
                .measures
                .iter()
                .map(|measure| measure.of.as_ref().map(|field| column(of, &field.name)).transpose());
            let sealed_before_ms = context.sealed_before_ms.get(&of.name).copied().unwrap_or(i64::MIN);
            Ok(InputType {
                name: of.name.clone(),
                // Rows that are made anew, or are to be added, can't be told from others: those of a sealed hour are
                // refused.
                late: if of.late.mode == RevisionMode::Append { of.late } else { Late::DEAD_LETTER },
                groups: groups.collect::<Result<_, StageError>>()?,
                measures: measures.collect::<Result<_, StageError>>()?,
                sealed_before_ms,
                given_up_ms: sealed_before_ms,
                last_origin: None,
            })
        };
        // Nothing is known of the rows of hours that were sealed before.
        let sealed_before_ms = context.sealed_before_ms.get(&*input.name).copied().unwrap_or(i64::MIN);
        let mut stage = HourlyStage {
            inputs: input.types.iter().map(input_type).collect::<Result<_, StageError>>()?,
            output: output.unwrap_or_else(|| Arc::new(made)),
            sealed_before_ms,
            given_up_ms: sealed_before_ms,
            plan,
            limits: input.limits.clone(),
            open: BTreeMap::new(),
            pieces: context.pieces.clone(),
            memory_bytes: context.memory_bytes,
            gone: PieceChanges::new(),
            calls: 0,
            has_many_groups: false,
            has_revised: false,
        };
        if let Some(snapshot) = context.snapshot {
            snapshot::read(&mut stage, snapshot)?;
        }
        Ok(Box::new(stage))
    }
}

fn planned(input: &StageInput) -> Result<(Plan, EventType), Vec<Finding>> {
    let config: Config =
        input.options.parse().map_err(|error| vec![Finding::error("bad-options", "measures", error.to_string())])?;
    let plan = Plan::new(&config, &input.types)?;
    let output = output::event_type(&input.name, &plan, &input.types)?;
    Ok((plan, output))
}
