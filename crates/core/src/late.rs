//! Late events: those that come when their hour is sealed.

use crate::seal::{Horizon, SealReason};

/// What becomes of late events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatePolicy {
    /// They become dead letters.
    DeadLetter,
    /// They are published as a further revision of their hour.
    Revise,
    /// They are put into the first hour that is not sealed.
    NextHour,
}

/// What a further revision of an hour holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevisionMode {
    /// Events beside those of the earlier revisions.
    Append,
    /// Rows to be added to those of the same group in the earlier revisions.
    Delta,
    /// The whole hour anew: it is read in place of the earlier ones.
    Replace,
}

/// How late events of a type are dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// What becomes of them.
    pub policy: LatePolicy,
    /// How long before the horizon of the type an hour may have ended for its events to be taken, in milliseconds of event time. Those that are later
    /// become dead letters under any policy.
    pub within_ms: i64,
    /// How long a revision is left open for more late events behind the first one, in milliseconds (wall clock).
    pub delay_ms: i64,
    /// What a revision holds.
    pub mode: RevisionMode,
}

impl Late {
    /// Late events become dead letters.
    pub const DEAD_LETTER: Self =
        Self { policy: LatePolicy::DeadLetter, within_ms: 0, delay_ms: 0, mode: RevisionMode::Append };

    /// The same behind a horizon that a barrier brings. Of hours that were sealed before a stage was there, it takes no late events.
    #[must_use]
    pub fn given_up_by_ms(&self, horizon: &Horizon) -> i64 {
        match horizon.reason {
            SealReason::Before => horizon.sealed_before_ms,
            _ => horizon.given_up_ms.unwrap_or_else(|| self.given_up_before_ms(horizon.sealed_before_ms)),
        }
    }

    /// Events of hours that end at or before this become dead letters, when hours that end at or before `sealed_before_ms` are sealed.
    #[must_use]
    pub fn given_up_before_ms(&self, sealed_before_ms: i64) -> i64 {
        match self.policy {
            LatePolicy::DeadLetter => sealed_before_ms,
            LatePolicy::Revise | LatePolicy::NextHour => sealed_before_ms.saturating_sub(self.within_ms),
        }
    }
}
