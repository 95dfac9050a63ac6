//! For how long partitions had been silent at the cut that a region goes on from: a region that restarts often gives
//! them up in time all the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{Idle, PartitionPosition};

use crate::region::SourceState;

/// Stands for a source that can't be opened, among the names of its partitions.
const WHOLE: &str = "";
/// Shorter silences are not worth a place in a cut.
const LEAST_MS: u64 = 1_000;

/// Milliseconds by partition, as a cut has them.
pub(crate) type Silences = BTreeMap<Arc<str>, u64>;

/// How long the partitions of a source are silent now.
pub(crate) fn of(state: &SourceState) -> Silences {
    let whole = (Arc::from(WHOLE), state.fails_for);
    let partitions = state.silent.iter().map(|(name, silence)| (name.clone(), *silence));
    let ms = |(name, silence): (Arc<str>, Duration)| (name, u64::try_from(silence.as_millis()).unwrap_or(u64::MAX));
    partitions.chain([whole]).map(ms).filter(|(_, ms)| *ms >= LEAST_MS).collect()
}

/// See the module.
#[derive(Default)]
pub(crate) struct Before {
    /// With the position at which each was silent, where it has one.
    partitions: BTreeMap<Arc<str>, (Option<u64>, Duration)>,
}

impl Before {
    pub(crate) fn of(silences: Option<&Silences>, positions: &BTreeMap<Arc<str>, PartitionPosition>) -> Self {
        let known = |(name, ms): (&Arc<str>, &u64)| {
            let next = positions.get(name).map(|position| position.next);
            (name.clone(), (next, Duration::from_millis(*ms)))
        };
        Self { partitions: silences.into_iter().flatten().map(known).collect() }
    }

    /// Adds what was before to what is silent since.
    pub(crate) fn add(&self, silent: &mut BTreeMap<Arc<str>, Duration>) {
        for (name, silence) in silent {
            *silence += self.partitions.get(name).map_or(Duration::ZERO, |(_, before)| *before);
        }
    }

    /// For how long the source could not be opened before.
    pub(crate) fn whole(&self) -> Duration {
        self.partitions.get(WHOLE).map_or(Duration::ZERO, |(_, before)| *before)
    }

    /// The source can be read; partitions that have given something, or are proven to have nothing, are not silent any
    /// more.
    pub(crate) fn end(
        &mut self,
        positions: &BTreeMap<Arc<str>, PartitionPosition>,
        idle: &Idle,
        silent: &BTreeMap<Arc<str>, Duration>,
        has_answered: bool,
    ) {
        self.partitions.retain(|name, (next, _)| {
            let is_well = match positions.get(name) {
                _ if **name == *WHOLE => has_answered,
                Some(position) => *next != Some(position.next) || position.ended || idle.of(name).is_some(),
                // What stands for files of a folder that was missing.
                None => has_answered && !silent.contains_key(name),
            };
            !is_well
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: u64) -> BTreeMap<Arc<str>, PartitionPosition> {
        [("a".into(), PartitionPosition { next, resume: Arc::default(), ended: false })].into()
    }

    fn none_at() -> BTreeMap<Arc<str>, PartitionPosition> {
        BTreeMap::new()
    }

    #[test]
    fn silence_goes_on_over_a_restart_until_something_comes() {
        let seconds = Duration::from_secs;
        let state = SourceState {
            silent: [("a".into(), seconds(5)), ("b".into(), Duration::from_millis(5))].into(),
            fails_for: seconds(3),
            ..SourceState::default()
        };
        let silences = of(&state);
        assert_eq!(silences.keys().map(|name| &**name).collect::<Vec<_>>(), ["", "a"]);
        let (none, silent) = (Idle::default(), BTreeMap::new());
        let mut before = Before::of(Some(&silences), &at(7));
        let silence = |before: &Before| {
            let mut silent: BTreeMap<Arc<str>, Duration> = [("a".into(), seconds(1))].into();
            before.add(&mut silent);
            (silent["a"], before.whole())
        };
        before.end(&at(7), &none, &silent, false);
        assert_eq!(silence(&before), (seconds(6), seconds(3)));
        before.end(&at(7), &none, &silent, true);
        assert_eq!(silence(&before), (seconds(6), seconds(0)));
        before.end(&at(8), &none, &silent, true);
        assert_eq!(silence(&before), (seconds(1), seconds(0)));
        let mut before = Before::of(Some(&silences), &at(7));
        before.end(&at(7), &Idle { proven_ms: Some(0), ..Idle::default() }, &silent, false);
        assert_eq!(silence(&before).0, seconds(1), "it is proven to have nothing");
        let mut before = Before::of(Some(&silences), &none_at());
        before.end(&none_at(), &none, &[("a".into(), seconds(1))].into(), true);
        assert_eq!(silence(&before).0, seconds(6), "a folder that is missing");
        before.end(&none_at(), &none, &silent, true);
        assert_eq!(silence(&before).0, seconds(1), "and is back");
    }
}
