//! Runs to the end of the input: where they end, and what is left of one that was interrupted.
//!
//! The ends are fixed when each source knows its own, and are part of the cut: a restart goes to the same ones. When
//! all are
//! reached, the cut says `closing`: nothing is read any more, by this process or the next, until everything is sealed.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::{DEAD_LETTER_TYPE, Role};
use tidemill_topology::{Plan, REPLAY};

use crate::error::RunError;
use crate::ledger::{Committed, Ends};
use crate::progress::Progress;
use crate::region::{Region, SealAt, SourceShared};
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
        let Some(main) = cuts.first().and_then(Option::as_ref).map(|cut| &cut.last) else { return Self::default() };
        let others = cuts[1..].iter().flatten().map(|cut| &cut.last);
        // What others say of a run before it does not count.
        let others: Vec<_> = others.filter(|last| last.run == main.run && last.until_end).collect();
        let ends_hold = main.until_end && (!main.finished || others.iter().any(|last| !last.finished));
        Self { ends_hold, is_closing: ends_hold && (main.closing || others.iter().any(|last| last.closing)) }
    }
}

impl Region {
    /// Whether all its ends were reached: nothing is read any more, what is open is sealed, if anything is.
    pub(crate) fn is_closing(&self) -> bool {
        let last = &self.committed().last;
        self.config.until_end && last.until_end && last.closing
    }

    /// Whether it reads to the end of the input, and seals nothing before.
    pub(crate) fn seals_at_end(&self) -> bool {
        self.config.until_end && self.config.seal_at == SealAt::End
    }

    /// The ends of all sources, when more of them are known than `told` says: how many of each source.
    pub(crate) fn ends_to_tell(&self, told: &mut BTreeMap<Arc<str>, usize>) -> Option<Ends> {
        if !self.config.until_end {
            return None;
        }
        let of_source =
            |source: &Arc<SourceShared>| Some((self.node(source.node).name.clone(), source.state().ends.clone()?));
        let ends: Ends = self.sources.iter().filter_map(of_source).collect();
        let known = ends.iter().map(|(name, ends)| (name.clone(), ends.len())).collect();
        if *told == known {
            return None;
        }
        *told = known;
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
        let of = |cuts: &[Option<(u64, bool, bool, bool)>]| {
            let cut = |(run, until_end, closing, finished)| {
                let mut committed = Committed::default();
                committed.apply(Record { run, until_end, closing, finished, ..Record::default() });
                committed
            };
            let cuts: Vec<_> = cuts.iter().map(|of| of.map(cut)).collect();
            let Interrupted { ends_hold, is_closing } = Interrupted::of(&cuts);
            (ends_hold, is_closing)
        };
        let (reads, closes, done) = ((2, true, false, false), (2, true, true, false), (2, true, true, true));
        let done_before = (1, true, true, true);
        assert_eq!(of(&[None, None]), (false, false));
        assert_eq!(of(&[Some((2, false, false, false)), None]), (false, false), "it followed its input");
        assert_eq!(of(&[Some(reads), None]), (true, false));
        assert_eq!(of(&[Some(closes), Some(reads)]), (true, true));
        assert_eq!(of(&[Some(done), Some(reads)]), (true, true), "behind its pond");
        assert_eq!(of(&[Some(done), Some(done)]), (false, false));
        assert_eq!(of(&[Some(done), None]), (false, false), "a region that is new");
        assert_eq!(of(&[Some(reads), Some(done_before)]), (true, false), "it had nothing to do yet");
        assert_eq!(of(&[Some(done_before), Some((2, false, false, false))]), (false, false), "before the first cut");
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
        again.begin(again.last.run);
        assert_eq!(again.ends, Some(ends(7)), "the same run goes on");
        again.begin(9);
        assert_eq!((again.ends, again.last.until_end), (None, false), "another one has ends of its own");
    }
}
