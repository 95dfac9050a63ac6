//! What the sink remembers from cut to cut.
//!
//! Whole at each cut: a version byte and the [`Head`]. In pieces, where only what changed is written: `d/<directory>`,
//! the open
//! directories; `r/<directory>/<chunk>`, their pending rows; `f/<format>`, the formats of their files;
//! `n/<hour>/<type>`, what
//! earlier stages have said of an hour; `v/<hour>/<type>`, the revisions of an hour; `s/<source>/<partition>`, the
//! greatest event time seen.
//! All but the rows are in postcard.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use tidemill_core::{EventType, Hour, PieceChanges, PieceReader, StageError};
use xxhash_rust::xxh3::xxh3_128;

use super::directory::{Counts, Directory, FinishedPart, Owner};
use super::pending::{Chunk, Pending};
use crate::sink::container::Format;

/// Version of the form.
const VERSION: u8 = 5;

/// What is written whole.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) width_ms: i64,
    /// Type, horizon.
    pub(super) sealed: Vec<(String, i64)>,
    /// Type, end of the hours whose late events are not taken any more.
    pub(super) given_up: Vec<(String, i64)>,
    /// The request that was answered last.
    pub(super) answered: Option<String>,
    /// Number of the next directory that is opened.
    pub(super) next_directory: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedDirectory {
    event_type: String,
    hour_start_ms: i64,
    revision: u32,
    path: String,
    path_values: BTreeMap<String, String>,
    counts: Counts,
    pending_format: u128,
    chunks: Vec<Chunk>,
    next_chunk: u32,
    next_part: u32,
    part: Option<SavedPart>,
    finished: Vec<FinishedPart>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedPart {
    number: u32,
    format: u128,
    rows: u64,
    bytes: u64,
    sha256: Vec<u8>,
}

pub(super) fn damaged() -> StageError {
    StageError::new("the state of the sink is damaged: it ends early or does not fit together")
}

pub(super) fn bytes(value: &impl Serialize) -> Result<Vec<u8>, StageError> {
    postcard::to_stdvec(value).map_err(|error| StageError {
        message: "the state of the sink can't be written".to_owned(),
        source: Some(error.into()),
    })
}

pub(super) fn value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StageError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|error| StageError {
        message: "the state of the sink can't be read".to_owned(),
        source: Some(error.into()),
    })?;
    if rest.is_empty() { Ok(value) } else { Err(damaged()) }
}

