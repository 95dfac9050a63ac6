//! Replays: dead letters that somebody has asked to be dealt with again.
//!
//! Each request is a file in the state directory, `replay/<number>.letters`, which is written whole and never changed: [`Requests`] writes them, from any
//! process. The source `@replay` of the region `main` reads them in order of their numbers, and where it is is part of the cut like the
//! position of any other source. A letter is parsed by the stage that parsed it before, and handed on by the stages behind that
//! one as it is, until it comes to the one that refused it ([`Ways`], [`leads`]).
//!
//! The files stay: they say which letters were replayed, so that no letter is replayed twice. They hold no more than the letters
//! that were asked for.
//!
//! A file is [`MAGIC`], then for each letter: length of the payload in bytes and its CRC32C, four bytes each, little-endian; the payload, which is
//! [`ReplayedLetter`] in postcard.

mod reader;
mod request;
mod ways;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::RunError;
use crate::ledger::framed;

pub(crate) use reader::{ReplayReader, Replayed};
pub use request::{ReplayError, Requests};
pub use ways::Ways;
pub(crate) use ways::leads;

/// What a file of letters begins with.
const MAGIC: &[u8] = b"tidemill replay 1\n";
/// Bytes in front of a payload.
const HEADER_BYTES: usize = 8;
/// Ending of such a file.
const ENDING: &str = "letters";

/// A dead letter, as far as it is needed to deal with it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayedLetter {
    /// Source that read the event.
    pub source: Arc<str>,
    /// Partition of the source.
    pub partition: Arc<str>,
    /// Position in the partition.
    pub position: u64,
    /// Stage that refused it.
    pub stage: Arc<str>,
    /// The label of what was wrong.
    pub reason: String,
    /// When it was read, in milliseconds since 1970.
    pub arrived_at_ms: i64,
    /// The event as it was received.
    pub payload: Vec<u8>,
}

/// Why bytes are no letter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LetterError {
    #[error("it does not begin like a file of letters")]
    Magic,
    #[error("it ends in the middle of a letter")]
    CutShort,
    #[error("the checksum of a letter does not fit")]
    Checksum,
    #[error("a letter can't be read: {0}")]
    Malformed(#[from] postcard::Error),
}

/// The letter at an offset of a file, and the offset behind it; `None` at the end.
fn letter_at(file: &[u8], offset: usize) -> Result<Option<(ReplayedLetter, usize)>, LetterError> {
    let offset = offset.max(MAGIC.len());
    if !file.starts_with(MAGIC) {
        return Err(LetterError::Magic);
    }
    let left = file.get(offset..).ok_or(LetterError::CutShort)?;
    if left.is_empty() {
        return Ok(None);
    }
    let (header, left) = left.split_first_chunk::<HEADER_BYTES>().ok_or(LetterError::CutShort)?;
    let [a, b, c, d, checksum @ ..] = *header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let payload = left.get(..length).ok_or(LetterError::CutShort)?;
    if crc32c::crc32c(payload).to_le_bytes() != checksum {
        return Err(LetterError::Checksum);
    }
    Ok(Some((postcard::from_bytes(payload)?, offset + HEADER_BYTES + length)))
}

/// Adds a letter to the bytes of a file.
fn push(file: &mut Vec<u8>, letter: &ReplayedLetter) -> Result<(), RunError> {
    let payload = postcard::to_stdvec(letter).map_err(|error| RunError::Internal(error.to_string()))?;
    file.extend(framed(&payload)?);
    Ok(())
}

/// Where requests are.
fn directory(state_root: &Path) -> PathBuf {
    state_root.join("replay")
}

fn path_of(state_root: &Path, number: u64) -> PathBuf {
    directory(state_root).join(format!("{number:016}.{ENDING}"))
}

/// The number of a request.
fn number_of(path: &Path) -> Option<u64> {
    (path.extension()? == ENDING).then(|| path.file_stem()?.to_str()?.parse().ok())?
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn letter(position: u64) -> ReplayedLetter {
        ReplayedLetter {
            source: "lines".into(),
            partition: "a".into(),
            position,
            stage: "parse".into(),
            reason: "malformed".into(),
            arrived_at_ms: 7,
            payload: format!("event {position}").into_bytes(),
        }
    }

    #[test]
    fn letters_are_read_back_and_any_changed_or_missing_byte_is_noticed() {
        let mut file = MAGIC.to_vec();
        push(&mut file, &letter(1)).unwrap();
        let first = file.len();
        push(&mut file, &letter(2)).unwrap();
        assert_eq!(letter_at(&file, 0).unwrap(), Some((letter(1), first)));
        assert_eq!(letter_at(&file, first).unwrap(), Some((letter(2), file.len())));
        assert!(letter_at(&file, file.len()).unwrap().is_none());
        for at in first..file.len() {
            assert!(letter_at(&file[..at], first).is_err() || at == first, "cut short at {at}");
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(letter_at(&changed, first).is_err(), "changed at {at}");
        }
    }
}
