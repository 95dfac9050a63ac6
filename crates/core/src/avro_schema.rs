//! Avro schemas from JSON of any origin.

use apache_avro::schema::{Name, Schema};
use serde_json::{Map, Value};

/// A schema as `apache-avro` reads it, which panics where a name is none: so names are looked at before.
///
/// # Errors
/// Why it is no schema.
pub fn parse_avro_schema(json: &Value) -> Result<Schema, Box<apache_avro::Error>> {
    check_names(json)?;
    Ok(Schema::parse(json)?)
}

/// Looks where the parser looks for types: what stands elsewhere, such as a default, may have any name.
fn check_names(json: &Value) -> Result<(), apache_avro::Error> {
    match json {
        Value::Array(branches) => branches.iter().try_for_each(check_names),
        Value::Object(schema) => {
            match schema.get("type") {
                Some(Value::String(kind)) => {
                    Name::new(kind)?;
                    if matches!(kind.as_str(), "record" | "enum" | "fixed") {
                        names_of(schema).try_for_each(|name| Name::new(name).map(|_| ()))?;
                    }
                }
                Some(inner) => check_names(inner)?,
                None => {}
            }
            let fields = schema.get("fields").and_then(Value::as_array).into_iter().flatten();
            let parts = ["items", "values"].into_iter().filter_map(|key| schema.get(key));
            fields.chain(parts).try_for_each(check_names)
        }
        _ => Ok(()),
    }
}

/// Name and aliases.
fn names_of(schema: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let aliases = schema.get("aliases").and_then(Value::as_array).into_iter().flatten();
    schema.get("name").into_iter().chain(aliases).filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Schema, String> {
        parse_avro_schema(&serde_json::from_str(text).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_no_name_is_told_wherever_it_stands() {
        let inside = |field: &str| {
            format!(
                r#"{{"type":"record","name":"r","fields":[{{"name":"f","type":{field},"default":{{"name":"-","type":"enum"}}}}]}}"#
            )
        };
        for text in [
            r#"{"type":"record","name":"my-event","fields":[]}"#,
            r#"{"type":"record","name":"r","aliases":["a b"],"fields":[]}"#,
            r#"{"type":"time stamp"}"#,
            r#"["null",{"type":"enum","name":"","symbols":["A"]}]"#,
            &inside(r#""time stamp""#),
            &inside(r#"{"type":"array","items":{"type":"fixed","name":"1","size":1}}"#),
            &inside(r#"{"type":"map","values":["null",{"type":"enum","name":"?","symbols":[]}]}"#),
            &inside(r#"{"type":{"type":"record","name":"x.","fields":[]}}"#),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.starts_with("Invalid schema name"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_not_the_name_of_a_type_may_be_any_text() {
        let text = r#"{"type":"record","name":"a.b","aliases":["c"],"fields":[
            {"name":"s","type":{"type":"string","name":"in words"}},{"name":"m","type":{"type":"map","values":"string"},"default":{"type":"a b"}}]}"#;
        assert!(parsed(text).is_ok());
    }
}
