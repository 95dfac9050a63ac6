//! `[types.NAME]`: schema files to event types.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tidemill_core::{DEAD_LETTER_TYPE, EventType, Late, SchemaError, Tier, TypeError};
use toml::de::DeTable;

use super::cx::{Cx, Key, Problem, Span, Val, entries};
use super::options::{Checked, Owner, Verdict, check};
use super::{late, producers};
use crate::lineage::ComesFrom;
use crate::{codes, common, suggest};

/// Reads a file that the topology names.
pub(super) type Read<'a> = &'a dyn Fn(&Path) -> std::io::Result<String>;

/// A declared type.
pub(super) struct Declared {
    /// Its name in the header.
    pub(super) span: Span,
    /// `None` when it can't be made.
    pub(super) event_type: Option<Arc<EventType>>,
    /// `comes_from`, item by item.
    pub(super) comes_from: Vec<(ComesFrom, Span)>,
    pub(super) seal_within_ms: Option<i64>,
    pub(super) tier: Tier,
}

pub(super) type Types = BTreeMap<String, Declared>;

/// `late`: what becomes of late events of types that do not say it themselves.
pub(super) fn declare(cx: &Cx<'_>, tables: &[(&Key<'_>, &DeTable<'_>)], late: Late, read: Read<'_>) -> Types {
    let mut types = Types::new();
    for (key, table) in tables {
        let (name, span) = (key.get_ref().to_string(), key.span());
        if !common::is_name(&name) {
            let message = format!("`{name}` can't be the name of a type");
            cx.push(Problem::error(codes::BAD_NAME, span.clone(), message).help("use letters, digits, `_` and `-`"));
        } else if name == DEAD_LETTER_TYPE {
            let message = format!("`{name}` is the type of dead letters, which is there already");
            cx.push(Problem::error(codes::BAD_NAME, span.clone(), message).help("choose another name"));
        }
        let owner = Owner { name: format!("`[types.{name}]`"), span: span.clone(), kind: None };
        let specs: Vec<_> = common::TYPE_KEYS.iter().collect();
        let checked = check(cx, &owner, table, &specs, &|_, _| Verdict::Unknown);
        let tier = checked.text("tier").and_then(Tier::named).unwrap_or_default();
        let event_type = event_type(cx, &name, table, &checked, read);
        let event_type = event_type.map(|made| {
            let made = made.with_tier(tier);
            let producers = producers::said(cx, table, &checked, &made);
            Arc::new(made.with_late(late::said(Some(&checked), late)).with_producers(producers))
        });
        let texts = checked.texts("comes_from").unwrap_or_default();
        let items = table.get("comes_from").and_then(|value| value.get_ref().as_array());
        let spans = items.into_iter().flatten().map(Val::span);
        let comes_from = texts.iter().map(|text| ComesFrom::parse(text)).zip(spans).collect();
        let seal_within_ms = checked.number("seal_within").and_then(|within| i64::try_from(within).ok());
        types.entry(name).or_insert(Declared { span, event_type, comes_from, seal_within_ms, tier });
    }
    producers::check_marks(cx, &types, tables);
    types
}

fn event_type(cx: &Cx<'_>, name: &str, table: &DeTable<'_>, checked: &Checked, read: Read<'_>) -> Option<EventType> {
    let schema = table.get("schema")?;
    let json = read_schema(cx, schema.span(), checked.text("schema")?, read)?;
    let owner = || checked.text("owner").map(str::to_owned);
    if let Some(event_type) = probe(name, &json) {
        let ids = check_ids(cx, table, checked, &event_type);
        let time = check_time(cx, name, table, checked, &event_type, &json, owner());
        // A type whose time alone is wrong still has fields that other stages can be checked against.
        let ids = ids.filter(|_| !checked.broken.contains("id"))?;
        let time = time.unwrap_or_else(|| event_type.fields[event_type.time].name.clone());
        return EventType::new(name, &json, &time, &ids, owner()).ok();
    }
    // No field can be the time, or the schema itself is wrong.
    let time = checked.text("time").unwrap_or_default();
    for error in EventType::new(name, &json, time, &[], None).err()?.into_iter().map(with_article) {
        let file = checked.text("schema").unwrap_or_default();
        match error {
            TypeError::Schema(error) => schema_problem(cx, schema.span(), file, &json, error),
            TypeError::NoTimeField(_) | TypeError::NotATime { .. } => {
                let Some(value) = table.get("time") else { continue };
                let code =
                    if matches!(error, TypeError::NoTimeField(_)) { codes::UNKNOWN_FIELD } else { codes::NOT_A_TIME };
                let help =
                    format!("`{file}` has no field that can be the time: add a timestamp-millis that is never null");
                cx.push(Problem::error(code, value.span(), error.to_string()).help(help));
            }
            _ => {}
        }
    }
    None
}

