//! What is counted of events so that two places can be compared: how many there are, and which.

use std::ops::{AddAssign, Sub};
use std::sync::Arc;

use arrow_array::ArrayRef;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::hour::Hour;
use crate::id_hash::{IdSum, KeyColumns, key_hash};

/// Number of events, and the order-free hash of their ids. A loss and a repetition that cancel out in the number show in the hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How many.
    pub events: u64,
    /// Zero for types without an id.
    pub ids: IdSum,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.events = self.events.wrapping_add(other.events);
        self.ids += other.ids;
    }
}

impl Sub for Totals {
    type Output = Self;
    /// Wraps around, like the sums: what is less than nothing differs from everything that can be expected.
    fn sub(self, other: Self) -> Self {
        Self { events: self.events.wrapping_sub(other.events), ids: IdSum(self.ids.0.wrapping_sub(other.ids.0)) }
    }
}

/// The totals of an hour of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourTotals {
    /// The type.
    pub event_type: Arc<str>,
    /// The hour.
    pub hour: Hour,
    /// Of its events.
    pub totals: Totals,
}

/// The hash of the id of each selected row of a batch, as manifests add them up. Computed once, behind the stage that parses.
#[derive(Clone, Debug)]
pub struct IdHashes {
    /// By row of the columns; 0 where a row was not selected.
    hashes: Arc<[u128]>,
    /// The id columns that they were computed from.
    columns: Arc<[ArrayRef]>,
}

impl IdHashes {
    /// Hashes the ids of a batch's selected rows: some 12 ns each for a text of 16 bytes. `None` for a type without an id.
    #[must_use]
    pub fn of(batch: &Batch) -> Option<Self> {
        let id = &batch.event_type.id;
        if id.is_empty() {
            return None;
        }
        let keys = KeyColumns::new(&batch.event_type, id, &batch.records);
        let mut hashes = vec![0; batch.records.num_rows()];
        let mut key = Vec::new();
        for row in batch.indexes() {
            keys.key_bytes(row, &mut key);
            hashes[row] = key_hash(&key);
        }
        let columns = id.iter().map(|at| batch.records.column(*at).clone()).collect();
        Some(Self { hashes: hashes.into(), columns })
    }

    /// Whether they are those of the batch: its id columns are the ones that were hashed, not others like them.
    #[must_use]
    pub fn are_of(&self, batch: &Batch) -> bool {
        let id = &batch.event_type.id;
        let same = |(at, hashed): (&usize, &ArrayRef)| Arc::ptr_eq(batch.records.column(*at), hashed);
        id.len() == self.columns.len() && id.iter().zip(self.columns.iter()).all(same)
    }

    /// The hash of a selected row, by its index into the columns.
    #[must_use]
    #[inline]
    pub fn get(&self, row: usize) -> u128 {
        self.hashes[row]
    }
}
