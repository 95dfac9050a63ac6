//! The ids of one bucket: a set of 128-bit hashes that grows without a jump in memory and without a long pause. They
//! are their own hashes in the tables, too.

use std::sync::LazyLock;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Sub-tables of a set that has grown beyond [`SPLIT`].
const PARTS: usize = 256;
/// Ids up to which a set has one table, so that a bucket with few ids costs little.
const SPLIT: usize = 8_192;
/// Entries of the table that leads from an id's top bits to a sub-table.
const ROUTE_BITS: u32 = 13;

/// Sub-table of each value of an id's top bits: in their order.
///
/// Sub-table `i` takes the part of the ids between `2^(i/N) - 1` and `2^((i+1)/N) - 1`, so the largest share is
/// twice the smallest and all sizes between occur. A hash table doubles when it is seven eighths full; with shares like
/// these the sub-tables do so one after the other, all the time, and about 28 bytes an id are in use at every size,
/// where a single table would swing between 19 and 39.
static ROUTE: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let entries = 1usize << ROUTE_BITS;
    let part = |entry: usize| ((1.0 + entry as f64 / entries as f64).log2() * PARTS as f64) as usize;
    (0..entries).map(|entry| part(entry).min(PARTS - 1) as u8).collect()
});

/// A set of 128-bit ids, all bits of which are random.
///
/// Costs 27 to 29 bytes an id from some 100,000 ids on. No growth step moves more than one id in 150, or 8,192.
///
/// ```
/// let mut ids = tidemill_actors::dedup::IdSet::default();
/// assert!(ids.insert(7));
/// assert!(!ids.insert(7));
/// assert!(ids.contains(7) && !ids.contains(8));
/// ```
pub struct IdSet {
    /// One, or [`PARTS`].
    parts: Box<[HashTable<u128>]>,
    route: &'static [u8],
    len: usize,
}

impl Default for IdSet {
    fn default() -> Self {
        Self { parts: Box::new([HashTable::new()]), route: &ROUTE, len: 0 }
    }
}

impl IdSet {
    /// A set that takes about `ids` without growing.
    #[must_use]
    pub fn with_capacity(ids: usize) -> Self {
        if ids <= SPLIT {
            return Self { parts: Box::new([HashTable::with_capacity(ids)]), ..Self::default() };
        }
        let mut shares = [0usize; PARTS];
        ROUTE.iter().for_each(|part| shares[usize::from(*part)] += 1);
        let parts = shares.iter().map(|share| HashTable::with_capacity((ids * share) >> ROUTE_BITS)).collect();
        Self { parts, route: &ROUTE, len: 0 }
    }

    /// All ids, in their order. Costs half of what sorting them at once does: each sub-table is sorted by itself.
    #[must_use]
    pub fn into_sorted(self) -> Vec<u128> {
        let mut ids = Vec::with_capacity(self.len);
        for part in self.parts {
            let from = ids.len();
            ids.extend(part);
            ids[from..].sort_unstable();
        }
        ids
    }

    /// Number of ids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the set has allocated.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let tables: usize = self.parts.iter().map(HashTable::allocation_size).sum();
        tables + self.parts.len() * size_of::<HashTable<u128>>()
    }

    /// Ids in the largest sub-table: at most that many are moved by one growth step.
    #[must_use]
    pub fn largest_part(&self) -> usize {
        self.parts.iter().map(HashTable::len).max().unwrap_or(0)
    }

    /// Whether `id` is there.
    #[must_use]
    #[inline]
    pub fn contains(&self, id: u128) -> bool {
        self.parts[self.part(id)].find(hash(id), |known| *known == id).is_some()
    }

    /// Adds `id`; false when it is there already.
    #[inline]
    pub fn insert(&mut self, id: u128) -> bool {
        let part = self.part(id);
        match self.parts[part].entry(hash(id), |known| *known == id, |known| hash(*known)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(slot) => {
                slot.insert(id);
                self.len += 1;
                if self.len > SPLIT && self.parts.len() == 1 {
                    self.split();
                }
                true
            }
        }
    }

    #[cold]
    fn split(&mut self) {
        let small = std::mem::replace(self, Self::with_capacity(2 * SPLIT));
        small.parts.iter().flatten().for_each(|id| {
            self.insert(*id);
        });
    }

    #[inline]
    fn part(&self, id: u128) -> usize {
        if self.parts.len() == 1 {
            return 0;
        }
        usize::from(self.route[(id >> (128 - ROUTE_BITS)) as usize])
    }
}

