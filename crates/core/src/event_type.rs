//! Event types: a name, an Avro schema, the field that holds the time, the fields that make the id.

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::error::Details;
use apache_avro::rabin::Rabin;
use arrow_schema::SchemaRef;

use crate::avro_schema::parse_avro_schema;
use crate::late::Late;
use crate::producers::Producers;
use crate::schema::{Field, SchemaError, fields_of};

/// How much a type matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// It may wait.
    Low,
    /// Like most.
    #[default]
    Normal,
    /// Before all others.
    High,
}

impl Tier {
    /// All of them, the first before all others.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// As topologies, manifests and metrics write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The tier of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == name)
    }
}

/// A type of events. Cheap to share: the runtime passes it as `Arc<EventType>`.
#[derive(Debug)]
pub struct EventType {
    /// Its name in the topology.
    pub name: Arc<str>,
    /// The Avro schema, as JSON text, as it is written into files.
    pub schema_json: String,
    /// 64-bit Rabin fingerprint of the schema's Parsing Canonical Form, in hex (Avro specification).
    pub fingerprint: String,
    /// The fields, in schema order.
    pub fields: Vec<Field>,
    /// The Arrow schema of its batches: one column a field, in the same order.
    pub arrow: SchemaRef,
    /// Index of the time field: a timestamp that is never null.
    pub time: usize,
    /// Indexes of the fields that make the id, in the order declared; empty when events have none.
    pub id: Vec<usize>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// How much it matters.
    pub tier: Tier,
    /// What becomes of its late events.
    pub late: Late,
    /// Who sends them, where it says so.
    pub producers: Option<Producers>,
    /// Of one that a stage makes: the types that it is made of.
    pub made_of: Vec<Arc<str>>,
}

/// Why an event type can't be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypeError {
    /// The schema itself is at fault.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// `time` names no field.
    #[error("there is no field `{0}` to take the time from")]
    NoTimeField(String),
    /// `time` names a field that is no timestamp, or may be null.
    #[error("field `{field}` is {found}, not a timestamp-millis or timestamp-micros that is never null")]
    NotATime {
        /// The field.
        field: String,
        /// What it is.
        found: String,
    },
    /// `id` names no field.
    #[error("there is no field `{0}` to take the id from")]
    NoIdField(String),
    /// An id field may be null or is an array, map or record.
    #[error("field `{field}` is {found}; an id field is a single value that is never null")]
    NotAnId {
        /// The field.
        field: String,
        /// What it is.
        found: String,
    },
}

impl EventType {
    /// Makes an event type of an Avro record schema.
    ///
    /// # Errors
    /// All that is wrong with it: at most one schema error, else every wrong `time` and `id` name.
    pub fn new(
        name: &str,
        schema_json: &str,
        time: &str,
        id: &[String],
        owner: Option<String>,
    ) -> Result<Self, Vec<TypeError>> {
        let json = serde_json::from_str(schema_json).map_err(|error| Box::new(Details::ParseSchemaJson(error).into()));
        let schema = json.and_then(|json| parse_avro_schema(&json));
        let schema = schema.map_err(|error| vec![SchemaError::Avro(error).into()])?;
        let fields = fields_of(&schema).map_err(|error| vec![error.into()])?;
        let describe =
            |field: &Field| format!("{}{}", if field.is_nullable() { "a nullable " } else { "a " }, field.kind.name());
        let index = |name: &str| fields.iter().position(|field| field.name == name);
        let mut errors = Vec::new();
        let time_index = index(time);
        match time_index.map(|at| &fields[at]) {
            None => errors.push(TypeError::NoTimeField(time.to_owned())),
            Some(field) if !field.kind.is_time() || field.is_nullable() => {
                errors.push(TypeError::NotATime { field: time.to_owned(), found: describe(field) });
            }
            Some(_) => {}
        }
        let mut id_indexes = Vec::with_capacity(id.len());
        for name in id {
            match index(name) {
                None => errors.push(TypeError::NoIdField(name.clone())),
                Some(at) if !fields[at].kind.is_scalar() || fields[at].is_nullable() => {
                    errors.push(TypeError::NotAnId { field: name.clone(), found: describe(&fields[at]) });
                }
                Some(at) => id_indexes.push(at),
            }
        }
        let Some(time) = time_index.filter(|_| errors.is_empty()) else { return Err(errors) };
        let arrow = arrow_schema::Schema::new(fields.iter().map(Field::arrow).collect::<Vec<_>>());
        let fingerprint = schema_fingerprint(&schema);
        Ok(Self {
            name: name.into(),
            schema_json: schema_json.to_owned(),
            fingerprint,
            fields,
            arrow: Arc::new(arrow),
            time,
            id: id_indexes,
            owner,
            tier: Tier::default(),
            late: Late::DEAD_LETTER,
            producers: None,
            made_of: Vec::new(),
        })
    }

