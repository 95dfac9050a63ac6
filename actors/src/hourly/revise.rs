//! When rows leave: with their hour, and once more when late events have come.

use std::collections::BTreeSet;

use tidemill_core::{Effects, LatePolicy, RevisionMode, Seals};

use super::stage::{HourlyStage, Phase};
use crate::dedup::first_open_ms;

impl HourlyStage {
    pub(super) fn revises(&self) -> bool {
        self.output.late.policy == LatePolicy::Revise
    }

    /// Whether the rows of an hour have been sent, and can't be revised.
    pub(super) fn is_too_late(&self, (input, start_ms): (usize, i64)) -> bool {
        let first_open_ms = |before_ms| first_open_ms(before_ms, self.limits.bucket_ms);
        let sealed_ms = first_open_ms(self.sealed_before_ms(input));
        self.revises() && start_ms < sealed_ms && start_ms < first_open_ms(self.given_up_ms)
    }

    /// The hours of an input that end at or before it have had their rows sent.
    pub(super) fn sealed_before_ms(&self, input: usize) -> i64 {
        if self.revises() { self.sealed_before_ms } else { self.inputs[input].sealed_before_ms }
    }

    /// Makes room: no late events of the oldest hour that is kept are taken any more. Not of one with late events that are yet to be
    /// published, nor of `start_ms`. Returns whether there was one.
    pub(super) fn drop_oldest_kept(&mut self, start_ms: i64) -> bool {
        let is_in_use = |start: i64| {
            let is_revising = |at| self.open.get(&(at, start)).is_some_and(|hour| hour.phase == Phase::Revising);
            start == start_ms || (0..self.inputs.len()).any(is_revising)
        };
        let kept = self.open.iter().filter(|(_, hour)| hour.phase == Phase::Kept).map(|((_, start), _)| *start);
        let Some(oldest) = kept.filter(|start| !is_in_use(*start)).min() else { return false };
        (0..self.inputs.len()).for_each(|at| self.forget((at, oldest)));
        self.given_up_ms = self.given_up_ms.max(oldest.saturating_add(self.limits.bucket_ms));
        true
    }

    /// Sends the rows of hours in a phase that begin before `end_ms`, or else of those that are sealed for their input.
    fn emit(&mut self, phase: Phase, end_ms: Option<i64>, at_ms: i64, effects: &mut Effects) {
        let ends_ms: Vec<i64> = (0..self.inputs.len())
            .map(|input| end_ms.unwrap_or_else(|| first_open_ms(self.sealed_before_ms(input), self.limits.bucket_ms)))
            .collect();
        let is_of = |key: &(usize, i64)| key.1 < ends_ms[key.0];
        let mut hours: Vec<(i64, usize)> = (self.open.iter())
            .filter(|(key, hour)| hour.phase == phase && is_of(key))
            .map(|((input, start_ms), _)| (*start_ms, *input))
            .collect();
        let restates = self.revises() && self.output.late.mode == RevisionMode::Replace;
        if restates && phase == Phase::Revising {
            // The new rows stand for those of all inputs.
            let starts: BTreeSet<i64> = hours.iter().map(|(start_ms, _)| *start_ms).collect();
            let keys = self.open.keys().filter(|(_, start_ms)| starts.contains(start_ms));
            hours = keys.map(|(input, start_ms)| (*start_ms, *input)).collect();
        }
        hours.sort_unstable();
        for (start_ms, input) in hours {
            let key = (input, start_ms);
            self.send(key, at_ms, effects);
            match self.open.get_mut(&key) {
                Some(hour) if restates => hour.phase = Phase::Kept,
                _ => self.forget(key),
            }
        }
    }

    fn forget(&mut self, key: (usize, i64)) {
        if let Some(hour) = self.open.remove(&key) {
            self.groups -= hour.groups.len();
        }
    }

    /// The rows' own horizon, and revisions.
    pub(super) fn seal_rows(&mut self, seals: &Seals, effects: &mut Effects) {
        if let Some(horizon) = seals.horizons.iter().find(|horizon| horizon.event_type == self.output.name) {
            self.sealed_before_ms = self.sealed_before_ms.max(horizon.sealed_before_ms);
            self.given_up_ms = self.given_up_ms.max(self.output.late.given_up_by_ms(horizon));
        }
        // Without revisions each input's rows leave when its own hours are sealed. What waited for the others until revisions were taken away, too.
        self.emit(Phase::Open, None, seals.at_ms, effects);
        if self.revises() {
            // The last chance for what is late: the stages behind give the hour up at this barrier, and take its rows before it.
            let given_up_ms = first_open_ms(self.given_up_ms, self.limits.bucket_ms);
            self.emit(Phase::Revising, Some(given_up_ms), seals.at_ms, effects);
            let kept = self.open.iter().filter(|(key, hour)| hour.phase == Phase::Kept && key.1 < given_up_ms);
            let kept: Vec<(usize, i64)> = kept.map(|(key, _)| *key).collect();
            kept.into_iter().for_each(|key| self.forget(key));
        } else {
            let sealed = self.inputs.iter().map(|input| input.sealed_before_ms);
            self.given_up_ms = sealed.fold(self.given_up_ms, i64::max);
        }
        if seals.revised.contains(&self.output.name) {
            self.emit(Phase::Revising, Some(i64::MAX), seals.at_ms, effects);
        }
    }
}
