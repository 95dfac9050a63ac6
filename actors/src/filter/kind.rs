//! The kind, its description and its stage.

use std::sync::Arc;

use serde::Deserialize;
use tidemill_core::{
    Batch, DefaultValue, Effects, EventType, Finding, Input, KindSpec, OptionSpec, OptionType, Role, Shape, Stage,
    StageContext, StageError, StageInput, StageKind, State, Tally,
};

use super::eval::passes;
use super::lexer::Fault;
use super::parser::parse;
use super::typed::{Typed, bind};

pub(super) struct Filter;

static SPEC: KindSpec = KindSpec {
    name: "filter",
    role: Role::Stage,
    summary: "Lets events pass for which an expression is true.",
    details: "Conditions: `a == 1`, `!=`, `<`, `<=`, `>`, `>=`, `x in (\"a\", \"b\")`, `x is null`, `x is not null`, a boolean \
field by itself; joined by `and`, `or`, `not` and parentheses. `not` binds tighter than `and`, `and` tighter than `or`. Each side of \
a comparison is a field or a value, at least one is a field.

Values: whole numbers, numbers, 'text' or \"text\" (a quote inside is written twice), true, false. A timestamp is compared with \
a text such as \"2024-02-29T12:00:00Z\" or \"2024-02-29\" (UTC), a date with \"2024-02-29\". Texts are ordered by their bytes, enums \
by their symbols' text. Bytes, fixed, decimals, arrays, maps and records can only be tested for null. A field named like a \
keyword can't be used.

As in SQL, a comparison with null is neither true nor false, and only rows for which the whole is true pass. A float field is \
compared as the double that it stands for. NaN equals nothing and has no order.

Every field must exist in every type that arrives; narrow the input with `types` otherwise.",
    options: &[OptionSpec {
        name: "where",
        ty: OptionType::Expression,
        default: DefaultValue::Required,
        doc: "The condition for an event to pass.",
        shapes_state: false,
    }],
    input: Shape::Rows,
    output: Shape::Rows,
    state: State::Stateless,
    guarantee: None,
};

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "where")]
    condition: String,
}

impl StageKind for Filter {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        conditions(input).map_err(|faults| faults.into_iter().map(finding).collect::<Vec<_>>())?;
        Ok(input.types.clone())
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        let conditions = conditions(&context.input).map_err(|faults| {
            let faults: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
            StageError::new(format!("the condition does not fit the types: {}", faults.join("; ")))
        })?;
        Ok(Box::new(FilterStage { conditions }))
    }
}

type Conditions = Vec<(Arc<str>, Typed)>;

/// The condition for each type.
fn conditions(input: &StageInput) -> Result<Conditions, Vec<Fault>> {
    let config: Config = input.options.parse().map_err(|error| vec![Fault::syntax(0..0, error.to_string())])?;
    let node = parse(&config.condition).map_err(|fault| vec![fault])?;
    let mut faults = Vec::new();
    let bound = |of: &Arc<EventType>| Some((of.name.clone(), bind(&node, of, &mut faults)?));
    let conditions = input.types.iter().filter_map(bound).collect();
    if faults.is_empty() { Ok(conditions) } else { Err(faults) }
}

fn finding(fault: Fault) -> Finding {
    let finding = Finding::error(fault.code, "where", fault.message);
    Finding { range: Some(fault.at), help: fault.help, ..finding }
}

struct FilterStage {
    conditions: Conditions,
}

impl FilterStage {
    fn rows(&self, batch: &Batch) -> Result<Vec<u32>, StageError> {
        let name = &batch.event_type.name;
        let Some((_, condition)) = self.conditions.iter().find(|(known, _)| known == name) else {
            return Err(StageError::new(format!("a batch of type `{name}`, which was not planned to arrive")));
        };
        let pass = passes(condition, &batch.records).map_err(|error| StageError {
            message: format!("can't work out the condition for type `{name}`"),
            source: Some(error.into()),
        })?;
        Ok(match &batch.selection {
            None => pass.set_indices_u32().collect(),
            Some(rows) => rows.iter().copied().filter(|row| pass.value(*row as usize)).collect(),
        })
    }
}

impl Stage for FilterStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        let batch = match input {
            Input::Rows(batch) => batch,
            Input::Note(note) => {
                effects.notes.push(note.clone());
                return Ok(());
            }
            Input::Raw(_) => return Err(StageError::new("filter takes typed events, not raw records")),
        };
        let rows = self.rows(batch)?;
        let (received, sent) = (batch.len() as u64, rows.len() as u64);
        effects.tally.add(&Tally { received, sent, filtered: received - sent, ..Tally::default() });
        if sent == received && sent > 0 {
            effects.batches.push(batch.clone());
        } else if sent > 0 {
            effects.batches.push(batch.select(rows));
        }
        Ok(())
    }
}
