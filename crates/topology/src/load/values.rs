//! TOML values against the types of options.

use serde_json::{Map, Value};
use tidemill_core::{OptionType, parse_duration_ms, parse_size_bytes};
use toml::de::{DeFloat, DeInteger, DeValue};

use super::cx::{Cx, Problem, Val, entries, type_name};
use crate::pond::{self, PondOptions};
use crate::{codes, suggest, units};

/// The value as the kind's config gets it; `None` when it does not fit, which has been said then.
pub(super) fn convert(cx: &Cx<'_>, key: &str, ty: &OptionType, value: &Val<'_>) -> Option<Value> {
    let fail = |code, message: String, help: String| {
        cx.push(Problem::error(code, value.span(), message).help(help));
        None
    };
    let wrong_type = |help: &str| {
        let found = type_name(value.get_ref());
        fail(codes::WRONG_TYPE, format!("`{key}` takes {}, not {found}", expected(ty)), help.to_owned())
    };
    let out_of_range = |found: &str, bounds: &str, nearest: String| {
        let message = format!("`{key}` is {found}, but must be {bounds}");
        fail(codes::OUT_OF_RANGE, message, format!("the nearest that will do: `{key} = {nearest}`"))
    };
    let within = |min: String, max: String| format!("between {min} and {max}");
    let quoted = |text: String| format!("\"{text}\"");
    match (ty, value.get_ref()) {
        (OptionType::Boolean, DeValue::Boolean(value)) => Some(Value::Bool(*value)),
        (OptionType::Boolean, _) => wrong_type("write `true` or `false`, without quotes"),
        (OptionType::Integer { min, max }, DeValue::Integer(number)) => match integer(number) {
            Some(number) if (*min..=*max).contains(&number) => Some(number.into()),
            small => {
                let nearest =
                    if small.map_or(number.as_str().starts_with('-'), |number| number < *min) { min } else { max };
                out_of_range(&number.to_string(), &crate::describe::bounds(*min, *max), nearest.to_string())
            }
        },
        (OptionType::Integer { .. }, DeValue::Float(_)) => wrong_type("write a whole number, without a point"),
        (OptionType::Integer { .. }, _) => wrong_type("write a whole number, without quotes"),
        (OptionType::Float { min, max }, DeValue::Integer(_) | DeValue::Float(_)) => {
            let number = match value.get_ref() {
                DeValue::Integer(number) => integer(number).map(|number| number as f64),
                DeValue::Float(number) => float(number),
                _ => None,
            };
            match number {
                Some(number) if (*min..=*max).contains(&number) => Some(number.into()),
                other => {
                    let nearest = if other.is_some_and(|number| number < *min) { min } else { max };
                    let bounds = within(min.to_string(), max.to_string());
                    out_of_range(&cx.text.source[value.span()], &bounds, format!("{nearest:?}"))
                }
            }
        }
        (OptionType::Float { .. }, _) => wrong_type("write a number, without quotes"),
        (OptionType::Text | OptionType::Expression | OptionType::PathTemplate, DeValue::String(text)) => {
            Some(Value::String(text.to_string()))
        }
        (OptionType::Text | OptionType::Expression | OptionType::PathTemplate, _) => wrong_type("write it in quotes"),
        (OptionType::Duration { min_ms, max_ms }, DeValue::String(text)) => match parse_duration_ms(text) {
            Ok(ms) if (*min_ms..=*max_ms).contains(&ms) => Some(ms.into()),
            Ok(ms) => {
                let bounds = within(units::duration(*min_ms), units::duration(*max_ms));
                out_of_range(text, &bounds, quoted(units::duration(ms.clamp(*min_ms, *max_ms))))
            }
            Err(_) => {
                let help = "write a whole number and its unit, such as \"250ms\", \"10s\", \"5m\", \"1h\" or \"1d\"";
                fail(codes::BAD_VALUE, format!("`{key}` is `{text}`, which is no duration"), help.to_owned())
            }
        },
        (OptionType::Duration { .. }, _) => {
            wrong_type("write it in quotes with its unit, such as \"250ms\", \"10s\", \"5m\", \"1h\" or \"1d\"")
        }
        (OptionType::Size { min_bytes, max_bytes }, DeValue::String(text)) => match parse_size_bytes(text) {
            Ok(bytes) if (*min_bytes..=*max_bytes).contains(&bytes) => Some(bytes.into()),
            Ok(bytes) => {
                let bounds = within(units::size(*min_bytes), units::size(*max_bytes));
                out_of_range(text, &bounds, quoted(units::size(bytes.clamp(*min_bytes, *max_bytes))))
            }
            Err(_) => {
                let help = "write a whole number and its unit, such as \"512B\", \"64KiB\", \"16MiB\" or \"1GiB\"";
                fail(codes::BAD_VALUE, format!("`{key}` is `{text}`, which is no size"), help.to_owned())
            }
        },
        (OptionType::Size { .. }, _) => {
            wrong_type("write it in quotes with its unit, such as \"512B\", \"64KiB\", \"16MiB\" or \"1GiB\"")
        }
        (OptionType::Choice(choices), DeValue::String(text)) => {
            if choices.contains(&text.as_ref()) {
                return Some(Value::String(text.to_string()));
            }
            let message = format!("`{key}` can't be `{text}`");
            fail(codes::UNKNOWN_CHOICE, message, suggest::help(text, choices, "values"))
        }
        (OptionType::Choice(choices), _) => wrong_type(&format!("the values there are: {}", suggest::list(choices))),
        (OptionType::TextList { min_items } | OptionType::FieldList { min_items }, DeValue::Array(items)) => {
            if items.len() < *min_items {
                let items_word = if *min_items == 1 { "item" } else { "items" };
                let message = format!("`{key}` has {} items, but needs at least {min_items}", items.len());
                let help = format!("write {min_items} {items_word} or more: {key} = [\"...\"]");
                return fail(codes::OUT_OF_RANGE, message, help);
            }
            let texts = items.iter().map(|item| text_item(cx, key, item));
            // Every wrong item is to be named, so all are looked at before the list is given up.
            texts.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>().map(Value::Array)
        }
        (OptionType::TextList { .. } | OptionType::FieldList { .. }, DeValue::String(text)) => {
            wrong_type(&format!("write it as a list: {key} = [{text:?}]"))
        }
        (OptionType::TextList { .. } | OptionType::FieldList { .. }, _) => {
            wrong_type(&format!("write a list of texts: {key} = [\"...\"]"))
        }
        (OptionType::TypeFrom, DeValue::Table(_)) => type_from(cx, key, value),
        (OptionType::TypeFrom, _) => wrong_type(TYPE_FROM_FORMS),
        (OptionType::TextTable, DeValue::Table(table)) => {
            let texts = entries(table)
                .into_iter()
                .map(|(name, value)| Some((name.get_ref().to_string(), plain_text(cx, key, value)?)));
            // As with lists.
            texts.collect::<Vec<_>>().into_iter().collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        (OptionType::TextTable, _) => wrong_type(TEXT_TABLE_FORM),
        (OptionType::Pond, DeValue::Table(_)) => pond(cx, key, value),
        (OptionType::Pond, _) => wrong_type(POND_FORM),
        (OptionType::Measures, DeValue::Table(table)) => {
            if table.is_empty() {
                let message = format!("`{key}` has no measure");
                return fail(codes::OUT_OF_RANGE, message, MEASURES_FORM.to_owned());
            }
            let mut measures = Map::new();
            let mut complete = true;
            for (name, call) in entries(table) {
                match call.get_ref() {
                    DeValue::String(text) => {
                        measures.insert(name.get_ref().to_string(), Value::String(text.to_string()));
                    }
                    other => {
                        complete = false;
                        let message = format!("measure `{}` takes text, not {}", name.get_ref(), type_name(other));
                        cx.push(Problem::error(codes::WRONG_TYPE, call.span(), message).help(MEASURES_FORM));
                    }
                }
            }
            complete.then_some(Value::Object(measures))
        }
        (OptionType::Measures, _) => wrong_type(MEASURES_FORM),
    }
}

const TYPE_FROM_FORMS: &str = "write one of `{ column = 0 }` (counted from 0), `{ field = \"event_type\" }`, `{ const = \"play\" }`, `{ header = \"type\" }` and `{ topic = true }`";
const TYPE_FROM_KEYS: [&str; 5] = ["column", "field", "const", "header", "topic"];
const MEASURES_FORM: &str = "write fields and what is measured, such as `{ events = \"count()\" }`";

const POND_FORM: &str = "write `{ max_bytes = \"4GiB\", when_full = \"block\" }`, or leave one of the two out";

const TEXT_TABLE_FORM: &str = "write names and texts, such as `{ \"some.name\" = \"text\" }`";

/// A text, or a number or a boolean as it is written.
fn plain_text(cx: &Cx<'_>, key: &str, value: &Val<'_>) -> Option<Value> {
    match value.get_ref() {
        DeValue::String(text) => Some(Value::String(text.to_string())),
        DeValue::Integer(number) => integer(number).map(|number| Value::String(number.to_string())),
        DeValue::Float(number) => Some(Value::String(number.as_str().to_owned())),
        DeValue::Boolean(truth) => Some(Value::String(truth.to_string())),
        other => {
            let message = format!("`{key}` is a table of texts, but this value is {}", type_name(other));
            cx.push(Problem::error(codes::WRONG_TYPE, value.span(), message).help(TEXT_TABLE_FORM));
            None
        }
    }
}

fn text_item(cx: &Cx<'_>, key: &str, item: &Val<'_>) -> Option<Value> {
    if let DeValue::String(text) = item.get_ref() {
        return Some(Value::String(text.to_string()));
    }
    let message = format!("`{key}` is a list of texts, but this item is {}", type_name(item.get_ref()));
    cx.push(Problem::error(codes::WRONG_TYPE, item.span(), message).help("write it in quotes"));
    None
}

/// A table of the bounds of a pond; what is left out is as usual.
fn pond(cx: &Cx<'_>, key: &str, value: &Val<'_>) -> Option<Value> {
    let DeValue::Table(table) = value.get_ref() else { return None };
    let Ok(Value::Object(mut found)) = serde_json::to_value(PondOptions::default()) else { return None };
    let mut complete = true;
    for (name, value) in entries(table) {
        let specs = [&pond::MAX_BYTES, &pond::WHEN_FULL];
        let Some(spec) = specs.into_iter().find(|spec| spec.name == name.get_ref()) else {
            let message = format!("unknown key `{}` in `{key}`", name.get_ref());
            let help = suggest::help(name.get_ref(), &specs.map(|spec| spec.name), "keys");
            cx.push(Problem::error(codes::UNKNOWN_KEY, name.span(), message).help(help));
            complete = false;
            continue;
        };
        match convert(cx, spec.name, &spec.ty, value) {
            Some(value) => drop(found.insert(spec.name.to_owned(), value)),
            None => complete = false,
        }
    }
    complete.then_some(Value::Object(found))
}

/// A table with exactly one of [`TYPE_FROM_KEYS`].
fn type_from(cx: &Cx<'_>, key: &str, value: &Val<'_>) -> Option<Value> {
    let DeValue::Table(table) = value.get_ref() else { return None };
    let mut found = Map::new();
    let mut complete = true;
    for (name, value) in entries(table) {
        let ty = match name.get_ref().as_ref() {
            "column" => OptionType::Integer { min: 0, max: 9_999 },
            "field" | "const" | "header" => OptionType::Text,
            "topic" => OptionType::Boolean,
            other => {
                let message = format!("unknown key `{other}` in `{key}`");
                let help = suggest::help(other, &TYPE_FROM_KEYS, "keys");
                cx.push(Problem::error(codes::UNKNOWN_KEY, name.span(), message).help(help));
                complete = false;
                continue;
            }
        };
        match convert(cx, name.get_ref(), &ty, value) {
            Some(Value::Bool(false)) => {
                let message = format!("`{key}` is not told by the topic, so something else has to tell it");
                cx.push(Problem::error(codes::BAD_VALUE, value.span(), message).help(TYPE_FROM_FORMS));
                complete = false;
            }
            Some(value) => {
                found.insert(name.get_ref().to_string(), value);
            }
            None => complete = false,
        }
    }
    if complete && found.len() != 1 {
        let message =
            format!("`{key}` needs exactly one of {}, but has {}", suggest::list(&TYPE_FROM_KEYS), found.len());
        cx.push(Problem::error(codes::BAD_VALUE, value.span(), message).help(TYPE_FROM_FORMS));
        complete = false;
    }
    complete.then_some(Value::Object(found))
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn float(number: &DeFloat<'_>) -> Option<f64> {
    number.as_str().parse().ok().filter(|number: &f64| number.is_finite())
}

/// What an option takes, with its article.
fn expected(ty: &OptionType) -> &'static str {
    match ty {
        OptionType::Boolean => "a boolean",
        OptionType::Integer { .. } => "an integer",
        OptionType::Float { .. } => "a number",
        OptionType::Text | OptionType::Choice(_) => "text",
        OptionType::Duration { .. } => "a duration",
        OptionType::Size { .. } => "a size",
        OptionType::TextList { .. } => "a list of texts",
        OptionType::FieldList { .. } => "a list of fields",
        OptionType::Expression => "an expression",
        OptionType::PathTemplate => "a path",
        OptionType::TypeFrom => "a table with one of `column`, `field`, `const`, `header` and `topic`",
        OptionType::TextTable => "a table of texts",
        OptionType::Pond => "a table of `max_bytes` and `when_full`",
        OptionType::Measures => "a table of measures",
    }
}
