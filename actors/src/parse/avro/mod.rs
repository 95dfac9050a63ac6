//! The kind `avro`: blocks of Avro container files.

mod container;
mod datum;
mod messages;
mod resolve;
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

/// The kind `avro`.
#[derive(Debug)]
pub(super) struct Avro;

/// Options of `avro`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    type_from: Option<TypeFrom>,
    from_message: FromMessage,
}

static SPEC: KindSpec = KindSpec {
    name: "avro",
    role: Role::Stage,
    summary: "Parses Avro: container files, or messages that refer to a schema registry.",
    details: "Records are read with the schema of their writer (that of the file, or the one whose id the message begins with) and resolved to that of \
              their type by the rules of the Avro specification: fields by name or alias, promotions, defaults. Timestamps are converted between units; \
              finer digits than the field holds are rounded down. A schema that refers to itself can't be read.\n\n\
              Files: codecs null, deflate, snappy, zstandard; a block may have at most 256 MiB uncompressed. A record that can't be resolved becomes a \
              dead letter with its bytes as in the uncompressed block. A block that can't be decoded becomes one dead letter, and counts as one \
              record.\n\n\
              Messages (from a source `kafka` with `framing = \"avro\"`): a zero byte, the id of a schema in four bytes, the most significant first, \
              then the datum; this is the wire format of Confluent's registry. A message of another form is `malformed`; one whose schema the \
              registry does not know, or can't be used, is `unknown_schema`.",
    options: &[
        config::type_from(
            "Which type the records have: { const = \"play\" } is always that one; { header = \"type\" } names the header of the message that holds it; \
             { topic = true } is the name of the topic. Left out, it is the type whose schema has the name of the writer's record, in full or without \
             namespace, or whose own name that is; else the only type there is.",
        ),
        FROM_MESSAGE,
    ],
    input: Shape::AvroBlocks,
    output: Shape::Rows,
    state: State::Stateless,
    guarantee: None,
};

impl StageKind for Avro {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        let config: Config = config::parse(input)?;
        if let Some(form @ (TypeFrom::Column(_) | TypeFrom::Field(_))) = &config.type_from {
            let message = "the type of an Avro record is told by its writer's schema, or by the message around it";
            let help = "write type_from = { const = \"...\" }, or leave it out";
            return Err(vec![Finding::error("bad-type-from", "type_from", message).item(form.key()).help(help)]);
        }
        let outputs = config::outputs(input, config.type_from.as_ref())?;
        let findings = message::check(&config.from_message, &outputs);
        if findings.is_empty() { Ok(outputs) } else { Err(findings) }
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        let config: Config = config::parse_again(context)?;
        Ok(Box::new(stage::AvroStage::new(config, &context.outputs, context.input.limits.clone())?))
    }
}