/// The type with any field that can be its time, so that its fields are known whatever `time` and `id` say.
fn probe(name: &str, json: &str) -> Option<EventType> {
    let schema: Value = serde_json::from_str(json).ok()?;
    let fields = schema.get("fields")?.as_array()?;
    let names = fields.iter().filter_map(|field| field.get("name")?.as_str());
    names.filter_map(|time| EventType::new(name, json, time, &[], None).ok()).next()
}

/// The time field, if it is right.
fn check_time(
    cx: &Cx<'_>,
    name: &str,
    table: &DeTable<'_>,
    checked: &Checked,
    known: &EventType,
    json: &str,
    owner: Option<String>,
) -> Option<String> {
    let time = checked.text("time")?;
    let errors = match EventType::new(name, json, time, &[], owner) {
        Ok(_) => return Some(time.to_owned()),
        Err(errors) => errors,
    };
    let times: Vec<&str> = known
        .fields
        .iter()
        .filter(|field| field.kind.is_time() && !field.is_nullable())
        .map(|field| field.name.as_str())
        .collect();
    for error in errors.into_iter().map(with_article) {
        let span = table.get("time").map_or(0..0, Val::span);
        let (code, help) = match error {
            TypeError::NoTimeField(_) => (codes::UNKNOWN_FIELD, field_help(time, known, &times)),
            _ => (codes::NOT_A_TIME, format!("the fields that can be the time: {}", suggest::list(&times))),
        };
        cx.push(Problem::error(code, span, error.to_string()).help(help));
    }
    None
}

/// The id fields, if all are right.
fn check_ids(cx: &Cx<'_>, table: &DeTable<'_>, checked: &Checked, known: &EventType) -> Option<Vec<String>> {
    let Some(ids) = checked.texts("id") else { return Some(Vec::new()) };
    let usable: Vec<&str> = known
        .fields
        .iter()
        .filter(|field| field.kind.is_scalar() && !field.is_nullable())
        .map(|field| field.name.as_str())
        .collect();
    let list = table.get("id")?.get_ref().as_array()?;
    let mut right = true;
    for (at, id) in ids.iter().enumerate() {
        let span = list[at].span();
        if let Some(first) = ids[..at].iter().position(|earlier| earlier == id) {
            right = false;
            let problem = Problem::error(codes::DUPLICATE_KEY, span, format!("`{id}` is in `id` twice"));
            cx.push(problem.help("name it once").related(list[first].span(), "it is here already"));
            continue;
        }
        let error = match known.field(id) {
            None => TypeError::NoIdField(id.clone()),
            Some((_, field)) if !usable.contains(&id.as_str()) => {
                let nullable = if field.is_nullable() { "nullable " } else { "" };
                TypeError::NotAnId { field: id.clone(), found: article(&format!("{nullable}{}", field.kind.name())) }
            }
            Some(_) => continue,
        };
        right = false;
        let (code, help) = match error {
            TypeError::NoIdField(_) => (codes::UNKNOWN_FIELD, field_help(id, known, &usable)),
            _ => (codes::NOT_AN_ID, format!("the fields that can be in an id: {}", suggest::list(&usable))),
        };
        cx.push(Problem::error(code, span, error.to_string()).help(help));
    }
    right.then_some(ids)
}

