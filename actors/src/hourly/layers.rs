//! Groups that have left memory.
//!
//! An hour that is not in memory is in *layers*: groups in order of their values, in pieces of some 64 KiB. Events
//! that come
//! later make new groups in memory, so a group may be in several layers and in memory. They are merged when rows
//! leave, in
//! order, with one piece of each layer in memory; and small layers of about one size, into one.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use tidemill_core::{PieceChanges, PieceReader, StageError};

use super::emit;
use super::groups::Groups;
use super::interner::{Held, order};
use super::measure::Accumulator;
use super::plan::Plan;

/// Bytes of a piece.
const BLOCK_BYTES: usize = 64 << 10;
/// So many layers of about one size become one.
const MERGED_LAYERS: usize = 8;
/// A layer of more bytes is not merged with others before rows leave: so much is written at a time at most.
const MERGED_BYTES_MAX: u64 = 32 << 20;
/// Groups that are made at a time when layers are merged.
const MERGED_GROUPS: usize = 8192;

/// A layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Layer {
    pub(super) number: u32,
    blocks: u32,
    pub(super) groups: u64,
    bytes: u64,
}

/// How many of the last layers become one with `bytes` that leave memory.
pub(super) fn to_merge(layers: &[Layer], bytes: u64) -> usize {
    let (mut merged, mut all) = (0, bytes);
    loop {
        let near = layers[..layers.len() - merged].iter().rev().take_while(|layer| layer.bytes <= 2 * all);
        let near: Vec<u64> = near.map(|layer| layer.bytes).take(MERGED_LAYERS - 1).collect();
        let sum = near.iter().sum::<u64>() + all;
        if near.len() + 1 < MERGED_LAYERS || sum > MERGED_BYTES_MAX {
            return merged;
        }
        (merged, all) = (merged + near.len(), sum);
    }
}

impl Layer {
    fn piece(&self, hour: &str, block: u32) -> String {
        format!("l/{hour}/{:08}/{block:08}", self.number)
    }

    /// Removes its pieces.
    pub(super) fn remove(&self, hour: &str, changes: &mut PieceChanges) {
        changes.extend((0..self.blocks).map(|block| (self.piece(hour, block), None)));
    }
}

/// Groups, and what is counted for each.
pub(super) struct Table {
    pub(super) groups: Groups,
    pub(super) measures: Vec<Accumulator>,
}

impl Table {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { groups: Groups::new(plan.groups.len()), measures: plan.measures.iter().map(Accumulator::new).collect() }
    }

    /// Appends a group: its length in bytes, its values, what is counted for it.
    pub(super) fn encode(&self, group: u32, out: &mut Vec<u8>) -> Result<(), StageError> {
        let start = out.len();
        out.extend([0; 4]);
        let failed = |error: postcard::Error| StageError {
            message: "a group can't be written".into(),
            source: Some(error.into()),
        };
        for value in self.groups.values_of(group) {
            *out = postcard::to_extend(value, std::mem::take(out)).map_err(failed)?;
        }
        for measure in &self.measures {
            measure.encode(group as usize, out).map_err(failed)?;
        }
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Adds what is counted for a group elsewhere.
    fn add(&mut self, values: &[Held], counted: &[u8]) -> Option<()> {
        let group = self.groups.insert(values);
        let mut rest = counted;
        for measure in &mut self.measures {
            rest = measure.merge(group as usize, rest)?;
        }
        rest.is_empty().then_some(())
    }

    /// Adds the groups that a piece holds.
    pub(super) fn add_all(&mut self, plan: &Plan, piece: &[u8]) -> Result<(), StageError> {
        let mut left = piece;
        while !left.is_empty() {
            let (values, counted, rest) = split(plan, left).ok_or_else(damaged)?;
            self.add(&values, counted).ok_or_else(damaged)?;
            left = rest;
        }
        Ok(())
    }
}

fn damaged() -> StageError {
    StageError::new("a piece of the state is damaged: its groups do not fit the topology or end early")
}

