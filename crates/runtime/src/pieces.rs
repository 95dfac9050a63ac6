//! The state of a region's stages, in pieces: a log of what changed from cut to cut.
//!
//! It is in segments `pieces-<n>.log`, whose first 8 bytes are `TIDEPCS1`. Each cut appends one frame to the newest
//! one: length and
//! CRC32C of a header (u32, little-endian), the header (postcard, see [`Header`]), then the pieces one behind the
//! other. What a frame
//! says of a piece holds instead of all that earlier ones say. The ledger's record says which segments are in force,
//! and where the last
//! one ends; the first frame of each says where the one before ends.
//!
//! When more than half is of no use any more, what is still needed of the oldest segment is written once more, at the
//! end of the newest.
//! So every byte is copied about once for each byte that becomes useless. Only the oldest may go: what a later
//! one says of a piece that is gone has to stay for as long as an earlier one may have that piece.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use tidemill_core::CutId;

use crate::error::RunError;
use crate::failpoint;
use crate::host::{Host, HostFile, Open};
use crate::sync::sync_all;
use crate::watchdog::Call;

mod frames;
mod reader;

use frames::{Frames, Header, places, previous_length, refuse_later_cuts, write_all};
pub(crate) use reader::OfStage;

const MAGIC: &[u8; 8] = b"TIDEPCS1";
/// Of a segment, unless a test says otherwise.
const SEGMENT_BYTES: u64 = 16 << 20;
/// What a piece takes in a header beyond its name, about.
const ENTRY_BYTES: u64 = 16;

/// What changed of a stage's pieces; `None` for those that are gone.
pub(crate) type Changes = Vec<(String, Given)>;

/// What a piece holds; `None` when it is gone.
type Given = Option<Arc<Vec<u8>>>;

/// Which segments are in force: part of a ledger's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    first: u32,
    last: u32,
    /// Of the last one.
    length: u64,
}

/// The pieces of a region.
pub(crate) struct Pieces {
    host: Arc<dyn Host>,
    dir: PathBuf,
    /// A segment that has grown to it is followed by another one.
    segment_bytes: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// `None` before the first cut.
    extent: Option<Extent>,
    segments: BTreeMap<u32, Segment>,
    places: BTreeMap<Arc<str>, BTreeMap<String, Place>>,
    /// What stages have given at a barrier that is not committed yet. They go on from there.
    given: BTreeMap<Arc<str>, BTreeMap<String, Given>>,
}

#[derive(Clone)]
struct Segment {
    file: Arc<dyn HostFile>,
    length: u64,
    /// Pieces of it that are in force, and their bytes, names among them.
    live: u64,
    live_bytes: u64,
}

