//! Blocks on their way through the compressors.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use tidemill_core::StageError;

use super::compressors::Compressors;
use crate::sink::codec::{Codec, compress};
use crate::sink::container::{Format, block};

thread_local! {
    /// Where a compressor's output goes before its length is known.
    static OUTPUT: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// A block that is ready for its file.
pub(super) struct Finished {
    /// Index of its directory.
    pub(super) directory: usize,
    pub(super) rows: u64,
    pub(super) format: Arc<Format>,
    /// Number of rows, size and data; the sync marker is yet to come.
    pub(super) bytes: Vec<u8>,
}

struct Job {
    directory: usize,
    rows: u64,
    format: Arc<Format>,
    result: Receiver<Result<Compressed, StageError>>,
}

struct Compressed {
    bytes: Vec<u8>,
    /// The buffer that the rows were in, to be used again.
    raw: Vec<u8>,
}

/// Blocks in the hands of other threads, taken back in the order in which they were given, so that the files do
/// not depend on how long each one takes.
pub(super) struct Blocks {
    compressors: Compressors,
    jobs: VecDeque<Job>,
    spare: Vec<Vec<u8>>,
    limit: usize,
}

impl Blocks {
    /// For a stage that gives way to others so far.
    pub(super) fn new(gives_way: i32) -> Self {
        let compressors = Compressors::of(gives_way);
        let limit = 2 * compressors.threads();
        Self { compressors, jobs: VecDeque::new(), spare: Vec::new(), limit }
    }

    /// Whether a block must be taken back before the next is given.
    pub(super) fn is_full(&self) -> bool {
        self.jobs.len() >= self.limit
    }

    /// An empty buffer.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Starts to compress the rows in `raw`.
    pub(super) fn give(&mut self, directory: usize, rows: u64, format: Arc<Format>, level: i32, raw: Vec<u8>) {
        let (sender, result) = channel();
        let codec = format.codec;
        let work = move || {
            // A panic must not end the process, which is what rayon makes of one.
            let done = catch_unwind(AssertUnwindSafe(|| {
                OUTPUT.with_borrow_mut(|out| {
                    compress(codec, level, &raw, out)?;
                    Ok(block(rows, out))
                })
            }));
            let done = done.unwrap_or_else(|_| Err(StageError::new("the compressor of a block panicked")));
            // The receiver is gone when the stage was dropped; then nobody wants the block.
            let _ = sender.send(done.map(|bytes| Compressed { bytes, raw }));
        };
        match codec {
            // A copy costs less than to wake another thread.
            Codec::Null => work(),
            _ => self.compressors.spawn(work),
        }
        self.jobs.push_back(Job { directory, rows, format, result });
    }

    /// The oldest block: if it is done, or, with `wait`, when it is done. `None` when there is none (yet).
    pub(super) fn take(&mut self, wait: bool) -> Result<Option<Finished>, StageError> {
        let Some(job) = self.jobs.front() else { return Ok(None) };
        let lost = || StageError::new("the compressor of a block ended without an answer");
        let done = if wait {
            job.result.recv().map_err(|_| lost())?
        } else {
            match job.result.try_recv() {
                Ok(done) => done,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(lost()),
            }
        };
        let Compressed { bytes, mut raw } = done?;
        raw.clear();
        if self.spare.len() < self.limit {
            self.spare.push(raw);
        }
        Ok(self.jobs.pop_front().map(|Job { directory, rows, format, .. }| Finished { directory, rows, format, bytes }))
    }
}
