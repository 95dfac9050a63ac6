//! The groups of one hour of a type, numbered in order of their first event.
//!
//! A group is found field by field: the number of the first field's value, then the number of the pair of that and the
//! second field's value, and so on. Each step is one small table, and a whole batch goes through one before the next.

use arrow_array::ArrayRef;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tidemill_core::Field;

use super::interner::{Held, Interner, for_cells, hash};

/// The groups.
pub(super) struct Groups {
    values: Vec<Interner>,
    /// One table for each field behind the first.
    pairs: Vec<Pairs>,
    /// Number of groups.
    len: usize,
}

/// Pairs of a prefix and a value, and their numbers.
#[derive(Default)]
struct Pairs {
    pairs: Vec<(u32, u32)>,
    table: HashTable<(u64, u32)>,
}

impl Pairs {
    fn key(prefix: u32, value: u32) -> u64 {
        (u64::from(prefix) << 32) | u64::from(value)
    }

    #[inline]
    fn number(&mut self, prefix: u32, value: u32) -> u32 {
        let key = Self::key(prefix, value);
        match self.table.entry(hash(key.into()), |(known, _)| *known == key, |(known, _)| hash((*known).into())) {
            Entry::Occupied(known) => known.get().1,
            Entry::Vacant(slot) => {
                let next = self.pairs.len() as u32;
                slot.insert((key, next));
                self.pairs.push((prefix, value));
                next
            }
        }
    }
}

impl Groups {
    pub(super) fn new(fields: usize) -> Self {
        Self {
            values: (0..fields).map(|_| Interner::default()).collect(),
            pairs: (1..fields).map(|_| Pairs::default()).collect(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The group of each row, new ones included. `None` when a column is not of its field's kind.
    pub(super) fn assign(&mut self, fields: &[Field], columns: &[&ArrayRef], rows: &[u32]) -> Option<Vec<u32>> {
        let mut numbers: Vec<u32> = Vec::with_capacity(rows.len());
        for (at, (field, column)) in fields.iter().zip(columns).enumerate() {
            let values = &mut self.values[at];
            match at.checked_sub(1) {
                None => for_cells(column, &field.kind, rows, |cell| numbers.push(values.number(cell)))?,
                Some(behind) => {
                    let pairs = &mut self.pairs[behind];
                    let mut prefixes = numbers.iter_mut();
                    for_cells(column, &field.kind, rows, |cell| {
                        if let Some(prefix) = prefixes.next() {
                            *prefix = pairs.number(*prefix, values.number(cell));
                        }
                    })?;
                }
            }
        }
        if fields.is_empty() {
            numbers.resize(rows.len(), 0);
        }
        self.count(!rows.is_empty());
        Some(numbers)
    }

    /// The group of these values, one for each field; it may be a new one.
    pub(super) fn insert(&mut self, values: &[Held]) -> u32 {
        let mut number = 0;
        for (at, value) in values.iter().enumerate() {
            let value = self.values[at].number(value.cell());
            number = match at.checked_sub(1) {
                None => value,
                Some(behind) => self.pairs[behind].number(number, value),
            };
        }
        self.count(true);
        number
    }

    fn count(&mut self, has_any: bool) {
        self.len = match (&self.values[..], &self.pairs[..]) {
            ([], _) => usize::from(self.len > 0 || has_any),
            ([only], _) => only.values.len(),
            (_, pairs) => pairs.last().map_or(0, |last| last.pairs.len()),
        };
    }

    /// The values of a group.
    pub(super) fn values_of(&self, group: u32) -> Vec<&Held> {
        let mut values = Vec::with_capacity(self.values.len());
        let mut number = group;
        for (at, pairs) in self.pairs.iter().enumerate().rev() {
            let (prefix, value) = pairs.pairs[number as usize];
            values.push(&self.values[at + 1].values[value as usize]);
            number = prefix;
        }
        values.extend(self.values.first().map(|first| &first.values[number as usize]));
        values.reverse();
        values
    }

    /// For each field, the numbers of its values group by group.
    pub(super) fn members(&self) -> Vec<Vec<u32>> {
        let mut members = vec![Vec::new(); self.values.len()];
        let mut numbers: Vec<u32> = (0..self.len as u32).collect();
        for (at, pairs) in self.pairs.iter().enumerate().rev() {
            let pair = |number: &u32| pairs.pairs[*number as usize];
            members[at + 1] = numbers.iter().map(|number| pair(number).1).collect();
            numbers = numbers.iter().map(|number| pair(number).0).collect();
        }
        if let Some(first) = members.first_mut() {
            *first = numbers;
        }
        members
    }

    /// The values of a field, by number.
    pub(super) fn values(&self, field: usize) -> &[Held] {
        &self.values[field].values
    }
}
