//! What holds a running topology up, told from two looks at it.

use std::time::Duration;

use crate::status::Status;

/// Below this share of its time a stage is not what the others wait for.
const BUSY: f64 = 0.5;

/// What the rest waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Bottleneck {
    /// A source, stage or sink that can't go on, and why.
    Waits {
        /// Its name.
        node: String,
        /// What for.
        cause: String,
    },
    /// A pond is full, and what takes from it is slower than what comes.
    PondFull {
        /// The pond.
        pond: String,
        /// The stage or sink that takes from it.
        node: String,
    },
    /// The source, stage or sink that has least time left.
    Busy {
        /// Its name.
        node: String,
        /// Share of the time, over all its workers, that it was in calls.
        share: f64,
    },
    /// Nothing: it deals with what comes as it comes.
    Nothing,
}

/// How much of its time each source, stage and sink was at work between two looks: name and share, the busiest first. A worker counts once.
#[must_use]
pub fn shares(before: &Status, after: &Status, elapsed: Duration) -> Vec<(String, f64)> {
    let share = |was: u64, is: u64, workers: usize| {
        is.saturating_sub(was) as f64 / elapsed.as_nanos().max(1) as f64 / workers.max(1) as f64
    };
    let stages = after.stages.iter().filter_map(|stage| {
        let was = before.stages.iter().find(|other| other.name == stage.name)?;
        Some((stage.name.clone(), share(was.busy_ns, stage.busy_ns, stage.workers.len())))
    });
    let sources = after.sources.iter().filter_map(|source| {
        let was = before.sources.iter().find(|other| other.name == source.name)?;
        Some((source.name.clone(), share(was.busy_ns, source.busy_ns, 1)))
    });
    let mut shares: Vec<_> = stages.chain(sources).collect();
    shares.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    shares
}

/// What the rest of a topology waits for, if it waits for anything. A sink that is down holds up only itself, so it counts when its pond is full, or when
/// nothing else is to be said.
#[must_use]
pub fn bottleneck(before: &Status, after: &Status, elapsed: Duration) -> Bottleneck {
    let sources = after.sources.iter().map(|source| (&source.name, &source.waits_for));
    let nodes = sources.chain(after.stages.iter().map(|stage| (&stage.name, &stage.waits_for)));
    let waiting: Vec<(&String, &String)> = nodes.filter_map(|(name, cause)| Some((name, cause.as_ref()?))).collect();
    let first = |is_meant: &dyn Fn(&str) -> bool| {
        let found = waiting.iter().find(|(name, _)| is_meant(name));
        found.map(|(name, cause)| Bottleneck::Waits { node: (*name).clone(), cause: (*cause).clone() })
    };
    if let Some(full) = after.ponds.iter().find(|pond| pond.is_full) {
        let slow = Bottleneck::PondFull { pond: full.name.clone(), node: full.node.clone() };
        return first(&|name| name == full.node).unwrap_or(slow);
    }
    if let Some(held) = first(&|name| !after.ponds.iter().any(|pond| pond.node == name)) {
        return held;
    }
    match shares(before, after, elapsed).into_iter().next() {
        Some((node, share)) if share >= BUSY => Bottleneck::Busy { node, share },
        _ => first(&|_| true).unwrap_or(Bottleneck::Nothing),
    }
}
