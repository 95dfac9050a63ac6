//! Ids that have left memory: sorted, in pieces of state, behind a filter that mostly knows which are not among them.
//!
//! The filter is a split block Bloom filter (Putze, Sanders and Singler 2007, "Cache-, Hash- and Space-Efficient Bloom
//! Filters", in the form of the Apache Parquet format): 16 bits an id, one cache line a question, wrong once in some
//! 1,000 questions about ids that are not there. Ids are keyed hashes, so their own bits serve as its hash. The top
//! ones pick the block, so that it is filled from its beginning to its end.

use serde::{Deserialize, Serialize};
use tidemill_core::{PieceChanges, PieceReader, StageError};

/// Ids in a piece: 8 KiB.
const BLOCK_IDS: usize = 512;
/// Bits of the filter for each id.
const FILTER_BITS: u64 = 16;
/// A run that has so many ids is not merged with others: 64 MB are written at a time at most.
const MERGED_IDS_MAX: u64 = 4 << 20;
/// So many runs of about one size are merged.
const MERGED_RUNS: usize = 4;
/// Multipliers of the filter, as the format has them: one for each of the eight words of a block.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Sorted ids of one bucket.
#[derive(Serialize, Deserialize)]
pub(super) struct Run {
    number: u32,
    ids: u64,
    /// The first id of each piece.
    firsts: Vec<u128>,
    filter: Vec<[u32; 8]>,
}

/// The runs of one bucket. A bucket may come back when it was forgotten, so the cut that it began at is part of its
/// name.
pub(super) struct Runs {
    name: String,
    runs: Vec<Run>,
    next: u32,
}

impl Run {
    fn block(&self, name: &str, block: usize) -> String {
        format!("i/{name}/{:08}/{block:08}", self.number)
    }

    fn head(&self, name: &str) -> String {
        format!("x/{name}/{:08}", self.number)
    }

    fn spot(&self, id: u128) -> (usize, [u32; 8]) {
        let block = ((u64::from((id >> 96) as u32) * self.filter.len() as u64) >> 32) as usize;
        (block, SALTS.map(|salt| 1 << ((id as u32).wrapping_mul(salt) >> 27)))
    }

    /// Whether an id may be there.
    #[inline]
    pub(super) fn may_hold(&self, id: u128) -> bool {
        let (block, mask) = self.spot(id);
        self.filter[block].iter().zip(mask).all(|(word, bit)| word & bit != 0)
    }

    /// The piece that an id would be in.
    pub(super) fn block_of(&self, id: u128) -> Option<usize> {
        self.firsts.partition_point(|first| *first <= id).checked_sub(1)
    }
}

fn failed(error: std::io::Error) -> StageError {
    StageError { message: "ids that have left memory can't be read back".into(), source: Some(error.into()) }
}

impl Runs {
    pub(super) fn new(bucket: i64, cut: u64) -> Self {
        Self { name: format!("{bucket}/{cut}"), runs: Vec::new(), next: 0 }
    }

