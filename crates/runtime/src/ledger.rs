//! The ledger: the append-only, checksummed file of cuts. Its last whole record is where a restart goes on.
//!
//! A ledger file `ledger-<generation>.log` begins with the 8 bytes `TIDELDG6`. A record is: length of the payload
//! (u32, little-endian), CRC32C of the payload (u32, little-endian), payload (JSON, see [`Record`]). The first record
//! of a file is a *base* that says everything; each later one says what changed. A new file begins at every start and
//! when the file has grown to 16 MiB.
//!
//! Only an incomplete tail may be dropped: a record that runs beyond the end of the file, or the very last one with a wrong checksum.
//! Anything else is corruption, and is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_topology::Fingerprint;

use crate::error::RunError;
use crate::failpoint;
use crate::host::{Host, HostFile, Open};
use crate::mark::Mark;
use crate::sync::sync_all;

mod committed;
mod record;

pub(crate) use committed::Committed;
pub(crate) use record::{Ends, Hours, Names, Record, Seen, StageRecord};

/// The last byte is the version of all that a state directory holds.
pub(crate) const MAGIC: &[u8; 8] = b"TIDELDG6";
const FILE_BYTES_MAX: u64 = 16 << 20;

/// An open ledger.
pub(crate) struct Ledger {
    host: Arc<dyn Host>,
    dir: PathBuf,
    generation: u64,
    file: Box<dyn HostFile>,
    length: u64,
    /// Of its first record.
    base_bytes: u64,
    /// An append failed midway: what is behind `length` has to go first.
    torn: bool,
}

/// What was found when a ledger was opened.
pub(crate) struct Opened {
    pub(crate) ledger: Ledger,
    pub(crate) committed: Committed,
    /// Bytes of an incomplete record at the end that were dropped.
    pub(crate) dropped_bytes: u64,
}

impl Ledger {
    /// What the ledger in `dir` says, without touching anything; `None` when there is none.
    pub(crate) fn peek(host: &dyn Host, dir: &Path) -> Result<Option<(Committed, u64)>, RunError> {
        let mut generations = generations(host, dir)?;
        while let Some(generation) = generations.pop() {
            let path = path_of(dir, generation);
            let (records, dropped) = read(host, &path)?;
            // A crash while a new file was begun leaves it without its base; the one before still holds.
            if records.is_empty() && !generations.is_empty() {
                continue;
            }
            let mut committed = Committed::default();
            records.into_iter().for_each(|record| committed.apply(record));
            committed.published(Mark::Published.find(host, dir)?);
            return Ok(Some((committed, dropped)));
        }
        Ok(None)
    }

    /// Opens the ledger in `dir`, or begins one, for a topology with this fingerprint, and a run. `prepare` is called with
    /// what it says; it does the effects of the last record. That record may be one that is not durable, because its process died or its sync failed, and syncing it now would prove nothing:
    /// it is written anew before anything is done about it.
    pub(crate) fn open(
        host: &Arc<dyn Host>,
        dir: &Path,
        fingerprint: Option<&Fingerprint>,
        run: u64,
        prepare: impl FnOnce(&Committed) -> Result<(), RunError>,
    ) -> Result<Opened, RunError> {
        let found = Self::peek(&**host, dir)?;
        let mut generation = generations(&**host, dir)?.last().map_or(1, |last| last + 1);
        let is_new = found.is_none();
        let (mut committed, dropped_bytes) = found.unwrap_or_default();
        committed.fingerprint = fingerprint.cloned().or(committed.fingerprint);
        committed.begin(run);
        let begun = if is_new { None } else { Some(Self::begin(host, dir, generation, &committed.base())?) };
        prepare(&committed).inspect_err(|_| {
            // Effects may have been done, so the record has to stay where it is durable; but starts that fail again and again leave one file.
            let _ = begun.map(|begun| begun.remove_older());
        })?;
        generation += u64::from(!is_new);
        let ledger = Self::begin(host, dir, generation, &committed.base_without_effects())?;
        ledger.remove_older()?;
        Ok(Opened { ledger, committed, dropped_bytes })
    }

    fn begin(host: &Arc<dyn Host>, dir: &Path, generation: u64, base: &Record) -> Result<Self, RunError> {
        let path = path_of(dir, generation);
        let file = host.open(&path, Open::Create).map_err(RunError::io("create", &path))?;
        failpoint::hit("ledger-created");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(frame(base)?);
        file.write_at(&bytes, 0).map_err(RunError::io("write", &path))?;
        failpoint::hit("base-written");
        file.sync().map_err(RunError::io("sync", &path))?;
        sync_all(&**host, &[dir.into()])?;
        failpoint::hit("ledger-begun");
        Ok(Self {
            host: host.clone(),
            dir: dir.to_owned(),
            generation,
            file,
            length: bytes.len() as u64,
            base_bytes: bytes.len() as u64,
            torn: false,
        })
    }

