//! Sources, stages and sinks, each by itself.

use std::collections::BTreeMap;

use serde_json::Value;
use tidemill_core::{KindSpec, OptionSpec, OptionType, Options, Role, Shape};
use toml::de::DeTable;

use super::cx::{Cx, Key, Problem, Span, entries};
use super::options::{Checked, Owner, Verdict, check};
use super::values::convert;
use crate::plan::{Kinds, Port};
use crate::pond::PondOptions;
use crate::regions::MAIN;
use crate::{codes, common, suggest};

/// Name of the sink of dead letters that nobody else takes.
pub(super) const DEAD_LETTERS: &str = "dead_letters";

/// A source, stage or sink while it is being checked.
pub(super) struct Draft<'t, 'i> {
    pub(super) name: String,
    /// Its name in the header.
    pub(super) span: Span,
    pub(super) role: Role,
    /// `None` for the sink of dead letters that nobody wrote.
    pub(super) table: Option<&'t DeTable<'i>>,
    /// `None` when there is no such kind.
    pub(super) kind: Option<&'static KindSpec>,
    /// Options of its kind; `None` when some are wrong.
    pub(super) options: Option<Options>,
    pub(super) workers: usize,
    /// The pond in front of it.
    pub(super) pond: Option<PondOptions>,
    /// What it takes from, as written.
    pub(super) from: Vec<(String, Span)>,
    /// What it takes from, as far as it was found.
    pub(super) inputs: Vec<Input>,
    /// Something it takes from is not known.
    pub(super) input_missing: bool,
    /// What it takes is not what is sent to it.
    pub(super) misfit: bool,
    /// The types it is narrowed to, and where each is written.
    pub(super) types: Option<Vec<(String, Span)>>,
    /// Those of them that are meant by their tier: it is no mistake when some can't arrive.
    pub(super) by_tier: Vec<String>,
    /// `types` is no list of texts.
    pub(super) types_broken: bool,
}

/// One item of `from`.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) from: usize,
    pub(super) port: Port,
    pub(super) span: Span,
}

impl Draft<'_, '_> {
    /// What it takes, where that is known.
    pub(super) fn takes(&self) -> Option<Shape> {
        self.kind.map(|kind| kind.input)
    }

    /// What it sends: a framed source says by its option which of the two it is.
    pub(super) fn sends(&self) -> Option<Shape> {
        match self.kind?.output {
            Shape::Framed => {
                let framing = self.options.as_ref()?.0.get("framing").and_then(Value::as_str);
                Some(if framing == Some("avro") { Shape::AvroBlocks } else { Shape::Lines })
            }
            other => Some(other),
        }
    }

    /// Whether it takes records that are yet to be parsed.
    pub(super) fn parses(&self) -> bool {
        matches!(self.takes(), Some(Shape::Lines | Shape::AvroBlocks | Shape::Framed))
    }
}

/// Checks one table.
pub(super) fn draft<'t, 'i>(
    cx: &Cx<'_>,
    role: Role,
    key: &Key<'_>,
    table: &'t DeTable<'i>,
    kinds: &dyn Kinds,
) -> Draft<'t, 'i> {
    let (name, span) = (key.get_ref().to_string(), key.span());
    let (thing, section) = common::role_names(role);
    check_name(cx, role, &name, &span);
    let kind = kind_of(cx, role, &name, &span, table, kinds);
    let owner = Owner { name: format!("`[{section}.{name}]`"), span: span.clone(), kind: kind.map(|kind| kind.name) };
    let common = common::common_keys(role, kind);
    // `kind` itself has been dealt with.
    let specs: Vec<&'static OptionSpec> =
        common.iter().filter(|spec| spec.name != "kind").chain(kind.map_or(&[][..], |kind| kind.options)).collect();
    let explain = |key: &str, span: Span| {
        let (code, message, help) = match key {
            "kind" => return Verdict::Known,
            "workers" => {
                let why = match (role, kind) {
                    (Role::Stage, Some(kind)) => format!("kind `{}` keeps state, so it has one worker", kind.name),
                    _ => format!("a {thing} has one worker"),
                };
                (codes::SINGLE_WORKER, why, "remove it; only stages without state have `workers`")
            }
            "from" | "types" | "pond" => {
                let message = format!("a source has no `{key}`: it takes from no other part of the topology");
                (codes::UNKNOWN_KEY, message, "remove it; stages and sinks have it")
            }
            // Which options there are is known only with the kind.
            _ if kind.is_none() => return Verdict::Known,
            _ => return Verdict::Unknown,
        };
        Verdict::Wrong(Box::new(Problem::error(code, span, message).help(help)))
    };
    let checked = check(cx, &owner, table, &specs, &explain);
    let from = spanned_texts(table, &checked, "from");
    let input_missing = checked.broken.contains("from") || role != Role::Source && from.is_none();
    let types = spanned_texts(table, &checked, "types");
    let types_broken = checked.broken.contains("types");
    let options = kind.and_then(|kind| options_of(kind, &checked));
    let workers = checked.number("workers").and_then(|workers| usize::try_from(workers).ok()).unwrap_or(1);
    let pond = pond_of(cx, table, &checked, role, &name, kind, kinds);
    Draft {
        name,
        span,
        role,
        table: Some(table),
        kind,
        options,
        workers,
        pond,
        from: from.unwrap_or_default(),
        inputs: Vec::new(),
        input_missing,
        misfit: false,
        types,
        by_tier: Vec::new(),
        types_broken,
    }
}

