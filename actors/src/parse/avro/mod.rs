//! The kind `avro`: blocks of Avro container files.

mod container;
mod datum;
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

/// The kind `avro`.
#[derive(Debug)]
pub(super) struct Avro;

/// Options of `avro`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    type_from: Option<TypeFrom>,
}

static SPEC: KindSpec = KindSpec {
    name: "avro",
    role: Role::Stage,
    summary: "Parses Avro container files.",
    details: "Records are read with the schema of their file and resolved to that of their type by the rules of the Avro specification: fields by \
              name or alias, promotions, defaults. Timestamps are converted between units; finer digits than the field holds are rounded down.\n\n\
              Codecs: null, deflate, snappy, zstandard; a block may have at most 256 MiB uncompressed. A file whose schema refers to itself can't be \
              read.\n\n\
              A record that can't be resolved becomes a dead letter with its bytes as in the uncompressed block. A block that can't be decoded becomes \
              one dead letter, and counts as one record.",
    options: &[config::type_from(
        "Which type the records have: { const = \"play\" } is always that one. Left out, it is the type whose schema has the name of the file's \
         record, in full or without namespace, or whose own name that is; else the only type there is.",
    )],
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
            let item = if matches!(form, TypeFrom::Column(_)) { "column" } else { "field" };
            let message = "the type of an Avro record is told by its file's schema";
            let help = "write type_from = { const = \"...\" }, or leave it out";
            return Err(vec![Finding::error("bad-type-from", "type_from", message).item(item).help(help)]);
        }
        config::outputs(input, config.type_from.as_ref())
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        let config: Config = config::parse_again(context)?;
        let is_const = config.type_from.is_some();
        Ok(Box::new(stage::AvroStage::new(&context.outputs, is_const, context.input.limits.clone())?))
    }
}
