//! The frames of a segment.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::CutId;

use super::{MAGIC, Place, damaged};
use crate::error::RunError;
use crate::host::{Host, HostFile, Open};

/// Bytes written at a time.
const WRITE_BYTES: usize = 4 << 20;

/// What a frame says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) cut: CutId,
    /// Of the first frame of a segment: the length of the one before.
    pub(super) previous: Option<u64>,
    pub(super) stages: Vec<(Arc<str>, Vec<Change>)>,
}

/// A piece, its length and CRC32C; `None` when it is gone.
type Change = (String, Option<(u32, u32)>);

/// Where the pieces of a frame lie whose bodies begin at `offset`.
pub(super) fn places(header: &Header, segment: u32, mut offset: u64) -> Vec<(Arc<str>, String, Option<Place>)> {
    let mut found = Vec::new();
    for (stage, changes) in &header.stages {
        for (name, said) in changes {
            let place = said.map(|(length, crc)| Place { segment, offset, length, crc });
            offset += place.map_or(0, |place| u64::from(place.length));
            found.push((stage.clone(), name.clone(), place));
        }
    }
    found
}

pub(super) fn write_all(file: &dyn HostFile, start: u64, head: Vec<u8>, bodies: &[&[u8]]) -> io::Result<()> {
    let (mut offset, mut bytes) = (start, head);
    for body in bodies {
        bytes.extend_from_slice(body);
        if bytes.len() >= WRITE_BYTES {
            file.write_at(&bytes, offset)?;
            offset += bytes.len() as u64;
            bytes.clear();
        }
    }
    if bytes.is_empty() { Ok(()) } else { file.write_at(&bytes, offset) }
}

/// Behind what is in force only the very next cut may lie: a later one began when that one was committed.
pub(super) fn refuse_later_cuts(host: &dyn Host, path: &Path, from: u64, cut: CutId) -> Result<(), RunError> {
    let file = host.open(path, Open::Read).map_err(RunError::io("open", path))?;
    let end = file.len().map_err(RunError::io("look at", path))?;
    if end <= from {
        return Ok(());
    }
    let mut frames = Frames { file: &*file, path, at: from, end };
    loop {
        match frames.next() {
            Ok(Some((header, _))) if header.cut > cut + 1 => {
                let what = "there is state of a later cut than the ledger's last one: the ledger has lost records";
                return Err(damaged(path, what));
            }
            Ok(Some(_)) => {}
            // It was being written.
            Ok(None) | Err(RunError::Corrupt { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// What the first frame of a segment says of the length of the one before.
pub(super) fn previous_length(file: &dyn HostFile, path: &Path) -> Result<u64, RunError> {
    let end = file.len().map_err(RunError::io("look at", path))?;
    let first = Frames::of(file, path, end)?.next()?;
    let previous = first.and_then(|(header, _)| header.previous);
    previous.ok_or_else(|| damaged(path, "the state does not say where the segment before it ends"))
}

/// The frames of a segment.
pub(super) struct Frames<'a> {
    file: &'a dyn HostFile,
    path: &'a Path,
    at: u64,
    end: u64,
}

impl<'a> Frames<'a> {
    pub(super) fn of(file: &'a dyn HostFile, path: &'a Path, end: u64) -> Result<Self, RunError> {
        let mut magic = [0; MAGIC.len()];
        file.read_exact_at(&mut magic, 0).map_err(RunError::io("read", path))?;
        if magic != *MAGIC {
            return Err(damaged(path, "this is no state in pieces"));
        }
        Ok(Self { file, path, at: MAGIC.len() as u64, end })
    }

    /// The next one, and where its pieces begin.
    pub(super) fn next(&mut self) -> Result<Option<(Header, u64)>, RunError> {
        if self.at == self.end {
            return Ok(None);
        }
        let at = self.at;
        let wrong = || damaged(self.path, format!("the state is damaged at byte {at}"));
        let read = |bytes: &mut [u8], offset| match self.file.read_exact_at(bytes, offset) {
            Err(error) if error.raw_os_error().is_none() => Err(wrong()),
            read => read.map_err(RunError::io("read", self.path)),
        };
        let mut word = [0; 8];
        read(&mut word, at)?;
        let (length, crc) = word.split_at(4);
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        let length = u64::from(number(length));
        if at + 8 + length > self.end {
            return Err(wrong());
        }
        let mut bytes = vec![0; length as usize];
        read(&mut bytes, at + 8)?;
        if crc32c::crc32c(&bytes) != number(crc) {
            return Err(wrong());
        }
        let header: Header = postcard::from_bytes(&bytes).map_err(|_| wrong())?;
        let body = at + 8 + length;
        let sizes = header.stages.iter().flat_map(|(_, changes)| changes).filter_map(|(_, said)| *said);
        self.at = body + sizes.map(|(length, _)| u64::from(length)).sum::<u64>();
        if self.at > self.end {
            return Err(wrong());
        }
        Ok(Some((header, body)))
    }
}
