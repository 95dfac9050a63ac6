//! When rows leave: with their hour, and once more when late events have come.
//!
//! An hour of the rows may be sealed before that of a type which brings nothing for now. So the rows of a type leave
//! when both are sealed. When its own comes later, they are a revision, which has all rows of the type.

use std::collections::BTreeSet;

use tidemill_core::{Effects, RevisionMode, Seals, StageError};

use super::stage::HourlyStage;
use super::state::{Phase, name_of};
use crate::dedup::first_open_ms;

impl HourlyStage {
    /// Whether the rows of an hour have been sent, and can't be revised.
    pub(super) fn is_too_late(&self, start_ms: i64) -> bool {
        start_ms < first_open_ms(self.sealed_before_ms.min(self.given_up_ms), self.limits.bucket_ms)
    }

    /// The hours of an input that begin before it are sealed for it.
    pub(super) fn input_sealed_ms(&self, input: usize) -> i64 {
        first_open_ms(self.inputs[input].sealed_before_ms, self.limits.bucket_ms)
    }

    fn restates(&self) -> bool {
        self.output.late.mode == RevisionMode::Replace
    }

    /// Starts and inputs of the hours in a phase that begin before `end_ms`.
    fn hours(&self, phase: Phase, end_ms: i64) -> Vec<(i64, usize)> {
        let of_phase = self.open.iter().filter(|((_, start_ms), hour)| hour.phase() == phase && *start_ms < end_ms);
        of_phase.map(|((input, start_ms), _)| (*start_ms, *input)).collect()
    }

    /// Sends the rows of late events of hours that begin before `end_ms`. Returns whether there were any.
    fn emit_revised(&mut self, end_ms: i64, at_ms: i64, effects: &mut Effects) -> Result<bool, StageError> {
        let mut hours = self.hours(Phase::Revising, end_ms);
        if self.restates() {
            // The new rows stand for those of all inputs that have left.
            let starts: BTreeSet<i64> = hours.iter().map(|(start_ms, _)| *start_ms).collect();
            let have_left = self.open.iter().filter(|(_, hour)| hour.phase() != Phase::Open);
            let have_left = have_left.filter(|((_, start_ms), _)| starts.contains(start_ms));
            hours = have_left.map(|((input, start_ms), _)| (*start_ms, *input)).collect();
        }
        let has_any = !hours.is_empty();
        self.emit(hours, at_ms, effects)?;
        Ok(has_any)
    }

    fn emit(&mut self, mut hours: Vec<(i64, usize)>, at_ms: i64, effects: &mut Effects) -> Result<(), StageError> {
        let restates = self.restates();
        hours.sort_unstable();
        for (start_ms, input) in hours {
            let key = (input, start_ms);
            self.send(key, at_ms, effects)?;
            match self.open.get_mut(&key) {
                Some(hour) if restates => hour.set_phase(Phase::Kept),
                _ => self.forget(key),
            }
        }
        Ok(())
    }

    fn forget(&mut self, key: (usize, i64)) {
        if let Some(hour) = self.open.remove(&key) {
            hour.remove(&name_of(key.1, &self.inputs[key.0].name), &mut self.gone);
        }
    }

    /// The rows' own horizon, and revisions.
    pub(super) fn seal_rows(&mut self, seals: &Seals, effects: &mut Effects) -> Result<(), StageError> {
        let was_ms = first_open_ms(self.sealed_before_ms, self.limits.bucket_ms);
        if let Some(horizon) = seals.horizons.iter().find(|horizon| horizon.event_type == self.output.name) {
            self.sealed_before_ms = self.sealed_before_ms.max(horizon.sealed_before_ms);
            self.given_up_ms = self.given_up_ms.max(self.output.late.given_up_by_ms(horizon));
        }
        let sealed = self.hours(Phase::Open, first_open_ms(self.sealed_before_ms, self.limits.bucket_ms));
        let sealed = sealed.into_iter().filter(|(start_ms, input)| *start_ms < self.input_sealed_ms(*input));
        let (revised, first): (Vec<_>, Vec<_>) = sealed.partition(|(start_ms, _)| *start_ms < was_ms);
        for (start_ms, input) in revised {
            if let Some(hour) = self.open.get_mut(&(input, start_ms)) {
                hour.set_phase(Phase::Revising);
            }
        }
        self.emit(first, seals.at_ms, effects)?;
        // The last chance for what is late: the stages behind give the hour up at this barrier, and take its rows
        // before it.
        let given_up_ms = first_open_ms(self.given_up_ms.min(self.sealed_before_ms), self.limits.bucket_ms);
        self.has_revised |= self.emit_revised(given_up_ms, seals.at_ms, effects)?;
        let kept = self.open.iter().filter(|(key, hour)| hour.phase() == Phase::Kept && key.1 < given_up_ms);
        let kept: Vec<(usize, i64)> = kept.map(|(key, _)| *key).collect();
        kept.into_iter().for_each(|key| self.forget(key));
        if seals.revised.contains(&self.output.name) {
            self.emit_revised(i64::MAX, seals.at_ms, effects)?;
            self.has_revised = false;
        }
        Ok(())
    }
}
