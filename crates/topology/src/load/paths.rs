//! Sinks that write files: no two of them may give an hour the same directory.

use tidemill_core::OptionType;

use super::cx::{Cx, Problem};
use super::nodes::Draft;
use crate::codes;
use crate::plan::Node;

/// Finds pairs of sinks with one path template and a type in common, or a template that does not tell types apart.
///
/// Templates are compared as they are written: two that differ in text may still give one directory for odd values of
/// fields; then publishing refuses to replace what is there.
pub(super) fn check(cx: &Cx<'_>, drafts: &[Draft<'_, '_>], nodes: &[Node]) {
    let path_of = |node: &Node| {
        let option = node.kind.options.iter().find(|option| option.ty == OptionType::PathTemplate)?;
        let template = node.options.0.get(option.name).and_then(|value| value.as_str());
        Some((node.kind.name, template.map(str::to_owned)))
    };
    for (at, node) in nodes.iter().enumerate() {
        let Some(path) = path_of(node) else { continue };
        for other in nodes[..at].iter().filter(|other| path_of(other).as_ref() == Some(&path)) {
            let shared = node.accepts.iter().find(|ty| other.accepts.iter().any(|also| also.name == ty.name));
            let tells_types = path.1.as_ref().is_none_or(|template| template.contains("{event_type}"));
            if shared.is_none() && tells_types {
                continue;
            }
            let span_of =
                |node: &Node| drafts.iter().find(|draft| draft.name == *node.name).map(|draft| draft.span.clone());
            let (Some(span), Some(first)) = (span_of(node), span_of(other)) else { continue };
            let what = shared.map_or_else(String::new, |ty| format!(" of type `{}`", ty.name));
            let message =
                format!("sinks `{}` and `{}` would write hours{what} to the same directories", other.name, node.name);
            let problem = Problem::error(codes::SAME_PATH, span, message);
            cx.push(problem.related(first, "the other sink").help("give one of them a `path` of its own"));
        }
    }
}
