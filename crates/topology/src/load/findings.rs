//! What kinds find, brought to the place in the text.

use std::ops::Range;

use tidemill_core::Finding;
use toml::de::DeValue;

use super::cx::{Cx, Problem, Span, Val};
use super::nodes::Draft;

/// Says what a kind has found.
pub(super) fn report(cx: &Cx<'_>, draft: &Draft<'_, '_>, finding: Finding) {
    let span = place(cx, draft, finding.option, finding.item.as_deref(), finding.range);
    let problem = Problem::new(finding.severity, finding.code, span, finding.message);
    cx.push(match finding.help {
        Some(help) => problem.help(help),
        None => problem,
    });
}

/// The place of an option, of one of its items, or of bytes inside its text; the table's name when it is not written.
pub(super) fn place(
    cx: &Cx<'_>,
    draft: &Draft<'_, '_>,
    option: Option<&str>,
    item: Option<&str>,
    range: Option<Range<usize>>,
) -> Span {
    let Some(value) = option.and_then(|option| draft.table?.get(option)) else { return draft.span.clone() };
    let inside = |value: &Val<'_>| match (value.get_ref(), range.clone()) {
        (DeValue::String(text), Some(range)) => Some(cx.text.inside(value.span(), text, range)),
        _ => None,
    };
    match (value.get_ref(), item) {
        (DeValue::Array(items), Some(item)) => {
            let found = item.parse().ok().and_then(|at: usize| items.get(at));
            let found = found.or_else(|| items.iter().find(|value| value.get_ref().as_str() == Some(item)));
            found.map_or_else(|| value.span(), |item| inside(item).unwrap_or_else(|| item.span()))
        }
        (DeValue::Table(table), Some(item)) => match table.get_key_value(item) {
            // The name itself is meant, unless bytes of the text behind it are.
            Some((key, value)) => inside(value).unwrap_or_else(|| key.span().start..value.span().end),
            None => value.span(),
        },
        _ => inside(value).unwrap_or_else(|| value.span()),
    }
}
