//! Avro container files: the header, then whole blocks.

use arrow_buffer::Buffer;
use tidemill_core::Framing;

use super::reader::{Fault, Frames, Reader, Step};
use super::stream::Stop;

const MAGIC: &[u8] = b"Obj\x01";
const SYNC: usize = 16;
/// Longest header and longest block that are taken; a file that claims more is damaged, or would not fit into memory.
const MAX_HEADER: usize = 16 << 20;
const MAX_BLOCK: u64 = 256 << 20;

/// The header of a container file, once it was read.
#[derive(Default)]
pub(super) struct AvroFrames {
    header: Option<Buffer>,
}

impl AvroFrames {
    fn sync(&self) -> &[u8] {
        self.header.as_ref().map_or(&[], |header| &header[header.len() - SYNC..])
    }
}

/// A value that may not be there yet as a whole.
enum Partial<T> {
    Whole(T),
    More,
    Wrong(&'static str),
}

fn long(bytes: &[u8], at: &mut usize) -> Partial<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let Some(byte) = bytes.get(*at) else { return Partial::More };
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Partial::Whole((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Partial::Wrong("a number has more than ten bytes")
}

macro_rules! whole {
    ($partial:expr) => {
        match $partial {
            Partial::Whole(value) => value,
            Partial::More => return Partial::More,
            Partial::Wrong(what) => return Partial::Wrong(what),
        }
    };
}

/// Length of the header at the beginning of `bytes`.
fn header_len(bytes: &[u8]) -> Partial<usize> {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Partial::Wrong("it does not start with `Obj` and 1");
    }
    let mut at = MAGIC.len();
    loop {
        let count = whole!(long(bytes, &mut at));
        if count == 0 {
            break;
        }
        if count < 0 {
            whole!(long(bytes, &mut at));
        }
        for _ in 0..count.unsigned_abs().saturating_mul(2) {
            let Ok(length) = usize::try_from(whole!(long(bytes, &mut at))) else {
                return Partial::Wrong("its metadata has a negative length");
            };
            at = match at.checked_add(length) {
                Some(end) if end <= MAX_HEADER => end,
                _ => return Partial::Wrong("its header is longer than 16 MiB"),
            };
        }
    }
    if at + SYNC <= bytes.len() { Partial::Whole(at + SYNC) } else { Partial::More }
}

/// Length of the block at the beginning of `bytes`.
fn block_len(bytes: &[u8], sync: &[u8]) -> Partial<usize> {
    let mut at = 0;
    if whole!(long(bytes, &mut at)) < 0 {
        return Partial::Wrong("a block has a negative number of records");
    }
    let size = match u64::try_from(whole!(long(bytes, &mut at))) {
        Ok(size) if size <= MAX_BLOCK => size as usize,
        _ => return Partial::Wrong("a block says that it has less than no bytes, or more than 256 MiB"),
    };
    let end = at + size + SYNC;
    if end > bytes.len() {
        return Partial::More;
    }
    if bytes[end - SYNC..end] == *sync {
        Partial::Whole(end)
    } else {
        Partial::Wrong("a block does not end with the sync marker of the file")
    }
}

impl Reader {
    pub(super) fn avro(&mut self, scratch: &mut Vec<u8>) -> Result<Step, Fault> {
        let Frames::Avro(frames) = &self.frames else { return Ok(Step::End) };
        let Some(header) = frames.header.clone() else { return self.avro_header(scratch) };
        let sync = frames.sync().to_vec();
        let (total, read, stop) = self.gather(scratch);
        let mut end = 0;
        while end < total && !(self.last_record && end > 0) {
            match block_len(&scratch[end..total], &sync) {
                Partial::Whole(length) => end += length,
                Partial::More => break,
                Partial::Wrong(_) if end > 0 => break,
                Partial::Wrong(what) => {
                    self.hold(&scratch[..total]);
                    return Err(Fault::Form(what.to_owned()));
                }
            }
        }
        if end > 0 {
            self.remember(stop);
            return Ok(self.take(scratch, end, total, Framing::AvroBlocks { header }));
        }
        self.incomplete(scratch, total, read, stop, "its last block")
    }

    fn avro_header(&mut self, scratch: &mut Vec<u8>) -> Result<Step, Fault> {
        let (total, read, stop) = self.gather(scratch);
        let length = match header_len(&scratch[..total]) {
            Partial::Whole(length) => length,
            Partial::More => return self.incomplete(scratch, total, read, stop, "its header"),
            Partial::Wrong(what) => {
                return Err(Fault::Form(format!("it is not an Avro container file: {what}")));
            }
        };
        self.remember(stop);
        self.frames = Frames::Avro(AvroFrames { header: Some(Buffer::from(&scratch[..length])) });
        let start = self.position.max(length as u64);
        self.position = start;
        self.carry.clear();
        let behind = usize::try_from(start).ok().filter(|behind| *behind <= total);
        if let Some(behind) = behind {
            self.carry.extend_from_slice(&scratch[behind..total]);
            return Ok(Step::Busy);
        }
        match self.stream.seek(start) {
            Ok(true) => {}
            Ok(false) => self.skip = start - total as u64,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(Fault::Shorter),
            Err(error) => return Err(Fault::Io(error)),
        }
        Ok(Step::Busy)
    }

    fn incomplete(
        &mut self,
        scratch: &mut [u8],
        total: usize,
        read: usize,
        stop: Stop,
        what: &'static str,
    ) -> Result<Step, Fault> {
        self.hold(&scratch[..total]);
        match stop {
            Stop::Full => Ok(Step::Busy),
            Stop::Waiting => Ok(Step::Waiting { read: read > 0 }),
            Stop::Failed(error) => Err(Fault::Io(error)),
            Stop::End if total == 0 => {
                self.done = true;
                Ok(Step::End)
            }
            Stop::End if self.stream.lift_limit() => {
                self.last_record = true;
                Ok(Step::Busy)
            }
            Stop::End => Err(Fault::Truncated(what)),
        }
    }
}
