//! The bytes of one file, decompressed, as far as they are there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

use super::identity::FileId;

/// The option `compression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Compression {
    Auto,
    None,
    Gzip,
    Zstd,
}

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const COMPRESSED_BUFFER: usize = 128 << 10;

impl Compression {
    /// What the file is, by its first bytes, then by its ending. `None` while too little of a growing file is there to tell.
    fn decide(self, head: &[u8], path: &Path, growing: bool) -> Option<Self> {
        if head.is_empty() && !growing {
            return Some(Self::None);
        }
        if self != Self::Auto {
            return Some(self);
        }
        let by_name = match path.extension().and_then(|ending| ending.to_str()) {
            Some("gz" | "gzip") => Some(Self::Gzip),
            Some("zst" | "zstd") => Some(Self::Zstd),
            _ => None,
        };
        for (magic, codec) in [(GZIP_MAGIC, Self::Gzip), (ZSTD_MAGIC, Self::Zstd)] {
            if head.starts_with(magic) {
                return Some(codec);
            }
            if by_name.is_none() && growing && magic.starts_with(head) {
                return None;
            }
        }
        Some(by_name.unwrap_or(Self::None))
    }
}

/// Why filling a buffer stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The buffer is full.
    Full,
    /// The file may grow; there is nothing now.
    Waiting,
    /// There is nothing more.
    End,
    /// It can't be read on.
    Failed(io::Error),
}

/// The file itself. At its end it says `WouldBlock` as long as it is followed: the decoders keep their state then,
/// and go on when it has grown.
struct Tail {
    file: File,
    /// Offset of the next read.
    offset: u64,
    /// Where reading stops although there may be more.
    limit: Option<u64>,
    follow: bool,
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.offset));
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let count = self.file.read(&mut buffer[..most])?;
        self.offset += count as u64;
        if count == 0 && self.follow {
            return Err(ErrorKind::WouldBlock.into());
        }
        if count == 0 && self.limit.is_some() {
            return Err(io::Error::other("the file became shorter while it was read"));
        }
        Ok(count)
    }
}

enum Decoder {
    Plain(Tail),
    Gzip(Box<MultiGzDecoder<BufReader<Tail>>>),
    Zstd(zstd::Decoder<'static, BufReader<Tail>>),
}

/// The decompressed bytes of a file.
pub(super) struct Stream {
    decoder: Decoder,
    /// The last call filled its buffer, so that the decoder may hold more.
    may_hold: bool,
    abandoned: bool,
}

impl Stream {
    /// Opens a file at its start. With a `limit` (bytes of the file), a plain file ends there. `None` while too little of
    /// it is there to know its compression.
    pub(super) fn open(
        path: &Path,
        compression: Compression,
        limit: Option<u64>,
        follow: bool,
    ) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let mut head = [0; 4];
        let mut known = 0;
        while known < head.len() {
            match file.read_at(&mut head[known..], known as u64)? {
                0 => break,
                count => known += count,
            }
        }
        let Some(codec) = compression.decide(&head[..known], path, follow) else { return Ok(None) };
        let tail = |limit| Tail { file, offset: 0, limit, follow };
        let buffered = |tail| BufReader::with_capacity(COMPRESSED_BUFFER, tail);
        let decoder = match codec {
            Compression::Auto | Compression::None => Decoder::Plain(tail(limit)),
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(buffered(tail(None))))),
            Compression::Zstd => Decoder::Zstd(zstd::Decoder::with_buffer(buffered(tail(None)))?),
        };
        Ok(Some(Self { decoder, may_hold: false, abandoned: false }))
    }

    /// Name of the compression; `None` for a plain file.
    pub(super) fn compression(&self) -> Option<&'static str> {
        match &self.decoder {
            Decoder::Plain(_) => None,
            Decoder::Gzip(_) => Some("gzip"),
            Decoder::Zstd(_) => Some("zstd"),
        }
    }

    fn tail(&self) -> &Tail {
        match &self.decoder {
            Decoder::Plain(tail) => tail,
            Decoder::Gzip(decoder) => decoder.get_ref().get_ref(),
            Decoder::Zstd(decoder) => decoder.get_ref().get_ref(),
        }
    }

    fn tail_mut(&mut self) -> &mut Tail {
        match &mut self.decoder {
            Decoder::Plain(tail) => tail,
            Decoder::Gzip(decoder) => decoder.get_mut().get_mut(),
            Decoder::Zstd(decoder) => decoder.get_mut().get_mut(),
        }
    }

    /// Goes to an offset of a plain file without reading what is before it; `false` when it is compressed.
    /// An offset behind the end is an `UnexpectedEof`.
    pub(super) fn seek(&mut self, offset: u64) -> io::Result<bool> {
        let Decoder::Plain(tail) = &mut self.decoder else { return Ok(false) };
        if tail.file.metadata()?.len() < offset {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        tail.offset = tail.file.seek(SeekFrom::Start(offset))?;
        Ok(true)
    }

    /// Whether the file is shorter now than what was read of it.
    pub(super) fn shrunk(&self) -> io::Result<bool> {
        let tail = self.tail();
        Ok(tail.file.metadata()?.len() < tail.offset)
    }

    /// Which file it is.
    pub(super) fn id(&self) -> io::Result<FileId> {
        Ok(FileId::of(&self.tail().file.metadata()?))
    }

    /// Bytes of the file that were read.
    pub(super) fn read_bytes(&self) -> u64 {
        self.tail().offset
    }

    /// From now on the end of the file is the end of the stream.
    pub(super) fn stop_following(&mut self) {
        self.tail_mut().follow = false;
    }

    /// Nothing more is read: what follows in the file is not the continuation of what was read.
    pub(super) fn abandon(&mut self) {
        self.abandoned = true;
    }

    /// Lifts the limit, so that a record that is cut by it can be read to its end; `false` when there was none.
    pub(super) fn lift_limit(&mut self) -> bool {
        !self.abandoned && self.tail_mut().limit.take().is_some()
    }

    /// Reads until the buffer is full or there is no more.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> (usize, Stop) {
        if self.abandoned {
            return (0, Stop::End);
        }
        let mut count = 0;
        if let (Decoder::Zstd(decoder), false) = (&mut self.decoder, self.may_hold) {
            // zstd gives up when it is called without input again and again, so it is only called when there is some.
            match decoder.get_mut().fill_buf() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (0, Stop::Waiting),
                Err(error) if error.kind() != ErrorKind::Interrupted => return (0, Stop::Failed(error)),
                _ => {}
            }
        }
        self.may_hold = false;
        while count < buffer.len() {
            let read = match &mut self.decoder {
                Decoder::Plain(tail) => tail.read(&mut buffer[count..]),
                Decoder::Gzip(decoder) => decoder.read(&mut buffer[count..]),
                Decoder::Zstd(decoder) => decoder.read(&mut buffer[count..]),
            };
            match read {
                Ok(0) => return (count, Stop::End),
                Ok(more) => count += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (count, Stop::Waiting),
                Err(error) => return (count, Stop::Failed(error)),
            }
        }
        self.may_hold = true;
        (count, Stop::Full)
    }
}
