//! Errors of the TOML parser.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::cx::{Cx, Problem, Span, entries};
use crate::codes;
use crate::diagnostic::Diagnostic;

/// Codes that one table can be told without the others.
const LOCAL: &[&str] = &[
    codes::UNKNOWN_KEY,
    codes::WRONG_TYPE,
    codes::BAD_VALUE,
    codes::OUT_OF_RANGE,
    codes::UNKNOWN_CHOICE,
    codes::UNKNOWN_KIND,
    codes::BAD_BUCKET,
    codes::TOML_SYNTAX,
    codes::DUPLICATE_KEY,
];

const DUPLICATE: &str = "duplicate key";

/// Says all of them. Returns the places of those that leave holes in the tables.
pub(super) fn report(cx: &Cx<'_>, document: &Spanned<DeTable<'_>>, errors: &[Error]) -> Vec<Span> {
    let mut keys = Vec::new();
    all_keys(document.get_ref(), &mut keys);
    let mut holes = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        if error.message() != DUPLICATE {
            holes.push(span.clone());
            let message = format!("this is not TOML: {}", error.message().replace('\n', "\\n"));
            let help = "strings are in quotes, tables begin with `[stages.NAME]`, keys are written `key = value`";
            cx.push(Problem::error(codes::TOML_SYNTAX, span, message).help(help));
            continue;
        }
        let key = cx.text.source.get(span.clone()).unwrap_or_default().trim_matches(['"', '\'']);
        let line = &cx.text.source[cx.text.line(cx.text.position(span.start).line)];
        let message = if line.trim_start().starts_with('[') {
            format!("the table `{}` is there twice", line.trim().trim_matches(['[', ']']))
        } else {
            format!("the key `{key}` is there twice")
        };
        let problem = Problem::error(codes::DUPLICATE_KEY, span.clone(), message).help("remove or rename one of them");
        // The first of the two is the last one before: nothing of the same name can lie between them, but other tables' keys.
        let same_line_kind = |at: &Span| {
            let other = &cx.text.source[cx.text.line(cx.text.position(at.start).line)];
            if line.trim_start().starts_with('[') { other.trim() == line.trim() } else { true }
        };
        let first = keys.iter().rfind(|(name, at)| name == key && at.start < span.start && same_line_kind(at));
        cx.push(match first {
            Some((_, at)) => problem.related(at.clone(), "it is here already"),
            None => problem,
        });
    }
    holes
}

fn all_keys(table: &DeTable<'_>, keys: &mut Vec<(String, Span)>) {
    for (key, value) in entries(table) {
        keys.push((key.get_ref().to_string(), key.span()));
        if let DeValue::Table(table) = value.get_ref() {
            all_keys(table, keys);
        }
    }
    keys.sort_by_key(|(_, span)| span.start);
}

/// Leaves only what is certain although the text has holes: what one table says by itself, outside the tables with holes.
pub(super) fn keep_certain(text: &str, holes: &[Span], found: &mut Vec<Diagnostic>) {
    if holes.is_empty() {
        return;
    }
    let damaged: Vec<Range<usize>> = holes.iter().map(|hole| section(text, hole.start)).collect();
    found.retain(|diagnostic| {
        let inside = damaged.iter().any(|section| section.contains(&diagnostic.span.start));
        diagnostic.code == codes::TOML_SYNTAX || LOCAL.contains(&diagnostic.code) && !inside
    });
}

/// From the header before a place to the next header.
fn section(text: &str, at: usize) -> Range<usize> {
    let headers = text.match_indices('[').map(|(at, _)| at);
    let headers: Vec<usize> = headers.filter(|at| *at == 0 || text.as_bytes()[at - 1] == b'\n').collect();
    let next = headers.partition_point(|header| *header <= at);
    let start = next.checked_sub(1).map_or(0, |before| headers[before]);
    start..headers.get(next).copied().unwrap_or(text.len() + 1)
}
