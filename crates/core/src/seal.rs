//! Seals: which hours close at a barrier, and where the sources were.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why hours were sealed. The order is part of the format of ponds: new ones come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SealReason {
    /// The watermark of every partition passed the end of the hour by the allowed lateness.
    Watermark,
    /// All sources were at their end and the run was asked to seal what is open (`--until-end`).
    EndOfInput,
    /// The clock passed the end of the hour (dead letters only).
    Clock,
    /// Every partition had been read to its end and was quiet, and the clock went on from the newest event.
    Quiet,
    /// Late events of an hour that was sealed before: a further revision.
    Late,
    /// Partitions that had given nothing for long were not waited for any more.
    Silent,
    /// They were sealed before the stage, or its pond, was there.
    Before,
    /// The hour was read once more (`tidemill reprocess`): a further revision, in place of those before it.
    Reprocessed,
}

/// All hours of a type that end at or before `sealed_before_ms` are sealed from a barrier on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon {
    /// The type.
    pub event_type: Arc<str>,
    /// Milliseconds since 1970; it never goes back.
    pub sealed_before_ms: i64,
    /// For a type that is made of others: rows of hours that end at or before it can't come any more, since those that
    /// it is made of take no events of them. `None` for a received type, whose [`Late`](crate::Late) decides.
    pub given_up_ms: Option<i64>,
    /// Why.
    pub reason: SealReason,
}

impl Horizon {
    /// Of a received type.
    #[must_use]
    pub fn new(event_type: Arc<str>, sealed_before_ms: i64, reason: SealReason) -> Self {
        Self { event_type, sealed_before_ms, given_up_ms: None, reason }
    }
}

/// Position of one partition: everything before it is in the cut, nothing from it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPosition {
    /// Position of the next record.
    pub next: u64,
    /// What else the source needs to go on from there (identity of a file, state of a generator); opaque to the runtime.
    #[serde(default)]
    pub resume: Arc<str>,
    /// The partition has been read to an end that stays (a finite source); it holds no hour open.
    #[serde(default)]
    pub ended: bool,
}

/// Positions of a source, by partition. Many hold the same: barriers, the cut, the source's reader.
pub type SourcePositions = Arc<BTreeMap<Arc<str>, PartitionPosition>>;

/// Positions of all sources.
pub type Positions = BTreeMap<Arc<str>, SourcePositions>;

/// Before the name of a type, what stands for a source in [`Partitions`] where producers of the type are named. No source has such a name.
pub const PRODUCERS_OF: &str = "@producers/";

/// What stands for a source in [`Partitions`] where ponds are named, because the region that fills them is parked.
pub const PONDS: &str = "@pond";

/// Names of partitions by source; of producers, by [`PRODUCERS_OF`] and the type; of ponds, by [`PONDS`].
pub type Partitions = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// What a barrier tells a stage before it snapshots.
#[derive(Clone, Debug)]
pub struct Seals {
    /// Cut that the barrier belongs to.
    pub cut: u64,
    /// Wall clock at which the barrier started, in milliseconds since 1970.
    pub at_ms: i64,
    /// Types whose horizon moves; most barriers have none.
    pub horizons: Vec<Horizon>,
    /// Types whose open revisions end: the late events that came before the barrier are published.
    pub revised: Vec<Arc<str>>,
    /// Partitions that were not waited for, by source: hours that are sealed for [`SealReason::Silent`] may lack events of theirs.
    pub without: Partitions,
    /// Positions of the sources at the barrier: an hour's revision 0 is its unique events below them. Behind a pond, those of the barrier
    /// that the pond was read up to; behind several ponds, the least of each partition.
    pub positions: Positions,
    /// Whether all that came before the barrier lies below the positions: behind a pond, not while it is read between
    /// two barriers of it.
    pub is_whole: bool,
    /// Behind several ponds: the positions of what came through each, with its types.
    pub positions_of: Vec<(Vec<Arc<str>>, Arc<Positions>)>,
    /// Offsets up to which what is in ponds was delivered, by the name of the pond; of the ponds that are filled.
    pub consumed: BTreeMap<Arc<str>, u64>,
    /// What somebody outside asks a stage for, if anybody does. It may be asked for once more after a crash, as the next request of that stage.
    pub request: Option<Arc<Request>>,
}

impl Seals {
    /// Positions of the sources for the hours of a type: its events below them have come, by whatever way.
    #[must_use]
    pub fn positions_for(&self, event_type: &str) -> Cow<'_, Positions> {
        let mut ways = self.positions_of.iter().filter(|(types, _)| types.iter().any(|name| **name == *event_type));
        let Some((_, first)) = ways.next() else { return Cow::Borrowed(&self.positions) };
        let mut least = Cow::Borrowed(&**first);
        for (_, other) in ways {
            keep_least(least.to_mut(), other);
        }
        least
    }

    /// Takes over the positions of another way by which the same barrier comes.
    pub fn merge_positions(&mut self, other: &Self) {
        keep_least(&mut self.positions, &other.positions);
        self.is_whole &= other.is_whole;
        // Branches that join again bring the same.
        for way in &other.positions_of {
            let is_same = |known: &(Vec<Arc<str>>, Arc<Positions>)| known.0 == way.0 && known.1 == way.1;
            if !self.positions_of.iter().any(is_same) {
                self.positions_of.push(way.clone());
            }
        }
    }
}

/// Over different ponds a source may be at different positions: what all of them have lies before the least.
fn keep_least(known: &mut Positions, other: &Positions) {
    for (source, positions) in other {
        let known = Arc::make_mut(known.entry(source.clone()).or_insert_with(|| positions.clone()));
        for (partition, position) in &**positions {
            let known = known.entry(partition.clone()).or_insert_with(|| position.clone());
            if position.next < known.next {
                known.clone_from(position);
            }
        }
    }
}

/// What somebody outside asks a stage for. Barriers carry it, so that what comes of it is part of a cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Tells it from all others.
    pub id: String,
    /// The stage.
    pub stage: Arc<str>,
    /// Paths below the output root that have to be free: when something is there, the request is refused.
    pub free: Vec<String>,
    /// Files that come with it, which the stage may publish ([`Home::Request`](crate::Home::Request)).
    pub files: Vec<String>,
    /// What is asked for, in a form of the stage's kind.
    pub body: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_the_positions_of_its_own_ways_and_the_least_of_these() {
        let at = |next: u64| -> Positions {
            let position = PartitionPosition { next, resume: Arc::default(), ended: false };
            [("s".into(), Arc::new([("p".into(), position)].into()))].into()
        };
        let way = |types: &[&str], next| {
            let types: Vec<Arc<str>> = types.iter().map(|name| Arc::from(*name)).collect();
            (types, Arc::new(at(next)))
        };
        let seals = |positions, positions_of| Seals {
            cut: 1,
            at_ms: 0,
            horizons: Vec::new(),
            revised: Vec::new(),
            without: Partitions::new(),
            positions,
            is_whole: true,
            positions_of,
            consumed: BTreeMap::new(),
            request: None,
        };
        let mut merged = seals(at(9), vec![way(&["a"], 9), way(&["b", "c"], 12)]);
        merged.merge_positions(&seals(at(7), vec![way(&["b"], 7)]));
        merged.merge_positions(&merged.clone());
        assert_eq!(merged.positions_of.len(), 3);
        for (name, next) in [("a", 9), ("b", 7), ("c", 12), ("d", 7)] {
            assert_eq!(*merged.positions_for(name), at(next), "{name}");
        }
    }
}
