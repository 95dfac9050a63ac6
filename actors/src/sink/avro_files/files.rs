//! The open directories, and how rows get into their files.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::{Counts, Effects, EventType, PieceChanges, PieceReader, StageError, TimeColumn};

use super::Config;
use super::blocks::Blocks;
use super::directory::{Directory, Owner};
use super::state::{Formats, directories, directory_name, save};
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
    pieces: Arc<dyn PieceReader>,
    formats: Formats,
    pub(super) next_directory: u64,
    /// Pieces that the next cut does not need.
    gone: PieceChanges,
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
    pub(super) fn new(owner: Owner, config: Config, gives_way: i32, pieces: Arc<dyn PieceReader>) -> Self {
        Self {
            owner,
            config,
            blocks: Blocks::new(gives_way),
            directories: Vec::new(),
            free: Vec::new(),
            pieces,
            formats: Formats::default(),
            next_directory: 0,
            gone: PieceChanges::new(),
        }
    }

    /// The directories that were open at the last cut.
    pub(super) fn restored(
        &mut self,
        width_ms: i64,
        types: &BTreeMap<Arc<str>, Arc<EventType>>,
    ) -> Result<Vec<Directory>, StageError> {
        self.formats = Formats::read(&*self.pieces)?;
        directories(&*self.pieces, &self.formats, &self.owner, width_ms, types)
    }

    /// Ends a directory: all its blocks were appended, and its pieces go.
    pub(super) fn remove(&mut self, index: usize) -> Option<Directory> {
        let directory = self.directories[index].take()?;
        self.free.push(index);
        self.gone.push((directory_name(directory.id), None));
        Some(directory)
    }

    /// Puts into pieces what changed of the directories. Beyond `memory_bytes` their pending rows are left there.
    pub(super) fn save(&mut self, memory_bytes: u64, changes: &mut PieceChanges) -> Result<(), StageError> {
        changes.append(&mut self.gone);
        let (mut held, mut joined) = (0, 0);
        for directory in self.directories.iter_mut().flatten() {
            if std::mem::take(&mut directory.is_changed) {
                directory.pending.save(&*self.pieces, &mut joined, changes)?;
                save(directory, &mut self.formats, changes)?;
            }
            held += directory.pending.memory_bytes() as u64;
        }
        if held > memory_bytes {
            self.directories.iter_mut().flatten().for_each(|directory| directory.pending.leave());
        }
        Ok(())
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
        directory.is_changed = true;
        let mut counts = directory.counts;
        counts.rows += group.rows.len() as u64;
        for row in &group.rows {
            let time = times.ms(*row as usize);
            counts.min_ms = counts.min_ms.min(time);
            counts.max_ms = counts.max_ms.max(time);
            counts.id_sum = counts.id_sum.wrapping_add(counted.id(*row as usize));
        }
        directory.counts = counts;
        if directory.pending.format != *format {
            self.give(index, effects)?;
            self.open(index).pending.format = format.clone();
        }
        let block_size = self.config.block_size;
        let mut rows = &group.rows[..];
        while !rows.is_empty() {
            let directory = self.open(index);
            let (hour, pending) = (directory.hour, &mut directory.pending);
            let room = block_size - pending.away_bytes().min(block_size);
            let (mut taken, bytes) = (0, pending.buffer());
            while taken < rows.len() && bytes.len() < room {
                encoder.put(rows[taken] as usize, bytes);
                if format.has_true_hour {
                    true_hour::put(times.ms(rows[taken] as usize), hour, bytes);
                }
                taken += 1;
            }
            pending.add(taken as u64);
            rows = &rows[taken..];
            if pending.len() >= block_size {
                self.give(index, effects)?;
            }
        }
        Ok(())
    }

    /// Has the pending rows of a directory compressed, if there are any.
    pub(super) fn give(&mut self, index: usize, effects: &mut Effects) -> Result<(), StageError> {
        if self.open(index).pending.len() == 0 {
            return Ok(());
        }
        while self.blocks.is_full() {
            self.take(true, effects)?;
        }
        let buffer = self.blocks.buffer();
        let directory = self.directories[index].as_mut().expect("a directory is closed after its last block");
        directory.is_changed = true;
        let (raw, rows) = directory.pending.take(buffer, &*self.pieces, &mut self.gone)?;
        let format = directory.pending.format.clone();
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
