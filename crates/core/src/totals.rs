//! What is counted of events so that two places can be compared: how many there are, and which.

use std::ops::{AddAssign, Sub};
use std::sync::Arc;

use arrow_array::ArrayRef;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::hour::Hour;
use crate::id_hash::{IdSum, KeyColumns, key_hash};
use crate::schema::TimeColumn;

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

/// Rows whose texts are looked at before they are hashed: so many are in the nearest cache then.
const TOUCHED: usize = 256;

/// What is counted of a batch's selected rows: by hour, with the hash of each id as manifests add them up. Made when the batch leaves the stage that
/// has made it, and travels with it, so that whoever compares need not hash again.
#[derive(Debug)]
pub struct Counts {
    /// By row of the columns; 0 where a row was not selected, or the type has no id.
    ids: Arc<[u128]>,
    /// The id columns that they were computed from.
    id_columns: Vec<ArrayRef>,
    /// By start of the hour, in order.
    hours: Vec<(i64, Totals)>,
    /// What these were computed from, besides.
    times: ArrayRef,
    selection: Option<Arc<[u32]>>,
}

impl Counts {
    /// Counts a batch. Takes over what was computed of the same columns before: some 15 ns an event for the hash of a text of 32 bytes, and 1 to 2 for
    /// counting.
    #[must_use]
    pub fn of(batch: &Batch, bucket_ms: i64) -> Arc<Self> {
        let event_type = &batch.event_type;
        let known = batch.counts.as_ref();
        if let Some(known) = known.filter(|known| known.are_of(batch)) {
            return known.clone();
        }
        let id_columns: Vec<ArrayRef> = event_type.id.iter().map(|at| batch.records.column(*at).clone()).collect();
        let ids = match known.filter(|known| same(&known.id_columns, &id_columns)) {
            Some(known) => known.ids.clone(),
            None => ids_of(batch),
        };
        let times = batch.records.column(event_type.time).clone();
        let hours = match TimeColumn::of(&batch.records, event_type.time) {
            Some(TimeColumn::Millis(column)) => hours_of(batch, &ids, bucket_ms, |row| column.value(row)),
            Some(TimeColumn::Micros(column)) => {
                hours_of(batch, &ids, bucket_ms, |row| column.value(row).div_euclid(1_000))
            }
            None => Vec::new(),
        };
        Arc::new(Self { ids, id_columns, hours, times, selection: batch.selection.clone() })
    }

    /// Whether they are those of the batch: the very columns and rows that were counted, not others like them.
    fn are_of(&self, batch: &Batch) -> bool {
        let event_type = &batch.event_type;
        let is_selection = match (&self.selection, &batch.selection) {
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs),
            (mine, theirs) => mine.is_none() && theirs.is_none(),
        };
        let id = event_type.id.iter().map(|at| batch.records.column(*at));
        is_selection
            && Arc::ptr_eq(&self.times, batch.records.column(event_type.time))
            && event_type.id.len() == self.id_columns.len()
            && id.zip(&self.id_columns).all(|(theirs, mine)| Arc::ptr_eq(theirs, mine))
    }

    /// Totals by start of the hour, in order.
    #[must_use]
    pub fn hours(&self) -> &[(i64, Totals)] {
        &self.hours
    }

    /// The hash of the id in a selected row, by its index into the columns; 0 where the type has no id.
    #[must_use]
    pub fn id(&self, row: usize) -> u128 {
        self.ids.get(row).copied().unwrap_or_default()
    }
}

fn same(mine: &[ArrayRef], theirs: &[ArrayRef]) -> bool {
    mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(mine, theirs)| Arc::ptr_eq(mine, theirs))
}

fn ids_of(batch: &Batch) -> Arc<[u128]> {
    let id = &batch.event_type.id;
    if id.is_empty() {
        return Arc::default();
    }
    let keys = KeyColumns::new(&batch.event_type, id, &batch.records);
    let rows = batch.records.num_rows();
    let mut ids = Vec::with_capacity(rows);
    let mut key = Vec::new();
    let mut selected = batch.selection.as_deref().map(|rows| rows.iter().peekable());
    for from in (0..rows).step_by(TOUCHED) {
        let some = from..rows.min(from + TOUCHED);
        keys.touch(some.clone());
        for row in some {
            let is_selected =
                selected.as_mut().is_none_or(|left| left.next_if(|next| **next as usize == row).is_some());
            ids.push(match is_selected {
                true => {
                    keys.key_bytes(row, &mut key);
                    key_hash(&key)
                }
                false => 0,
            });
        }
    }
    ids.into()
}

fn hours_of(batch: &Batch, ids: &[u128], bucket_ms: i64, time: impl Fn(usize) -> i64) -> Vec<(i64, Totals)> {
    let mut sums =
        Sums { bucket_ms, hour: Hour { start_ms: 0, width_ms: 0 }, current: Totals::default(), hours: Vec::new() };
    match (&batch.selection, ids) {
        (None, []) => (0..batch.records.num_rows()).for_each(|row| sums.add(time(row), 0)),
        (None, ids) => ids.iter().enumerate().for_each(|(row, id)| sums.add(time(row), *id)),
        (Some(rows), []) => rows.iter().for_each(|row| sums.add(time(*row as usize), 0)),
        (Some(rows), ids) => rows.iter().for_each(|row| sums.add(time(*row as usize), ids[*row as usize])),
    }
    sums.next(i64::MIN);
    sums.hours
}

/// Adds up by hour; most events lie in the hour of the one before.
struct Sums {
    bucket_ms: i64,
    hour: Hour,
    current: Totals,
    hours: Vec<(i64, Totals)>,
}

impl Sums {
    #[inline]
    fn add(&mut self, time_ms: i64, id: u128) {
        if time_ms < self.hour.start_ms || time_ms >= self.hour.end_ms() {
            self.next(time_ms);
        }
        self.current.events += 1;
        self.current.ids += id;
    }

    #[cold]
    fn next(&mut self, time_ms: i64) {
        let (start_ms, sum) = (self.hour.start_ms, std::mem::take(&mut self.current));
        match self.hours.binary_search_by_key(&start_ms, |(known, _)| *known) {
            _ if sum.events == 0 => {}
            Ok(at) => self.hours[at].1 += sum,
            Err(at) => self.hours.insert(at, (start_ms, sum)),
        }
        self.hour = Hour::of(time_ms, self.bucket_ms);
    }
}
