//! Takes turns between files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemill_core::{Cure, Idle, Moved, Origin, Polled, RawChunk, Source, SourceContext, SourceError, Stretch};
use tracing::warn;

use super::avro::AvroFrames;
use super::folders::FoldersNow;
use super::identity::Head;
use super::partition::{Partition, State};
use super::patterns::Patterns;
use super::reader::{Fault, Frames, Piece, Reader, Step};
use super::stream::Stream;
use super::{Config, FramingOption, Order};
use crate::ingest::{Looked, broken, now_ms};

/// How long a call may go on without a whole record (long lines, decompressing up to a position).
const LONGEST_CALL: Duration = Duration::from_millis(40);
/// When to look again at files that are at their end.
const NOTHING_NEW: Duration = Duration::from_millis(20);
/// When to try a file again that could not be read.
const RETRY: Duration = Duration::from_secs(5);
/// A source that was not asked for so long takes nothing for quiet.
const STOOD_STILL: Duration = Duration::from_secs(5);

pub(super) struct FileSource {
    pub(super) source: Arc<str>,
    pub(super) config: Config,
    max_event: usize,
    pub(super) until_end: bool,
    /// Of a run to the end: the partitions that it reads, and where they end.
    pub(super) ends: Option<BTreeMap<Arc<str>, u64>>,
    /// What went wrong with files of a run to the end.
    pub(super) failed: Vec<SourceError>,
    /// What was read before is read once more, as far as it is there.
    pub(super) is_again: bool,
    pub(super) patterns: Patterns,
    pub(super) partitions: Vec<Partition>,
    /// Those that may have moved since they were asked last.
    pub(super) touched: BTreeSet<usize>,
    /// Partitions with something to be read that are not open, by name.
    pub(super) waiting: BTreeMap<Arc<str>, usize>,
    /// Open ones.
    open: Vec<usize>,
    /// Index into `open` of the one that is next.
    turn: usize,
    next_scan: Instant,
    polled: Looked,
    /// When the last scan began, milliseconds since 1970.
    pub(super) scanned_at_ms: i64,
    /// One that can't be found for so long holds nothing any more: hours have been sealed without it by then.
    pub(super) give_up_after: Duration,
    /// Patterns whose folder is not there, since when.
    pub(super) missing: BTreeMap<Arc<str>, Instant>,
    scratch: Vec<u8>,
}

/// What became of a partition's turn.
enum Turn {
    Chunk(RawChunk),
    /// Nothing now.
    Quiet,
    /// It is not among the open ones any more.
    Left,
    /// The call has taken long enough.
    Later,
}

impl FileSource {
    pub(super) fn open(context: &SourceContext, config: Config) -> Result<Self, SourceError> {
        let patterns = Patterns::new(&context.base_dir, config.paths.clone());
        let limits = &context.limits;
        let give_up_after_ms = limits.hold_at_most_ms.saturating_add(limits.bucket_ms).unsigned_abs();
        let mut source = Self {
            source: context.name.clone(),
            max_event: context.limits.max_event_bytes,
            until_end: context.until_end,
            ends: context.ends.clone(),
            failed: Vec::new(),
            is_again: context.stretch.is_some(),
            patterns,
            partitions: Vec::new(),
            touched: BTreeSet::new(),
            waiting: BTreeMap::new(),
            open: Vec::new(),
            turn: 0,
            next_scan: Instant::now() + Duration::from_millis(config.rescan),
            polled: Looked::now(),
            scanned_at_ms: i64::MIN,
            give_up_after: Duration::from_millis(give_up_after_ms.saturating_add(config.rescan)),
            missing: BTreeMap::new(),
            scratch: Vec::new(),
            config,
        };
        let again = context.stretch.as_ref().filter(|_| context.positions.is_empty());
        for (name, position) in &**again.map_or(&context.positions, |stretch| &stretch.known) {
            let partition = Partition::restore(name, position).map(|partition| match again {
                Some(_) => partition.rewound(),
                None => partition,
            });
            let partition = partition.map_err(|error| {
                let message = format!(
                    "the position of `{name}` in the state was not written by `file`; start afresh with --fresh"
                );
                broken(message, Some(error.into()))
            })?;
            source.partitions.push(partition);
        }
        source.scan()?;
        source.fix_ends();
        if let Some(stretch) = &context.stretch {
            source.keep(stretch);
        }
        if source.waiting.is_empty() {
            warn!(source = %context.name, "there is no file to be read yet: nothing matches {:?}", source.config.paths);
        }
        Ok(source)
    }

