//! How sources, stages and sinks are connected.

use std::collections::BTreeSet;

use tidemill_core::{Role, Shape};

use super::cx::{Cx, Problem};
use super::nodes::{Draft, Input};
use super::types::Types;
use crate::plan::{Kinds, Plan, Port};
use crate::{codes, common, suggest};

/// Finds what each `from` names. With `holes`, a name that is not there may be one that could not be made out.
pub(super) fn resolve(cx: &Cx<'_>, drafts: &mut [Draft<'_, '_>], holes: bool) {
    let known: Vec<(String, Role, Option<Shape>)> =
        drafts.iter().map(|draft| (draft.name.clone(), draft.role, draft.kind.map(|kind| kind.output))).collect();
    for draft in drafts.iter_mut() {
        for (item, span) in std::mem::take(&mut draft.from) {
            let named = if known.iter().any(|node| node.0 == item) {
                &item
            } else {
                item.split('.').next().unwrap_or_default()
            };
            let nodes = known.iter().filter(|node| node.0 == named).count();
            if nodes > 1 || nodes == 0 && holes {
                draft.input_missing = true;
                continue;
            }
            match find(&known, &draft.name, &item) {
                Ok((from, port)) => {
                    if let Some(first) = draft.inputs.iter().find(|input| input.from == from && input.port == port) {
                        let message = format!("`{}` takes from `{item}` twice", draft.name);
                        let problem = Problem::error(codes::DUPLICATE_INPUT, span, message).help("name it once");
                        cx.push(problem.related(first.span.clone(), "it is here already"));
                        continue;
                    }
                    draft.inputs.push(Input { from, port, span });
                }
                Err((code, message, help)) => {
                    draft.input_missing = true;
                    cx.push(Problem::error(code, span, message).help(help));
                }
            }
        }
    }
}

/// Whether the sources are there that types say they come from, and lead to where the types are.
pub(super) fn check_origins(cx: &Cx<'_>, drafts: &[Draft<'_, '_>], types: &Types, plan: Option<&Plan>) {
    let sources = drafts.iter().filter(|draft| draft.role == Role::Source);
    let sources: Vec<&str> = sources.map(|draft| draft.name.as_str()).collect();
    for (said, span) in types.values().flat_map(|declared| &declared.comes_from) {
        if !sources.contains(&&*said.source) {
            let message = format!("there is no source named `{}`", said.source);
            let help = suggest::help(&said.source, &sources, "sources");
            cx.push(Problem::error(codes::UNKNOWN_INPUT, span.clone(), message).help(help));
        }
    }
    let Some(plan) = plan else { return };
    let of_plan = plan.source_names();
    for (name, origins) in plan.lineage().types {
        let possible: Vec<&str> = origins.iter().map(|origin| of_plan[origin.source]).collect();
        for (said, span) in types.get(&*name).into_iter().flat_map(|declared| &declared.comes_from) {
            if sources.contains(&&*said.source) && !possible.contains(&&*said.source) {
                let message = format!("events of type `{name}` can't come from source `{}`", said.source);
                let help =
                    format!("no stage that makes `{name}` takes from it; they come from {}", suggest::list(&possible));
                cx.push(Problem::error(codes::UNKNOWN_INPUT, span.clone(), message).help(help));
            }
        }
    }
}

