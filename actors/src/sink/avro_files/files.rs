//! The open directories, and how rows get into their files.

use std::sync::Arc;

use tidemill_core::{Counts, Effects, StageError, TimeColumn};

use super::Config;
use super::blocks::Blocks;
use super::directory::{Directory, Owner};
use super::true_hour;
use crate::sink::container::Format;
use crate::sink::encode::RowEncoder;

/// The open directories and the blocks on their way to them.
pub(super) struct Files {
    pub(super) owner: Owner,
    config: Config,
    blocks: Blocks,
    pub(super) directories: Vec<Option<Directory>>,
    pub(super) free: Vec<usize>,
}

/// Rows of the batch in hand that go into one directory.
#[derive(Default)]
pub(super) struct Group {
    pub(super) directory: usize,
    /// Of that directory.
    pub(super) revision: u32,
    pub(super) hour_start_ms: i64,
    pub(super) rows: Vec<u32>,
}

impl Files {
    pub(super) fn new(owner: Owner, config: Config, gives_way: i32) -> Self {
        Self { owner, config, blocks: Blocks::new(gives_way), directories: Vec::new(), free: Vec::new() }
    }

    pub(super) fn open(&mut self, directory: usize) -> &mut Directory {
        self.directories[directory].as_mut().expect("indexes of closed directories are forgotten with them")
    }

    pub(super) fn insert(&mut self, directory: Directory) -> usize {
        match self.free.pop() {
            Some(index) => {
                self.directories[index] = Some(directory);
                index
            }
            None => {
                self.directories.push(Some(directory));
                self.directories.len() - 1
            }
        }
    }

    pub(super) fn write(
        &mut self,
        group: &Group,
        encoder: &RowEncoder<'_>,
        counted: &Counts,
        times: &TimeColumn<'_>,
        format: &Arc<Format>,
        effects: &mut Effects,
    ) -> Result<(), StageError> {
        let index = group.directory;
        let directory = self.open(index);
        directory.group = None;
        let mut counts = directory.counts;
        counts.rows += group.rows.len() as u64;
        for row in &group.rows {
            let time = times.ms(*row as usize);
            counts.min_ms = counts.min_ms.min(time);
            counts.max_ms = counts.max_ms.max(time);
            counts.id_sum = counts.id_sum.wrapping_add(counted.id(*row as usize));
        }
        directory.counts = counts;
        if directory.pending_format != *format {
            self.give(index, effects)?;
            self.open(index).pending_format = format.clone();
        }
        let block_size = self.config.block_size;
        let mut rows = &group.rows[..];
        while !rows.is_empty() {
            let directory = self.open(index);
            let mut taken = 0;
            while taken < rows.len() && directory.pending.len() < block_size {
                encoder.put(rows[taken] as usize, &mut directory.pending);
                if format.has_true_hour {
                    true_hour::put(times.ms(rows[taken] as usize), directory.hour, &mut directory.pending);
                }
                taken += 1;
            }
            directory.pending_rows += taken as u64;
            rows = &rows[taken..];
            if directory.pending.len() >= block_size {
                self.give(index, effects)?;
            }
        }
        Ok(())
    }

    /// Has the pending rows of a directory compressed, if there are any.
    pub(super) fn give(&mut self, index: usize, effects: &mut Effects) -> Result<(), StageError> {
        if self.open(index).pending.is_empty() {
            return Ok(());
        }
        while self.blocks.is_full() {
            self.take(true, effects)?;
        }
        let buffer = self.blocks.buffer();
        let directory = self.open(index);
        let raw = std::mem::replace(&mut directory.pending, buffer);
        let rows = std::mem::take(&mut directory.pending_rows);
        let format = directory.pending_format.clone();
        let level = self.config.level_for(format.codec);
        self.blocks.give(index, rows, format, level, raw);
        Ok(())
    }

    /// Appends the oldest block to its file; false when there is none, or, without `wait`, when it is not ready.
    fn take(&mut self, wait: bool, effects: &mut Effects) -> Result<bool, StageError> {
        let Some(block) = self.blocks.take(wait)? else { return Ok(false) };
        let roll_size = self.config.roll_size;
        let index = block.directory;
        let directory = self.directories[index].as_mut().expect("a directory is closed after its last block");
        directory.append(&self.owner, block, roll_size, effects);
        Ok(true)
    }

    pub(super) fn take_all(&mut self, wait: bool, effects: &mut Effects) -> Result<(), StageError> {
        while self.take(wait, effects)? {}
        Ok(())
    }
}
