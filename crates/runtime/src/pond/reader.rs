//! The end of a pond that is read from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::{
    Batch, Counts, Cure, DeliveryId, EventType, Horizon, HourNote, PartitionPosition, Positions, SourceError,
};

use crate::audit::{ByHour, Mismatch, add, compare};
use crate::horizon::Closing;
use crate::host::{Host, HostFile, Open};

use super::record::{self, Barrier, HEADER_BYTES, Record, RecordError};
use super::shared::PondShared;

/// The one partition of a pond.
pub(crate) const PARTITION: &str = "0";

/// Up to which offset a pond was read, by the positions of a cut of the region that reads it.
pub(crate) fn offset_in(positions: &Positions, pond: &str) -> u64 {
    positions.get(pond).and_then(|partitions| partitions.get(PARTITION)).map_or(0, |position| position.next)
}

/// What a pond gave.
pub(crate) enum Drawn {
    /// Events, their name, and the bytes that they had in the pond.
    Rows(Batch, DeliveryId, u64),
    /// A remark on an hour, and its bytes.
    Note(HourNote, u64),
    /// A barrier that seals nothing, and its bytes.
    Barrier(u64),
    /// Hours or revisions end here: nothing is read on until [`PondReader::pass`].
    Seals(Closing),
    /// Nothing now.
    Empty,
    /// Nothing ever again.
    Ended,
}

/// What the barriers up to a position have said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// How far each type is sealed.
    pub(crate) horizons: BTreeMap<Arc<str>, Horizon>,
    /// Positions of the sources at the last one.
    pub(crate) positions: Positions,
    /// Whether all that was drawn lies below the positions.
    pub(crate) is_whole: bool,
    /// The same of types that came by ways of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) positions_of: Vec<(Vec<Arc<str>>, Arc<Positions>)>,
}

impl Default for Heard {
    fn default() -> Self {
        // Nothing was drawn.
        Self { horizons: BTreeMap::new(), positions: Positions::new(), is_whole: true, positions_of: Vec::new() }
    }
}

impl Heard {
    /// What was heard up to a position.
    pub(crate) fn at(position: Option<&PartitionPosition>) -> Result<Self, serde_json::Error> {
        position.map_or_else(|| Ok(Self::default()), |position| serde_json::from_str(&position.resume))
    }

    fn as_resume(&self) -> Arc<str> {
        serde_json::to_string(self).unwrap_or_default().into()
    }

    fn hear(&mut self, barrier: Barrier) {
        self.horizons.extend(barrier.horizons.into_iter().map(|horizon| (horizon.event_type.clone(), horizon)));
        // What is said of hours that were sealed before there was a pond says nothing of positions.
        if !barrier.positions.is_empty() {
            self.positions = barrier.positions;
            self.is_whole = barrier.is_whole;
            self.positions_of = barrier.positions_of;
        }
    }
}

/// See the module.
pub(crate) struct PondReader {
    pub(crate) pond: Arc<PondShared>,
    host: Arc<dyn Host>,
    id: Arc<str>,
    types: Vec<Arc<EventType>>,
    offset: u64,
    heard: Arc<Heard>,
    /// The same as it stands in a position: made when something is heard, not for each record.
    resume: Arc<str>,
    /// The barrier with seals at `offset`, and the offset behind it.
    seals: Option<(Barrier, u64)>,
    /// What was drawn since the last barrier; `None` when that was before it was opened.
    drawn: Option<ByHour>,
    /// Where that is not what the barrier said.
    damage: Vec<Mismatch>,
    bucket_ms: i64,
    open: Option<(u64, PathBuf, Box<dyn HostFile>)>,
    payload: Vec<u8>,
}

impl PondReader {
    /// Opens a pond at a position that [`PondReader::position`] gave.
    pub(crate) fn open(
        host: Arc<dyn Host>,
        pond: Arc<PondShared>,
        state_id: &str,
        types: Vec<Arc<EventType>>,
        position: Option<&PartitionPosition>,
        bucket_ms: i64,
    ) -> Result<Self, SourceError> {
        let heard = Heard::at(position).map_err(|error| SourceError {
            message: format!("pond `{}`: what its position says of hours can't be read", pond.name),
            cure: Cure::Stop,
            source: Some(Box::new(error)),
        })?;
        let offset = position.map_or(0, |position| position.next);
        let id = pond.id(state_id);
        let resume = heard.as_resume();
        let heard = Arc::new(heard);
        let drawn = (offset == 0).then(ByHour::new);
        let (seals, damage, open, payload) = (None, Vec::new(), None, Vec::new());
        Ok(Self { pond, host, id, types, offset, heard, resume, seals, drawn, damage, bucket_ms, open, payload })
    }

