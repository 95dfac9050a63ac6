//! `filter`: lets events pass for which an expression over their fields is true.
//!
//! Text goes through `lexer` and `parser`, is bound to the fields of each type that arrives in `typed`, and is worked
//! out a column at a time in `eval`.

mod eval;
mod kind;
mod lexer;
mod literal;
pub(crate) mod nearest;
mod parser;
#[cfg(test)]
mod tests;
mod typed;

use std::sync::Arc;

use tidemill_core::StageKind;

/// The kind `filter`.
#[must_use]
pub fn kind() -> Arc<dyn StageKind> {
    Arc::new(kind::Filter)
}
