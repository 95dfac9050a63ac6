//! What a type says of its producers.

use std::sync::Arc;

use tidemill_core::{EventType, Field, FieldKind, Producers};
use toml::de::DeTable;

use super::cx::{Cx, Problem, Val};
use super::options::Checked;
use super::types::{Types, field_help};
use crate::{codes, suggest};

const DEFAULT_LEASE_MS: i64 = 300_000;

/// The producers of a type; what is wrong with them is told.
pub(super) fn said(cx: &Cx<'_>, table: &DeTable<'_>, checked: &Checked, known: &EventType) -> Option<Producers> {
    let span = |key: &str| table.get(key).map_or(0..0, Val::span);
    if !table.contains_key("producer") {
        for key in ["sequence", "lease", "marks", "ends"].into_iter().filter(|key| table.contains_key(*key)) {
            let message = format!("`{key}` says nothing without `producer`");
            let help = "name the field that says who sent the event: `producer = \"...\"`";
            cx.push(Problem::error(codes::MISSING_KEY, span(key), message).help(help));
        }
        return None;
    }
    let find = |key: &str, what: &str, will_do: fn(&FieldKind) -> bool| -> Option<Option<usize>> {
        let Some(name) = checked.text(key) else { return Some(None) };
        let will_do = |field: &Field| will_do(&field.kind) && !field.is_nullable();
        let usable: Vec<&str> =
            known.fields.iter().filter(|field| will_do(field)).map(|field| field.name.as_str()).collect();
        let problem = match known.field(name) {
            Some((at, field)) if will_do(field) => return Some(Some(at)),
            Some((_, field)) => {
                let nullable = if field.is_nullable() { "nullable " } else { "" };
                let message = format!("field `{name}` is {nullable}{}; `{key}` has to be {what}", field.kind.name());
                let help = match usable[..] {
                    [] => "no field of the schema will do".to_owned(),
                    _ => format!("the fields that will do: {}", suggest::list(&usable)),
                };
                Problem::error(codes::NOT_A_PRODUCER, span(key), message).help(help)
            }
            None => {
                let message = format!("there is no field `{name}`");
                Problem::error(codes::UNKNOWN_FIELD, span(key), message).help(field_help(name, known, &usable))
            }
        };
        cx.push(problem);
        None
    };
    let field = find("producer", "a string, uuid or enum that is never null", Producers::can_be)?;
    let ends = find("ends", "a boolean that is never null", |kind| matches!(kind, FieldKind::Boolean))?;
    let is_number = |kind: &FieldKind| matches!(kind, FieldKind::Int | FieldKind::Long);
    let sequence = find("sequence", "an int or long that is never null", is_number)?;
    let marks: Vec<Arc<str>> =
        checked.texts("marks").unwrap_or_default().iter().map(|name| name.as_str().into()).collect();
    let field = field?;
    if marks.is_empty() && ends.is_some() {
        let message = "`ends` is for markers";
        let help = "say of which types: `marks = [\"...\"]`";
        cx.push(Problem::error(codes::MISSING_KEY, span("ends"), message).help(help));
    }
    if marks.len() > 1 && sequence.is_some() {
        let message = "a number can be that of the last event of one type only";
        let help = "name one type in `marks`, or leave out `sequence`";
        cx.push(Problem::error(codes::NOT_A_PRODUCER, span("sequence"), message).help(help));
    }
    let lease_ms = checked.number("lease").and_then(|lease| i64::try_from(lease).ok()).unwrap_or(DEFAULT_LEASE_MS);
    Some(Producers { field, sequence, lease_ms, marks, ends })
}

/// Whether markers name types that have producers; to be asked when all types are known.
pub(super) fn check_marks(cx: &Cx<'_>, types: &Types, tables: &[(&super::cx::Key<'_>, &DeTable<'_>)]) {
    let all: Vec<&str> = types.keys().map(String::as_str).collect();
    for (key, table) in tables {
        let Some(list) = table.get("marks").and_then(|value| value.get_ref().as_array()) else { continue };
        for item in list {
            let Some(name) = item.get_ref().as_str() else { continue };
            let problem = match types.get(name) {
                None => {
                    let help = match suggest::nearest(name, &all) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("the types: {}", suggest::list(&all)),
                    };
                    Problem::error(codes::UNKNOWN_TYPE, item.span(), format!("no type `{name}` is declared")).help(help)
                }
                Some(marked) => {
                    let producers = marked.event_type.as_ref().map(|of| of.producers.as_ref());
                    let message = match producers {
                        Some(None) => {
                            format!("type `{name}` has no `producer` that `{}` could speak for", key.get_ref())
                        }
                        Some(Some(producers)) if !producers.marks.is_empty() => {
                            format!("type `{name}` holds markers itself")
                        }
                        _ => continue,
                    };
                    Problem::error(codes::NOT_A_PRODUCER, item.span(), message)
                        .help("markers speak for types of events with a `producer`")
                }
            };
            cx.push(problem);
        }
    }
}
