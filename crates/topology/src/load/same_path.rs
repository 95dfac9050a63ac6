//! Sinks that would write to the same directories.

use std::collections::BTreeMap;

use tidemill_core::{Limits, Role};

use super::cx::{Cx, Problem, Span};
use super::findings;
use super::flow::Flow;
use super::nodes::Draft;
use crate::codes;
use crate::paths::path_options;

/// A path of a sink, and the directories it gives.
struct Target<'d> {
    sink: &'d str,
    span: Span,
    /// Nobody wrote the sink.
    implicit: bool,
    /// The template, unless it is written at `span`.
    unwritten: Option<String>,
    /// The type by the form of its directories.
    forms: BTreeMap<String, &'d str>,
}

/// Says which sinks write to the same directories. Files of one would stand in the way of the other's, and that would be
/// found only when the first hour is sealed.
pub(super) fn check(cx: &Cx<'_>, drafts: &[Draft<'_, '_>], flows: &[Flow], limits: &Limits) {
    let mut targets: Vec<Target<'_>> = Vec::new();
    for (draft, flow) in drafts.iter().zip(flows).filter(|(draft, _)| draft.role == Role::Sink) {
        let (Some(kind), Some(options)) = (draft.kind, &draft.options) else { continue };
        for path in path_options(kind, options, limits) {
            let types = flow.accepts.iter().map(|accepted| &*accepted.name);
            let written = draft.table.is_some_and(|table| table.contains_key(path.name));
            targets.push(Target {
                sink: &draft.name,
                implicit: draft.table.is_none(),
                span: findings::place(cx, draft, Some(path.name), None, None),
                forms: types.filter_map(|name| Some((form(&path.template, name)?, name))).collect(),
                unwritten: (!written).then_some(path.template),
            });
        }
    }
    for (at, one) in targets.iter().enumerate() {
        for other in &targets[..at] {
            let shared = one.forms.iter().find_map(|(form, name)| Some((*name, *other.forms.get(form)?)));
            if let Some(types) = shared.filter(|_| one.sink != other.sink) {
                report(cx, one, other, types);
            }
        }
    }
}

fn report(cx: &Cx<'_>, one: &Target<'_>, other: &Target<'_>, types: (&str, &str)) {
    // The implicit sink has no place in the text where anything could be changed.
    let (at, other) = if one.implicit { (other, one) } else { (one, other) };
    let what = match types {
        (one, other) if one == other => format!("events of type `{one}`"),
        (one, other) => format!("events of the types `{one}` and `{other}`"),
    };
    let path = |target: &Target<'_>| match &target.unwritten {
        Some(template) => format!("`{}`, whose path is `{template}` by default, writes there too", target.sink),
        None => format!("`{}` writes there too", target.sink),
    };
    let message = format!("the sinks `{}` and `{}` write {what} to the same directories", other.sink, at.sink);
    let problem = Problem::error(codes::SAME_PATH, at.span.clone(), message);
    cx.push(problem.help("give one of them a path of its own").related(other.span.clone(), path(other)));
}

/// The directories of a type as a pattern: equal for templates that differ only in which fields and parts of the time are in
/// them. `None` when the template is broken.
fn form(template: &str, event_type: &str) -> Option<String> {
    let mut form = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let close = open + rest[open..].find('}')?;
        form.push_str(&rest[..open]);
        form.push_str(match &rest[open + 1..close] {
            "event_type" => event_type,
            "year" => "####",
            "month" | "day" | "hour" | "minute" => "##",
            _ => "*",
        });
        rest = &rest[close + 1..];
    }
    form.push_str(rest);
    Some(form)
}

#[cfg(test)]
mod tests {
    use super::form;

    #[test]
    fn the_form_does_not_depend_on_how_the_same_directory_is_written() {
        let equal = |one, other| form(one, "play") == form(other, "play");
        assert!(equal("{event_type}/{year}-{month}", "play/{year}-{month}"));
        assert!(equal("{year}/{country}", "{year}/{city}"));
        assert!(equal("{year}/{hour}/{minute}", "{year}/{minute}/{hour}"));
        assert!(!equal("{event_type}/{year}", "plays/{year}"));
        assert!(!equal("{year}/{month}", "{year}{month}"));
        assert_eq!(form("{year}/{mon", "play"), None);
    }
}