    /// Reads what is wanted once more, and nothing else.
    fn keep(&mut self, stretch: &Arc<Stretch>) {
        self.waiting.retain(|name, _| stretch.until.get(name).is_some_and(|until| *until > 0));
        for (name, until) in stretch.until.iter().filter(|(_, until)| **until > 0) {
            if !self.waiting.contains_key(name) {
                stretch.is_gone(format!("file `{name}`: it can't be found, and {until} bytes of it were read"));
            }
        }
        for partition in &mut self.partitions {
            partition.until = stretch.until.get(&partition.name).copied();
        }
    }

    /// The file that is opened next, of those that wait.
    fn next_waiting(&self, now: Instant) -> Option<(Arc<str>, usize)> {
        let due = |(_, index): &(&Arc<str>, &usize)| self.partitions[**index].retry_at.is_none_or(|at| at <= now);
        let mut waiting = self.waiting.iter().filter(due);
        let path = |index: &usize| self.partitions[*index].path.as_os_str();
        let next = match self.config.order {
            Order::None => waiting.next(),
            Order::Name => waiting.min_by_key(|(_, index)| path(index)),
            Order::Modified => waiting.min_by_key(|(_, index)| (self.partitions[**index].modified, path(index))),
        };
        next.map(|(name, index)| (name.clone(), *index))
    }