    /// Behind what was drawn; seals that were not passed are not drawn.
    pub(crate) fn position(&self) -> PartitionPosition {
        PartitionPosition { next: self.offset, resume: self.resume.clone(), ended: self.pond.has_ended_at(self.offset) }
    }

    /// What was said up to there.
    pub(crate) fn heard(&self) -> &Arc<Heard> {
        &self.heard
    }

    /// Where what was read is not what was written, since it was asked last.
    pub(crate) fn damage(&mut self) -> Vec<Mismatch> {
        std::mem::take(&mut self.damage)
    }

    fn hear(&mut self, barrier: Barrier) {
        if let Some(drawn) = self.drawn.replace(ByHour::new()) {
            let place = format!("in pond `{}`", self.pond.name);
            self.damage.extend(compare(&place, &barrier.totals, &drawn, self.bucket_ms));
        }
        let heard = Arc::make_mut(&mut self.heard);
        heard.hear(barrier);
        self.resume = heard.as_resume();
    }

    /// Goes behind seals that a barrier carries.
    pub(crate) fn pass(&mut self) {
        if let Some((barrier, next)) = self.seals.take() {
            self.offset = next;
            self.hear(barrier);
        }
    }

    /// The next record.
    pub(crate) fn draw(&mut self) -> Result<Drawn, SourceError> {
        let Some((base, end, path)) = self.pond.segment(self.offset) else {
            return Ok(if self.pond.has_ended_at(self.offset) { Drawn::Ended } else { Drawn::Empty });
        };
        if self.open.as_ref().is_none_or(|(open, ..)| *open != base) {
            let file = self.host.open(&path, Open::Read).map_err(|error| self.unreadable("open", &path, error))?;
            self.open = Some((base, path, file));
        }
        let Some((_, path, file)) = &self.open else { return Ok(Drawn::Empty) };
        let mut header = [0; HEADER_BYTES];
        let at = self.offset - base;
        let left = end - self.offset;
        let cut_short = RecordError::Malformed("it runs beyond the end of its segment".into());
        if left < HEADER_BYTES as u64 {
            return Err(self.damaged(path, at, cut_short));
        }
        file.read_exact_at(&mut header, at).map_err(|error| self.unreadable("read", path, error))?;
        let length = record::payload_bytes(&header);
        let total = (HEADER_BYTES + length) as u64;
        if left < total {
            return Err(self.damaged(path, at, cut_short));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(length, 0);
        file.read_exact_at(&mut payload, at + HEADER_BYTES as u64)
            .map_err(|error| self.unreadable("read", path, error))?;
        let record = record::read(&header, &payload, &self.types).map_err(|error| self.damaged(path, at, error))?;
        self.payload = payload;
        let (offset, next) = (self.offset, self.offset + total);
        Ok(match record {
            Record::Rows(mut batch) => {
                self.offset = next;
                if self.heard.is_whole {
                    Arc::make_mut(&mut self.heard).is_whole = false;
                    self.resume = self.heard.as_resume();
                }
                batch.counts = Some(Counts::of(&batch, self.bucket_ms));
                if let Some(drawn) = &mut self.drawn {
                    add(drawn, &batch, self.bucket_ms);
                }
                Drawn::Rows(batch, DeliveryId { pond: self.id.clone(), offset }, total)
            }
            Record::Note(note) => {
                self.offset = next;
                Drawn::Note(note, total)
            }
            Record::Barrier(barrier) if barrier.horizons.is_empty() && barrier.revised.is_empty() => {
                self.offset = next;
                self.hear(barrier);
                Drawn::Barrier(total)
            }
            Record::Barrier(barrier) => {
                let closing = Closing {
                    is_step: false,
                    horizons: barrier.horizons.clone(),
                    revised: barrier.revised.clone(),
                    without: barrier.without.clone(),
                };
                self.seals = Some((barrier, next));
                Drawn::Seals(closing)
            }
        })
    }

    fn unreadable(&self, action: &str, path: &Path, error: std::io::Error) -> SourceError {
        SourceError {
            message: format!("pond `{}`: can't {action} {}", self.pond.name, path.display()),
            // A segment that the ledger knows does not come back by itself.
            cure: if error.kind() == std::io::ErrorKind::NotFound { Cure::Stop } else { Cure::Reopen },
            source: Some(Box::new(error)),
        }
    }

    fn damaged(&self, path: &Path, at: u64, error: RecordError) -> SourceError {
        SourceError {
            message: format!(
                "pond `{}`: the record at byte {at} of {} can't be read. Nothing behind it was delivered. Put the file back from a copy of the disk, or give up what the pond holds with --fresh",
                self.pond.name,
                path.display()
            ),
            cure: Cure::Stop,
            source: Some(Box::new(error)),
        }
    }
}
