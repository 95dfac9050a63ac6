//! The type of the rows: `hour`, `event_type`, the group fields, the measures.

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_core::{DecimalRepr, EventType, Field, FieldKind, Finding, Nullability};

use super::measure::DECIMAL_DIGITS;
use super::plan::{Function, Measure, Plan};

/// The type, named like the stage. Hour, event type and group fields are its id when no group field may be null;
/// otherwise it has none.
pub(super) fn event_type(stage: &str, plan: &Plan, types: &[Arc<EventType>]) -> Result<EventType, Vec<Finding>> {
    let record = camel_case(stage);
    let mut fields = vec![
        json!({ "name": "hour", "type": { "type": "long", "logicalType": "timestamp-millis" } }),
        json!({ "name": "event_type", "type": "string" }),
    ];
    fields.extend(plan.groups.iter().map(|field| {
        let plain = avro(&field.kind, &format!("{record}{}", camel_case(&field.name)));
        json!({ "name": field.name, "type": nullable(plain, field.nullability) })
    }));
    fields.extend(plan.measures.iter().map(|measure| {
        let doc = format!("{} over the hour's events of the group", measure.call());
        let name = format!("{record}{}", camel_case(&measure.name));
        json!({ "name": measure.name, "type": measure_type(measure, &name), "doc": doc })
    }));
    let doc = format!("One row for each group of events of an hour, made by the stage `{stage}`.");
    let schema = json!({ "type": "record", "name": record, "doc": doc, "fields": fields });
    let mut id = vec!["hour".to_owned(), "event_type".to_owned()];
    id.extend(plan.groups.iter().map(|field| field.name.clone()));
    if plan.groups.iter().any(Field::is_nullable) {
        id.clear();
    }
    let made = EventType::new(stage, &schema.to_string(), "hour", &id, None);
    let made = made.map(|made| made.with_late(plan.late).with_tier(plan.tier).with_made_of(types.iter()));
    made.map_err(|errors| {
        let finding =
            |error: tidemill_core::TypeError| Finding::error("bad-output-type", "measures", error.to_string());
        errors.into_iter().map(finding).collect()
    })
}

/// `top_artists-2` becomes `TopArtists2`.
fn camel_case(name: &str) -> String {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let joined: String = parts.map(|part| part[..1].to_ascii_uppercase() + &part[1..]).collect();
    if joined.starts_with(|first: char| first.is_ascii_alphabetic()) { joined } else { format!("Hourly{joined}") }
}

fn nullable(plain: Value, nullability: Nullability) -> Value {
    match nullability {
        Nullability::Required => plain,
        Nullability::NullFirst => json!(["null", plain]),
        Nullability::NullLast => json!([plain, "null"]),
    }
}

/// `name`: for types that have one.
fn measure_type(measure: &Measure, name: &str) -> Value {
    let of = measure.of.as_ref();
    let kind = of.map(|field| &field.kind);
    let plain = match (measure.function, kind) {
        (Function::Count | Function::Distinct, _) | (_, None) => return json!("long"),
        (Function::Sum, Some(FieldKind::Int | FieldKind::Long)) => json!("long"),
        (Function::Sum, Some(FieldKind::Decimal { scale, .. })) => {
            json!({ "type": "bytes", "logicalType": "decimal", "precision": DECIMAL_DIGITS, "scale": scale })
        }
        (Function::Sum | Function::Mean, _) => json!("double"),
        (Function::Min | Function::Max, Some(kind)) => avro(kind, name),
    };
    // Where no value may be missing, every group has one: a group is made by an event.
    let never_null = of.is_some_and(|field| !field.is_nullable()) && measure.function == Function::Sum;
    nullable(plain, if never_null { Nullability::Required } else { Nullability::NullFirst })
}

/// The Avro type of a scalar; `name` is for those that have one.
fn avro(kind: &FieldKind, name: &str) -> Value {
    let logical = |base: &str, logical: &str| json!({ "type": base, "logicalType": logical });
    match kind {
        FieldKind::Uuid => logical("string", "uuid"),
        FieldKind::TimestampMillis => logical("long", "timestamp-millis"),
        FieldKind::TimestampMicros => logical("long", "timestamp-micros"),
        FieldKind::Date => logical("int", "date"),
        FieldKind::Enum(symbols) => json!({ "type": "enum", "name": name, "symbols": **symbols }),
        FieldKind::Fixed(size) => json!({ "type": "fixed", "name": name, "size": size }),
        FieldKind::Decimal { precision, scale, repr } => match repr {
            DecimalRepr::Bytes => {
                json!({ "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale })
            }
            DecimalRepr::Fixed(size) => json!({
                "type": "fixed", "name": name, "size": size,
                "logicalType": "decimal", "precision": precision, "scale": scale
            }),
        },
        plain => json!(plain.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_names_are_avro_names() {
        assert_eq!(camel_case("top_artists-2"), "TopArtists2");
        assert_eq!(camel_case("2nd"), "Hourly2nd");
        assert_eq!(camel_case("hourly"), "Hourly");
    }
}