fn article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o']);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

/// The same error with the article that its noun needs.
fn with_article(error: TypeError) -> TypeError {
    match error {
        TypeError::NotATime { field, found } => {
            TypeError::NotATime { field, found: found.strip_prefix("a ").map_or_else(|| found.clone(), article) }
        }
        other => other,
    }
}

/// Looks for the field that was meant among all, but lists only those that would do.
pub(super) fn field_help(wanted: &str, known: &EventType, usable: &[&str]) -> String {
    let all: Vec<&str> = known.fields.iter().map(|field| field.name.as_str()).collect();
    match suggest::nearest(wanted, usable).or_else(|| suggest::nearest(wanted, &all)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("the fields that will do: {}", suggest::list(usable)),
    }
}

fn read_schema(cx: &Cx<'_>, span: Span, file: &str, read: Read<'_>) -> Option<String> {
    let folder = cx.file.parent().unwrap_or(Path::new(""));
    let path = folder.join(file);
    read(&path)
        .map_err(|error| {
            let what = match error.kind() {
                std::io::ErrorKind::NotFound => format!("there is no file `{}`", path.display()),
                std::io::ErrorKind::InvalidData => format!("`{}` is not UTF-8 text", path.display()),
                _ => format!("`{}` can't be read: {error}", path.display()),
            };
            let help = "paths of schemas start at the folder of the topology file";
            cx.push(Problem::error(codes::SCHEMA_UNREADABLE, span, what).help(help));
        })
        .ok()
}

fn schema_problem(cx: &Cx<'_>, span: Span, file: &str, json: &str, error: SchemaError) {
    let problem = match error {
        SchemaError::Unsupported { field, found, help } => {
            let message = format!("field `{field}` of `{file}` has type {found}, which can't be carried");
            Problem::error(codes::UNSUPPORTED_FIELD, span, message).help(help)
        }
        SchemaError::NotARecord(found) => {
            let message = format!("an event type must be an Avro record, but `{file}` is {found}");
            let help = r#"write {"type": "record", "name": "...", "fields": [...]}"#;
            Problem::error(codes::SCHEMA_INVALID, span, message).help(help)
        }
        error => match serde_json::from_str::<Value>(json) {
            Err(error) => {
                let message = format!("`{file}` is not JSON: {error}");
                Problem::error(codes::SCHEMA_INVALID, span, message).help("an Avro schema is a JSON file")
            }
            Ok(_) => {
                let message = format!("`{file}` is not an Avro schema: {}", innermost(&error));
                let help = "see https://avro.apache.org/docs/1.12.0/specification/#schema-declaration";
                Problem::error(codes::SCHEMA_INVALID, span, message).help(help)
            }
        },
    };
    cx.push(problem);
}

/// The cause that says most: the last of the chain.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// The tables in a table of tables, as in `[types.NAME]`; `holes` is set when something else is among them.
pub(super) fn tables<'t, 'i>(
    cx: &Cx<'_>,
    section: &str,
    value: &'t Val<'i>,
    key: &Key<'_>,
    holes: &mut bool,
) -> Vec<(&'t Key<'i>, &'t DeTable<'i>)> {
    let form = format!("write `[{section}.NAME]`");
    let Some(table) = value.get_ref().as_table() else {
        let found = super::cx::type_name(value.get_ref());
        let message = format!("`{section}` holds one table for each name, but here it is {found}");
        cx.push(Problem::error(codes::WRONG_TYPE, key.span(), message).help(form));
        *holes = true;
        return Vec::new();
    };
    let mut found = Vec::new();
    for (name, value) in entries(table) {
        match value.get_ref().as_table() {
            Some(table) => found.push((name, table)),
            None => {
                *holes = true;
                let what = super::cx::type_name(value.get_ref());
                let message = format!("`{section}.{}` must be a table, not {what}", name.get_ref());
                cx.push(Problem::error(codes::WRONG_TYPE, name.span(), message).help(&form[..]));
            }
        }
    }
    found
}
