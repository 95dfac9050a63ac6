//! Where a run to the end ends: at the files that were there at its start, as long as they were then.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::{Cure, SourceError};

use super::partition::{Partition, State};
use super::source::FileSource;

impl FileSource {
    /// Where a partition ends in this run; `None` for one that is not read in it.
    pub(super) fn end_of(&self, name: &str, len: u64) -> Option<u64> {
        match &self.ends {
            Some(ends) => ends.get(name).copied(),
            None => Some(len),
        }
    }

    /// Fixes the ends: those of an earlier process of the run hold.
    pub(super) fn fix_ends(&mut self) {
        let is_there = |partition: &&Partition| matches!(partition.state, State::Live | State::Rotated | State::Lost);
        let end = |partition: &Partition| (partition.name.clone(), partition.limit.unwrap_or(partition.len));
        if self.until_end && self.ends.is_none() {
            self.ends = Some(self.partitions.iter().filter(is_there).map(end).collect());
        }
    }

    /// What of the run can't be read, when all else is: nothing of it may be sealed then.
    pub(super) fn all_read(&mut self) -> Result<(), SourceError> {
        // Damage first: it does not go away by itself.
        let failed = self.failed.iter().position(|error| error.cure == Cure::Stop).unwrap_or(0);
        if !self.failed.is_empty() {
            return Err(self.failed.swap_remove(failed));
        }
        if self.is_again {
            return Ok(());
        }
        let lost = self.partitions.iter().find(|partition| partition.state == State::Lost);
        let lost = lost.map(|partition| format!("`{}` was not read to its end and can't be found", partition.name));
        let is_known = |name: &Arc<str>| self.partitions.iter().any(|partition| partition.name == *name);
        let ends: Option<&BTreeMap<Arc<str>, u64>> = self.ends.as_ref();
        let unknown = ends.into_iter().flatten().find(|(name, end)| **end > 0 && !is_known(name));
        let unknown = unknown.map(|(name, _)| format!("`{name}` was there when the run began and can't be found"));
        let missing = self.missing.keys().next().map(|pattern| format!("the folder of `{pattern}` is not there"));
        let Some(what) = lost.or(unknown).or(missing) else { return Ok(()) };
        let message = format!(
            "{what}: the other files are read, and nothing is sealed. Bring it back and start again, or take it out of \
             `paths`"
        );
        Err(SourceError { message, cure: Cure::GiveUp, source: None })
    }
}