    fn remove_older(&self) -> Result<(), RunError> {
        for generation in
            generations(&*self.host, &self.dir)?.into_iter().filter(|generation| *generation < self.generation)
        {
            let path = path_of(&self.dir, generation);
            self.host.remove(&path).map_err(RunError::io("remove", &path))?;
            failpoint::hit("ledger-removed");
        }
        Ok(())
    }

    /// Appends a record and makes it durable. After an error the file ends where it did, and the call may be repeated,
    /// unless syncing failed: then nobody knows what is on the disk, and the run must go back to the last cut.
    pub(crate) fn append(&mut self, record: &Record) -> Result<(), RunError> {
        let path = path_of(&self.dir, self.generation);
        let bytes = frame(record)?;
        if self.torn {
            self.file.set_len(self.length).map_err(RunError::io("truncate", &path))?;
            self.file.sync().map_err(RunError::io("sync", &path))?;
            self.torn = false;
        }
        if let Err(error) = self.file.write_at(&bytes, self.length) {
            self.torn = true;
            return Err(RunError::io("append to", path)(error));
        }
        failpoint::hit("ledger-written");
        self.file.sync().map_err(RunError::io("sync", &path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Begins a new file when this one has grown large. To be called when the effects of the last record are done.
    pub(crate) fn rotate_if_large(&mut self, committed: &Committed) -> Result<(), RunError> {
        // A base may be large itself: it is not to be written for each record.
        let usual = FILE_BYTES_MAX.max(2 * self.base_bytes);
        self.rotate_beyond(failpoint::state_file_bytes(usual), committed)
    }

    pub(crate) fn rotate_beyond(&mut self, bytes: u64, committed: &Committed) -> Result<(), RunError> {
        if self.length > bytes {
            let next = self.generation + 1;
            *self = Self::begin(&self.host, &self.dir, next, &committed.base_without_effects()).inspect_err(|_| {
                // What is there of it would be taken for the newest by the next start, without what this one still gets.
                let _ = self.host.remove(&path_of(&self.dir, next));
            })?;
            self.remove_older()?;
        }
        Ok(())
    }
}

fn path_of(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("ledger-{generation:08}.log"))
}

/// Generations of the ledger files in `dir`, ascending.
fn generations(host: &dyn Host, dir: &Path) -> Result<Vec<u64>, RunError> {
    let mut found = Vec::new();
    for path in host.list(dir).map_err(RunError::io("list", dir))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(number) = name.strip_prefix("ledger-").and_then(|rest| rest.strip_suffix(".log")) {
            found.extend(number.parse::<u64>());
        }
    }
    found.sort_unstable();
    Ok(found)
}

pub(crate) fn frame(record: &Record) -> Result<Vec<u8>, RunError> {
    let payload = serde_json::to_vec(record).map_err(|error| RunError::Internal(format!("ledger record: {error}")))?;
    framed(&payload)
}

/// A payload behind its length and its CRC32C, four bytes each, little-endian.
pub(crate) fn framed(payload: &[u8]) -> Result<Vec<u8>, RunError> {
    let length = u32::try_from(payload.len()).map_err(|_| RunError::Internal("a record over 4 GiB".into()))?;
    let mut bytes = Vec::with_capacity(payload.len() + 8);
    bytes.extend(length.to_le_bytes());
    bytes.extend(crc32c::crc32c(payload).to_le_bytes());
    bytes.extend(payload);
    Ok(bytes)
}

/// The records of a file, and how many bytes of an incomplete tail it ends with.
fn read(host: &dyn Host, path: &Path) -> Result<(Vec<Record>, u64), RunError> {
    let bytes = host.read(path).map_err(RunError::io("read", path))?;
    records(&bytes, path)
}

/// The same of the bytes of the file at `path`.
pub(crate) fn records(bytes: &[u8], path: &Path) -> Result<(Vec<Record>, u64), RunError> {
    let corrupt = |what: String| RunError::Corrupt { what, path: path.to_owned() };
    if bytes.len() < MAGIC.len() {
        return Ok((Vec::new(), bytes.len() as u64));
    }
    if !bytes.starts_with(&MAGIC[..7]) {
        return Err(corrupt("this is no ledger".into()));
    }
    if !bytes.starts_with(MAGIC) {
        return Err(RunError::Settings(format!(
            "the state in {} was written by another version of Tidemill, whose state this one can't read: run it with \
             that version, or start afresh with --fresh",
            path.parent().unwrap_or(path).display()
        )));
    }
    let mut records: Vec<Record> = Vec::new();
    let mut at = MAGIC.len();
    while at < bytes.len() {
        let left = &bytes[at..];
        let tail = left.len() as u64;
        let Some((head, rest)) = left.split_at_checked(8) else { return Ok((records, tail)) };
        let word = |range: std::ops::Range<usize>| u32::from_le_bytes(head[range].try_into().expect("four bytes"));
        let Some(payload) = rest.get(..word(0..4) as usize) else { return Ok((records, tail)) };
        if crc32c::crc32c(payload) != word(4..8) {
            // Bytes of the last record may be missing although the file has its length; a record behind it was written
            // after this one was durable.
            if rest.len() == payload.len() {
                return Ok((records, tail));
            }
            return Err(corrupt(format!("the ledger record at byte {at} is damaged")));
        }
        let record: Record = serde_json::from_slice(payload)
            .map_err(|error| corrupt(format!("the ledger record at byte {at} can't be understood: {error}")))?;
        if records.last().is_some_and(|last| last.cut >= record.cut) {
            return Err(corrupt(format!("the ledger record at byte {at} is out of order")));
        }
        records.push(record);
        at += 8 + payload.len();
    }
    Ok((records, 0))
}

#[cfg(test)]
mod tests {
    use tidemill_core::CutId;

