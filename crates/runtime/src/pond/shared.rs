//! What the two ends of a pond know of each other. Everything here is committed: in the ledger of the one region or of the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tidemill_core::LogName;
use tidemill_topology::{Pond, PondOptions, WhenFull};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::writer::PondKind;
use super::{segment_base, segment_log};
use crate::logs::{Lengths, path_in};

/// An alarm is raised when a pond holds more than this share of its bytes, in percent, and taken back below the other.
const ALARM_PERCENT: u64 = 80;
const CALM_PERCENT: u64 = 70;

/// See the module.
pub(crate) struct PondShared {
    pub(crate) name: Arc<str>,
    /// The node that takes from it.
    pub(crate) node: Arc<str>,
    pub(crate) options: PondOptions,
    /// Types that are made behind it.
    pub(crate) carries: Vec<Arc<str>>,
    /// Beyond so many bytes it counts as full: what is on its way then still finds room.
    full_bytes: u64,
    /// The writer's directory of Logs.
    dir: PathBuf,
    state: Mutex<State>,
    /// There is more to read, or nothing ever again. For one reader.
    pub(crate) changed: Notify,
    /// Bytes on the disk, committed or not, as of the last look.
    appended_bytes: AtomicU64,
    /// Sources of the region that writes have to wait.
    blocks: AtomicBool,
    alarmed: AtomicBool,
    /// Since when nothing can come: the region that writes is parked, or all ponds before it are like that.
    parked_since: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct State {
    segments: BTreeMap<u64, u64>,
    consumed: u64,
    ended: bool,
}

/// How full a pond is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PondFill {
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// Bytes that are not in a cut of the region that reads.
    pub(crate) unread_bytes: u64,
}

/// When a segment is long enough. A pond has at least 16 of them, so that what was read makes room before the pond is full.
pub(super) fn segment_bytes(options: PondOptions) -> u64 {
    (options.max_bytes / 16).clamp(64 << 10, 64 << 20)
}

/// How many times as large as what was received a record may be, at most. Two to three is usual; see `ARCHITECTURE.md`.
const GROWTH: u64 = 4;

/// What a region that fills a pond may have received since its last cut, when the settings say `wanted`: so much that the pond can keep as
/// much room for it as it has for what waits.
pub(crate) fn replay_bytes(wanted: u64, options: PondOptions) -> u64 {
    wanted.min(options.max_bytes / 2 / GROWTH)
}

impl PondShared {
    /// A pond as the region that writes has it in its last cut. `dir` is the writer's directory of Logs.
    pub(crate) fn new(pond: &Pond, wanted_replay_bytes: u64, dir: PathBuf, lengths: &Lengths) -> Arc<Self> {
        let shared = Self {
            name: pond.name.clone(),
            node: pond.node.clone(),
            options: pond.options,
            carries: pond.carries.clone(),
            full_bytes: pond.options.max_bytes - replay_bytes(wanted_replay_bytes, pond.options) * GROWTH,
            dir,
            state: Mutex::default(),
            changed: Notify::new(),
            appended_bytes: AtomicU64::new(0),
            blocks: AtomicBool::new(false),
            alarmed: AtomicBool::new(false),
            parked_since: Mutex::default(),
        };
        shared.reset(lengths);
        Arc::new(shared)
    }

    /// As deliveries name it: the identity of the state directory, and its name in there.
    pub(crate) fn id(&self, state_id: &str) -> Arc<str> {
        format!("{state_id}/{}", self.name).into()
    }

