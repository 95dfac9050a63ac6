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

/// Says all of them. Returns the parts of the text that can't be trusted.
pub(super) fn report(cx: &Cx<'_>, document: &Spanned<DeTable<'_>>, errors: &[Error]) -> Vec<Span> {
    let text = cx.text.source;
    let mut found: Vec<(Span, &str)> =
        errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
    found.sort_by_key(|(span, _)| span.start);
    let mut keys = Vec::new();
    all_keys(document.get_ref(), &mut keys);
    let mut holes: Vec<Span> = Vec::new();
    let mut repeated: Vec<Span> = Vec::new();
    let open_list = found.iter().any(|(_, message)| message.starts_with("unclosed array,"));
    for (span, message) in found {
        if holes.iter().any(|hole| hole.contains(&span.start)) {
            continue;
        }
        if message == DUPLICATE {
            // The keys of a table that is there twice are told by its header.
            if !repeated.iter().any(|table| table.contains(&span.start)) {
                let table = is_header(line_of(cx, span.start)).then(|| section(text, span.start));
                duplicate(cx, &keys, span);
                repeated.extend(table);
            }
        } else if open_list && in_list(message) {
            // All that follows was taken for items.
            let open = list_start(text, span.start);
            holes.push(section(text, open).start..text.len() + 1);
            let problem = Problem::error(codes::TOML_SYNTAX, open..open + 1, "this list is never closed");
            cx.push(problem.help("write `]` behind its last item"));
        } else {
            holes.push(section(text, span.start));
            let message = message.replace('\n', "\\n");
            let problem = Problem::error(codes::TOML_SYNTAX, span, format!("this is not TOML: {message}"));
            cx.push(problem.help(advice(&message)));
        }
    }
    holes
}

fn in_list(message: &str) -> bool {
    ["missing comma between array", "unclosed array,", "unexpected `=` in array", "string values must be quoted"]
        .iter()
        .any(|start| message.starts_with(start))
}

/// The `[` before a place that does not begin a header.
fn list_start(text: &str, at: usize) -> usize {
    let opens = text[..at].rmatch_indices('[').map(|(open, _)| open);
    let is_list =
        |open: &usize| !text[..*open].rsplit('\n').next().unwrap_or_default().trim_matches(['[', ' ']).is_empty();
    { opens }.find(is_list).unwrap_or(at)
}

fn advice(message: &str) -> &'static str {
    let forms = [
        ("unclosed table", "write `]` behind the name of the table"),
        ("invalid basic string", "a text begins and ends with `\"`, on one line; write `\\\"` and `\\\\` inside"),
        ("string values must be quoted", "put the text in quotes"),
        ("invalid", "texts are in quotes, numbers and `true` and `false` are not"),
    ];
    let found = forms.iter().find(|(start, _)| message.starts_with(start));
    found.map_or("tables begin with `[stages.NAME]`, keys are written `key = value`", |(_, help)| help)
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

fn line_of<'a>(cx: &Cx<'a>, at: usize) -> &'a str {
    &cx.text.source[cx.text.line(cx.text.position(at).line)]
}

fn duplicate(cx: &Cx<'_>, keys: &[(String, Span)], span: Span) {
    let text = cx.text.source;
    let key = text.get(span.clone()).unwrap_or_default().trim_matches(['"', '\'']);
    let line = line_of(cx, span.start);
    let (message, first) = if is_header(line) {
        let line_start = span.start - text[..span.start].rsplit('\n').next().unwrap_or_default().len();
        // Another header of the same words, as the parser keeps only one of the two places.
        let earlier = text[..line_start].match_indices(line.trim_end()).map(|(at, _)| at);
        let first = { earlier }.next().map(|at| at + span.start - line_start);
        let message = format!("the table `{}` is there twice", line.trim().trim_matches(['[', ']']));
        (message, first.map(|at| at..at + span.len()))
    } else {
        // The last one before: between the two can only lie keys of the same table.
        let first = keys.iter().rfind(|(name, at)| name == key && at.start < span.start);
        (format!("the key `{key}` is there twice"), first.map(|(_, at)| at.clone()))
    };
    let problem = Problem::error(codes::DUPLICATE_KEY, span, message).help("remove or rename one of them");
    cx.push(match first {
        Some(at) => problem.related(at, "it is here already"),
        None => problem,
    });
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
pub(super) fn keep_certain(holes: &[Span], found: &mut Vec<Diagnostic>) {
    if holes.is_empty() {
        return;
    }
    found.retain(|diagnostic| {
        let inside = holes.iter().any(|hole| hole.contains(&diagnostic.span.start));
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
