//! How far the events of a type have come: by what its partitions have shown and, while all of them are quiet, by the clock.

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{Limits, SourcePositions};
use tidemill_topology::Origin;

use crate::reached::{Newest, Reached, in_steps};
use crate::region::Region;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// In milliseconds of event time; `None` while nothing can be said.
    pub(crate) at_ms: Option<i64>,
    /// The newest event time of all partitions.
    pub(crate) newest_ms: Option<i64>,
    /// The partition that holds it, as `source/partition`.
    pub(crate) held_by: Option<String>,
    /// No partition has anything more for now: it goes on with the clock.
    pub(crate) is_quiet: bool,
    /// What has been silent for so long that it is not waited for.
    pub(crate) without: Vec<Without>,
}

/// A partition that is not waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Without {
    pub(crate) source: Arc<str>,
    /// `None` for a source of which no partition is known.
    pub(crate) partition: Option<Arc<str>>,
    /// How far it had come.
    pub(crate) newest_ms: Option<i64>,
}

impl Without {
    fn of(source: &Arc<str>, partition: Option<&Arc<str>>, newest_ms: Option<i64>) -> Self {
        Self { source: source.clone(), partition: partition.cloned(), newest_ms }
    }
}

/// The watermark of the types that come from there.
pub(crate) fn watermark(region: &Region, origins: &[Origin], now_ms: i64) -> Watermark {
    let mut shown = Shown::default();
    let hold_ms = region.plan.limits.hold_at_most_ms;
    let is_too_long = |silence: Duration| silence.as_millis() > hold_ms.unsigned_abs().into();
    let silent_ms = now_ms.saturating_sub(last_arrival_ms(region, origins).max(region.listens_since_ms(now_ms)));
    let rests = |shown: &mut Shown, reached: &Reached| {
        shown.few.extend(reached.few());
        reached.at_rest(silent_ms, &region.plan.limits)
    };
    for origin in origins {
        let source = &region.sources[origin.source];
        let name = &region.node(source.node).name;
        let state = source.state();
        let no_positions = SourcePositions::default();
        let is_given_up = is_too_long(state.fails_for);
        // What is known of one that is given up is what was seen before.
        let Some(positions) = state.positions.as_ref().or(is_given_up.then_some(&no_positions)) else {
            return Watermark::held_by(format!("{name} (not open yet)"));
        };
        if origin.among(positions).next().is_none() {
            match not_there(name, origin, state.waits_for.is_some()) {
                // It is waited for since the start.
                Some(what) if !is_given_up && !is_too_long(region.opened.elapsed()) => return Watermark::held_by(what),
                Some(_) => shown.without.push(Without::of(name, origin.partitions.first(), None)),
                None if is_given_up => shown.without.push(Without::of(name, None, None)),
                None => {}
            }
        }
        // Everybody who needs both takes the source's state first.
        let progress = region.progress();
        let seen = progress.seen.get(name);
        for (partition, reached) in seen.into_iter().flat_map(|seen| origin.among(seen)) {
            if state.positions.is_none() {
                let newest = rests(&mut shown, reached);
                shown.without.push(Without::of(name, Some(partition), newest.map(|newest| newest.at_ms)));
                shown.add(newest, Standing::Quiet(now_ms.saturating_sub(hold_ms)));
            } else if !positions.contains_key(partition) {
                let newest = rests(&mut shown, reached);
                shown.add(newest, Standing::Ended);
            }
        }
        // Those of which not even the position is known.
        let is_unknown = |name: &Arc<str>| !positions.contains_key(name) && is_of(origin, name);
        for (partition, silence) in state.silent.iter().filter(|(name, _)| is_unknown(name)) {
            if !is_too_long(*silence) {
                return Watermark::held_by(format!("{name}/{partition}"));
            }
            shown.without.push(Without::of(name, Some(partition), None));
        }
        for (partition, position) in origin.among(positions) {
            let reached = seen.and_then(|seen| seen.get(partition));
            let standing = match state.idle.of(partition) {
                Some(proven_ms) => Standing::Quiet(proven_ms),
                None if position.ended => Standing::Ended,
                None if is_too_long(state.silence(partition, position)) => {
                    let at_ms = reached.and_then(|reached| rests(&mut shown, reached)).map(|newest| newest.at_ms);
                    shown.without.push(Without::of(name, Some(partition), at_ms));
                    Standing::Quiet(now_ms.saturating_sub(hold_ms))
                }
                None => Standing::Active,
            };
            let newest = reached.and_then(|reached| match standing {
                Standing::Active => reached.newest,
                Standing::Quiet(_) | Standing::Ended => rests(&mut shown, reached),
            });
            let whole_name = || format!("{name}/{partition}");
            if newest.is_none() && matches!(standing, Standing::Active) {
                return Watermark::held_by(whole_name());
            }
            shown.held_by = if shown.add(newest, standing) { Some(whole_name()) } else { shown.held_by };
        }
    }
    shown.compare_few(&region.plan.limits);
    shown.watermark()
}

