//! What is kept of an hour: in memory and in pieces of state.
//!
//! `h/<hour>/<type>` is the hour, `g/<hour>/<type>/<shard>` are its groups in memory, 16 of them in a piece in order
//! of their
//! numbers, `l/<hour>/<type>/<layer>/<block>` those that have left it (`layers`). A cut writes pieces that have
//! changed.

use serde::{Deserialize, Serialize};
use tidemill_core::{PieceChanges, PieceReader, StageError};

use super::layers::{Layer, Table, Writer, merged, to_merge};
use super::plan::Plan;
use super::{emit, snapshot};

/// Groups in a piece.
const SHARD_GROUPS: usize = 16;
/// What each value and measure of a group takes in memory beyond its bytes in a piece, about: entries of tables.
const VALUE_BYTES: u64 = 72;

/// An hour of a type that still takes events.
pub(super) struct OpenHour {
    phase: Phase,
    /// The groups in memory.
    pub(super) table: Table,
    shards: Vec<Shard>,
    /// Of all shards.
    shard_bytes: u64,
    layers: Vec<Layer>,
    next_layer: u32,
    /// Number of the call that took events of it last.
    touched: u64,
    is_changed: bool,
}

/// Groups of a piece.
#[derive(Clone, Copy, Default)]
struct Shard {
    is_changed: bool,
    /// Of the piece; 0 when there is none.
    bytes: u32,
}

/// Where an hour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// It is not sealed, or not for its type.
    Open,
    /// It is sealed, and late events have come since its rows left.
    Revising,
    /// It is sealed, and kept so that late events can be added to it.
    Kept,
}

#[derive(Serialize, Deserialize)]
struct SavedHour {
    phase: Phase,
    layers: Vec<Layer>,
    next_layer: u32,
}

/// An hour of a type, as names of pieces have it.
pub(super) fn name_of(start_ms: i64, input: &str) -> String {
    format!("{start_ms}/{input}")
}

