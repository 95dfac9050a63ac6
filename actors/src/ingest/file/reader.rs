//! Whole records out of the bytes of one file.

use std::io;

use arrow_buffer::Buffer;
use memchr::{memchr, memrchr};
use tidemill_core::Framing;

use super::avro::AvroFrames;
use super::stream::{Stop, Stream};

/// Whole records, and where they are in the decompressed stream.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) bytes: Buffer,
    pub(super) framing: Framing,
}

/// What one step of reading came to.
#[derive(Debug)]
pub(super) enum Step {
    /// Whole records.
    Piece(Piece),
    /// Something was read, but no whole record; go on.
    Busy,
    /// The file may grow; `read` says whether at least a part of a record came.
    Waiting { read: bool },
    /// Nothing more will come.
    End,
}

/// Why a file can't be read on.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is shorter than it was: the position is behind its end.
    Shorter,
    /// Reading or decompressing failed.
    Io(io::Error),
    /// It ends in the middle of a block or of the header.
    Truncated(&'static str),
    /// It is not what `framing` says.
    Form(String),
}

/// How the bytes divide into records.
pub(super) enum Frames {
    Lines,
    Avro(AvroFrames),
}

/// A line that is too long to be held: only its beginning is.
struct Overlong {
    prefix: Vec<u8>,
    /// Bytes of the line so far.
    length: u64,
}

/// Reads one file record by record.
pub(super) struct Reader {
    pub(super) stream: Stream,
    pub(super) frames: Frames,
    /// Bytes that were read but not delivered: the beginning of a record.
    pub(super) carry: Vec<u8>,
    /// Position of the first byte of `carry`.
    pub(super) position: u64,
    /// Bytes of the decompressed stream that are still to be passed over.
    pub(super) skip: u64,
    /// The limit was lifted to complete one record; it is the last.
    pub(super) last_record: bool,
    pub(super) done: bool,
    failed: Option<io::Error>,
    /// Bytes of `carry` that are known to hold no line feed.
    searched: usize,
    overlong: Option<Overlong>,
    read_size: usize,
    max_event: usize,
}