    use super::*;

    fn host() -> Arc<dyn Host> {
        Arc::new(crate::host::System)
    }

    fn record(cut: CutId) -> Record {
        Record { cut, ..Record::default() }
    }

    fn written(cuts: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = Ledger::open(&host(), dir.path(), None, 1, |_| Ok(())).unwrap();
        for cut in 1..=cuts {
            opened.ledger.append(&record(cut)).unwrap();
        }
        let path = path_of(dir.path(), 1);
        (dir, path)
    }

    #[test]
    fn a_torn_tail_of_any_length_falls_back_to_the_record_before() {
        let (dir, path) = written(3);
        let whole = std::fs::read(&path).unwrap();
        let last = frame(&record(3)).unwrap().len();
        for lost in 1..=last {
            std::fs::write(&path, &whole[..whole.len() - lost]).unwrap();
            let (committed, dropped) = Ledger::peek(&*host(), dir.path()).unwrap().unwrap();
            assert_eq!(committed.last.cut, 2, "{lost} bytes lost");
            assert_eq!(dropped, (last - lost) as u64);
        }
    }

    #[test]
    fn a_flipped_byte_before_the_last_record_is_refused() {
        let (dir, path) = written(3);
        let whole = std::fs::read(&path).unwrap();
        let last = frame(&record(3)).unwrap().len();
        let second = frame(&record(2)).unwrap().len();
        let payload_of_second = whole.len() - last - second + 8;
        let mut bytes = whole.clone();
        bytes[payload_of_second + 3] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(Ledger::peek(&*host(), dir.path()), Err(RunError::Corrupt { .. })));
    }

    #[test]
    fn a_fingerprint_comes_back_to_the_last_digit() {
        let text = r#"{"name":"t","bucket_ms":1,"limits":{},"types":{},"nodes":{"n":{"role":"source","kind":"k","has_state":true,
            "shaping":{"share":0.30000000000000004},"options":{"share":23.308445025757262},"workers":1,"inputs":[],"accepts":[]}}}"#;
        let fingerprint: Fingerprint = serde_json::from_str(text).unwrap();
        let dir = tempfile::tempdir().unwrap();
        Ledger::open(&host(), dir.path(), Some(&fingerprint), 1, |_| Ok(())).unwrap();
        let (committed, _) = Ledger::peek(&*host(), dir.path()).unwrap().unwrap();
        assert_eq!(committed.fingerprint.as_ref(), Some(&fingerprint));
        assert!(serde_json::to_string(&fingerprint).unwrap().contains("23.308445025757262"));
    }

    #[test]
    fn a_new_file_without_its_base_leaves_the_old_one_in_force() {
        let (dir, _) = written(2);
        std::fs::write(path_of(dir.path(), 2), b"TIDE").unwrap();
        assert_eq!(Ledger::peek(&*host(), dir.path()).unwrap().unwrap().0.last.cut, 2);
    }
}