/// When the last event of any of these arrived.
fn last_arrival_ms(region: &Region, origins: &[Origin]) -> i64 {
    let progress = region.progress();
    let of = |origin: &Origin| {
        let seen = progress.seen.get(&region.node(region.sources[origin.source].node).name)?;
        origin.among(seen).map(|(_, reached)| reached.arrived_at_ms).max()
    };
    origins.iter().filter_map(of).max().unwrap_or(i64::MIN)
}

/// What hours wait for where a source has none of the partitions that a type comes from.
fn not_there(name: &str, origin: &Origin, waits: bool) -> Option<String> {
    match origin.partitions.first() {
        Some(partition) => Some(format!("{name}/{partition} (not there)")),
        None => waits.then(|| format!("{name} (waits)")),
    }
}

/// Whether a partition of which nothing is known may be meant: it is named, or files of a pattern that may have the
/// names.
fn is_of(origin: &Origin, partition: &str) -> bool {
    let plain = partition.split(['*', '?', '[']).next().unwrap_or_default();
    let is_pattern = plain.len() < partition.len();
    let is_meant = |named: &Arc<str>| {
        let below = partition.strip_prefix(&**named).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        below || is_pattern && named.starts_with(plain)
    };
    origin.partitions.is_empty() || origin.partitions.iter().any(is_meant)
}

impl Watermark {
    fn held_by(what: String) -> Self {
        Self { held_by: Some(what), ..Self::default() }
    }
}

/// What can come from a partition yet.
#[derive(Clone, Copy)]
enum Standing {
    Active,
    /// It is proven that nothing more had come until then.
    Quiet(i64),
    Ended,
}

/// What partitions have shown.
#[derive(Default)]
struct Shown {
    /// The newest event time of the active partition that is least far.
    lowest_ms: Option<i64>,
    held_by: Option<String>,
    /// The newest event of all.
    newest: Option<Newest>,
    /// Events of partitions at rest that have one or two.
    few: Vec<Newest>,
    /// Until when it is proven, or taken for granted, that nothing more had come to any of them.
    quiet_ms: Option<i64>,
    without: Vec<Without>,
}

impl Shown {
    /// Whether the partition holds the watermark, as far as is known.
    fn add(&mut self, newest: Option<Newest>, standing: Standing) -> bool {
        self.newest = self.newest.into_iter().chain(newest).max_by_key(|newest| (newest.at_ms, newest.arrived_at_ms));
        match standing {
            Standing::Ended => return false,
            Standing::Quiet(proven_ms) => {
                self.quiet_ms = Some(self.quiet_ms.map_or(proven_ms, |least| least.min(proven_ms)));
                return false;
            }
            Standing::Active => {}
        }
        let lower =
            newest.map(|newest| newest.at_ms).filter(|at_ms| self.lowest_ms.is_none_or(|lowest| *at_ms < lowest));
        self.lowest_ms = lower.or(self.lowest_ms);
        lower.is_some()
    }

