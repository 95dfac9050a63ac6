//! Runs to the end of the input: where they end, and what is left of one that was interrupted.
//!
//! The ends are fixed when each source knows its own, and are part of the cut: a restart goes to the same ones. When
//! all are
//! reached, the cut says `closing`: nothing is read any more, by this process or the next, until everything is sealed.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidemill_core::{DEAD_LETTER_TYPE, Role};
use tidemill_topology::{Plan, REPLAY};

use crate::error::RunError;
use crate::ledger::{Committed, Ends};
use crate::progress::Progress;
use crate::region::{Region, SourceShared};
use crate::registry::Registry;

/// What is left of an earlier run to the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interrupted {
    /// Some region of it is not at its end, so its ends hold for a run to the end that follows it.
    pub(crate) ends_hold: bool,
    /// A region had begun to seal what was open at its end: that is completed before anything else is read.
    pub(crate) is_closing: bool,
}

impl Interrupted {
    /// `cuts`: of all regions, as far as there are any; first that of the sources.
    pub(crate) fn of(cuts: &[Option<Committed>]) -> Self {
        let last = |cut: &Option<Committed>| cut.as_ref().map(|cut| cut.last.clone()).unwrap_or_default();
        let cuts: Vec<_> = cuts.iter().map(last).collect();
        let ends_hold = cuts[0].until_end && cuts.iter().any(|cut| !cut.finished);
        Self { ends_hold, is_closing: ends_hold && cuts.iter().any(|cut| cut.closing) }
    }
}

impl Region {
    /// Whether all its ends were reached, and what was open is yet to be sealed.
    pub(crate) fn is_closing(&self) -> bool {
        let committed = self.committed();
        self.config.until_end && committed.last.closing && !committed.last.finished
    }

    /// The ends of all sources, when those of more than of `told` are known; these are told then.
    pub(crate) fn ends_to_tell(&self, told: &mut BTreeSet<Arc<str>>) -> Option<Ends> {
        if !self.config.until_end {
            return None;
        }
        let of_source =
            |source: &Arc<SourceShared>| Some((self.node(source.node).name.clone(), source.state().ends.clone()?));
        let ends: Ends = self.sources.iter().filter_map(of_source).collect();
        if ends.len() <= told.len() {
            return None;
        }
        told.extend(ends.keys().cloned());
        // What an earlier process has fixed holds for a source that is not open yet, too.
        let mut all = self.ends.clone().unwrap_or_default();
        all.extend(ends);
        Some(all)
    }

    /// Says once that more hours are open than `max_open_hours`, until they are half as many. Returns whether that is
    /// said.
    pub(crate) fn tell_of_open(&self, progress: &Progress, was_told: bool) -> bool {
        let of_types = progress.open.iter().filter(|(name, _)| ***name != *DEAD_LETTER_TYPE);
        let open: usize = of_types.map(|(_, hours)| hours.len()).sum();
        let most = self.plan.limits.max_open_hours;
        if open > most && !was_told {
            let region = &self.name;
            tracing::warn!(
                %region, open, max_open_hours = most,
                "more hours are open than `max_open_hours`. Nothing is lost; state beyond `runtime.state_memory` \
                 lies on the disk. Are event times right, or does a source hold its hours?"
            );
        }
        open > if was_told { most / 2 } else { most }
    }
}

/// Whether every source of a topology has an end that a run can go to.
pub(crate) fn can_end(plan: &Plan, registry: &Registry) -> Result<(), RunError> {
    for node in plan.nodes.iter().filter(|node| node.role == Role::Source && *node.name != *REPLAY) {
        if let Some(kind) = registry.sources.get(node.kind.name)
            && !kind.ends(&node.options)
        {
            return Err(RunError::Settings(format!(
                "source `{}` (kind `{}`) has no end, so the topology can't be run with --until-end: leave that out, or \
                 give the source an end",
                node.name, node.kind.name
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Record;

    #[test]
    fn the_ends_of_an_interrupted_run_hold_until_all_its_regions_are_finished() {
        let of = |cuts: &[Option<(bool, bool, bool)>]| {
            let cut = |(until_end, closing, finished)| {
                let mut committed = Committed::default();
                committed.apply(Record { until_end, closing, finished, ..Record::default() });
                committed
            };
            let cuts: Vec<_> = cuts.iter().map(|of| of.map(cut)).collect();
            let Interrupted { ends_hold, is_closing } = Interrupted::of(&cuts);
            (ends_hold, is_closing)
        };
        assert_eq!(of(&[None, None]), (false, false));
        assert_eq!(of(&[Some((false, false, false)), None]), (false, false), "it followed its input");
        assert_eq!(of(&[Some((true, false, false)), None]), (true, false));
        assert_eq!(of(&[Some((true, true, false)), Some((true, false, false))]), (true, true));
        assert_eq!(of(&[Some((true, true, true)), Some((true, false, false))]), (true, true), "behind its pond");
        assert_eq!(of(&[Some((true, true, true)), Some((true, true, true))]), (false, false));
    }

    #[test]
    fn ends_are_folded_and_a_run_that_follows_its_input_drops_them() {
        let ends = |next| Ends::from([("s".into(), [("p".into(), next)].into())]);
        let mut committed = Committed::default();
        let record = Record { until_end: true, ..Record::default() };
        committed.apply(Record { ends: Some(ends(7)), ..record.clone() });
        committed.apply(record.clone());
        assert_eq!(committed.ends, Some(ends(7)));
        assert_eq!(committed.base().ends, Some(ends(7)));
        let mut again = Committed::default();
        again.apply(committed.base());
        assert_eq!(again.ends, Some(ends(7)));
        committed.apply(Record { until_end: false, ..record });
        assert_eq!(committed.ends, None);
    }
}