/// What the pieces hold whose names begin with `prefix`, with the rest of their names.
pub(super) fn read(pieces: &dyn PieceReader, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StageError> {
    let read = |name: String| {
        let bytes = pieces.read(&name).map_err(|error| StageError {
            message: "the state of the sink can't be read".to_owned(),
            source: Some(error.into()),
        })?;
        Ok((name[prefix.len()..].to_owned(), bytes))
    };
    pieces.names(prefix).into_iter().map(read).collect()
}

/// An hour and a type, as names of pieces have them.
pub(super) fn name_of(prefix: &str, start_ms: i64, event_type: &str) -> String {
    format!("{prefix}{start_ms}/{event_type}")
}

impl Head {
    pub(super) fn write(&self) -> Result<Vec<u8>, StageError> {
        let mut head = vec![VERSION];
        head.extend(bytes(self)?);
        Ok(head)
    }

    pub(super) fn read(snapshot: &[u8], width_ms: i64) -> Result<Self, StageError> {
        let head: Self = match snapshot.split_first() {
            Some((&VERSION, body)) => value(body)?,
            Some((version, _)) => {
                return Err(StageError::new(format!(
                    "the state of the sink has version {version}, this program reads {VERSION}: use the version that wrote it"
                )));
            }
            None => return Err(damaged()),
        };
        if head.width_ms != width_ms {
            return Err(StageError::new(format!(
                "the open hours are {} ms wide, the topology now says {width_ms} ms: seal them first, or start afresh",
                head.width_ms
            )));
        }
        Ok(head)
    }
}

/// Formats by what names them.
#[derive(Default)]
pub(super) struct Formats(BTreeMap<u128, Arc<Format>>);

impl Formats {
    /// Reads them.
    pub(super) fn read(pieces: &dyn PieceReader) -> Result<Self, StageError> {
        let mut formats = BTreeMap::new();
        for (name, bytes) in read(pieces, "f/")? {
            let number = u128::from_str_radix(&name, 16).map_err(|_| damaged())?;
            formats.insert(number, Arc::new(value(&bytes)?));
        }
        Ok(Self(formats))
    }

    /// The number of a format, which is written when it is new.
    fn number(&mut self, format: &Arc<Format>, changes: &mut PieceChanges) -> Result<u128, StageError> {
        if let Some((number, _)) = self.0.iter().find(|(_, known)| Arc::ptr_eq(known, format)) {
            return Ok(*number);
        }
        let bytes = bytes(&**format)?;
        let number = xxh3_128(&bytes);
        if self.0.insert(number, format.clone()).is_none() {
            changes.push((format!("f/{number:032x}"), Some(bytes)));
        }
        Ok(number)
    }

    fn get(&self, number: u128) -> Result<Arc<Format>, StageError> {
        self.0.get(&number).cloned().ok_or_else(damaged)
    }
}

pub(super) fn directory_name(id: u64) -> String {
    format!("d/{id:016x}")
}

/// Puts a directory into its piece. Its pending rows are in theirs.
pub(super) fn save(directory: &Directory, formats: &mut Formats, changes: &mut PieceChanges) -> Result<(), StageError> {
    let part = match &directory.part {
        None => None,
        Some(part) => Some(SavedPart {
            number: part.number,
            format: formats.number(&part.format, changes)?,
            rows: part.rows,
            bytes: part.bytes,
            sha256: part.sha256.serialize().to_vec(),
        }),
    };
    let (chunks, next_chunk) = directory.pending.chunks();
    let saved = SavedDirectory {
        event_type: directory.event_type.name.to_string(),
        hour_start_ms: directory.hour.start_ms,
        revision: directory.revision,
        path: directory.path.clone(),
        path_values: directory.path_values.clone(),
        counts: directory.counts,
        pending_format: formats.number(&directory.pending.format, changes)?,
        chunks: chunks.to_vec(),
        next_chunk,
        next_part: directory.next_part,
        part,
        finished: directory.finished.clone(),
    };
    changes.push((directory_name(directory.id), Some(bytes(&saved)?)));
    Ok(())
}

/// The open directories, without their pending rows.
pub(super) fn directories(
    pieces: &dyn PieceReader,
    formats: &Formats,
    owner: &Owner,
    width_ms: i64,
    types: &BTreeMap<Arc<str>, Arc<EventType>>,
) -> Result<Vec<Directory>, StageError> {
    let mut directories = Vec::new();
    for (name, bytes) in read(pieces, "d/")? {
        let id = u64::from_str_radix(&name, 16).map_err(|_| damaged())?;
        let entry: SavedDirectory = value(&bytes)?;
        let Some(event_type) = types.get(entry.event_type.as_str()) else {
            return Err(StageError::new(format!(
                "hours of type `{}` are open, but the type does not arrive any more: bring it back until they are sealed",
                entry.event_type
            )));
        };
        let hour = Hour { start_ms: entry.hour_start_ms, width_ms };
        let pending = Pending::saved(id, formats.get(entry.pending_format)?, entry.chunks, entry.next_chunk);
        let mut directory =
            Directory::new(id, event_type.clone(), hour, entry.revision, entry.path, entry.path_values, pending);
        directory.is_changed = false;
        directory.counts = entry.counts;
        directory.next_part = entry.next_part;
        directory.finished = entry.finished;
        if let Some(saved) = entry.part {
            let mut part = directory.make_part(owner, saved.number, formats.get(saved.format)?);
            let state = <&SerializedState<Sha256>>::try_from(&saved.sha256[..]).map_err(|_| damaged())?;
            part.sha256 = Sha256::deserialize(state).map_err(|_| damaged())?;
            part.rows = saved.rows;
            part.bytes = saved.bytes;
            directory.part = Some(part);
        }
        directories.push(directory);
    }
    Ok(directories)
}
