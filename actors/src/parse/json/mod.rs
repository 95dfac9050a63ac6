//! The kind `json`: one JSON object a line.

mod record;
mod stage;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Deserialize;
use tidemill_core::{
    EventType, Finding, KindSpec, Role, Shape, Stage, StageContext, StageError, StageInput, StageKind, State,
};

use super::config::{self, TypeFrom};
use super::message::{self, FROM_MESSAGE, FromMessage};
use super::time::TimeForm;

/// The kind `json`.
#[derive(Debug)]
pub(super) struct Json;

/// Options of `json`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    time: TimeForm,
    #[serde(default)]
    type_from: Option<TypeFrom>,
    from_message: FromMessage,
}

static SPEC: KindSpec = KindSpec {
    name: "json",
    role: Role::Stage,
    summary: "Parses lines or messages of JSON objects.",
    details: "A line, or a message, is one record: an object whose members are the fields of its type, by name. Other members are ignored. A nullable field that \
              is missing is null; one that is never null must be there. A member given twice, or nested more than 128 deep, makes the record \
              malformed.\n\n\
              Whole numbers must be written without fraction or exponent. Times are text for `time = \"iso8601\"`, else numbers or text. Dates are text \
              (2013-01-31), UUIDs text of the form 8-4-4-4-12, bytes and fixed text in hex, enums their symbols. Decimals are text (\"12.50\") or whole \
              numbers: a fraction would not be exact. Arrays, maps and records nest as in the schema.",
    options: &[
        config::TIME,
        config::type_from(
            "How a record's type is told: { field = \"type\" } names the member that holds it; { const = \"play\" } is always that one; { header = \
             \"type\" } names the header of the message that holds it; { topic = true } is the name of the topic. May be left out when there is \
             one type.",
        ),
        FROM_MESSAGE,
    ],
    input: Shape::Lines,
    output: Shape::Rows,
    state: State::Stateless,
    guarantee: None,
};

impl StageKind for Json {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        let config: Config = config::parse(input)?;
        let mut findings = Vec::new();
        let forms = "type_from = { field = \"...\" } or type_from = { const = \"...\" }";
        match &config.type_from {
            Some(TypeFrom::Column(_)) => findings.push(
                Finding::error("bad-type-from", "type_from", "JSON objects have no columns")
                    .item("column")
                    .help(format!("write {forms}")),
            ),
            None if input.types.len() > 1 => findings.push(config::no_type_from(input, forms)),
            _ => {}
        }
        match config::outputs(input, config.type_from.as_ref()) {
            Ok(outputs) => {
                findings.extend(message::check(&config.from_message, &outputs));
                if findings.is_empty() { Ok(outputs) } else { Err(findings) }
            }
            Err(more) => {
                findings.extend(more);
                Err(findings)
            }
        }
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        let config: Config = config::parse_again(context)?;
        Ok(Box::new(stage::JsonStage::new(config, &context.outputs, context.input.limits.clone())))
    }
}
