//! Rules of this repository that neither the compiler nor clippy can check.
//!
//! | rule | limit | where |
//! | --- | --- | --- |
//! | `file` | 500 lines | Rust, Python and shell |
//! | `function` | 70 lines, from `fn` to the closing brace | Rust |
//! | `code-line` | 120 columns | Rust, Python and shell |
//! | `prose-line` | 160 columns, rows of tables aside | Markdown |
//!
//! `known.txt` lists the places that break a rule today. A place that is not listed, or is larger than its entry says,
//! fails.
//! An entry that is no longer true fails too, so the list follows the code. Git has the earlier lists: none may have
//! been shorter.
//!
//! `cargo test -p tidemill-tidy` checks the repository. With `UPDATE_TIDY=1` it also removes what is mended from the
//! list;
//! it never adds an entry.

mod known;
mod measure;
mod repository;

pub use known::{Excess, Fault, Known, Rule};
pub use measure::{ParseError, has_unsafe, measure};
pub use repository::{Repository, RepositoryError};
