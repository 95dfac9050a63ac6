//! What is known of hours, and which of it changed since it was written last.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tidemill_core::StageError;

use super::pending::Changes;

/// Values by the start of an hour.
pub(super) struct ByHour<V> {
    values: BTreeMap<i64, V>,
    changed: BTreeSet<i64>,
}

impl<V> Default for ByHour<V> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), changed: BTreeSet::new() }
    }
}

impl<V> ByHour<V> {
    pub(super) fn get(&self, start_ms: i64) -> Option<&V> {
        self.values.get(&start_ms)
    }

    /// As it was written.
    pub(super) fn restore(&mut self, start_ms: i64, value: V) {
        self.values.insert(start_ms, value);
    }

    /// The value of an hour, which will be changed.
    pub(super) fn entry(&mut self, start_ms: i64) -> &mut V
    where
        V: Default,
    {
        self.changed.insert(start_ms);
        self.values.entry(start_ms).or_default()
    }

    pub(super) fn remove(&mut self, start_ms: i64) -> Option<V> {
        self.changed.insert(start_ms);
        self.values.remove(&start_ms)
    }

    pub(super) fn retain(&mut self, is_needed: impl Fn(i64) -> bool) {
        let changed = &mut self.changed;
        self.values.retain(|start_ms, _| {
            let is_needed = is_needed(*start_ms);
            if !is_needed {
                changed.insert(*start_ms);
            }
            is_needed
        });
    }

    /// Puts what changed into pieces, whose names `name` gives.
    pub(super) fn save(&mut self, name: impl Fn(i64) -> String, changes: &mut Changes) -> Result<(), StageError>
    where
        V: Serialize,
    {
        for start_ms in std::mem::take(&mut self.changed) {
            let value = self.values.get(&start_ms).map(super::state::bytes).transpose()?;
            changes.push((name(start_ms), value));
        }
        Ok(())
    }
}