/// The pond that a table asks for, or that its kind needs. The sink of dead letters has one because everybody's come to it.
fn pond_of(
    cx: &Cx<'_>,
    table: &DeTable<'_>,
    checked: &Checked,
    role: Role,
    name: &str,
    kind: Option<&KindSpec>,
    kinds: &dyn Kinds,
) -> Option<PondOptions> {
    let kind = kind?;
    let Some(asked) = checked.values.get("pond") else {
        let needs_one = name == DEAD_LETTERS || kinds.delivers_by_itself(kind.name);
        return (role == Role::Sink && needs_one).then(PondOptions::default);
    };
    if kind.input != Shape::Rows
        && let Some(value) = table.get("pond")
    {
        let message = format!("kind `{}` takes records that are yet to be parsed, which no pond holds", kind.name);
        let help = "give a pond to what takes from this stage";
        cx.push(Problem::error(codes::SHAPE_MISMATCH, value.span(), message).help(help));
    }
    serde_json::from_value(asked.clone()).ok()
}

fn check_name(cx: &Cx<'_>, role: Role, name: &str, span: &Span) {
    let (thing, _) = common::role_names(role);
    if !common::is_name(name) {
        let message = format!("`{name}` can't be the name of a {thing}");
        cx.push(Problem::error(codes::BAD_NAME, span.clone(), message).help("use letters, digits, `_` and `-`"));
    } else if name == DEAD_LETTERS && role != Role::Sink {
        let message = format!("`{name}` can't be the name of a {thing}: it is the sink that takes dead letters");
        cx.push(Problem::error(codes::BAD_NAME, span.clone(), message).help("choose another name"));
    } else if name == MAIN && role != Role::Source {
        let message = format!("`{name}` can't be the name of a {thing}: it is the region that has the sources");
        cx.push(Problem::error(codes::BAD_NAME, span.clone(), message).help("choose another name"));
    }
}

fn kind_of(
    cx: &Cx<'_>,
    role: Role,
    name: &str,
    span: &Span,
    table: &DeTable<'_>,
    kinds: &dyn Kinds,
) -> Option<&'static KindSpec> {
    let (thing, section) = common::role_names(role);
    let specs = kinds.specs(role);
    let names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
    let Some(value) = table.get("kind") else {
        let meant = entries(table).into_iter().map(|(key, _)| key);
        let problem = match { meant }.find(|key| suggest::nearest(key.get_ref(), &["kind"]).is_some()) {
            Some(key) => {
                let message = format!("unknown key `{}` in `[{section}.{name}]`", key.get_ref());
                Problem::error(codes::UNKNOWN_KEY, key.span(), message).help("did you mean `kind`?")
            }
            None => {
                let message = format!("`kind` is missing in `[{section}.{name}]`");
                let help = format!("add `kind = \"...\"`; the kinds of {section} there are: {}", suggest::list(&names));
                Problem::error(codes::MISSING_KEY, span.clone(), message).help(help)
            }
        };
        cx.push(problem);
        return None;
    };
    let wanted = convert(cx, "kind", &OptionType::Text, value)?;
    let wanted = wanted.as_str().unwrap_or_default();
    let found = specs.into_iter().find(|spec| spec.name == wanted);
    if found.is_none() {
        let elsewhere = [Role::Source, Role::Stage, Role::Sink]
            .into_iter()
            .find(|other| *other != role && kinds.specs(*other).iter().any(|spec| spec.name == wanted));
        let help = match elsewhere.map(common::role_names) {
            Some((other, others)) => {
                format!("it is a kind of {other}: write `[{others}.{name}]`, or one of {}", suggest::list(&names))
            }
            _ => suggest::help(wanted, &names, &format!("kinds of {section}")),
        };
        let message = format!("there is no kind of {thing} named `{wanted}`");
        cx.push(Problem::error(codes::UNKNOWN_KIND, value.span(), message).help(help));
    }
    found
}

/// The options of the kind alone; `None` when one of them is wrong.
fn options_of(kind: &KindSpec, checked: &Checked) -> Option<Options> {
    if kind.options.iter().any(|spec| checked.broken.contains(spec.name)) {
        return None;
    }
    let values = kind.options.iter().filter_map(|spec| Some((spec.name, checked.values.get(spec.name)?)));
    Some(Options(values.map(|(name, value)| (name.to_owned(), value.clone())).collect()))
}

/// The items of a list that was found right, each with its place.
fn spanned_texts(table: &DeTable<'_>, checked: &Checked, key: &str) -> Option<Vec<(String, Span)>> {
    let texts = checked.texts(key)?;
    let list = table.get(key)?.get_ref().as_array()?;
    Some(texts.into_iter().zip(list.iter().map(|item| item.span())).collect())
}

/// Says which names are there twice, whatever the role.
pub(super) fn check_duplicates(cx: &Cx<'_>, drafts: &[Draft<'_, '_>]) {
    let mut first: BTreeMap<&str, &Draft<'_, '_>> = BTreeMap::new();
    for draft in drafts {
        match first.get(draft.name.as_str()) {
            None => {
                first.insert(&draft.name, draft);
            }
            Some(other) => {
                let (thing, other_thing) = (common::role_names(draft.role).0, common::role_names(other.role).0);
                let message = format!("the {thing} `{}` has the name of a {other_thing}", draft.name);
                let problem = Problem::error(codes::DUPLICATE_NAME, draft.span.clone(), message);
                let help = "choose another name: `from` must be able to tell them apart";
                cx.push(problem.help(help).related(other.span.clone(), "the name is taken here"));
            }
        }
    }
}
