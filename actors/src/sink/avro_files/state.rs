//! What the sink remembers from cut to cut: a version byte, the bookkeeping in postcard, then the pending rows as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use tidemill_core::{EventType, Hour, StageError};

use super::directory::{Counts, Directory, FinishedPart, Owner};
use super::hours::{Noted, Revised};
use crate::sink::container::Format;

/// Version of the form.
const VERSION: u8 = 4;

/// All but the pending rows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) width_ms: i64,
    /// Source, partition, greatest event time seen.
    pub(super) seen: Vec<(String, String, i64)>,
    /// Type, horizon.
    pub(super) sealed: Vec<(String, i64)>,
    /// Type, start of an hour, what earlier stages have said of it.
    pub(super) noted: Vec<(String, i64, Noted)>,
    /// Type, end of the hours whose late events are not taken any more.
    pub(super) given_up: Vec<(String, i64)>,
    /// Type, start of an hour, its further revisions.
    pub(super) revised: Vec<(String, i64, Revised)>,
    /// The request that was answered last.
    pub(super) answered: Option<String>,
    formats: Vec<Format>,
    directories: Vec<SavedDirectory>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedDirectory {
    event_type: String,
    hour_start_ms: i64,
    revision: u32,
    path: String,
    path_values: BTreeMap<String, String>,
    counts: Counts,
    pending_bytes: usize,
    pending_rows: u64,
    pending_format: usize,
    next_part: u32,
    part: Option<SavedPart>,
    finished: Vec<FinishedPart>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedPart {
    number: u32,
    format: usize,
    rows: u64,
    bytes: u64,
    sha256: Vec<u8>,
}

impl Saved {
    pub(super) fn new(width_ms: i64) -> Self {
        Self { width_ms, ..Self::default() }
    }

    /// Adds the directories, and makes the bytes of a snapshot.
    pub(super) fn write<'a>(
        mut self,
        directories: impl Iterator<Item = &'a Directory> + Clone,
    ) -> Result<Vec<u8>, StageError> {
        let index = |formats: &mut Vec<Format>, format: &Format| {
            formats.iter().position(|there| there == format).unwrap_or_else(|| {
                formats.push(format.clone());
                formats.len() - 1
            })
        };
        for directory in directories.clone() {
            let part = directory.part.as_ref().map(|part| SavedPart {
                number: part.number,
                format: index(&mut self.formats, &part.format),
                rows: part.rows,
                bytes: part.bytes,
                sha256: part.sha256.serialize().to_vec(),
            });
            self.directories.push(SavedDirectory {
                event_type: directory.event_type.name.to_string(),
                hour_start_ms: directory.hour.start_ms,
                revision: directory.revision,
                path: directory.path.clone(),
                path_values: directory.path_values.clone(),
                counts: directory.counts,
                pending_bytes: directory.pending.len(),
                pending_rows: directory.pending_rows,
                pending_format: index(&mut self.formats, &directory.pending_format),
                next_part: directory.next_part,
                part,
                finished: directory.finished.clone(),
            });
        }
        let failed = |error: postcard::Error| StageError {
            message: "the state of the sink can't be written".to_owned(),
            source: Some(error.into()),
        };
        let mut bytes = postcard::to_extend(&self, vec![VERSION]).map_err(failed)?;
        for directory in directories {
            bytes.extend_from_slice(&directory.pending);
        }
        Ok(bytes)
    }

    /// Reads a snapshot: the bookkeeping, and the open directories with their pending rows.
    pub(super) fn read(
        snapshot: &[u8],
        owner: &Owner,
        width_ms: i64,
        types: &BTreeMap<Arc<str>, Arc<EventType>>,
    ) -> Result<(Self, Vec<Directory>), StageError> {
        let damaged = || StageError::new("the state of the sink is damaged: it ends early or does not fit together");
        let body = match snapshot.split_first() {
            Some((&VERSION, body)) => body,
            Some((version, _)) => {
                return Err(StageError::new(format!(
                    "the state of the sink has version {version}, this program reads {VERSION}: use the version that wrote it"
                )));
            }
            None => return Err(damaged()),
        };
        let (mut saved, mut pending): (Self, _) = postcard::take_from_bytes(body).map_err(|error| StageError {
            message: "the state of the sink can't be read".to_owned(),
            source: Some(error.into()),
        })?;
        if saved.width_ms != width_ms {
            return Err(StageError::new(format!(
                "the open hours are {} ms wide, the topology now says {width_ms} ms: seal them first, or start afresh",
                saved.width_ms
            )));
        }
        let formats: Vec<Arc<Format>> = std::mem::take(&mut saved.formats).into_iter().map(Arc::new).collect();
        let mut directories = Vec::with_capacity(saved.directories.len());
        for entry in std::mem::take(&mut saved.directories) {
            let Some(event_type) = types.get(entry.event_type.as_str()) else {
                return Err(StageError::new(format!(
                    "hours of type `{}` are open, but the type does not arrive any more: bring it back until they are sealed",
                    entry.event_type
                )));
            };
            let format = |at: usize| formats.get(at).cloned().ok_or_else(damaged);
            let hour = Hour { start_ms: entry.hour_start_ms, width_ms };
            let pending_format = format(entry.pending_format)?;
            let mut directory =
                Directory::new(event_type.clone(), hour, entry.revision, entry.path, entry.path_values, pending_format);
            let (rows, rest) = pending.split_at_checked(entry.pending_bytes).ok_or_else(damaged)?;
            pending = rest;
            directory.pending = rows.to_vec();
            directory.pending_rows = entry.pending_rows;
            directory.counts = entry.counts;
            directory.next_part = entry.next_part;
            directory.finished = entry.finished;
            if let Some(saved) = entry.part {
                let mut part = directory.make_part(owner, saved.number, format(saved.format)?);
                let state = <&SerializedState<Sha256>>::try_from(&saved.sha256[..]).map_err(|_| damaged())?;
                part.sha256 = Sha256::deserialize(state).map_err(|_| damaged())?;
                part.rows = saved.rows;
                part.bytes = saved.bytes;
                directory.part = Some(part);
            }
            directories.push(directory);
        }
        if pending.is_empty() { Ok((saved, directories)) } else { Err(damaged()) }
    }
}