    /// Partitions with one or two events are compared with all others; where there are none, with the first of them.
    fn compare_few(&mut self, limits: &Limits) {
        if let Some(first) = self.newest.or(self.few.iter().min_by_key(|event| event.at_ms).copied()) {
            self.newest = Some(in_steps(first, &mut self.few, limits));
        }
    }

    fn watermark(self) -> Watermark {
        let (newest_ms, held_by, without) = (self.newest.map(|newest| newest.at_ms), self.held_by, self.without);
        if let Some(at_ms) = self.lowest_ms {
            return Watermark { at_ms: Some(at_ms), newest_ms, held_by, is_quiet: false, without };
        }
        let at_ms = |newest: Newest| self.quiet_ms.map_or(newest.at_ms, |quiet_ms| newest.when_quiet(quiet_ms));
        let at_ms = self.newest.map(at_ms);
        Watermark { at_ms, newest_ms, held_by: None, is_quiet: self.quiet_ms.is_some(), without }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_pattern_may_be_those_that_a_type_comes_from() {
        let origin =
            |names: &[&str]| Origin { source: 0, partitions: names.iter().map(|name| Arc::from(*name)).collect() };
        assert!(is_of(&origin(&[]), "data/*/x"));
        assert!(is_of(&origin(&["data/web"]), "data/*/x") && is_of(&origin(&["data/web"]), "data/web/*"));
        assert!(!is_of(&origin(&["other/web"]), "data/*/x"));
        assert!(is_of(&origin(&["t"]), "t/0") && !is_of(&origin(&["t"]), "ta/0") && !is_of(&origin(&["t/0"]), "t"));
    }

    fn of(partitions: &[(Option<(i64, i64)>, Standing)]) -> Watermark {
        let mut shown = Shown::default();
        for (newest, standing) in partitions {
            shown.add(newest.map(|(at_ms, arrived_at_ms)| Newest { at_ms, arrived_at_ms }), *standing);
        }
        shown.watermark()
    }

    #[test]
    fn an_active_partition_holds_it_whatever_others_prove() {
        let watermark = of(&[(Some((50, 60)), Standing::Active), (Some((70, 80)), Standing::Quiet(1_000))]);
        assert_eq!((watermark.at_ms, watermark.is_quiet), (Some(50), false));
    }

    #[test]
    fn the_clock_goes_on_from_the_newest_event_and_not_from_one_that_came_faster() {
        // A file of yesterday that came in time, and one of today that is still being copied.
        let watermark = of(&[(Some((100, 105)), Standing::Quiet(2_000)), (Some((200, 1_900)), Standing::Quiet(2_000))]);
        assert_eq!((watermark.at_ms, watermark.is_quiet), (Some(300), true));
    }

    #[test]
    fn what_is_proven_of_all_is_proven_until_the_least_proof() {
        let watermark = of(&[(Some((100, 100)), Standing::Quiet(130)), (None, Standing::Quiet(900))]);
        assert_eq!(watermark.at_ms, Some(130));
        assert_eq!(of(&[(Some((100, 100)), Standing::Quiet(90))]).at_ms, Some(100), "never before what was shown");
    }

    #[test]
    fn what_has_ended_shows_how_far_it_came_and_proves_nothing() {
        let watermark = of(&[(Some((100, 100)), Standing::Ended)]);
        assert_eq!((watermark.at_ms, watermark.is_quiet), (Some(100), false));
        let watermark = of(&[(Some((100, 100)), Standing::Ended), (Some((40, 110)), Standing::Quiet(150))]);
        assert_eq!((watermark.at_ms, watermark.is_quiet), (Some(150), true));
        assert_eq!(of(&[]).at_ms, None);
    }
}
