//! `hourly`: one row for each group of events of an hour.
//!
//! | concept | module |
//! | --- | --- |
//! | what the options ask for, and what is wrong with them | `plan`, `kind` |
//! | the type of the rows | `output` |
//! | values of a column as small numbers | `interner` |
//! | groups of one hour | `groups` |
//! | what is counted for each group | `measure`, `exact` |
//! | rows of a sealed hour | `emit` |
//! | when rows leave, and late events | `revise` |
//! | groups that have left memory | `layers` |
//! | the worker's value, and its state | `stage`, `state`, `snapshot` |

mod emit;
mod exact;
mod groups;
mod interner;
mod kind;
mod layers;
mod measure;
mod output;
mod plan;
mod revise;
mod snapshot;
mod stage;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidemill_core::StageKind;

/// The kind `hourly`.
#[must_use]
pub fn kind() -> Arc<dyn StageKind> {
    Arc::new(kind::Hourly)
}
