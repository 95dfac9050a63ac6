//! Rows that are not in a block yet.
//!
//! A block ends when it has its size, never at a cut. So a cut writes the rows that came since the one before as a
//! piece
//! of state. All that is in pieces may leave memory, and is read back when the block is full.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::{PieceChanges, PieceReader, StageError};

use crate::sink::container::Format;

/// Pieces of one block: more are joined to one, so that few events a cut do not make very many.
const CHUNKS: usize = 16;
/// Bytes that one cut joins; then directories have more pieces for a while.
const JOINED_BYTES_MAX: usize = 8 << 20;

/// Rows in a piece.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Chunk {
    number: u32,
    rows: u64,
    bytes: usize,
}

/// See the module.
pub(super) struct Pending {
    pub(super) format: Arc<Format>,
    /// Begins the names of its pieces.
    directory: u64,
    /// The first rows, which are in pieces.
    chunks: Vec<Chunk>,
    next_chunk: u32,
    /// All rows, or those behind the chunks when these are not in memory.
    bytes: Vec<u8>,
    are_away: bool,
    rows: u64,
}

impl Pending {
    pub(super) fn new(directory: u64, format: Arc<Format>) -> Self {
        Self { format, directory, chunks: Vec::new(), next_chunk: 0, bytes: Vec::new(), are_away: false, rows: 0 }
    }

    /// As they were saved, none of them in memory.
    pub(super) fn saved(directory: u64, format: Arc<Format>, chunks: Vec<Chunk>, next_chunk: u32) -> Self {
        let rows = chunks.iter().map(|chunk| chunk.rows).sum();
        let are_away = !chunks.is_empty();
        Self { chunks, next_chunk, are_away, rows, ..Self::new(directory, format) }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn chunks(&self) -> (&[Chunk], u32) {
        (&self.chunks, self.next_chunk)
    }

    /// Bytes of all rows.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + self.away_bytes()
    }

    /// Bytes of those that are not in memory.
    pub(super) fn away_bytes(&self) -> usize {
        if self.are_away { self.chunk_bytes() } else { 0 }
    }

    /// What the rows in memory take.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    fn chunk_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    fn name(&self, chunk: u32) -> String {
        format!("r/{:016x}/{chunk:08}", self.directory)
    }

    /// Where rows are encoded to.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// So many rows were encoded.
    pub(super) fn add(&mut self, rows: u64) {
        self.rows += rows;
    }

    /// Puts the rows that came since the last cut into a piece. `joined`: bytes that this cut has joined.
    pub(super) fn save(
        &mut self,
        pieces: &dyn PieceReader,
        joined: &mut usize,
        changes: &mut PieceChanges,
    ) -> Result<(), StageError> {
        let saved_rows: u64 = self.chunks.iter().map(|chunk| chunk.rows).sum();
        if saved_rows == self.rows {
            return Ok(());
        }
        if self.chunks.len() < CHUNKS || *joined >= JOINED_BYTES_MAX {
            let from = if self.are_away { 0 } else { self.chunk_bytes() };
            self.put(self.bytes[from..].to_vec(), self.rows - saved_rows, changes);
            return Ok(());
        }
        let mut all = self.read(pieces)?;
        all.extend_from_slice(&self.bytes);
        *joined += all.len();
        self.remove(changes);
        self.put(all, self.rows, changes);
        Ok(())
    }

    fn put(&mut self, bytes: Vec<u8>, rows: u64, changes: &mut PieceChanges) {
        let chunk = Chunk { number: self.next_chunk, rows, bytes: bytes.len() };
        self.next_chunk += 1;
        changes.push((self.name(chunk.number), Some(bytes)));
        self.chunks.push(chunk);
        if self.are_away {
            self.bytes = Vec::new();
        }
    }

    fn remove(&mut self, changes: &mut PieceChanges) {
        let chunks = std::mem::take(&mut self.chunks);
        changes.extend(chunks.iter().map(|chunk| (self.name(chunk.number), None)));
    }

    /// What is not in memory.
    fn read(&self, pieces: &dyn PieceReader) -> Result<Vec<u8>, StageError> {
        let mut bytes = Vec::with_capacity(self.len());
        for chunk in self.chunks.iter().filter(|_| self.are_away) {
            let name = self.name(chunk.number);
            let piece = pieces.read(&name).map_err(|error| StageError {
                message: "rows that wait for their block can't be read back".to_owned(),
                source: Some(error.into()),
            })?;
            if piece.len() != chunk.bytes {
                let (found, wanted) = (piece.len(), chunk.bytes);
                return Err(StageError::new(format!(
                    "the piece `{name}` has {found} bytes, and was written with {wanted}"
                )));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Leaves what is in pieces there. Called behind [`save`](Self::save).
    pub(super) fn leave(&mut self) {
        self.bytes = Vec::new();
        self.are_away = !self.chunks.is_empty();
    }

    /// All rows, and how many they are; `buffer` is for those to come.
    pub(super) fn take(
        &mut self,
        buffer: Vec<u8>,
        pieces: &dyn PieceReader,
        changes: &mut PieceChanges,
    ) -> Result<(Vec<u8>, u64), StageError> {
        let raw = if self.are_away {
            let mut raw = self.read(pieces)?;
            raw.extend_from_slice(&self.bytes);
            raw
        } else {
            std::mem::take(&mut self.bytes)
        };
        self.bytes = buffer;
        self.are_away = false;
        self.remove(changes);
        Ok((raw, std::mem::take(&mut self.rows)))
    }
}
