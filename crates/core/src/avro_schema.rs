//! Avro schemas from JSON of any origin.

use apache_avro::schema::{Name, Schema};
use serde_json::{Map, Value};

/// A schema as `apache-avro` reads it, with the wrong name in the error where a name is the fault.
///
/// Two things that the specification does not know are taken as writers mean them. A logical type beside the `type` of
/// a field belongs to that type. A uuid in `bytes` is no uuid.
///
/// # Errors
/// Why it is no schema.
pub fn parse_avro_schema(json: &Value) -> Result<Schema, Box<apache_avro::Error>> {
    check_names(json)?;
    let mut json = json.clone();
    as_meant(&mut json);
    Ok(Schema::parse(&json)?)
}

fn as_meant(json: &mut Value) {
    match json {
        Value::Array(branches) => branches.iter_mut().for_each(as_meant),
        Value::Object(schema) => {
            let is = |key: &str, text: &str| schema.get(key).and_then(Value::as_str) == Some(text);
            if is("type", "bytes") && is("logicalType", "uuid") {
                schema.remove("logicalType");
            }
            for field in schema.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Value::Object(field) = field {
                    nest_logical_type(field);
                }
                as_meant(field);
            }
            for part in ["type", "items", "values"] {
                schema.get_mut(part).into_iter().for_each(as_meant);
            }
        }
        _ => {}
    }
}

/// Moves a logical type of a field into the field's type, where that is a mere name.
fn nest_logical_type(field: &mut Map<String, Value>) {
    let Some(Value::String(_)) = field.get("type") else { return };
    let moved = ["logicalType", "precision", "scale"].into_iter().filter_map(|key| field.remove_entry(key));
    let mut nested: Map<String, Value> = moved.collect();
    if nested.contains_key("logicalType") {
        nested.insert("type".to_owned(), field["type"].take());
        field.insert("type".to_owned(), Value::Object(nested));
    } else {
        field.extend(nested);
    }
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

    #[test]
    fn a_logical_type_beside_the_type_of_a_field_and_a_uuid_in_bytes_are_taken_as_meant() {
        let of = |field: &str| {
            let record = format!(r#"{{"type":"record","name":"r","fields":[{{"name":"f",{field}}}]}}"#);
            let Schema::Record(record) = parsed(&record).unwrap() else { panic!("a record") };
            format!("{:?}", record.fields[0].schema)
        };
        assert_eq!(of(r#""type":"long","logicalType":"timestamp-micros""#), "TimestampMicros");
        assert_eq!(of(r#""type":{"type":"long","logicalType":"timestamp-micros"}"#), "TimestampMicros");
        assert!(of(r#""type":"bytes","logicalType":"decimal","precision":4,"scale":2"#).starts_with("Decimal"));
        assert_eq!(of(r#""type":"long","precision":4"#), "Long");
        assert_eq!(of(r#""type":{"type":"bytes","logicalType":"uuid"},"default":"""#), "Bytes");
        assert_eq!(of(r#""type":"bytes","logicalType":"uuid","default":"x""#), "Bytes");
    }
}
