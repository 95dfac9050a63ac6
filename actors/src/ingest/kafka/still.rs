//! What the source says of its partitions: which have moved, which are idle, and which are silent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{Idle, Moved, PartitionPosition};

use super::control::EVERY;
use super::source::KafkaSource;

/// A partition that gave something so short a time ago is not told to be silent.
const SILENCE_MIN: Duration = Duration::from_millis(500);

impl KafkaSource {
    pub(super) fn what_moved(&mut self) -> Moved {
        let moved = self.partitions.iter_mut();
        let moved = moved.filter_map(|partition| Some((partition.name.clone(), partition.moved()?)));
        let mut positions: BTreeMap<_, _> = moved.collect();
        if !std::mem::replace(&mut self.has_said_saved, true) {
            // Those of a topic that is not read any more hold nothing, but are kept.
            let is_of = |name: &str, topic: &str| name.strip_prefix(topic).is_some_and(|rest| rest.starts_with('/'));
            let is_read = |name: &str| self.config.topics.iter().any(|topic| is_of(name, topic));
            let saved = self.saved.iter().map(|(name, position)| {
                (name.clone(), PartitionPosition { ended: !is_read(name), ..position.clone() })
            });
            positions.extend(saved);
        }
        Moved { positions, gone: BTreeSet::new() }
    }

    pub(super) fn what_is_idle(&self) -> Idle {
        // A partition of which nothing is known yet may hold anything, for a while.
        if self.blind_since.is_some_and(|since| since.elapsed() <= self.hold_at_most) {
            return Idle::default();
        }
        let timeout = self.config.idle_timeout();
        let mut idle = Idle::default();
        for partition in &self.partitions {
            match partition.idle_ms(timeout, 4 * EVERY) {
                // The least proof is one for all: they are asked about together.
                Some(at_ms) => idle.proven_ms = Some(idle.proven_ms.map_or(at_ms, |least| least.min(at_ms))),
                None => drop(idle.except.insert(partition.name.clone(), None)),
            }
        }
        idle.except.extend(self.saved.keys().map(|name| (name.clone(), None)));
        idle
    }

    pub(super) fn what_is_silent(&self) -> BTreeMap<Arc<str>, Duration> {
        let known = self.partitions.iter().filter(|partition| !partition.is_done());
        let known = known.map(|partition| {
            let silence = partition.silence(self.waits_for_schemas);
            (partition.name.clone(), silence, partition.next.is_none())
        });
        // Those that the cluster has not told of are silent for as long as it tells nothing.
        let blind = self.blind_since.map_or(Duration::ZERO, |since| since.elapsed());
        let untold = self.saved.keys().map(|name| (name.clone(), blind, false));
        // One whose position is not known yet is in no list of positions, but may hold anything.
        let silent = known.chain(untold).filter(|(_, silence, is_unknown)| *silence >= SILENCE_MIN || *is_unknown);
        silent.map(|(name, silence, _)| (name, silence)).collect()
    }
}