impl Segment {
    fn new(file: Arc<dyn HostFile>, length: u64) -> Self {
        Self { file, length, live: 0, live_bytes: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    segment: u32,
    offset: u64,
    length: u32,
    crc: u32,
}

/// A frame that is on disk and not in force yet.
pub(crate) struct Written {
    pub(crate) extent: Extent,
    segment: Segment,
    places: Vec<(Arc<str>, String, Option<Place>)>,
}

fn path_of(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("pieces-{segment:08}.log"))
}

fn damaged(path: &Path, what: impl Into<String>) -> RunError {
    RunError::Corrupt { what: what.into(), path: path.to_owned() }
}

impl Pieces {
    /// Those of the ledger's last record, of this cut. What is behind them is of a cut that was not committed, and
    /// goes.
    pub(crate) fn open(
        host: Arc<dyn Host>,
        dir: PathBuf,
        extent: Option<Extent>,
        cut: CutId,
    ) -> Result<Arc<Self>, RunError> {
        let mut kept = Kept { extent, ..Kept::default() };
        let segment_bytes = failpoint::state_file_bytes(SEGMENT_BYTES);
        for path in host.list(&dir).map_err(RunError::io("list", &dir))? {
            let Some(number) = number_of(&path) else { continue };
            let is_older = extent.is_some_and(|extent| number < extent.first);
            let is_newer = extent.is_none_or(|extent| number > extent.last);
            if is_newer {
                refuse_later_cuts(&*host, &path, MAGIC.len() as u64, cut)?;
            }
            if is_older || is_newer {
                host.remove(&path).map_err(RunError::io("remove", &path))?;
            }
        }
        let Some(Extent { first, last, length }) = extent else {
            return Ok(Arc::new(Self { host, dir, segment_bytes, kept: Mutex::new(kept) }));
        };
        let mut files: Vec<(u32, PathBuf, Arc<dyn HostFile>)> = Vec::new();
        for number in first..=last {
            let path = path_of(&dir, number);
            let file = host.open(&path, Open::Write).map_err(|error| match error.kind() {
                // It goes away only after a later record was committed.
                ErrorKind::NotFound => damaged(
                    &path,
                    "a part of the state is gone: a later cut was committed and its record is lost, or the file was \
                     removed",
                ),
                _ => RunError::io("open", &path)(error),
            })?;
            files.push((number, path, file.into()));
        }
        for (at, (number, path, file)) in files.iter().enumerate() {
            let found = file.len().map_err(RunError::io("look at", path))?;
            let end = match files.get(at + 1) {
                Some((_, path, file)) => previous_length(&**file, path)?,
                None => length,
            };
            if found < end {
                return Err(damaged(path, format!("the state has {found} bytes here, but the last cut says {end}")));
            }
            if *number == last && found > end {
                refuse_later_cuts(&*host, path, end, cut)?;
                file.set_len(end).map_err(RunError::io("truncate", path))?;
            }
            kept.segments.insert(*number, Segment::new(file.clone(), end));
            let mut frames = Frames::of(&**file, path, end)?;
            while let Some((header, offset)) = frames.next()? {
                for (stage, name, place) in places(&header, *number, offset) {
                    kept.apply(stage, name, place);
                }
            }
        }
        Ok(Arc::new(Self { host, dir, segment_bytes, kept: Mutex::new(kept) }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no code panics while it holds the pieces")
    }

    /// A stage has passed a barrier with these changes: it sees them at once.
    pub(crate) fn give(&self, stage: &Arc<str>, changes: &Changes) {
        self.kept().given.insert(stage.clone(), changes.iter().cloned().collect());
    }

    /// Writes what changed by a cut, and makes it durable. It is in force when it is [taken over](Self::take_over).
    /// Doing it
    /// twice is the same as once. `makes_room`: segments that are mostly of no use are emptied, which takes room first;
    /// otherwise those go alone of which nothing is needed.
    pub(crate) fn write(
        &self,
        cut: CutId,
        changes: &BTreeMap<Arc<str>, Changes>,
        makes_room: bool,
    ) -> Result<Written, RunError> {
        let (extent, segment, moved, strangers) = {
            let kept = self.kept();
            let segment = kept.extent.and_then(|extent| kept.segments.get(&extent.last).cloned());
            let moved = kept.to_move(changes, self.segment_bytes, makes_room);
            (kept.extent, segment, moved, kept.strangers(changes))
        };
        let mut entries: BTreeMap<Arc<str>, Changes> = BTreeMap::new();
        let mut first = extent.map_or(1, |extent| extent.first);
        for (oldest, stages) in moved {
            first = oldest + 1;
            for (stage, name) in stages {
                let bytes = self.read_committed(&stage, &name);
                let bytes = bytes.map_err(|error| unreadable(&path_of(&self.dir, oldest), error))?;
                entries.entry(stage).or_default().push((name, Some(Arc::new(bytes))));
            }
        }
        let begins = segment.as_ref().is_none_or(|segment| segment.length >= self.segment_bytes);
        let previous = segment.as_ref().filter(|_| begins).map(|segment| segment.length);
        let (mut bodies, mut header) = (Vec::new(), Header { cut, previous, stages: Vec::new() });
        for (stage, changes) in entries.iter().chain(&strangers).chain(changes) {
            let mut said = Vec::with_capacity(changes.len());
            for (name, bytes) in changes {
                let too_large = || RunError::Internal(format!("the piece `{name}` of `{stage}` has over 4 GiB"));
                let length = bytes.as_ref().map(|bytes| u32::try_from(bytes.len()).map_err(|_| too_large()));
                let checked = length.transpose()?.zip(bytes.as_ref().map(|bytes| crc32c::crc32c(bytes)));
                said.push((name.clone(), checked));
                bodies.extend(bytes.as_deref().map(|bytes| &bytes[..]));
            }
            header.stages.push((stage.clone(), said));
        }
        let internal = |error: postcard::Error| RunError::Internal(format!("pieces of state: {error}"));
        let head = crate::ledger::framed(&postcard::to_stdvec(&header).map_err(internal)?)?;
        let head_bytes = head.len() as u64;
        let bytes = head_bytes + bodies.iter().map(|body| body.len() as u64).sum::<u64>();
        let (last, Segment { file, length: start, .. }) = match (extent, segment) {
            (Some(extent), Some(segment)) if !begins => (extent.last, segment),
            _ => {
                let last = extent.map_or(1, |extent| extent.last + 1);
                let path = path_of(&self.dir, last);
                let file = self.host.open(&path, Open::Create).map_err(RunError::io("create", &path))?;
                file.write_at(MAGIC, 0).map_err(RunError::io("write", &path))?;
                (last, Segment::new(file.into(), MAGIC.len() as u64))
            }
        };
        let path = path_of(&self.dir, last);
        let end = start + bytes;
        if let Err(error) = write_all(&*file, start, head, &bodies) {
            // What is there of it takes the room that others need.
            let _ = file.set_len(start);
            return Err(RunError::io("write", &path)(error));
        }
        // An attempt before it may have got further.
        if file.len().map_err(RunError::io("look at", &path))? > end {
            file.set_len(end).map_err(RunError::io("truncate", &path))?;
        }
        file.sync().map_err(RunError::io("sync", &path))?;
        if start == MAGIC.len() as u64 {
            sync_all(&*self.host, &[(&*self.dir).into()])?;
        }
        let body = start + head_bytes;
        let extent = Extent { first: first.min(last), last, length: end };
        let segment = Segment::new(file, end);
        Ok(Written { extent, segment, places: places(&header, last, body) })
    }

    /// The record is durable: what was written is in force. Returns the files that are not needed any more.
    pub(crate) fn take_over(&self, written: Written) -> Vec<PathBuf> {
        let mut kept = self.kept();
        let Written { extent, segment, places } = written;
        match kept.segments.get_mut(&extent.last) {
            Some(known) => known.length = segment.length,
            None => drop(kept.segments.insert(extent.last, segment)),
        }
        kept.extent = Some(extent);
        kept.given.clear();
        for (stage, name, place) in places {
            kept.apply(stage, name, place);
        }
        let needed = kept.segments.split_off(&extent.first);
        let gone = std::mem::replace(&mut kept.segments, needed);
        gone.keys().map(|number| path_of(&self.dir, *number)).collect()
    }

    /// Of one stage, for a worker that is in `call` when it reads.
    pub(crate) fn reader(self: &Arc<Self>, stage: Arc<str>, call: Arc<Call>) -> Arc<OfStage> {
        Arc::new(OfStage { pieces: self.clone(), stage, call, fault: Mutex::default() })
    }

    /// Whether a piece holds these bytes.
    pub(crate) fn is_same(&self, stage: &str, name: &str, bytes: &[u8]) -> Result<bool, RunError> {
        let place = self.kept().places.get(stage).and_then(|places| places.get(name)).copied();
        let Some(place) = place.filter(|place| place.length as usize == bytes.len()) else { return Ok(false) };
        let found = self.read_committed(stage, name);
        Ok(found.map_err(|error| unreadable(&path_of(&self.dir, place.segment), error))? == bytes)
    }

    /// As its stage sees it: with what it gave at a barrier that is not committed yet.
    fn read(&self, stage: &str, name: &str) -> io::Result<Vec<u8>> {
        let given = self.kept().given.get(stage).and_then(|given| given.get(name)).cloned();
        match given {
            Some(Some(bytes)) => Ok(bytes.to_vec()),
            Some(None) => Err(missing(stage, name)),
            None => self.read_committed(stage, name),
        }
    }

    fn read_committed(&self, stage: &str, name: &str) -> io::Result<Vec<u8>> {
        // The file is read although it may be removed meanwhile: its descriptor keeps it.
        let found = {
            let kept = self.kept();
            let place = kept.places.get(stage).and_then(|places| places.get(name)).copied();
            place.and_then(|place| Some((place, kept.segments.get(&place.segment)?.file.clone())))
        };
        let (place, file) = found.ok_or_else(|| missing(stage, name))?;
        let mut bytes = vec![0; place.length as usize];
        file.read_exact_at(&mut bytes, place.offset)?;
        if crc32c::crc32c(&bytes) != place.crc {
            let path = path_of(&self.dir, place.segment);
            let what =
                format!("the piece `{name}` of `{stage}` is damaged, at byte {} of {}", place.offset, path.display());
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        Ok(bytes)
    }
}

fn missing(stage: &str, name: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("there is no piece `{name}` of `{stage}`"))
}

impl Kept {
    /// Pieces of stages that are not there any more: they go.
    fn strangers(&self, changes: &BTreeMap<Arc<str>, Changes>) -> BTreeMap<Arc<str>, Changes> {
        let gone = self.places.iter().filter(|(stage, places)| !places.is_empty() && !changes.contains_key(*stage));
        gone.map(|(stage, places)| (stage.clone(), places.keys().map(|name| (name.clone(), None)).collect())).collect()
    }

    fn apply(&mut self, stage: Arc<str>, name: String, place: Option<Place>) {
        let size = name.len() as u64 + ENTRY_BYTES;
        let places = self.places.entry(stage).or_default();
        let was = match place {
            Some(place) => places.insert(name, place),
            None => places.remove(&name),
        };
        if let Some((segment, place)) = place.and_then(|place| Some((self.segments.get_mut(&place.segment)?, place))) {
            segment.live += 1;
            segment.live_bytes += size + u64::from(place.length);
        }
        if let Some((segment, was)) = was.and_then(|was| Some((self.segments.get_mut(&was.segment)?, was))) {
            segment.live -= 1;
            segment.live_bytes -= size + u64::from(was.length);
        }
    }

    /// The oldest segments that are to be emptied by this cut, and what is still needed of them: as much as is
    /// written, or
    /// a segment. Without `makes_room`, those alone of which nothing is.
    fn to_move(
        &self,
        changes: &BTreeMap<Arc<str>, Changes>,
        segment_bytes: u64,
        makes_room: bool,
    ) -> BTreeMap<u32, Vec<(Arc<str>, String)>> {
        let sizes = changes.values().flatten().map(|(_, bytes)| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64));
        let mut room = if makes_room { sizes.sum::<u64>().max(segment_bytes) } else { 0 };
        let mut all_bytes: u64 = self.segments.values().map(|segment| segment.length).sum();
        let live_bytes: u64 = self.segments.values().map(|segment| segment.live_bytes).sum();
        let mut emptied: BTreeMap<u32, Vec<(Arc<str>, String)>> = BTreeMap::new();
        // The newest one stays: the frame may go there.
        for (number, segment) in self.segments.iter().take(self.segments.len().saturating_sub(1)) {
            let is_worth_it = all_bytes > 2 * (live_bytes + segment_bytes) && room > 0;
            if segment.live > 0 && !is_worth_it {
                break;
            }
            room = room.saturating_sub(segment.live_bytes);
            all_bytes -= segment.length;
            emptied.insert(*number, Vec::new());
        }
        let Some(newest) = emptied
            .keys()
            .next_back()
            .copied()
            .filter(|newest| self.segments.range(..=newest).any(|(_, of)| of.live > 0))
        else {
            return emptied;
        };
        for (stage, places) in &self.places {
            let changed: BTreeSet<&str> = changes.get(stage).into_iter().flatten().map(|(name, _)| &**name).collect();
            let old = places.iter().filter(|(name, place)| place.segment <= newest && !changed.contains(&***name));
            for (name, place) in old {
                emptied.entry(place.segment).or_default().push((stage.clone(), name.clone()));
            }
        }
        emptied
    }
}

/// A part of the state that can't be read: for what the disk says, or because it is not what was written.
fn unreadable(path: &Path, error: io::Error) -> RunError {
    let is_damage = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound);
    match error.raw_os_error() {
        None if is_damage => damaged(path, error.to_string()),
        _ => RunError::io("read the state in", path)(error),
    }
}

fn number_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix("pieces-")?.strip_suffix(".log")?.parse().ok()
}

#[cfg(test)]
mod tests;