    /// Opens files that wait, as many as may be open.
    fn open_waiting(&mut self) -> Result<(), SourceError> {
        let now = Instant::now();
        while self.open.len() < self.config.open_max() {
            let Some((name, index)) = self.next_waiting(now) else { return Ok(()) };
            self.waiting.remove(&name);
            let partition = &mut self.partitions[index];
            let stream = Stream::open(&partition.path, self.config.compression, partition.limit, !self.until_end);
            let fault = match stream {
                // The path became another file's since the last scan.
                Ok(Some(stream)) if stream.id().is_ok_and(|id| id != partition.id) => {
                    self.look_for(index, &mut FoldersNow::default());
                    continue;
                }
                // Too short to know what it is: the next scan sees whether it has grown.
                Ok(None) => {
                    partition.quiet_since.get_or_insert(now);
                    continue;
                }
                Ok(Some(stream)) => {
                    let frames = match self.config.framing {
                        FramingOption::Lines => Frames::Lines,
                        FramingOption::Avro => Frames::Avro(AvroFrames::default()),
                    };
                    match Reader::new(stream, frames, partition.position, self.config.read_size, self.max_event) {
                        Ok(reader) => {
                            partition.reader = Some(reader);
                            self.open.push(index);
                            continue;
                        }
                        Err(fault) => fault,
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.look_for(index, &mut FoldersNow::default());
                    continue;
                }
                Err(error) => Fault::Io(error),
            };
            self.fault(index, fault)?;
        }
        Ok(())
    }

    /// Lets a partition read until it has a chunk.
    fn take_turn(&mut self, index: usize, deadline: Instant) -> Result<Turn, SourceError> {
        loop {
            let partition = &mut self.partitions[index];
            let Some(reader) = &mut partition.reader else {
                self.close(index);
                return Ok(Turn::Left);
            };
            if partition.until.is_some_and(|until| partition.position >= until) {
                partition.ended = true;
                self.close(index);
                return Ok(Turn::Left);
            }
            let stepped_at_ms = now_ms();
            let step = reader.step(&mut self.scratch);
            partition.position = reader.position;
            match step {
                Ok(Step::Piece(piece)) => {
                    partition.quiet_since = None;
                    partition.at_end = false;
                    return Ok(Turn::Chunk(self.chunk(index, piece)));
                }
                Ok(Step::Busy) => {
                    partition.quiet_since = None;
                    if Instant::now() >= deadline {
                        return Ok(Turn::Later);
                    }
                }
                Ok(Step::Waiting { read }) => {
                    match reader.stream.shrunk() {
                        Ok(false) => {}
                        Ok(true) => {
                            self.fault(index, Fault::Shorter)?;
                            continue;
                        }
                        Err(error) => {
                            self.fault(index, Fault::Io(error))?;
                            return Ok(Turn::Left);
                        }
                    }
                    if read {
                        partition.quiet_since = None;
                    }
                    partition.looked_at_ms = stepped_at_ms;
                    partition.at_end = true;
                    let since = *partition.quiet_since.get_or_insert_with(Instant::now);
                    let idle = since.elapsed() >= Duration::from_millis(self.config.idle_timeout);
                    if partition.state == State::Rotated && idle {
                        reader.stream.stop_following();
                        continue;
                    }
                    return Ok(Turn::Quiet);
                }
                Ok(Step::End) => {
                    partition.ended = true;
                    partition.at_end = true;
                    if !self.until_end || partition.state == State::Rotated {
                        partition.state = State::Closed;
                    }
                    self.close(index);
                    return Ok(Turn::Left);
                }
                Err(fault) => {
                    self.fault(index, fault)?;
                    if self.partitions[index].reader.is_none() {
                        return Ok(Turn::Left);
                    }
                }
            }
        }
    }

    fn chunk(&self, index: usize, piece: Piece) -> RawChunk {
        let partition = self.partitions[index].name.clone();
        let origin =
            Origin { source: self.source.clone(), partition, first: piece.first, next: piece.next, enters: None };
        RawChunk { origin: Arc::new(origin), bytes: piece.bytes, framing: piece.framing, arrived_at_ms: now_ms() }
    }

    pub(super) fn close(&mut self, index: usize) {
        self.touched.insert(index);
        self.partitions[index].reader = None;
        self.open.retain(|open| *open != index);
    }

    /// Deals with what went wrong with a partition's file.
    fn fault(&mut self, index: usize, fault: Fault) -> Result<(), SourceError> {
        let partition = &mut self.partitions[index];
        let (source, name, position) = (self.source.clone(), partition.name.clone(), partition.position);
        let file = partition.path.display().to_string();
        if partition.state == State::Closed {
            warn!(%source, partition = %name, position, "a record that is not complete is not read: the file was truncated");
            partition.ended = true;
            self.close(index);
            return Ok(());
        }
        let packed = partition.reader.as_ref().and_then(|reader| reader.stream.compression());
        let Some((message, cause, curable)) = fault.said(&file, position, packed) else {
            self.supersede(index, "is shorter than it was");
            return Ok(());
        };
        let cause = cause.map(|cause| Box::new(cause) as Box<dyn std::error::Error + Send + Sync>);
        if self.until_end {
            // The others are read first; nothing is sealed.
            let cure = if curable { Cure::GiveUp } else { Cure::Stop };
            let error = SourceError { message, cure, source: cause };
            tracing::error!(
                %source, partition = %name, position, %error,
                "the file is not read any further; the others are, and nothing is sealed"
            );
            self.failed.push(error);
            self.close(index);
            return Ok(());
        }
        partition.retry_at = curable.then(|| Instant::now() + RETRY);
        self.close(index);
        self.waiting.insert(name, index);
        Err(SourceError { message, cure: if curable { Cure::Reopen } else { Cure::Stop }, source: cause })
    }

    /// Ends a partition whose file has other contents now, which become a partition of their own.
    pub(super) fn supersede(&mut self, index: usize, what: &str) {
        let generation = self.next_generation(&self.partitions[index].stem);
        let partition = &mut self.partitions[index];
        let head = Head::of(&partition.path).unwrap_or_default();
        let mut next = Partition::new(partition.stem.clone(), generation, partition.path.clone(), partition.id, head);
        (next.len, next.folders) = (partition.len, partition.folders);
        warn!(
            source = %self.source, partition = %partition.name, position = partition.position, next = %next.name,
            "{} {what}: it is read from its start as a partition of its own", partition.path.display()
        );
        partition.state = State::Closed;
        self.waiting.remove(&partition.name);
        match &mut partition.reader {
            // What was read of an unfinished line is delivered, as the last line.
            Some(reader) => reader.end_here(),
            None => partition.ended = true,
        }
        if self.until_end {
            let len = std::fs::metadata(&next.path).map_or(0, |metadata| metadata.len());
            next.limit = Some(len);
            // What took the place of one that the run reads is read, too, unless the process is not the same by then.
            if let Some(ends) = &mut self.ends {
                ends.insert(next.name.clone(), len);
            }
        }
        self.touched.extend([index, self.partitions.len()]);
        self.waiting.insert(next.name.clone(), self.partitions.len());
        self.partitions.push(next);
    }

    /// Makes room for files that wait by closing one that has nothing new.
    fn make_room(&mut self, index: usize) -> bool {
        let now = Instant::now();
        let full = self.open.len() >= self.config.open_max();
        let wanted = || self.waiting.values().any(|at| self.partitions[*at].retry_at.is_none_or(|at| at <= now));
        let close = full && self.partitions[index].state == State::Live && wanted();
        if close {
            self.partitions[index].len =
                self.partitions[index].reader.as_ref().map_or(0, |reader| reader.stream.read_bytes());
            self.close(index);
        }
        close
    }
}

impl Source for FileSource {
    fn poll(&mut self) -> Result<Polled, SourceError> {
        let now = Instant::now();
        if self.polled.again_after(STOOD_STILL) {
            // Who writes the files may have stood still, too, and needs time to go on.
            self.partitions
                .iter_mut()
                .filter_map(|partition| partition.quiet_since.as_mut())
                .for_each(|since| *since = now);
            // What was seen by a clock that was set back holds for now at most.
            self.scanned_at_ms = self.scanned_at_ms.min(now_ms());
        }
        if !self.until_end && now >= self.next_scan {
            self.next_scan = now + Duration::from_millis(self.config.rescan);
            self.scan()?;
        }
        let deadline = now + LONGEST_CALL;
        let mut quiet = 0;
        loop {
            self.open_waiting()?;
            if self.open.is_empty() || quiet >= self.open.len() {
                break;
            }
            self.turn %= self.open.len();
            let index = self.open[self.turn];
            self.touched.insert(index);
            match self.take_turn(index, deadline)? {
                Turn::Chunk(chunk) => {
                    self.turn += 1;
                    return Ok(Polled::Chunk(chunk));
                }
                Turn::Later => {
                    self.turn += 1;
                    return Ok(Polled::Idle(Duration::ZERO));
                }
                Turn::Left => {}
                Turn::Quiet if self.make_room(index) => {}
                Turn::Quiet => {
                    self.turn += 1;
                    quiet += 1;
                }
            }
        }
        if self.until_end && self.open.is_empty() && self.waiting.is_empty() {
            self.all_read()?;
            return Ok(Polled::Ended);
        }
        Ok(Polled::Idle(NOTHING_NEW))
    }

