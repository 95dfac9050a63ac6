//! What is known of hours, and which of it changed since it was written last.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Serialize;
use tidemill_core::{PieceChanges, StageError};

/// Start of the hour, and the type, of a name such as `<hour>/<type>`, as pieces of state have it.
pub(crate) fn hour_and_type(name: &str) -> Option<(i64, &str)> {
    let (start_ms, event_type) = name.split_once('/')?;
    Some((start_ms.parse().ok()?, event_type))
}

/// Values by the start of an hour.
pub(crate) struct ByHour<V> {
    values: BTreeMap<i64, V>,
    changed: BTreeSet<i64>,
}

impl<V> Default for ByHour<V> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), changed: BTreeSet::new() }
    }
}

impl<V> ByHour<V> {
    pub(crate) fn get(&self, start_ms: i64) -> Option<&V> {
        self.values.get(&start_ms)
    }

    /// Number of hours.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Removes the hours that begin before `before_ms`, and returns them in order.
    pub(crate) fn split_before(&mut self, before_ms: i64) -> BTreeMap<i64, V> {
        let rest = self.values.split_off(&before_ms);
        let taken = std::mem::replace(&mut self.values, rest);
        self.changed.extend(taken.keys());
        taken
    }

    /// As it was written.
    pub(crate) fn restore(&mut self, start_ms: i64, value: V) {
        self.values.insert(start_ms, value);
    }

    /// The value of an hour, which will be changed.
    pub(crate) fn entry(&mut self, start_ms: i64) -> &mut V
    where
        V: Default,
    {
        self.changed.insert(start_ms);
        self.values.entry(start_ms).or_default()
    }

    pub(crate) fn remove(&mut self, start_ms: i64) -> Option<V> {
        self.changed.insert(start_ms);
        self.values.remove(&start_ms)
    }

    /// Removes the hours that begin in a range, but for those that are needed. Costs what is there of it.
    pub(crate) fn remove_range_unless(&mut self, starts_ms: Range<i64>, is_needed: impl Fn(i64) -> bool) {
        let in_range = self.values.range(starts_ms).map(|(start_ms, _)| *start_ms);
        for start_ms in in_range.filter(|start_ms| !is_needed(*start_ms)).collect::<Vec<_>>() {
            self.values.remove(&start_ms);
            self.changed.insert(start_ms);
        }
    }

    pub(crate) fn remove_range(&mut self, starts_ms: Range<i64>) {
        self.remove_range_unless(starts_ms, |_| false);
    }

    /// Puts what changed into pieces, whose names `name` gives.
    pub(crate) fn save(&mut self, name: impl Fn(i64) -> String, changes: &mut PieceChanges) -> Result<(), StageError>
    where
        V: Serialize,
    {
        for start_ms in std::mem::take(&mut self.changed) {
            let value = self.values.get(&start_ms).map(postcard::to_stdvec).transpose();
            let value = value.map_err(|error| StageError {
                message: "what is known of an hour can't be written".to_owned(),
                source: Some(error.into()),
            })?;
            changes.push((name(start_ms), value));
        }
        Ok(())
    }
}
