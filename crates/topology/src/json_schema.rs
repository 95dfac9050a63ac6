//! The JSON schema of topology files, for editors.

use serde_json::{Map, Value, json};
use tidemill_core::{DefaultValue, KindSpec, OptionSpec, OptionType, Role};

use crate::common::{self, NAME_PATTERN, TOPOLOGY_KEYS, TYPE_KEYS};
use crate::describe::describe_type;
use crate::plan::Kinds;
use crate::pond;

/// A JSON schema (draft 2020-12) of topology files: which options a table has depends on its `kind`.
#[must_use]
pub fn json_schema(kinds: &dyn Kinds) -> Value {
    let mut definitions = Map::new();
    definitions.insert("topology".to_owned(), object(TOPOLOGY_KEYS.iter(), "Name, widths and limits."));
    definitions.insert("type".to_owned(), object(TYPE_KEYS.iter(), "A type of events."));
    for role in [Role::Source, Role::Stage, Role::Sink] {
        let (thing, _) = common::role_names(role);
        let specs = kinds.specs(role);
        let names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
        let cases: Vec<Value> = specs
            .iter()
            .map(|spec| {
                json!({
                    "if": { "properties": { "kind": { "const": spec.name } }, "required": ["kind"] },
                    "then": { "$ref": format!("#/$defs/{thing}_{}", spec.name) },
                })
            })
            .collect();
        let kind = json!({ "type": "string", "enum": names, "description": common::KIND.doc });
        let mut any = json!({ "type": "object", "required": ["kind"], "properties": { "kind": kind } });
        if !cases.is_empty() {
            any["allOf"] = Value::Array(cases);
        }
        definitions.insert(thing.to_owned(), any);
        for spec in specs {
            definitions.insert(format!("{thing}_{}", spec.name), kind_object(spec));
        }
    }
    let named = |definition: &str, least: usize, doc: &str| {
        json!({
            "type": "object",
            "description": doc,
            "propertyNames": { "pattern": NAME_PATTERN },
            "minProperties": least,
            "additionalProperties": { "$ref": format!("#/$defs/{definition}") },
        })
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tidemill topology",
        "type": "object",
        "required": ["topology", "sources", "sinks"],
        "additionalProperties": false,
        "properties": {
            "topology": { "$ref": "#/$defs/topology" },
            "types": named("type", 0, "The types of events, by name."),
            "sources": named("source", 1, "Where records come from, by name."),
            "stages": named("stage", 0, "The steps between sources and sinks, by name."),
            "sinks": named("sink", 1, "Where events go, by name."),
        },
        "$defs": definitions,
    })
}

fn kind_object(spec: &KindSpec) -> Value {
    let keys = common::common_keys(spec.role, Some(spec)).iter().chain(spec.options);
    let mut schema = object(keys, spec.summary);
    schema["properties"]["kind"] = json!({ "const": spec.name, "description": spec.summary });
    schema
}

fn object(specs: impl Iterator<Item = &'static OptionSpec>, doc: &str) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for spec in specs {
        properties.insert(spec.name.to_owned(), property(spec));
        if spec.default == DefaultValue::Required {
            required.push(spec.name);
        }
    }
    let mut schema = json!({ "type": "object", "description": doc, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema["properties"] = Value::Object(properties);
    schema
}

fn property(spec: &OptionSpec) -> Value {
    let text = || json!({ "type": "string" });
    let mut schema = match &spec.ty {
        OptionType::Boolean => json!({ "type": "boolean" }),
        OptionType::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        OptionType::Float { min, max } => json!({ "type": "number", "minimum": min, "maximum": max }),
        OptionType::Text | OptionType::Expression | OptionType::PathTemplate => text(),
        OptionType::Duration { .. } => json!({ "type": "string", "pattern": "^[0-9]+\\s*(ms|s|m|h|d)\\s*$" }),
        OptionType::Size { .. } => json!({ "type": "string", "pattern": "^[0-9]+\\s*(B|KiB|MiB|GiB)\\s*$" }),
        OptionType::Choice(choices) => json!({ "type": "string", "enum": choices }),
        OptionType::TextList { min_items } | OptionType::FieldList { min_items } => {
            json!({ "type": "array", "items": text(), "minItems": min_items })
        }
        OptionType::TypeFrom => json!({
            "type": "object",
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
            "properties": {
                "column": { "type": "integer", "minimum": 0, "description": "Number of a column, from 0." },
                "field": { "type": "string", "description": "Name of a field." },
                "const": { "type": "string", "description": "Name of the one type." },
                "header": { "type": "string", "description": "Name of a header of the message." },
                "topic": { "const": true, "description": "The type is named like the topic." },
            },
        }),
        OptionType::TextTable => {
            json!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } })
        }
        OptionType::Pond => json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "max_bytes": property(&pond::MAX_BYTES),
                "when_full": property(&pond::WHEN_FULL),
            },
        }),
        OptionType::Measures => json!({ "type": "object", "minProperties": 1, "additionalProperties": text() }),
    };
    let limits = match spec.ty {
        OptionType::Duration { .. } | OptionType::Size { .. } => format!(" ({})", describe_type(&spec.ty)),
        _ => String::new(),
    };
    schema["description"] = Value::String(format!("{}{limits}", spec.doc));
    if let DefaultValue::Toml(default) = spec.default
        && let Some(default) = toml_to_json(default)
    {
        schema["default"] = default;
    }
    schema
}

fn toml_to_json(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("x = {text}")).ok()?;
    serde_json::to_value(table.get("x")?).ok()
}