    fn moved(&mut self) -> Moved {
        let mut moved = Moved::default();
        for index in std::mem::take(&mut self.touched) {
            let partition = &mut self.partitions[index];
            moved.positions.extend(partition.moved().map(|position| (partition.name.clone(), position)));
        }
        moved
    }

    fn idle(&self) -> Idle {
        let timeout = Duration::from_millis(self.config.idle_timeout);
        let is_idle = |partition: &Partition| match partition.state {
            State::Gone | State::Unwanted => true,
            State::Lost => false,
            State::Closed => partition.ended,
            State::Live | State::Rotated => {
                partition.quiet_since.is_some_and(|since| since.elapsed() >= timeout)
                    && !self.waiting.contains_key(&partition.name)
            }
        };
        // Behind one that is read, in an order: what it has belongs to later hours, or would be late in any order.
        let waits = |partition: &Partition| {
            let is_next = self.config.order != Order::None && !self.open.is_empty();
            is_next && partition.position == 0 && self.waiting.contains_key(&partition.name)
        };
        // A scan sees files that are new, and those that have grown and are not open.
        let proven_ms = |partition: &Partition| match (is_idle(partition) || waits(partition), &partition.reader) {
            (false, _) => None,
            (true, Some(_)) => Some(partition.looked_at_ms.min(self.scanned_at_ms)),
            (true, None) => Some(self.scanned_at_ms),
        };
        let of_most = Some(self.scanned_at_ms);
        let all = self.partitions.iter().map(|partition| (partition, proven_ms(partition)));
        let except = all.filter(|(_, proven_ms)| *proven_ms != of_most);
        let except = except.map(|(partition, proven_ms)| (partition.name.clone(), proven_ms)).collect();
        Idle { proven_ms: of_most, except }
    }

    fn ends(&self) -> Option<BTreeMap<Arc<str>, u64>> {
        self.ends.clone()
    }

    fn silent_partitions(&self) -> BTreeMap<Arc<str>, Duration> {
        let lost = self.partitions.iter().filter_map(|of| Some((of.name.clone(), of.lost_since?)));
        let missing = self.missing.iter().map(|(pattern, since)| (pattern.clone(), *since));
        lost.chain(missing).map(|(name, since)| (name, since.elapsed())).collect()
    }

    fn waits_for(&self) -> Option<String> {
        let pattern = self.missing.keys().next()?;
        Some(format!("the folder of `{pattern}`, which is not there"))
    }
}
