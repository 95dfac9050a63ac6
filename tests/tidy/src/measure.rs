//! How large the parts of one file are.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::known::{Excess, Rule};

/// A Rust file that can't be parsed.
#[derive(Debug)]
pub struct ParseError {
    /// Path of the file, from the root of the repository.
    pub path: String,
    /// What the parser reports.
    pub source: syn::Error,
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = self.source.span().start();
        write!(f, "{}:{}:{}: not Rust: {}", self.path, start.line, start.column + 1, self.source)
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Everything in a file that is larger than its rule allows. Files of other languages than those of the rules have
/// no limits.
///
/// # Errors
/// A Rust file that can't be parsed.
pub fn measure(path: &str, text: &str) -> Result<Vec<Excess>, ParseError> {
    let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending);
    let mut found = Vec::new();
    let mut add = |rule: Rule, place: String, size: usize| {
        if size > rule.limit() {
            found.push(Excess { rule, size, place });
        }
    };
    let is_code = matches!(ending, "rs" | "py" | "sh") || text.starts_with("#!");
    if is_code {
        add(Rule::File, path.to_owned(), text.lines().count());
        add(Rule::CodeLine, path.to_owned(), columns_over(text.lines(), Rule::CODE_COLUMNS_MAX));
    }
    if ending == "md" {
        let prose = text.lines().filter(|line| !line.trim_start().starts_with('|'));
        add(Rule::ProseLine, path.to_owned(), columns_over(prose, Rule::PROSE_COLUMNS_MAX));
    }
    if ending == "rs" {
        let file = syn::parse_file(text).map_err(|source| ParseError { path: path.to_owned(), source })?;
        let mut functions = Functions { names: Vec::new() };
        functions.visit_file(&file);
        for (name, lines) in functions.names {
            add(Rule::Function, format!("{path} {name}"), lines);
        }
    }
    Ok(found)
}

/// Whether a Rust file has `unsafe` anywhere outside of macros.
///
/// # Errors
/// The file can't be parsed.
pub fn has_unsafe(path: &str, text: &str) -> Result<bool, ParseError> {
    let file = syn::parse_file(text).map_err(|source| ParseError { path: path.to_owned(), source })?;
    let mut found = Unsafe(false);
    found.visit_file(&file);
    Ok(found.0)
}

struct Unsafe(bool);

impl<'a> Visit<'a> for Unsafe {
    fn visit_expr_unsafe(&mut self, _: &'a syn::ExprUnsafe) {
        self.0 = true;
    }

    fn visit_signature(&mut self, signature: &'a syn::Signature) {
        self.0 |= matches!(signature.safety, syn::Safety::Unsafe(_));
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        self.0 |= item.unsafety.is_some();
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        self.0 |= item.unsafety.is_some();
        visit::visit_item_trait(self, item);
    }

    fn visit_item_foreign_mod(&mut self, _: &'a syn::ItemForeignMod) {
        self.0 = true;
    }
}

/// How many lines are wider than so many columns.
fn columns_over<'a>(lines: impl Iterator<Item = &'a str>, columns_max: usize) -> usize {
    lines.filter(|line| line.chars().count() > columns_max).count()
}

/// Names of all functions, and how many lines each has.
struct Functions {
    names: Vec<(String, usize)>,
}

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        self.names.push((signature.ident.to_string(), lines(signature.span(), block.span())));
    }
}

/// From the first line of one part to the last of another.
fn lines(first: Span, last: Span) -> usize {
    last.end().line + 1 - first.start().line
}

impl<'a> Visit<'a> for Functions {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(path: &str, text: &str) -> Vec<(Rule, usize, String)> {
        let found = measure(path, text).expect("Rust");
        found.into_iter().map(|excess| (excess.rule, excess.size, excess.place)).collect()
    }

    fn function(lines: usize) -> String {
        format!("impl S {{\n    /// Doc.\n    fn long(&self) {{\n{}    }}\n}}\n", "        work();\n".repeat(lines - 2))
    }

    #[test]
    fn a_file_may_have_500_lines() {
        assert_eq!(sizes("a.py", &"x\n".repeat(500)), []);
        assert_eq!(sizes("a.py", &"x\n".repeat(501)), [(Rule::File, 501, "a.py".into())]);
    }

    #[test]
    fn a_function_may_have_70_lines_wherever_it_stands() {
        assert_eq!(sizes("a.rs", &function(70)), []);
        assert_eq!(sizes("a.rs", &function(71)), [(Rule::Function, 71, "a.rs long".into())]);
        let in_trait = function(71).replace("impl S", "trait T");
        assert_eq!(sizes("a.rs", &in_trait), [(Rule::Function, 71, "a.rs long".into())]);
        let nested = format!("mod m {{ fn outer() {{\n{}}} }}", function(71));
        assert_eq!(sizes("a.rs", &nested).len(), 2);
    }

    #[test]
    fn columns_are_characters_and_each_wide_line_counts() {
        let line = "é".repeat(120);
        assert_eq!(sizes("run.sh", &format!("#!/bin/sh\n{line}\n")), []);
        assert_eq!(sizes("run", &format!("#!/bin/sh\n{line}x\n{line}y\n")), [(Rule::CodeLine, 2, "run".into())]);
    }

    #[test]
    fn prose_may_have_160_columns_and_rows_of_tables_may_have_more() {
        assert_eq!(sizes("a.md", &format!("{}\n| {} |\n", "x".repeat(160), "y".repeat(200))), []);
        assert_eq!(sizes("a.md", &"x".repeat(161)), [(Rule::ProseLine, 1, "a.md".into())]);
    }

    #[test]
    fn unsafe_code_of_every_form_is_found_and_the_word_is_not() {
        let found = |text: &str| has_unsafe("a.rs", text).expect("Rust");
        for text in [
            "fn f() { unsafe { g() } }",
            "unsafe fn f() {}",
            "struct S; unsafe impl Send for S {}",
            "unsafe trait T {}",
            "mod m { fn f() { || unsafe { g() }; } }",
            "unsafe extern \"C\" { fn f(); }",
        ] {
            assert!(found(text), "{text}");
        }
        assert!(!found("#![deny(unsafe_code)]\n/// unsafe\nfn f() { let _ = \"unsafe\"; }"));
    }

    #[test]
    fn a_file_that_is_not_rust_is_named_with_its_place() {
        let error = measure("a.rs", "fn f() {\n    let = 1;\n}").unwrap_err();
        assert!(error.to_string().starts_with("a.rs:2:9: not Rust: "), "{error}");
    }
}
