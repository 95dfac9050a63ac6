//! `audit`: what the stages before it counted, as events.

mod kind;
mod stage;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidemill_core::StageKind;

/// The kind.
#[must_use]
pub(crate) fn kind() -> Arc<dyn StageKind> {
    Arc::new(kind::Audit)
}
