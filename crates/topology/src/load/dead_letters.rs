//! Where dead letters go that no sink takes.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tidemill_core::{DEAD_LETTER_TYPE, DefaultValue, KindSpec, Limits, Options, Role, Shape};

use super::cx::{Cx, Span};
use super::nodes::{DEAD_LETTERS, Draft, Input};
use super::options::{Owner, default_value};
use crate::plan::{Kinds, Port};
use crate::pond::PondOptions;

const KIND: &str = "avro_files";

/// Gives every dead-letter port that nobody takes from to the sink `dead_letters`, which is added when it is not there.
/// A sink that takes nothing but dead letters keeps its own: there must be an end somewhere.
pub(super) fn connect<'t, 'i>(
    cx: &Cx<'_>,
    drafts: &mut Vec<Draft<'t, 'i>>,
    header: &Span,
    kinds: &dyn Kinds,
    limits: &Limits,
) {
    let taken: BTreeSet<usize> = drafts
        .iter()
        .flat_map(|draft| &draft.inputs)
        .filter(|input| input.port == Port::DeadLetters)
        .map(|input| input.from)
        .collect();
    let only_letters = |draft: &Draft<'_, '_>| {
        draft.role == Role::Sink
            && !draft.inputs.is_empty()
            && draft.inputs.iter().all(|input| input.port == Port::DeadLetters)
    };
    let mut free: Vec<usize> = (0..drafts.len())
        .filter(|at| drafts[*at].role != Role::Source && !taken.contains(at) && !only_letters(&drafts[*at]))
        .collect();
    let taker = match drafts.iter().position(|draft| draft.name == DEAD_LETTERS) {
        Some(at) => {
            let draft = &drafts[at];
            let refuses =
                draft.types.as_ref().is_some_and(|types| types.iter().all(|(name, _)| name != DEAD_LETTER_TYPE));
            if draft.role != Role::Sink || draft.takes() != Some(Shape::Rows) || refuses {
                return;
            }
            let behind = behind(drafts, at);
            free.retain(|free| *free != at && !behind.contains(free));
            at
        }
        None if free.is_empty() => return,
        None => {
            let specs = kinds.specs(Role::Sink);
            let Some(kind) = specs.into_iter().find(|kind| kind.name == KIND) else { return };
            drafts.push(implicit(cx, kind, header, limits));
            drafts.len() - 1
        }
    };
    let span = drafts[taker].span.clone();
    drafts[taker].inputs.extend(free.into_iter().map(|from| Input {
        from,
        port: Port::DeadLetters,
        span: span.clone(),
    }));
}

/// All that takes from `start`, by whatever way.
fn behind(drafts: &[Draft<'_, '_>], start: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::from([start]);
    loop {
        let before = found.len();
        for (at, draft) in drafts.iter().enumerate() {
            if draft.inputs.iter().any(|input| found.contains(&input.from)) {
                found.insert(at);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

fn implicit<'t, 'i>(cx: &Cx<'_>, kind: &'static KindSpec, header: &Span, limits: &Limits) -> Draft<'t, 'i> {
    let owner = Owner { name: format!("`[sinks.{DEAD_LETTERS}]`"), span: header.clone(), kind: Some(kind.name) };
    let mut options = Map::new();
    for spec in kind.options {
        let value = match (spec.name, spec.default) {
            ("path", _) => Some(Value::from(format!("_dead_letters/{}", limits.hour_path()))),
            (_, DefaultValue::Toml(default)) => default_value(cx, &owner, spec, default),
            (_, DefaultValue::Required | DefaultValue::Absent) => None,
        };
        options.extend(value.map(|value| (spec.name.to_owned(), value)));
    }
    Draft {
        name: DEAD_LETTERS.to_owned(),
        span: header.clone(),
        role: Role::Sink,
        table: None,
        kind: Some(kind),
        options: Some(Options(options)),
        workers: 1,
        pond: Some(PondOptions::default()),
        from: Vec::new(),
        inputs: Vec::new(),
        input_missing: false,
        misfit: false,
        types: None,
        by_tier: Vec::new(),
        types_broken: false,
    }
}