/// The first group of some: its values, what is counted for it, and the others.
fn split<'a>(plan: &Plan, bytes: &'a [u8]) -> Option<(Vec<Held>, &'a [u8], &'a [u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (mut group, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let mut values = Vec::with_capacity(plan.groups.len());
    for _ in &plan.groups {
        let (value, behind) = postcard::take_from_bytes(group).ok()?;
        values.push(value);
        group = behind;
    }
    Some((values, group, rest))
}

/// Groups of an hour in order, from one of the places where they are.
struct Cursor<'a> {
    from: From<'a>,
    /// What was read of them.
    bytes: Vec<u8>,
    at: usize,
    /// The first of those that are left: its values, and where in the bytes what is counted for it is.
    head: Option<(Vec<Held>, std::ops::Range<usize>)>,
}

enum From<'a> {
    Memory(&'a Table, std::vec::IntoIter<u32>),
    Layer { hour: &'a str, layer: &'a Layer, next: u32, pieces: &'a dyn PieceReader },
}

impl Cursor<'_> {
    fn advance(&mut self, plan: &Plan) -> Result<(), StageError> {
        self.head = None;
        if self.at == self.bytes.len() {
            self.at = 0;
            self.bytes.clear();
            match &mut self.from {
                From::Memory(table, groups) => {
                    let Some(group) = groups.next() else { return Ok(()) };
                    table.encode(group, &mut self.bytes)?;
                }
                From::Layer { layer, next, .. } if *next == layer.blocks => return Ok(()),
                From::Layer { hour, layer, next, pieces } => {
                    self.bytes = pieces.read(&layer.piece(hour, *next)).map_err(|error| StageError {
                        message: "groups that have left memory can't be read back".into(),
                        source: Some(error.into()),
                    })?;
                    *next += 1;
                }
            }
        }
        let left = &self.bytes[self.at..];
        let (values, counted, rest) = split(plan, left).ok_or_else(damaged)?;
        let end = self.bytes.len() - rest.len();
        self.head = Some((values, end - counted.len()..end));
        self.at = end;
        Ok(())
    }
}

fn compare(plan: &Plan, a: &[Held], b: &[Held]) -> Ordering {
    let each = plan.groups.iter().zip(a.iter().zip(b)).map(|(field, (a, b))| order(&field.kind, a, b));
    each.fold(Ordering::Equal, Ordering::then)
}

/// Calls `each` with tables of merged groups: in order, and no group twice.
pub(super) fn merged(
    plan: &Plan,
    hour: &str,
    (memory, layers): (&Table, &[Layer]),
    pieces: &dyn PieceReader,
    mut each: impl FnMut(&Table) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let from_layer = |layer| From::Layer { hour, layer, next: 0, pieces };
    let in_memory = From::Memory(memory, emit::in_order(plan, &memory.groups).into_iter());
    let places = layers.iter().map(from_layer).chain([in_memory]);
    let mut cursors: Vec<Cursor<'_>> =
        places.map(|from| Cursor { from, bytes: Vec::new(), at: 0, head: None }).collect();
    for cursor in &mut cursors {
        cursor.advance(plan)?;
    }
    let mut table = Table::new(plan);
    loop {
        let heads = cursors.iter().filter_map(|cursor| cursor.head.as_ref().map(|(values, _)| values));
        let Some(least) = heads.min_by(|a, b| compare(plan, a, b)).cloned() else { break };
        if table.groups.len() == MERGED_GROUPS {
            each(&table)?;
            table = Table::new(plan);
        }
        for cursor in &mut cursors {
            let Some((values, counted)) = &cursor.head else { continue };
            if compare(plan, values, &least) == Ordering::Equal {
                table.add(values, &cursor.bytes[counted.clone()]).ok_or_else(damaged)?;
                cursor.advance(plan)?;
            }
        }
    }
    if table.groups.len() > 0 { each(&table) } else { Ok(()) }
}

/// Writes a layer.
pub(super) struct Writer<'a> {
    hour: &'a str,
    layer: Layer,
    bytes: Vec<u8>,
    changes: &'a mut PieceChanges,
}

impl<'a> Writer<'a> {
    pub(super) fn new(hour: &'a str, number: u32, changes: &'a mut PieceChanges) -> Self {
        Self { hour, layer: Layer { number, blocks: 0, groups: 0, bytes: 0 }, bytes: Vec::new(), changes }
    }

    /// Adds groups, which are greater than those before.
    pub(super) fn add(&mut self, table: &Table, groups: impl Iterator<Item = u32>) -> Result<(), StageError> {
        for group in groups {
            table.encode(group, &mut self.bytes)?;
            self.layer.groups += 1;
            if self.bytes.len() >= BLOCK_BYTES {
                self.flush();
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.layer.bytes += bytes.len() as u64;
        self.changes.push((self.layer.piece(self.hour, self.layer.blocks), Some(bytes)));
        self.layer.blocks += 1;
    }

    pub(super) fn end(mut self) -> Layer {
        if !self.bytes.is_empty() {
            self.flush();
        }
        self.layer
    }
}
