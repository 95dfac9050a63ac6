//! `accounts`: which of the events that producers have numbered have come.
//!
//! A producer numbers the events of a type, each one more than the one before. Numbers that were seen are kept as ranges; what lies between two ranges is
//! missing. A gap belongs to the hour of the event behind it, the first that came after it was left; it is told when that hour is sealed, in the
//! manifests of the sinks behind. What comes later all the same is told as found, with the next revision of the hour that it is of.

mod account;
mod kind;
mod stage;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidemill_core::StageKind;

/// The kind.
#[must_use]
pub(crate) fn kind() -> Arc<dyn StageKind> {
    Arc::new(kind::Accounts)
}