impl Reader {
    /// Reads `stream`, which is at its start, from `position` on.
    pub(super) fn new(
        mut stream: Stream,
        frames: Frames,
        position: u64,
        read_size: usize,
        max_event: usize,
    ) -> Result<Self, Fault> {
        let mut skip = 0;
        if matches!(frames, Frames::Lines) && position > 0 {
            match stream.seek(position) {
                Ok(true) => {}
                Ok(false) => skip = position,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Fault::Shorter),
                Err(error) => return Err(Fault::Io(error)),
            }
        }
        Ok(Self {
            stream,
            frames,
            carry: Vec::new(),
            position,
            skip,
            last_record: false,
            done: false,
            failed: None,
            searched: 0,
            overlong: None,
            read_size,
            max_event,
        })
    }

    /// Reads once, at most about the read size. `scratch` is kept by the caller, so that files with nothing new cost no buffer.
    pub(super) fn step(&mut self, scratch: &mut Vec<u8>) -> Result<Step, Fault> {
        if self.done {
            return Ok(Step::End);
        }
        if let Some(error) = self.failed.take() {
            return Err(Fault::Io(error));
        }
        if self.skip > 0 {
            return self.pass_over(scratch);
        }
        match self.frames {
            Frames::Lines => self.lines(scratch),
            Frames::Avro(_) => self.avro(scratch),
        }
    }

    /// Nothing more is read; what is carried is the last record.
    pub(super) fn end_here(&mut self) {
        self.skip = 0;
        self.stream.abandon();
    }

    fn pass_over(&mut self, scratch: &mut Vec<u8>) -> Result<Step, Fault> {
        let size = self.read_size.min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        let (count, stop) = self.stream.fill(room(scratch, size));
        self.skip -= count as u64;
        match stop {
            Stop::Failed(error) => Err(Fault::Io(error)),
            // What is to be passed over had been read before, so it must be there.
            Stop::Waiting | Stop::End if self.skip > 0 => Err(Fault::Shorter),
            _ => Ok(Step::Busy),
        }
    }

    /// Puts what is carried and what can be read into `scratch`; returns the bytes that are there and why it stopped.
    pub(super) fn gather(&mut self, scratch: &mut Vec<u8>) -> (usize, usize, Stop) {
        let held = self.carry.len();
        // Reading as much again as is held keeps the copying linear when a record is long.
        let buffer = room(scratch, held + self.read_size.max(held));
        buffer[..held].copy_from_slice(&self.carry);
        let (read, stop) = self.stream.fill(&mut buffer[held..]);
        (held + read, read, stop)
    }

    /// Takes the first `end` of `total` bytes in `scratch` as a piece; carries the rest.
    pub(super) fn take(&mut self, scratch: &mut Vec<u8>, end: usize, total: usize, framing: Framing) -> Step {
        self.carry.clear();
        self.carry.extend_from_slice(&scratch[end..total]);
        self.searched = self.carry.len();
        // A buffer that is mostly empty is not handed on: it would be held in memory as long as its records are.
        let bytes = if end >= scratch.len() / 2 {
            let mut whole = std::mem::take(scratch);
            whole.truncate(end);
            Buffer::from_vec(whole)
        } else {
            Buffer::from(&scratch[..end])
        };
        let first = self.position;
        self.position += end as u64;
        if self.last_record {
            self.done = true;
            self.carry.clear();
        }
        Step::Piece(Piece { first, next: self.position, bytes, framing })
    }

    /// Keeps all that is in `scratch` for the next step.
    pub(super) fn hold(&mut self, scratch: &[u8]) {
        self.carry.clear();
        self.carry.extend_from_slice(scratch);
        self.searched = self.carry.len();
    }

    /// A failure is told after what was read before it.
    pub(super) fn remember(&mut self, stop: Stop) {
        if let Stop::Failed(error) = stop {
            self.failed = Some(error);
        }
    }

    fn lines(&mut self, scratch: &mut Vec<u8>) -> Result<Step, Fault> {
        if self.overlong.is_none() && self.searched > self.max_event {
            let length = self.carry.len() as u64;
            self.carry.truncate(self.max_event + 1);
            self.overlong = Some(Overlong { prefix: std::mem::take(&mut self.carry), length });
            self.searched = 0;
        }
        if let Some(line) = self.overlong.take() {
            return self.end_of_overlong(line, scratch);
        }
        let searched = self.searched;
        let (total, read, stop) = self.gather(scratch);
        let new = &scratch[searched..total];
        let feed = if self.last_record { memchr(b'\n', new) } else { memrchr(b'\n', new) };
        if let Some(at) = feed {
            self.remember(stop);
            return Ok(self.take(scratch, searched + at + 1, total, Framing::Lines));
        }
        match stop {
            Stop::Failed(error) => return Err(Fault::Io(error)),
            Stop::End if total == 0 => {
                self.done = true;
                return Ok(Step::End);
            }
            Stop::End if self.stream.lift_limit() => self.last_record = true,
            Stop::End => {
                self.last_record = true;
                return Ok(self.take(scratch, total, total, Framing::Lines));
            }
            Stop::Waiting => {
                self.hold(&scratch[..total]);
                return Ok(Step::Waiting { read: read > 0 });
            }
            Stop::Full => {}
        }
        self.hold(&scratch[..total]);
        Ok(Step::Busy)
    }

    fn end_of_overlong(&mut self, mut line: Overlong, scratch: &mut Vec<u8>) -> Result<Step, Fault> {
        let (count, stop) = self.stream.fill(room(scratch, self.read_size));
        let feed = memchr(b'\n', &scratch[..count]);
        line.length += feed.map_or(count, |at| at + 1) as u64;
        let step = match (feed, &stop) {
            (Some(_), _) => None,
            (None, Stop::Full) => Some(Step::Busy),
            (None, Stop::Waiting) => Some(Step::Waiting { read: count > 0 }),
            (None, Stop::Failed(_)) => Some(Step::Busy),
            (None, Stop::End) if self.stream.lift_limit() => {
                self.last_record = true;
                Some(Step::Busy)
            }
            (None, Stop::End) => {
                self.last_record = true;
                None
            }
        };
        self.remember(stop);
        if let Some(step) = step {
            self.overlong = Some(line);
            return Ok(step);
        }
        self.carry.extend_from_slice(&scratch[feed.map_or(count, |at| at + 1)..count]);
        if self.last_record {
            self.done = true;
            self.carry.clear();
        }
        let first = self.position;
        self.position += line.length;
        let bytes = Buffer::from_vec(line.prefix);
        Ok(Step::Piece(Piece { first, next: self.position, bytes, framing: Framing::Lines }))
    }
}

/// A slice of `size` bytes of `scratch`, made larger if need be.
fn room(scratch: &mut Vec<u8>, size: usize) -> &mut [u8] {
    if scratch.len() < size {
        *scratch = vec![0; size];
    }
    &mut scratch[..size]
}