/// Whether types wait for sources that only may bring them: each of two parsers reads the type of a record from it,
/// and takes any type.
pub(super) fn check_shared(cx: &Cx<'_>, drafts: &[Draft<'_, '_>], types: &Types) {
    let silent = types.iter().filter(|(_, declared)| declared.comes_from.is_empty());
    let silent: Vec<&str> = silent.map(|(name, _)| name.as_str()).collect();
    if types.len() < 2 || silent.is_empty() {
        return;
    }
    let takes_any = |draft: &&Draft<'_, '_>| {
        let is_parser = draft.role == Role::Stage && draft.kind.is_some_and(|kind| kind.input != Shape::Rows);
        let type_from = draft.options.as_ref().and_then(|options| options.0.get("type_from"));
        is_parser && draft.types.is_none() && type_from.is_some_and(|from| from.get("const").is_none())
    };
    let sources = |draft: &Draft<'_, '_>| -> BTreeSet<usize> { draft.inputs.iter().map(|input| input.from).collect() };
    let mut parsers = drafts.iter().filter(takes_any);
    let Some(first) = parsers.next() else { return };
    for other in parsers.filter(|other| sources(other) != sources(first)) {
        let message = format!(
            "`{}` may bring events of any type, and so may `{}`: hours of {} wait for the sources of both",
            first.name,
            other.name,
            suggest::list(&silent)
        );
        let help = "say `types` of parsers that bring some of them only, or `comes_from` of the types";
        let problem = Problem::warning(codes::SHARED_TYPES, other.span.clone(), message).help(help);
        cx.push(problem.related(first.span.clone(), "the other one is here"));
    }
}

type Wrong = (&'static str, String, String);

fn find(known: &[(String, Role, Option<Shape>)], taker: &str, item: &str) -> Result<(usize, Port), Wrong> {
    let exact = known.iter().any(|node| node.0 == item);
    let (name, port) = item.split_once('.').filter(|_| !exact).map_or((item, None), |(name, port)| (name, Some(port)));
    let Some(at) = known.iter().position(|node| node.0 == name) else {
        let from =
            |role| known.iter().filter(move |node| node.1 == role && node.0 != taker).map(|node| node.0.as_str());
        let names: Vec<&str> = from(Role::Source).chain(from(Role::Stage)).collect();
        let help = suggest::help(name, &names, "sources and stages");
        return Err((codes::UNKNOWN_INPUT, format!("there is no source or stage named `{name}`"), help));
    };
    let (_, role, output) = &known[at];
    match (port, role) {
        (Some("dead_letters"), Role::Source) => {
            let message = format!("`{name}` is a source: it has no dead letters");
            Err((
                codes::NO_OUTPUT,
                message,
                "records that can't be parsed are dead letters of the stage that parses".into(),
            ))
        }
        (Some("dead_letters"), _) => Ok((at, Port::DeadLetters)),
        (Some(port), Role::Source) => {
            let message = format!("`{name}` has no port `{port}`");
            Err((codes::UNKNOWN_INPUT, message, format!("write `{name}`")))
        }
        (Some(port), _) => {
            let message = format!("`{name}` has no port `{port}`");
            Err((codes::UNKNOWN_INPUT, message, format!("write `{name}` or `{name}.dead_letters`")))
        }
        (None, Role::Sink) => {
            let message = format!("`{name}` is a sink: it sends nothing on");
            let help = format!("take from what it takes from, or write `{name}.dead_letters` for what it refused");
            Err((codes::NO_OUTPUT, message, help))
        }
        (None, _) if *output == Some(Shape::Nothing) => {
            let message = format!("`{name}` sends nothing on");
            Err((codes::NO_OUTPUT, message, format!("write `{name}.dead_letters` for what it refused")))
        }
        (None, _) => Ok((at, Port::Data)),
    }
}

/// What is sent against what is taken.
pub(super) fn check_shapes(cx: &Cx<'_>, drafts: &mut [Draft<'_, '_>], kinds: &dyn Kinds) {
    for at in 0..drafts.len() {
        let Some(takes) = drafts[at].takes() else { continue };
        for input in drafts[at].inputs.clone() {
            let from = &drafts[input.from];
            let sends = match input.port {
                Port::DeadLetters => Some(Shape::Rows),
                Port::Data => from.sends(),
            };
            let Some(sends) = sends.filter(|sends| !fits(*sends, takes)) else { continue };
            let sender = match input.port {
                Port::Data => format!("`{}`", from.name),
                Port::DeadLetters => format!("`{}.dead_letters`", from.name),
            };
            let message = format!("`{}` takes {}, but {sender} sends {}", drafts[at].name, words(takes), words(sends));
            let problem = Problem::error(codes::SHAPE_MISMATCH, input.span.clone(), message);
            cx.push(problem.help(shape_help(drafts, from, takes, sends, kinds)));
            drafts[at].misfit = true;
        }
    }
}

fn fits(sends: Shape, takes: Shape) -> bool {
    let raw = |shape| matches!(shape, Shape::Lines | Shape::AvroBlocks | Shape::Framed);
    sends == takes || takes == Shape::Framed && raw(sends) || sends == Shape::Framed && raw(takes)
}

fn words(shape: Shape) -> &'static str {
    match shape {
        Shape::Nothing => "nothing",
        Shape::Lines => "lines that are yet to be parsed",
        Shape::AvroBlocks => "blocks of Avro files that are yet to be parsed",
        Shape::Framed => "records that are yet to be parsed",
        Shape::Rows => "parsed events",
    }
}

