//! What tables say of late events.

use tidemill_core::{Late, LatePolicy, RevisionMode};

use super::options::Checked;

/// What holds when nothing is said.
pub(super) const DEFAULT: Late =
    Late { policy: LatePolicy::DeadLetter, within_ms: 24 * 3_600_000, delay_ms: 600_000, mode: RevisionMode::Append };

/// What a table says; `otherwise` holds where it does not.
pub(super) fn said(checked: Option<&Checked>, otherwise: Late) -> Late {
    let duration = |key: &str| Some(i64::try_from(checked?.number(key)?).unwrap_or(i64::MAX));
    let policy = match checked.and_then(|checked| checked.text("late")) {
        Some("revise") => LatePolicy::Revise,
        Some("next_hour") => LatePolicy::NextHour,
        Some(_) => LatePolicy::DeadLetter,
        None => otherwise.policy,
    };
    Late {
        policy,
        within_ms: duration("late_within").unwrap_or(otherwise.within_ms),
        delay_ms: duration("late_delay").unwrap_or(otherwise.delay_ms),
        ..otherwise
    }
}
