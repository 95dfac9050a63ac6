//! The kind `tsv`: lines of separated columns.

mod columns;
mod layout;
mod nulls;
mod scan;
mod stage;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Deserialize;
use tidemill_core::{
    DefaultValue, EventType, Finding, KindSpec, OptionSpec, OptionType, Role, Shape, Stage, StageContext, StageError,
    StageInput, StageKind, State,
};

use super::config::{self, TypeFrom};
use super::message::{self, FROM_MESSAGE, FromMessage};
use super::time::TimeForm;

/// The kind `tsv`.
#[derive(Debug)]
pub(super) struct Tsv;

/// Options of `tsv`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    separator: String,
    null: Vec<String>,
    header: bool,
    #[serde(default)]
    columns: Option<Vec<String>>,
    time: TimeForm,
    #[serde(default)]
    type_from: Option<TypeFrom>,
    from_message: FromMessage,
}

static SPEC: KindSpec = KindSpec {
    name: "tsv",
    role: Role::Stage,
    summary: "Parses lines or messages of separated columns.",
    details: "A line, or a message, is one record; its columns are the fields of its type, in schema order or as `columns` says. There is no quoting and \
              no escaping: a separator always separates. A carriage return before the line feed is dropped, empty lines are skipped, a byte \
              order mark at the beginning of a file is skipped.\n\n\
              Booleans are true, false, 1 or 0; floats and doubles are finite; UUIDs have the form 8-4-4-4-12 and keep their case; bytes and \
              fixed are hex; decimals are written out and may not have more digits than the type; dates are 2013-01-31; enums are their symbols. \
              Arrays, maps and records can't be carried.\n\n\
              A nullable field is null when its column is one of the `null` texts, or is empty and the field is no string.\n\n\
              Strings are not copied: batches point into the received bytes.",
    options: &[
        OptionSpec {
            name: "separator",
            ty: OptionType::Text,
            default: DefaultValue::Toml("\"\\t\""),
            doc: "What is between two columns: one ASCII character.",
            shapes_state: false,
        },
        OptionSpec {
            name: "null",
            ty: OptionType::TextList { min_items: 0 },
            default: DefaultValue::Toml("[]"),
            doc: "Texts that mean null in nullable fields, such as [\"NA\", \"\\\\N\"].",
            shapes_state: false,
        },
        OptionSpec {
            name: "header",
            ty: OptionType::Boolean,
            default: DefaultValue::Toml("false"),
            doc: "Whether each file begins with a line of column names. It is checked against the columns that are expected, and skipped; \
                  it does not change their order. If it does not match it becomes a dead letter.",
            shapes_state: false,
        },
        OptionSpec {
            name: "columns",
            ty: OptionType::TextList { min_items: 1 },
            default: DefaultValue::Absent,
            doc: "Field of each column, without the column of `type_from`; \"\" for a column that no field takes. Fields that are not named must \
                  be nullable, and are null. Left out, the columns are the type's fields in schema order, but for those of `from_message`.",
            shapes_state: false,
        },
        config::TIME,
        config::type_from(
            "How a line's type is told: { column = 0 } names the column that holds it, counted from 0 over the whole line; { const = \"play\" } is \
             always that one; { header = \"type\" } names the header of the message that holds it; { topic = true } is the name of the topic. May be \
             left out when there is one type.",
        ),
        FROM_MESSAGE,
    ],
    input: Shape::Lines,
    output: Shape::Rows,
    state: State::Stateless,
    guarantee: None,
};

impl Config {
    fn separator(&self) -> Option<u8> {
        match self.separator.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Some(*byte),
            _ => None,
        }
    }

    /// The column that holds the type.
    fn type_column(&self) -> Option<usize> {
        match self.type_from {
            Some(TypeFrom::Column(column)) => Some(column),
            _ => None,
        }
    }
}

impl StageKind for Tsv {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        let config: Config = config::parse(input)?;
        let mut findings = Vec::new();
        if config.separator().is_none() {
            let message =
                format!("the separator must be one ASCII character and no line end, not {:?}", config.separator);
            findings.push(Finding::error("bad-separator", "separator", message));
        }
        let forms = "type_from = { column = 0 } or type_from = { const = \"...\" }";
        match &config.type_from {
            Some(TypeFrom::Field(_)) => findings.push(
                Finding::error("bad-type-from", "type_from", "columns have no names that a type could be taken from")
                    .item("field")
                    .help(format!("write {forms}")),
            ),
            None if input.types.len() > 1 => findings.push(config::no_type_from(input, forms)),
            _ => {}
        }
        let outputs = match config::outputs(input, config.type_from.as_ref()) {
            Ok(outputs) => outputs,
            Err(more) => {
                findings.extend(more);
                return Err(findings);
            }
        };
        findings.extend(message::check(&config.from_message, &outputs));
        findings.extend(layout::check(&config, &outputs));
        if findings.is_empty() { Ok(outputs) } else { Err(findings) }
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        let config: Config = config::parse_again(context)?;
        Ok(Box::new(stage::TsvStage::new(&config, &context.outputs, context.input.limits.clone())?))
    }
}