    /// Those that were written, of which the filters are in memory from now on.
    pub(super) fn read(bucket: i64, cut: u64, pieces: &dyn PieceReader) -> Result<Self, StageError> {
        let mut runs = Self::new(bucket, cut);
        for name in pieces.names(&format!("x/{}/", runs.name)) {
            let bytes = pieces.read(&name).map_err(failed)?;
            let run: Run = postcard::from_bytes(&bytes).map_err(|error| StageError {
                message: format!("the piece `{name}` is damaged"),
                source: Some(error.into()),
            })?;
            runs.next = runs.next.max(run.number + 1);
            runs.runs.push(run);
        }
        Ok(runs)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Ids of a piece, sorted.
    pub(super) fn block(&self, run: &Run, block: usize, pieces: &dyn PieceReader) -> Result<Vec<u128>, StageError> {
        let bytes = pieces.read(&run.block(&self.name, block)).map_err(failed)?;
        Ok(bytes.as_chunks::<16>().0.iter().map(|id| u128::from_le_bytes(*id)).collect())
    }

    /// Writes sorted ids as one more run; merges runs of about one size.
    pub(super) fn add(
        &mut self,
        mut ids: Vec<u128>,
        pieces: &dyn PieceReader,
        changes: &mut PieceChanges,
    ) -> Result<(), StageError> {
        // The last ones are the smallest: each is at least twice as large as the next, or there are few of a size.
        loop {
            let near = self.runs.iter().rev().take_while(|run| run.ids <= 2 * ids.len() as u64).count();
            let near = near.min(MERGED_RUNS - 1);
            let from = self.runs.len() - near;
            let all = self.runs[from..].iter().map(|run| run.ids).sum::<u64>() + ids.len() as u64;
            if near + 1 < MERGED_RUNS || all > MERGED_IDS_MAX {
                break;
            }
            for run in self.runs.split_off(from) {
                for block in 0..run.firsts.len() {
                    ids.extend(self.block(&run, block, pieces)?);
                    changes.push((run.block(&self.name, block), None));
                }
                changes.push((run.head(&self.name), None));
            }
            // Of a few sorted parts.
            ids.sort();
        }
        let blocks = (ids.len() as u64 * FILTER_BITS).div_ceil(256).max(1) as usize;
        let mut run =
            Run { number: self.next, ids: ids.len() as u64, firsts: Vec::new(), filter: vec![[0; 8]; blocks] };
        self.next += 1;
        for (number, block) in ids.chunks(BLOCK_IDS).enumerate() {
            run.firsts.push(block[0]);
            let mut bytes = Vec::with_capacity(block.len() * 16);
            block.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
            changes.push((run.block(&self.name, number), Some(bytes)));
        }
        for id in &ids {
            let (block, mask) = run.spot(*id);
            run.filter[block].iter_mut().zip(mask).for_each(|(word, bit)| *word |= bit);
        }
        let head = postcard::to_stdvec(&run)
            .map_err(|error| StageError { message: "can't write ids".into(), source: Some(error.into()) })?;
        changes.push((run.head(&self.name), Some(head)));
        self.runs.push(run);
        Ok(())
    }

    /// The bucket is forgotten.
    pub(super) fn remove(&self, changes: &mut PieceChanges) {
        for run in &self.runs {
            changes.extend((0..run.firsts.len()).map(|block| (run.block(&self.name, block), None)));
            changes.push((run.head(&self.name), None));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidemill_testkit::KeptPieces;

    use super::*;

    fn spread(number: u64) -> u128 {
        let low = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.rotate_left(32);
        (u128::from(low.wrapping_mul(0xbf58_476d_1ce4_e5b9)) << 64)
            | u128::from(xxhash_rust::xxh3::xxh3_64(&low.to_le_bytes()))
    }

    fn holds(runs: &Runs, id: u128, pieces: &KeptPieces) -> bool {
        runs.iter().any(|run| {
            let block = run.block_of(id).filter(|_| run.may_hold(id));
            block.is_some_and(|block| runs.block(run, block, pieces).unwrap().binary_search(&id).is_ok())
        })
    }

    #[test]
    fn what_was_added_is_there_over_merges_and_restarts_and_nothing_else() {
        let pieces = KeptPieces::default();
        let mut runs = Runs::new(7, 1);
        let mut number = 0;
        for part in 0..23 {
            let mut ids: Vec<u128> = (0..500 + part * 40)
                .map(|_| {
                    number += 1;
                    spread(number)
                })
                .collect();
            ids.sort_unstable();
            let mut changes = PieceChanges::new();
            runs.add(ids, &pieces, &mut changes).unwrap();
            pieces.apply(&changes);
            if part % 5 == 4 {
                runs = Runs::read(7, 1, &pieces).unwrap();
            }
        }
        assert!(runs.iter().count() < 8, "{} runs", runs.iter().count());
        assert!((1..=number).all(|number| holds(&runs, spread(number), &pieces)));
        let strangers = number + 1..=number + 20_000;
        assert!(!strangers.clone().any(|number| holds(&runs, spread(number), &pieces)));
        let run = runs.iter().max_by_key(|run| run.ids).unwrap();
        let wrong = strangers.filter(|number| run.may_hold(spread(*number))).count();
        assert!(wrong < 60, "the filter is wrong {wrong} times in 20,000");
        let mut changes = PieceChanges::new();
        runs.remove(&mut changes);
        let names: BTreeSet<String> = changes.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, pieces.names("").into_iter().collect(), "all pieces go");
    }
}