/// The hash that a sub-table works with: the top bits have already picked the sub-table.
#[inline]
fn hash(id: u128) -> u64 {
    id as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids as different as hashes are, without keeping them.
    fn spread(number: u64) -> u128 {
        let low = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let high = (low ^ (low >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (u128::from(high) << 64) | u128::from(low)
    }

    fn bytes_an_id(set: &IdSet) -> f64 {
        set.memory_bytes() as f64 / set.len() as f64
    }

    #[test]
    fn one_id_costs_at_most_32_bytes_at_every_size_to_20_million() {
        let mut set = IdSet::default();
        let (mut worst, mut next) = (0.0f64, 500_000);
        for number in 0..20_000_000u64 {
            assert!(set.insert(spread(number)), "{number} is new");
            if set.len() == next {
                worst = worst.max(bytes_an_id(&set));
                next += next / 20;
            }
        }
        worst = worst.max(bytes_an_id(&set));
        println!("worst {worst:.2}, at 20 million {:.2} bytes an id", bytes_an_id(&set));
        assert!(worst <= 32.0, "{worst}");
        assert!(set.largest_part() <= 20_000_000 / 150, "{}", set.largest_part());
        assert!((0..20_000_000).step_by(9_973).all(|number| set.contains(spread(number))));
        assert!((20_000_000..20_010_000).all(|number| !set.contains(spread(number))));
    }

    #[test]
    fn sorted_they_are_all_there_at_every_size() {
        for size in [0, 1, 100, 8_193, 40_000] {
            let mut set = IdSet::default();
            (0..size).for_each(|number| assert!(set.insert(spread(number))));
            let mut wanted: Vec<u128> = (0..size).map(spread).collect();
            wanted.sort_unstable();
            assert_eq!(set.into_sorted(), wanted);
        }
    }

    #[test]
    fn a_set_made_for_its_size_does_not_outgrow_it() {
        let mut set = IdSet::with_capacity(1_000_000);
        (0..1_000_000).for_each(|number| assert!(set.insert(spread(number))));
        assert!(bytes_an_id(&set) <= 32.0, "{}", bytes_an_id(&set));
    }

    #[test]
    fn the_shares_of_the_sub_tables_grow_from_one_to_two() {
        let mut shares = [0usize; PARTS];
        ROUTE.iter().for_each(|part| shares[usize::from(*part)] += 1);
        let (first, last) = (shares[..8].iter().sum::<usize>(), shares[PARTS - 8..].iter().sum::<usize>());
        assert!((1.9..2.1).contains(&(last as f64 / first as f64)), "{first} {last}");
        assert!(shares.iter().all(|share| *share > 0));
    }

    #[test]
    fn a_set_with_few_ids_costs_little() {
        let mut set = IdSet::default();
        assert!(set.memory_bytes() <= 128, "{}", set.memory_bytes());
        (1..=4).for_each(|number| assert!(set.insert(number)));
        assert!(set.memory_bytes() <= 400, "{}", set.memory_bytes());
    }

    #[test]
    fn every_id_is_kept_through_growth_and_split_and_none_is_taken_twice() {
        let mut set = IdSet::default();
        for number in 0..40_000u64 {
            assert!(!set.contains(spread(number)) && set.insert(spread(number)), "{number} is new");
        }
        assert!((0..40_000).all(|number| set.contains(spread(number)) && !set.insert(spread(number))));
        assert_eq!(set.len(), 40_000);
    }
}
