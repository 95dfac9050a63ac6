//! What a source says of its partitions. It costs what has changed, however many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::seal::PartitionPosition;

/// What has moved since a source was asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Positions, behind what was polled, of partitions that are new or not where they were.
    pub positions: BTreeMap<Arc<str>, PartitionPosition>,
    /// Partitions that are forgotten: they hold nothing, and leave the cut.
    pub gone: BTreeSet<Arc<str>>,
}

impl Moved {
    /// Whether nothing has moved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.gone.is_empty()
    }

    /// From some positions to others.
    #[must_use]
    pub fn between(from: &BTreeMap<Arc<str>, PartitionPosition>, to: &BTreeMap<Arc<str>, PartitionPosition>) -> Self {
        let moved = to.iter().filter(|(name, position)| from.get(*name) != Some(position));
        let gone = from.keys().filter(|name| !to.contains_key(*name));
        Self { positions: moved.map(|(name, at)| (name.clone(), at.clone())).collect(), gone: gone.cloned().collect() }
    }
}

/// Partitions that hold no hour open, although they have not ended: read to their end and quiet for a grace time. Each
/// with an instant (milliseconds since 1970, wall clock) of which it is proven that all that had come to the partition
/// by then has been handed on. While all partitions of a type are idle, its hours close by that: `docs/topology.md`.
/// An instant too early closes hours later than need be, one too late makes events late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// Of all partitions that are not among the exceptions. `None`: none of these is idle.
    pub proven_ms: Option<i64>,
    /// `None` for one that is not idle.
    pub except: BTreeMap<Arc<str>, Option<i64>>,
}

impl Idle {
    /// Until when a partition is proven to have given all, if it is idle.
    #[must_use]
    pub fn of(&self, partition: &str) -> Option<i64> {
        self.except.get(partition).copied().unwrap_or(self.proven_ms)
    }
}

/// What a source with few partitions has said of them: it compares them all.
#[derive(Clone, Debug, Default)]
pub struct Reported(BTreeMap<Arc<str>, PartitionPosition>);

impl Reported {
    /// What has moved to these positions since the last call.
    pub fn moved_to(&mut self, positions: BTreeMap<Arc<str>, PartitionPosition>) -> Moved {
        let moved = Moved::between(&self.0, &positions);
        self.0 = positions;
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(positions: &[(&str, u64)]) -> BTreeMap<Arc<str>, PartitionPosition> {
        let position = |next| PartitionPosition { next, resume: Arc::default(), ended: false };
        positions.iter().map(|(name, next)| ((*name).into(), position(*next))).collect()
    }

    #[test]
    fn what_is_where_it_was_is_not_said_again() {
        let mut reported = Reported::default();
        let all = at(&[("a", 1), ("b", 2)]);
        assert_eq!(reported.moved_to(all.clone()), Moved { positions: all.clone(), gone: BTreeSet::new() });
        assert!(reported.moved_to(all).is_empty());
        let moved = Moved { positions: at(&[("b", 3), ("c", 0)]), gone: ["a".into()].into() };
        assert_eq!(reported.moved_to(at(&[("b", 3), ("c", 0)])), moved);
    }

    #[test]
    fn one_proof_holds_for_all_but_the_exceptions() {
        let idle = Idle { proven_ms: Some(7), except: [("a".into(), None), ("b".into(), Some(5))].into() };
        assert_eq!(["a", "b", "c"].map(|name| idle.of(name)), [None, Some(5), Some(7)]);
        assert_eq!(Idle::default().of("a"), None);
    }
}
