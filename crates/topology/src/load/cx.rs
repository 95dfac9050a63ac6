//! What is being loaded, and the diagnostics so far.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use tidemill_core::Severity;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Related};
use crate::text::Text;

pub(super) type Span = Range<usize>;
pub(super) type Key<'i> = Spanned<DeString<'i>>;
pub(super) type Val<'i> = Spanned<DeValue<'i>>;

/// A diagnostic in the making.
pub(super) struct Problem {
    severity: Severity,
    code: &'static str,
    span: Span,
    message: String,
    help: Option<String>,
    related: Vec<(Span, String)>,
}

impl Problem {
    pub(super) fn new(severity: Severity, code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity, code, span, message: message.into(), help: None, related: Vec::new() }
    }
    pub(super) fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, span, message)
    }
    pub(super) fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, span, message)
    }
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
    pub(super) fn related(mut self, span: Span, message: impl Into<String>) -> Self {
        self.related.push((span, message.into()));
        self
    }
}

pub(super) struct Cx<'a> {
    pub(super) text: Text<'a>,
    pub(super) file: &'a Path,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'a> Cx<'a> {
    pub(super) fn new(source: &'a str, file: &'a Path) -> Self {
        Self { text: Text::new(source), file, found: RefCell::default() }
    }

    pub(super) fn push(&self, problem: Problem) {
        let (start, end) = (self.text.position(problem.span.start), self.text.position(problem.span.end));
        let related = problem.related.into_iter().map(|(span, message)| {
            let at = self.text.position(span.start);
            Related { message, span, line: at.line, column: at.column }
        });
        let diagnostic = Diagnostic {
            severity: problem.severity,
            code: problem.code,
            message: problem.message,
            file: self.file.to_owned(),
            span: problem.span,
            line: start.line,
            column: start.column,
            end_line: end.line,
            end_column: end.column,
            help: problem.help,
            related: related.collect(),
        };
        let mut found = self.found.borrow_mut();
        if !found.contains(&diagnostic) {
            found.push(diagnostic);
        }
    }

    /// All diagnostics, in the order of the text.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.span.end));
        found
    }
}

/// The entries of a table in the order of the text.
pub(super) fn entries<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Key<'i>, &'t Val<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// What a TOML value is, with its article.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