    /// The kind of the stage that fills it.
    pub(crate) fn writer(&self) -> PondKind {
        PondKind { options: self.options, carries: self.carries.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds a pond")
    }

    /// A cut of the region that writes is committed, with these lengths of segments, and without those that it retired.
    pub(crate) fn written<'a>(&self, logs: impl Iterator<Item = (&'a LogName, u64)>, retired: &[LogName]) {
        let mut state = self.lock();
        state.segments.extend(logs.filter_map(|(log, length)| Some((segment_base(log)?, length))));
        for base in retired.iter().filter_map(segment_base) {
            state.segments.remove(&base);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The region that writes is opened, with these lengths in its last cut. When it was open before, no less than was shown.
    pub(crate) fn reset(&self, lengths: &Lengths) {
        self.lock().segments.clear();
        self.written(lengths.iter().map(|(log, length)| (log, *length)), &[]);
    }

    /// A cut of the region that reads is committed at this offset.
    pub(crate) fn consumed(&self, offset: u64) {
        let mut state = self.lock();
        state.consumed = state.consumed.max(offset);
    }

    /// The region that writes has come to the end of its input.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// The region that writes can't go on, since then at the latest.
    pub(crate) fn park(&self, since: Instant) {
        let mut parked_since = self.parked();
        *parked_since = Some(parked_since.map_or(since, |known| known.min(since)));
    }

    /// The region that writes has got something done.
    pub(crate) fn unpark(&self) {
        *self.parked() = None;
    }

    /// Since when the region that writes can't go on.
    pub(crate) fn parked_since(&self) -> Option<Instant> {
        *self.parked()
    }

    fn parked(&self) -> MutexGuard<'_, Option<Instant>> {
        self.parked_since.lock().expect("no code panics while it holds an instant")
    }

    /// Whether there is nothing behind an offset for now.
    pub(crate) fn is_empty_at(&self, offset: u64) -> bool {
        offset >= self.lock().end()
    }

    /// Whether nothing comes any more behind an offset.
    pub(super) fn has_ended_at(&self, offset: u64) -> bool {
        let state = self.lock();
        state.ended && offset == state.end()
    }

    /// The segment that holds the byte at an offset: where it begins, where it ends and the file. `None` when the byte is not there yet.
    pub(super) fn segment(&self, offset: u64) -> Option<(u64, u64, PathBuf)> {
        let state = self.lock();
        let (base, length) = state.segments.range(..=offset).next_back()?;
        let path = || path_in(&self.dir, Path::new(""), &segment_log(*base));
        (offset < base + length).then(|| (*base, base + length, path()))
    }

    pub(crate) fn fill(&self) -> PondFill {
        self.lock().fill()
    }

    /// Offset up to which it was delivered, as of the last cut of the region that reads.
    pub(crate) fn consumed_offset(&self) -> u64 {
        self.lock().consumed
    }

    /// Whether a barrier would free a segment.
    pub(crate) fn can_free(&self) -> bool {
        let state = self.lock();
        let mut segments = state.segments.iter();
        let first = segments.next().filter(|_| segments.next().is_some());
        first.is_some_and(|(base, length)| base + length <= state.consumed)
    }

    /// Whether it is full, by the bytes that lie on the disk.
    pub(crate) fn is_full(&self) -> bool {
        self.appended_bytes.load(Ordering::Relaxed) >= self.full_bytes
    }

    /// Takes note of the bytes that lie on the disk, committed or not, and says whether sources of the region that writes have to wait. The
    /// alarm is raised here, too.
    pub(crate) fn look(&self, bytes: u64) -> bool {
        self.appended_bytes.store(bytes, Ordering::Relaxed);
        let (full, max, pond) = (self.is_full(), self.options.max_bytes, &self.name);
        if full || bytes >= max / 100 * ALARM_PERCENT {
            if !self.alarmed.swap(true, Ordering::Relaxed) {
                let behind = &self.node;
                tracing::error!(%pond, bytes, max_bytes = max, "the pond is filling up: `{behind}` is down or too slow; `tidemill status` and its log lines say what it waits for");
            }
        } else if bytes < max / 100 * CALM_PERCENT && self.alarmed.swap(false, Ordering::Relaxed) {
            tracing::info!(%pond, bytes, max_bytes = max, "the pond has room again");
        }
        let blocks = full && self.options.when_full == WhenFull::Block;
        let before = self.blocks.swap(blocks, Ordering::Relaxed);
        if blocks && !before {
            tracing::error!(%pond, bytes, max_bytes = max, "the pond is full: the sources before it wait, and nothing is lost");
        }
        blocks
    }

    /// As of the last look.
    pub(crate) fn blocks(&self) -> bool {
        self.blocks.load(Ordering::Relaxed)
    }
}

impl State {
    fn end(&self) -> u64 {
        self.segments.last_key_value().map_or(0, |(base, length)| base + length)
    }

    fn fill(&self) -> PondFill {
        let first = self.segments.first_key_value().map_or(0, |(base, _)| *base);
        PondFill { bytes: self.end() - first, unread_bytes: self.end().saturating_sub(self.consumed) }
    }
}
