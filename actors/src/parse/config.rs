//! What the options of the three kinds have in common.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidemill_core::{
    DefaultValue, EventType, Finding, OptionSpec, OptionType, Severity, StageContext, StageError, StageInput,
};

use super::time::TimeForm;

/// How a record's type is told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TypeFrom {
    /// A column of the line, from 0.
    Column(usize),
    /// A field of the record.
    Field(String),
    /// Always this type.
    Const(String),
    /// A header of the message.
    Header(String),
    /// The name of the topic.
    Topic(bool),
}

impl TypeFrom {
    /// Its key in the table.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Column(_) => "column",
            Self::Field(_) => "field",
            Self::Const(_) => "const",
            Self::Header(_) => "header",
            Self::Topic(_) => "topic",
        }
    }
}

/// The option `time`.
pub(super) const TIME: OptionSpec = OptionSpec {
    name: "time",
    ty: OptionType::Choice(TimeForm::NAMES),
    default: DefaultValue::Toml("\"iso8601\""),
    doc: "How timestamps are written: ISO 8601 with a zone (2013-01-31T10:15:00Z), or seconds, milliseconds or microseconds \
          since 1970. Digits finer than the field holds are rounded down.",
    shapes_state: false,
};

/// The option `type_from`.
pub(super) const fn type_from(doc: &'static str) -> OptionSpec {
    OptionSpec { name: "type_from", ty: OptionType::TypeFrom, default: DefaultValue::Absent, doc, shapes_state: false }
}

/// The options as a kind's config.
pub(super) fn parse<T: DeserializeOwned>(input: &StageInput) -> Result<T, Vec<Finding>> {
    input.options.parse().map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        vec![whole_table("bad-options", format!("{error}{cause}"))]
    })
}

/// The same for a kind's `build`, where they have been checked.
pub(super) fn parse_again<T: DeserializeOwned>(context: &StageContext<'_>) -> Result<T, StageError> {
    context.input.options.parse().map_err(|error| StageError {
        message: format!("stage `{}`: {error}", context.input.name),
        source: Some(Box::new(error)),
    })
}

/// An error about no option in particular.
pub(super) fn whole_table(code: &'static str, message: String) -> Finding {
    Finding { severity: Severity::Error, code, option: None, item: None, range: None, message, help: None }
}

/// The types that a stage sends: that of `const`, or all that are declared.
pub(super) fn outputs(input: &StageInput, type_from: Option<&TypeFrom>) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
    match type_from {
        Some(TypeFrom::Const(name)) => match input.types.iter().find(|known| *known.name == **name) {
            Some(known) => Ok(vec![known.clone()]),
            None => Err(vec![
                Finding::error("unknown-type", "type_from", format!("there is no type `{name}`"))
                    .item("const")
                    .help(format!("the types are {}", names(input))),
            ]),
        },
        _ if input.types.is_empty() => {
            Err(vec![whole_table("no-types", "there is no type to parse; declare one with [types.NAME]".into())])
        }
        _ => Ok(input.types.clone()),
    }
}

/// The finding when nothing tells the type of a record.
pub(super) fn no_type_from(input: &StageInput, forms: &str) -> Finding {
    let message = format!("nothing says which of the types {} a record has", names(input));
    Finding { option: Some("type_from"), ..whole_table("missing-type-from", message) }.help(format!("write {forms}"))
}

fn names(input: &StageInput) -> String {
    let names: Vec<String> = input.types.iter().map(|known| format!("`{}`", known.name)).collect();
    names.join(", ")
}
