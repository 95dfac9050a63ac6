//! `dedup`: drops events that were taken before.
//!
//! An event is a **duplicate** when an event of the same type with an equal key was taken earlier and their event times are
//! close. Close is told by buckets of a quarter of `window` (rounded up to a millisecond): both lie in the same bucket or
//! at most four buckets apart. So two equal keys within `window` of each other are always recognised, and two that are
//! more than one and a quarter windows apart never are.
//!
//! Each row is judged in this order:
//!
//! 1. ids within its reach have been forgotten: dead letter `too_old_to_judge`;
//! 2. its id is known in a bucket within reach: duplicate;
//! 3. its hour is sealed for its type, and later than the type takes late events: dead letter `late`;
//! 4. else it is taken: its id is remembered and the row goes on.
//!
//! Buckets are forgotten whole, and at barriers only: those more than eight buckets (two windows) before the horizon of the
//! type that is least far. So events of hours that are open are always judged, in whatever order partitions are read, and
//! late ones are if they are late by up to a window. Ids are held for two windows before the horizon and for all that is
//! open behind it: a partition that holds the watermark back holds ids back too. Until every type that can arrive has a
//! horizon, nothing is forgotten.

mod ids;
mod kind;
mod runs;
mod stage;
mod state;
#[cfg(test)]
pub(crate) mod support;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidemill_core::StageKind;

pub(crate) use stage::{first_open_ms, late_message};
pub use table::IdSet;

/// The kind `dedup`.
#[must_use]
pub fn kind() -> Arc<dyn StageKind> {
    Arc::new(kind::Dedup)
}