fn shape_help(drafts: &[Draft<'_, '_>], from: &Draft<'_, '_>, takes: Shape, sends: Shape, kinds: &dyn Kinds) -> String {
    let framed = from.kind.is_some_and(|kind| kind.output == Shape::Framed);
    match (sends, takes) {
        (_, Shape::Rows) => {
            let parsers = kinds.specs(Role::Stage);
            let parsers = parsers.iter().filter(|kind| kind.output == Shape::Rows && fits(sends, kind.input));
            let parsers: Vec<&str> = parsers.map(|kind| kind.name).collect();
            format!("put a stage between them that parses, of one of the kinds {}", suggest::list(&parsers))
        }
        (Shape::Rows, _) => {
            let sources = drafts.iter().filter(|draft| draft.role == Role::Source);
            let sources: Vec<&str> = sources.map(|draft| draft.name.as_str()).collect();
            format!("events are parsed once: take from a source ({})", suggest::list(&sources))
        }
        (Shape::AvroBlocks, Shape::Lines) if framed => {
            format!("set `framing = \"lines\"` in `[sources.{}]`, or parse with kind `avro`", from.name)
        }
        (Shape::Lines, Shape::AvroBlocks) if framed => {
            format!("set `framing = \"avro\"` in `[sources.{}]`, or parse lines with kind `tsv` or `json`", from.name)
        }
        _ => "take from a stage or source that sends it".to_owned(),
    }
}

/// Whether there is anything to read, anything to write, and what nobody takes from.
pub(super) fn check_ends(cx: &Cx<'_>, drafts: &[Draft<'_, '_>], header: &super::cx::Span) {
    let missing = |role: Role| !drafts.iter().any(|draft| draft.role == role);
    if missing(Role::Source) {
        let problem = Problem::error(codes::NO_SOURCE, header.clone(), "the topology has no source");
        cx.push(problem.help("add one: `[sources.NAME]` with a `kind`; `tidemill kinds` lists them"));
    }
    if missing(Role::Sink) {
        let problem = Problem::error(codes::NO_SINK, header.clone(), "the topology has no sink");
        cx.push(problem.help("add one: `[sinks.NAME]` with a `kind` and `from`; `tidemill kinds` lists them"));
    }
    // A name that was not found may have meant any of them.
    if drafts.iter().any(|draft| draft.input_missing) {
        return;
    }
    let taken = drafts.iter().flat_map(|draft| &draft.inputs).filter(|input| input.port == Port::Data);
    let taken: BTreeSet<usize> = taken.map(|input| input.from).collect();
    for (at, draft) in drafts.iter().enumerate() {
        if draft.role != Role::Sink && !taken.contains(&at) && !missing(Role::Sink) {
            let (thing, _) = common::role_names(draft.role);
            let message = format!("nothing takes from the {thing} `{}`", draft.name);
            let help = format!("add it to the `from` of a stage or sink, or remove the {thing}");
            cx.push(Problem::warning(codes::UNUSED_OUTPUT, draft.span.clone(), message).help(help));
        }
    }
}
