//! Schemas that name types of other schemas, made whole: an Avro schema of a file or a type stands for itself.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// `schema` with the definitions of `referenced` where their names come first. A name that is defined nowhere is left as it
/// is; whoever parses the schema says so.
pub(super) fn inline(mut schema: Value, referenced: Vec<Value>) -> Value {
    let mut definitions = BTreeMap::new();
    for other in referenced {
        if let Some(name) = other.as_object().and_then(|members| full_name(members, "")) {
            definitions.insert(name, other);
        }
    }
    put(&mut schema, "", &mut definitions);
    schema
}

/// Puts definitions in the place of names, each once: the next mention finds it defined.
fn put(schema: &mut Value, space: &str, definitions: &mut BTreeMap<String, Value>) {
    match schema {
        Value::String(name) => {
            let full = if name.contains('.') || space.is_empty() { name.clone() } else { format!("{space}.{name}") };
            if let Some(mut definition) = definitions.remove(&full) {
                // Its own names mean what they meant where it stood by itself.
                put(&mut definition, "", definitions);
                if let Some(members) = definition.as_object_mut()
                    && !members.contains_key("namespace")
                    && !members.get("name").and_then(Value::as_str).is_some_and(|name| name.contains('.'))
                {
                    members.insert("namespace".to_owned(), Value::from(""));
                }
                *schema = definition;
            }
        }
        Value::Array(branches) => branches.iter_mut().for_each(|branch| put(branch, space, definitions)),
        Value::Object(members) => {
            let own = full_name(members, space);
            let inner = own.as_deref().and_then(|name| name.rsplit_once('.')).map_or("", |(space, _)| space);
            let inner = if own.is_some() { inner.to_owned() } else { space.to_owned() };
            for key in ["type", "items", "values"] {
                if let Some(value) = members.get_mut(key) {
                    put(value, &inner, definitions);
                }
            }
            for field in members.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(value) = field.get_mut("type") {
                    put(value, &inner, definitions);
                }
            }
        }
        _ => {}
    }
}

/// The full name of a named type (Avro specification, "Names"); `None` for any other schema.
fn full_name(members: &Map<String, Value>, space: &str) -> Option<String> {
    let text = |key: &str| members.get(key).and_then(Value::as_str);
    text("type").filter(|kind| ["record", "enum", "fixed", "error"].contains(kind))?;
    let name = text("name")?;
    let space = text("namespace").unwrap_or(space);
    Some(if name.contains('.') || space.is_empty() { name.to_owned() } else { format!("{space}.{name}") })
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_other_schemas_are_defined_where_they_come_first() {
        let country = json!({"type": "enum", "name": "Country", "namespace": "geo", "symbols": ["SE", "NO"]});
        let place = json!({"type": "record", "name": "geo.Place", "fields": [
            {"name": "country", "type": "Country"}, {"name": "city", "type": "string"}]});
        // As the registry gives them: what refers to others has been made whole before.
        let place = inline(place, vec![country.clone()]);
        let play = json!({"type": "record", "name": "Play", "namespace": "music", "fields": [
            {"name": "from", "type": ["null", "geo.Place"]},
            {"name": "to", "type": {"type": "array", "items": "geo.Place"}}]});
        let whole = inline(play, vec![place]);
        Schema::parse(&whole).unwrap();
        assert_eq!(whole.to_string().matches("symbols").count(), 1);
        assert_eq!(whole["fields"][1]["type"]["items"], "geo.Place");
    }

    #[test]
    fn a_definition_without_a_namespace_stays_without_one() {
        let user = json!({"type": "record", "name": "User", "fields": [{"name": "id", "type": "string"}]});
        let play = json!({"type": "record", "name": "a.Play", "fields": [{"name": "by", "type": {"type": "map", "values": "User"}}]});
        // `User` means `a.User` there, which nobody defines.
        assert_eq!(inline(play.clone(), vec![user.clone()]), play);
        let play = json!({"type": "record", "name": "Play", "fields": [{"name": "by", "type": "User"}, {"name": "of", "type": "User"}]});
        Schema::parse(&inline(play, vec![user])).unwrap();
    }
}