    /// The same with another way to deal with late events; a new type makes dead letters of them.
    #[must_use]
    pub fn with_late(self, late: Late) -> Self {
        Self { late, ..self }
    }

    /// The same in another tier; a new type is in the one of most.
    #[must_use]
    pub fn with_tier(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    /// The same with producers; a new type has none.
    #[must_use]
    pub fn with_producers(self, producers: Option<Producers>) -> Self {
        Self { producers, ..self }
    }

    /// The same made of other types; a new type is received.
    #[must_use]
    pub fn with_made_of<'a>(self, types: impl Iterator<Item = &'a Arc<Self>>) -> Self {
        Self { made_of: types.map(|of| of.name.clone()).collect(), ..self }
    }

    /// Index and field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields.iter().enumerate().find(|(_, field)| field.name == name)
    }
}

/// 64-bit Rabin fingerprint of a schema's Parsing Canonical Form, as 16 hex digits (Avro specification).
#[must_use]
pub fn schema_fingerprint(schema: &Schema) -> String {
    // apache-avro leaves `{"type":"long"}` where the canonical form has `"long"` when a logical type was taken away;
    // reading its form once more mends that.
    let canonical = Schema::parse_str(&schema.canonical_form());
    let fingerprint = canonical.as_ref().unwrap_or(schema).fingerprint::<Rabin>();
    fingerprint.bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(uuid: &str) -> bool {
        let schema = format!(
            r#"{{"type":"record","name":"R","fields":[
            {{"name":"t","type":{{"type":"long","logicalType":"timestamp-millis"}}}},{{"name":"u","type":{uuid}}}]}}"#
        );
        EventType::new("r", &schema, "t", &[], None).is_err()
    }

    #[test]
    fn the_fingerprint_is_that_of_the_canonical_form_also_with_logical_types() {
        let of = |time: &str| {
            let schema = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"t","type":{time}}}]}}"#);
            EventType::new("r", &schema, "t", &[], None).unwrap().fingerprint
        };
        let plain = r#"{"name":"R","type":"record","fields":[{"name":"t","type":"long"}]}"#;
        let plain = Schema::parse_str(plain).unwrap().fingerprint::<Rabin>();
        let plain: String = plain.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(of(r#"{"type":"long","logicalType":"timestamp-millis"}"#), plain);
    }

    #[test]
    fn a_uuid_in_a_fixed_is_refused_because_it_would_be_written_as_text() {
        assert!(refused(r#"{"type":"fixed","name":"u16","size":16,"logicalType":"uuid"}"#));
        assert!(!refused(r#"{"type":"string","logicalType":"uuid"}"#));
        assert!(!refused(r#"{"type":"fixed","name":"u16","size":16}"#));
    }

    #[test]
    fn a_logical_type_that_does_not_fit_is_ignored() {
        let kind = |uuid: &str| {
            let time = r#"{"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}}"#;
            let schema = format!(r#"{{"type":"record","name":"R","fields":[{time},{{"name":"u","type":{uuid}}}]}}"#);
            EventType::new("r", &schema, "t", &[], None).unwrap().fields[1].kind.clone()
        };
        assert_eq!(kind(r#"{"type":"bytes","logicalType":"uuid"}"#), crate::FieldKind::Bytes);
        assert_eq!(kind(r#"{"type":"fixed","name":"u8","size":8,"logicalType":"uuid"}"#), crate::FieldKind::Fixed(8));
    }
}
