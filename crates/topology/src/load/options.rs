//! Tables against the descriptions of their keys.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tidemill_core::{DefaultValue, OptionSpec};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::cx::{Cx, Problem, Span, Val, entries};
use super::values::convert;
use crate::{codes, suggest};

/// A table whose keys were checked.
pub(super) struct Checked {
    /// What was written and is right, and defaults, in the order of the descriptions.
    pub(super) values: Map<String, Value>,
    /// Keys that are wrong, or missing though they must be there.
    pub(super) broken: BTreeSet<&'static str>,
}

impl Checked {
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.as_str()
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.values.get(key)?.as_u64()
    }

    pub(super) fn texts(&self, key: &str) -> Option<Vec<String>> {
        let items = self.values.get(key)?.as_array()?;
        Some(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

/// What a table is called in messages, and where its header is.
pub(super) struct Owner<'a> {
    /// Such as "`[stages.parse]`".
    pub(super) name: String,
    /// Its header.
    pub(super) span: Span,
    /// Its kind, if it has one.
    pub(super) kind: Option<&'a str>,
}

/// What there is to say about a key that the descriptions do not have.
pub(super) enum Verdict {
    /// It is unknown.
    Unknown,
    /// It is wrong for this reason.
    Wrong(Box<Problem>),
    /// Somebody else deals with it.
    Known,
}

/// Checks every key of `table` against `specs`; `explain` judges those that are not among them.
pub(super) fn check(
    cx: &Cx<'_>,
    owner: &Owner<'_>,
    table: &DeTable<'_>,
    specs: &[&'static OptionSpec],
    explain: &dyn Fn(&str, Span) -> Verdict,
) -> Checked {
    let names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
    let missing: Vec<&str> = names.iter().copied().filter(|name| !table.contains_key(*name)).collect();
    let mut meant = BTreeSet::new();
    for (key, _) in entries(table) {
        let (name, span) = (key.get_ref().as_ref(), key.span());
        if names.contains(&name) {
            continue;
        }
        match explain(name, span.clone()) {
            Verdict::Unknown => {}
            Verdict::Known => continue,
            Verdict::Wrong(problem) => {
                cx.push(*problem);
                continue;
            }
        }
        // A key that is there already can't be the one that was meant.
        let nearest = suggest::nearest(name, &missing);
        meant.extend(nearest);
        let message = match owner.kind {
            Some(kind) => format!("unknown key `{name}` in {}, of kind `{kind}`", owner.name),
            None => format!("unknown key `{name}` in {}", owner.name),
        };
        let help = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("the keys there are: {}", suggest::list(&names)),
        };
        cx.push(Problem::error(codes::UNKNOWN_KEY, span, message).help(help));
    }
    let mut checked = Checked { values: Map::new(), broken: BTreeSet::new() };
    for spec in specs {
        let value = match (table.get(spec.name), spec.default) {
            (Some(value), _) => convert(cx, spec.name, &spec.ty, value),
            (None, DefaultValue::Absent) => continue,
            (None, DefaultValue::Toml(default)) => default_value(cx, owner, spec, default),
            (None, DefaultValue::Required) => {
                if !meant.contains(spec.name) {
                    let message = format!("`{}` is missing in {}", spec.name, owner.name);
                    cx.push(Problem::error(codes::MISSING_KEY, owner.span.clone(), message).help(missing_help(spec)));
                }
                None
            }
        };
        match value {
            Some(value) => {
                checked.values.insert(spec.name.to_owned(), value);
            }
            None => {
                checked.broken.insert(spec.name);
            }
        }
    }
    checked
}

fn missing_help(spec: &OptionSpec) -> String {
    let doc = spec.doc.strip_suffix('.').unwrap_or(spec.doc);
    format!("add `{} = {}`: {doc}", spec.name, crate::describe::example(&spec.ty))
}

/// The default of an option, as the kind's config gets it.
pub(super) fn default_value(cx: &Cx<'_>, owner: &Owner<'_>, spec: &OptionSpec, default: &'static str) -> Option<Value> {
    let scratch = Cx::new(default, cx.file);
    let parsed: Option<Val<'_>> =
        DeValue::parse(default).ok().map(|value| Spanned::new(0..default.len(), value.into_inner()));
    let value = parsed.and_then(|value| convert(&scratch, spec.name, &spec.ty, &value));
    if value.is_none() {
        let message = format!("the default `{default}` of `{}` does not fit its own description", spec.name);
        cx.push(Problem::error(codes::KIND_AT_FAULT, owner.span.clone(), message).help("tell the authors of the kind"));
    }
    value
}
