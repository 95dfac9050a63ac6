//! Codecs of Avro blocks. Contexts are kept per thread: making one costs more than a small block.

use std::cell::RefCell;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use serde::{Deserialize, Serialize};
use tidemill_core::StageError;

/// How the blocks of a file are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

impl Codec {
    /// The name as Avro has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Deflate => "deflate",
            Self::Snappy => "snappy",
            Self::Zstandard => "zstandard",
        }
    }

    /// The level where none is given, and the greatest there is; `None` when the codec has no levels.
    pub(super) fn levels(self) -> Option<(i32, i32)> {
        match self {
            Self::Null | Self::Snappy => None,
            Self::Deflate => Some((6, 9)),
            Self::Zstandard => Some((1, 22)),
        }
    }
}

/// Compressors of one thread, with the level they are set to.
#[derive(Default)]
struct Contexts {
    zstandard: Option<(i32, zstd::bulk::Compressor<'static>)>,
    deflate: Option<(i32, Compress)>,
    snappy: Option<snap::raw::Encoder>,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// Replaces `out` by the compressed form of `raw`.
pub(super) fn compress(codec: Codec, level: i32, raw: &[u8], out: &mut Vec<u8>) -> Result<(), StageError> {
    let failed = |what: &str, source: Box<dyn std::error::Error + Send + Sync>| StageError {
        message: format!("compressing a block of {} bytes with {what} failed", raw.len()),
        source: Some(source),
    };
    out.clear();
    CONTEXTS.with_borrow_mut(|contexts| match codec {
        Codec::Null => {
            out.extend_from_slice(raw);
            Ok(())
        }
        Codec::Zstandard => {
            let compressor = match &mut contexts.zstandard {
                Some((at, compressor)) if *at == level => compressor,
                other => {
                    let made = zstd::bulk::Compressor::new(level).map_err(|error| failed("zstandard", error.into()))?;
                    &mut other.insert((level, made)).1
                }
            };
            out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
            compressor.compress_to_buffer(raw, out).map_err(|error| failed("zstandard", error.into()))?;
            Ok(())
        }
        Codec::Deflate => {
            let compressor = match &mut contexts.deflate {
                Some((at, compressor)) if *at == level => compressor,
                other => &mut other.insert((level, Compress::new(Compression::new(level.unsigned_abs()), false))).1,
            };
            compressor.reset();
            out.reserve(raw.len() / 2 + 64);
            loop {
                let read = compressor.total_in() as usize;
                let status = compressor
                    .compress_vec(&raw[read..], out, FlushCompress::Finish)
                    .map_err(|error| failed("deflate", error.into()))?;
                if status == Status::StreamEnd {
                    return Ok(());
                }
                out.reserve(raw.len() / 4 + 64);
            }
        }
        Codec::Snappy => {
            out.resize(snap::raw::max_compress_len(raw.len()), 0);
            let encoder = contexts.snappy.get_or_insert_with(snap::raw::Encoder::new);
            let size = encoder.compress(raw, out).map_err(|error| failed("snappy", error.into()))?;
            out.truncate(size);
            let mut crc = Crc::new();
            crc.update(raw);
            out.extend_from_slice(&crc.sum().to_be_bytes());
            Ok(())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_used_again_gives_the_same_bytes() {
        let texts = ["a".repeat(100_000), (0..20_000).map(|n| n.to_string()).collect(), String::new()];
        for codec in [Codec::Null, Codec::Deflate, Codec::Snappy, Codec::Zstandard] {
            let level = codec.levels().map_or(0, |(level, _)| level);
            let all = || {
                texts.each_ref().map(|text| {
                    let mut out = Vec::new();
                    compress(codec, level, text.as_bytes(), &mut out).unwrap();
                    out
                })
            };
            let first = all();
            assert_eq!(first, all(), "{codec:?}");
            let other_thread = std::thread::scope(|scope| scope.spawn(all).join().unwrap());
            assert_eq!(first, other_thread, "{codec:?}");
        }
    }
}