impl OpenHour {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            phase: Phase::Open,
            table: Table::new(plan),
            shards: Vec::new(),
            shard_bytes: 0,
            layers: Vec::new(),
            next_layer: 0,
            touched: 0,
            is_changed: true,
        }
    }

    /// Whether it has to be saved.
    pub(super) fn is_changed(&self) -> bool {
        self.is_changed
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.is_changed |= self.phase != phase;
        self.phase = phase;
    }

    /// Events of these groups have come, in a call.
    pub(super) fn touch(&mut self, groups: &[u32], call: u64) {
        self.touched = call;
        self.is_changed = true;
        self.shards.resize(self.table.groups.len().div_ceil(SHARD_GROUPS), Shard::default());
        for group in groups {
            self.shards[*group as usize / SHARD_GROUPS].is_changed = true;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.groups.len() == 0 && self.layers.is_empty()
    }

    /// Groups that are held; one in memory and in layers counts more than once.
    pub(super) fn len(&self) -> u64 {
        self.table.groups.len() as u64 + self.layers.iter().map(|layer| layer.groups).sum::<u64>()
    }

    /// What it takes in memory as of the last cut, about.
    pub(super) fn memory_bytes(&self, plan: &Plan) -> u64 {
        let values = (plan.groups.len() + plan.measures.len()) as u64;
        self.shard_bytes + VALUE_BYTES * values * self.table.groups.len() as u64
    }

    pub(super) fn touched(&self) -> u64 {
        self.touched
    }

    /// Calls `each` with its groups in order, and no group twice.
    pub(super) fn for_tables(
        &self,
        plan: &Plan,
        name: &str,
        pieces: &dyn PieceReader,
        mut each: impl FnMut(&Table) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        match &self.layers[..] {
            [] => each(&self.table),
            layers => merged(plan, name, (&self.table, layers), pieces, each),
        }
    }

    /// Puts into pieces what changed.
    pub(super) fn save(&mut self, name: &str, changes: &mut PieceChanges) -> Result<(), StageError> {
        if !std::mem::take(&mut self.is_changed) {
            return Ok(());
        }
        self.save_head(name, changes)?;
        let groups = self.table.groups.len();
        for (number, shard) in self.shards.iter_mut().enumerate().filter(|(_, shard)| shard.is_changed) {
            let first = number * SHARD_GROUPS;
            let mut bytes = Vec::with_capacity(shard.bytes as usize);
            for group in first..groups.min(first + SHARD_GROUPS) {
                self.table.encode(group as u32, &mut bytes)?;
            }
            self.shard_bytes += bytes.len() as u64;
            self.shard_bytes -= u64::from(shard.bytes);
            *shard = Shard { is_changed: false, bytes: bytes.len() as u32 };
            changes.push((format!("g/{name}/{number:08}"), Some(bytes)));
        }
        Ok(())
    }

    fn save_head(&self, name: &str, changes: &mut PieceChanges) -> Result<(), StageError> {
        let saved = SavedHour { phase: self.phase, layers: self.layers.clone(), next_layer: self.next_layer };
        let bytes = postcard::to_stdvec(&saved).map_err(|error| snapshot::unwritten(error.into()))?;
        changes.push((format!("h/{name}"), Some(bytes)));
        Ok(())
    }

    /// Leaves its groups in pieces: as one more layer, or as one in place of small ones. Called behind
    /// [`save`](Self::save).
    pub(super) fn leave(
        &mut self,
        plan: &Plan,
        name: &str,
        pieces: &dyn PieceReader,
        changes: &mut PieceChanges,
    ) -> Result<(), StageError> {
        if self.table.groups.len() == 0 {
            return Ok(());
        }
        let bytes = self.shard_bytes;
        let small = self.layers.split_off(self.layers.len() - to_merge(&self.layers, bytes));
        let mut writer = Writer::new(name, self.next_layer, changes);
        if !small.is_empty() {
            merged(plan, name, (&self.table, &small), pieces, |table| writer.add(table, 0..table.groups.len() as u32))?;
        } else {
            writer.add(&self.table, emit::in_order(plan, &self.table.groups).into_iter())?;
        }
        let layer = writer.end();
        small.iter().for_each(|layer| layer.remove(name, changes));
        self.layers.push(layer);
        self.next_layer += 1;
        self.remove_shards(name, changes);
        self.table = Table::new(plan);
        self.save_head(name, changes)
    }

    fn remove_shards(&mut self, name: &str, changes: &mut PieceChanges) {
        let shards = std::mem::take(&mut self.shards);
        self.shard_bytes = 0;
        let written = shards.iter().enumerate().filter(|(_, shard)| shard.bytes > 0);
        changes.extend(written.map(|(number, _)| (format!("g/{name}/{number:08}"), None)));
    }

    /// Ends it: its pieces go.
    pub(super) fn remove(mut self, name: &str, changes: &mut PieceChanges) {
        self.remove_shards(name, changes);
        self.layers.iter().for_each(|layer| layer.remove(name, changes));
        changes.push((format!("h/{name}"), None));
    }

    /// An hour as it was written; its layers stay where they are.
    pub(super) fn read(plan: &Plan, name: &str, pieces: &dyn PieceReader) -> Result<Self, StageError> {
        let read = |piece: &str| pieces.read(piece).map_err(|error| snapshot::unread(error.into()));
        let saved: SavedHour =
            postcard::from_bytes(&read(&format!("h/{name}"))?).map_err(|error| snapshot::unread(error.into()))?;
        let SavedHour { phase, layers, next_layer } = saved;
        let mut hour = Self { phase, layers, next_layer, is_changed: false, ..Self::new(plan) };
        for piece in pieces.names(&format!("g/{name}/")) {
            let bytes = read(&piece)?;
            hour.table.add_all(plan, &bytes)?;
            hour.shards.push(Shard { is_changed: false, bytes: bytes.len() as u32 });
            hour.shard_bytes += bytes.len() as u64;
        }
        Ok(hour)
    }
}
