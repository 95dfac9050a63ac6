//! Headers and blocks of Avro container files.

use std::borrow::Cow;
use std::io::Read;

use super::datum::{Broken, Datums};

/// Most bytes that a block may have when it is uncompressed.
const MAX_BLOCK: usize = 256 << 20;

/// What a file's header says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) schema: String,
    pub(super) codec: Codec,
    pub(super) sync: [u8; 16],
}

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

/// One block: where it is in the chunk, and what it says of itself.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) count: i64,
    pub(super) data: &'a [u8],
    pub(super) sync: &'a [u8],
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Broken> {
        let Some(body) = bytes.strip_prefix(b"Obj\x01") else {
            return Err(Broken("it does not begin with the bytes of an Avro container file".into()));
        };
        let mut datums = Datums::new(body);
        let (mut schema, mut codec) = (None, Codec::Null);
        loop {
            let count = datums.long()?;
            if count == 0 {
                break;
            }
            if count < 0 {
                datums.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                let (key, value) = (datums.blob()?, datums.blob()?);
                match key {
                    b"avro.schema" => schema = Some(value),
                    b"avro.codec" => codec = Codec::of(value)?,
                    _ => {}
                }
            }
        }
        let schema = schema.ok_or_else(|| Broken("there is no schema in it".into()))?;
        let schema = std::str::from_utf8(schema).map_err(|_| Broken("its schema is not valid UTF-8".into()))?;
        let sync = datums.take(16)?.try_into().map_err(|_| Broken("it ends too early".into()))?;
        Ok(Self { schema: schema.to_owned(), codec, sync })
    }
}

impl Codec {
    fn of(name: &[u8]) -> Result<Self, Broken> {
        match name {
            b"null" | b"" => Ok(Self::Null),
            b"deflate" => Ok(Self::Deflate),
            b"snappy" => Ok(Self::Snappy),
            b"zstandard" => Ok(Self::Zstandard),
            other => {
                let name = other.escape_ascii();
                Err(Broken(format!("its codec is `{name}`; there are null, deflate, snappy and zstandard")))
            }
        }
    }

    /// The data of a block as it was before compression.
    pub(super) fn decompress<'a>(self, data: &'a [u8]) -> Result<Cow<'a, [u8]>, Broken> {
        match self {
            Self::Null => Ok(Cow::Borrowed(data)),
            Self::Deflate => read(flate2::read::DeflateDecoder::new(data)),
            Self::Zstandard => read(zstd::stream::read::Decoder::new(data).map_err(|error| damaged(&error))?),
            Self::Snappy => {
                let (data, crc) =
                    data.split_last_chunk::<4>().ok_or_else(|| Broken("it is too short for snappy".into()))?;
                let len = snap::raw::decompress_len(data).map_err(|error| damaged(&error))?;
                if len > MAX_BLOCK {
                    return Err(too_big());
                }
                let bytes = snap::raw::Decoder::new().decompress_vec(data).map_err(|error| damaged(&error))?;
                let mut sum = flate2::Crc::new();
                sum.update(&bytes);
                if sum.sum() != u32::from_be_bytes(*crc) {
                    return Err(Broken("its CRC-32 does not match its data".into()));
                }
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

fn read(reader: impl Read) -> Result<Cow<'static, [u8]>, Broken> {
    let mut bytes = Vec::new();
    reader.take(MAX_BLOCK as u64 + 1).read_to_end(&mut bytes).map_err(|error| damaged(&error))?;
    if bytes.len() > MAX_BLOCK { Err(too_big()) } else { Ok(Cow::Owned(bytes)) }
}

#[cold]
fn damaged(error: &dyn std::error::Error) -> Broken {
    Broken(format!("it does not decompress: {error}"))
}

#[cold]
fn too_big() -> Broken {
    Broken(format!("it has more than {MAX_BLOCK} bytes uncompressed; write smaller blocks"))
}

impl<'a> Block<'a> {
    /// The block that begins at `start`.
    pub(super) fn at(bytes: &'a [u8], start: usize) -> Result<Self, Broken> {
        let mut datums = Datums::new(&bytes[start..]);
        let count = datums.long()?;
        let data = datums.blob()?;
        let sync = datums.take(16)?;
        Ok(Self { start, end: start + datums.at(), count, data, sync })
    }
}
