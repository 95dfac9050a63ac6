//! Rows as messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use tidemill_core::{Batch, EventType, SCHEMA_MAGIC, StageError};

use super::config::{Format, KafkaConfig};
use crate::sink::encode::RowEncoder;
use crate::sink::json::{json_of, scalar_text};

/// Makes messages of rows.
pub(super) struct Encoder {
    format: Format,
    key: Vec<String>,
    /// Ids of the types' schemas, for `avro`.
    schema_ids: BTreeMap<Arc<str>, u32>,
}

/// The same for one batch.
pub(super) struct BatchEncoder<'a> {
    batch: &'a Batch,
    form: Form<'a>,
    /// Columns of the key's fields.
    key: Vec<usize>,
}

enum Form<'a> {
    Json,
    /// Id of the schema.
    Avro(u32, RowEncoder<'a>),
    Raw,
}

impl Encoder {
    pub(super) fn new(config: &KafkaConfig, schema_ids: BTreeMap<Arc<str>, u32>) -> Self {
        Self { format: config.format, key: config.key.clone(), schema_ids }
    }

    pub(super) fn batch<'a>(&self, batch: &'a Batch) -> Result<BatchEncoder<'a>, StageError> {
        let event_type: &EventType = &batch.event_type;
        let form = match self.format {
            Format::Json => Form::Json,
            Format::Raw => Form::Raw,
            Format::Avro => {
                let id = self.schema_ids.get(&event_type.name).copied();
                let id = id.ok_or_else(|| {
                    StageError::new(format!("a batch of type `{}`, which was not planned to arrive", event_type.name))
                })?;
                let fields = &event_type.fields;
                Form::Avro(id, RowEncoder::new(fields, 0..fields.len(), &batch.records)?)
            }
        };
        let column = |name: &String| event_type.field(name).map(|(at, _)| at);
        Ok(BatchEncoder { batch, form, key: self.key.iter().filter_map(column).collect() })
    }
}

impl BatchEncoder<'_> {
    /// Replaces `out` by the value of a row's message.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn value(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        out.clear();
        match &self.form {
            Form::Json => {
                let columns = self.batch.event_type.fields.iter().zip(self.batch.records.columns());
                let member = |(field, column): (&tidemill_core::Field, &arrow_array::ArrayRef)| {
                    (field.name.clone(), json_of(field, column.as_ref(), row))
                };
                let members: Map<String, Value> = columns.map(member).collect();
                serde_json::to_writer(out, &members).map_err(|error| error.to_string())
            }
            Form::Avro(id, encoder) => {
                out.push(SCHEMA_MAGIC);
                out.extend_from_slice(&id.to_be_bytes());
                encoder.put(row, out);
                Ok(())
            }
            Form::Raw => {
                let received = self.batch.received(row);
                if received.is_empty() {
                    return Err(
                        "it was not received but made by a stage, so there are no bytes to send; use another `format`"
                            .to_owned(),
                    );
                }
                out.extend_from_slice(received);
                Ok(())
            }
        }
    }

    /// Replaces `out` by the key of a row's message; false when it has none.
    pub(super) fn key(&self, row: usize, out: &mut Vec<u8>) -> bool {
        out.clear();
        let cell = |at: usize| (&self.batch.event_type.fields[at], self.batch.records.column(at).as_ref());
        match self.key[..] {
            [] => false,
            [only] => {
                let (field, column) = cell(only);
                let Some(text) = scalar_text(field, column, row) else { return false };
                out.extend_from_slice(text.as_bytes());
                true
            }
            _ => {
                let values = self.key.iter().map(|at| {
                    let (field, column) = cell(*at);
                    json_of(field, column, row)
                });
                out.extend_from_slice(Value::Array(values.collect()).to_string().as_bytes());
                true
            }
        }
    }
}
