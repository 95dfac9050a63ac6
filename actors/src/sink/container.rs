//! Avro object container files: headers and blocks, as bytes.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::codec::Codec;

/// What the header of any container file says, by key.
pub(super) type Metadata = BTreeMap<String, Vec<u8>>;

/// Bytes of a sync marker.
pub(super) const SYNC_LEN: usize = 16;
/// Name of the type of events in a file's metadata.
pub(super) const TYPE_KEY: &str = "tidemill.type";
const MAGIC: &[u8; 4] = b"Obj\x01";
/// A header beyond this is no header of ours (a schema is a few KiB).
const HEADER_LIMIT: u64 = 64 << 20;

/// What the header of a file says: files of one format can be appended to, others can't.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Format {
    pub(super) event_type: String,
    pub(super) schema_json: String,
    pub(super) fingerprint: String,
    /// Rows have the hour that they belong to behind the fields of the type.
    pub(super) has_true_hour: bool,
    pub(super) codec: Codec,
}

/// All that makes a file the file it is, but for its content. The state directory is no part of it: the same topology
/// gives the
/// same input the same files.
pub(super) struct Identity<'a> {
    pub(super) topology: &'a str,
    pub(super) sink: &'a str,
    pub(super) event_type: &'a str,
    pub(super) hour_start_ms: i64,
    /// The path holds the values of fields, in a form that no two lists of values share.
    pub(super) path: &'a str,
    pub(super) revision: u32,
    pub(super) part: u32,
    pub(super) fingerprint: &'a str,
}

impl Identity<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in [self.topology, self.sink, self.event_type, self.path, self.fingerprint] {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&self.hour_start_ms.to_le_bytes());
        bytes.extend_from_slice(&self.revision.to_le_bytes());
        bytes.extend_from_slice(&self.part.to_le_bytes());
        bytes
    }

    /// 16 hex digits for names of what has no content yet.
    pub(super) fn hex(&self) -> String {
        format!("{:016x}", xxh3_64(&self.bytes()))
    }

    /// Name for readers of the part with this SHA-256 in hex.
    pub(super) fn part_name(&self, sha256: &str) -> String {
        let mut bytes = self.bytes();
        bytes.extend_from_slice(sha256.as_bytes());
        format!("part-{:05}-{:016x}.avro", self.part, xxh3_64(&bytes))
    }

    /// The file's sync marker. Two runs give the same file, so it can't be random.
    pub(super) fn sync(&self) -> [u8; SYNC_LEN] {
        xxh3_128(&self.bytes()).to_be_bytes()
    }
}

/// The header of a file.
pub(super) fn header(format: &Format, sync: [u8; SYNC_LEN]) -> Vec<u8> {
    let entries = [
        ("avro.codec", format.codec.name().as_bytes()),
        ("avro.schema", format.schema_json.as_bytes()),
        (TYPE_KEY, format.event_type.as_bytes()),
    ];
    header_of(entries.into_iter(), sync)
}

/// A header of any metadata, in the order given.
pub(super) fn header_of<'a>(
    entries: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>,
    sync: [u8; SYNC_LEN],
) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put_long(&mut out, entries.len() as i64);
    for (key, value) in entries {
        put_bytes(&mut out, key.as_bytes());
        put_bytes(&mut out, value);
    }
    put_long(&mut out, 0);
    out.extend_from_slice(&sync);
    out
}

/// A block without its sync marker: number of rows, size, data. There is room for the marker behind.
pub(super) fn block(rows: u64, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 20 + SYNC_LEN);
    put_long(&mut out, rows as i64);
    put_bytes(&mut out, data);
    out
}

/// Reads a header: metadata and sync marker.
pub(super) fn read_header(input: &mut impl Read) -> io::Result<(Metadata, [u8; SYNC_LEN])> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("not an Avro file: {what}"));
    let mut input = input.take(HEADER_LIMIT);
    let mut magic = [0; 4];
    input.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(broken("it does not begin with `Obj` and 1"));
    }
    let mut entries = BTreeMap::new();
    loop {
        let mut count = get_long(&mut input)?;
        if count == 0 {
            break;
        }
        if count < 0 {
            get_long(&mut input)?;
            count = count.saturating_neg();
        }
        for _ in 0..count {
            let key = String::from_utf8(get_bytes(&mut input)?).map_err(|_| broken("a metadata key is not UTF-8"))?;
            let value = get_bytes(&mut input)?;
            entries.insert(key, value);
        }
    }
    let mut sync = [0; SYNC_LEN];
    input.read_exact(&mut sync)?;
    Ok((entries, sync))
}

fn get_bytes(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let len = get_long(input)?;
    let len = u64::try_from(len).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a length below 0"))?;
    let mut bytes = Vec::new();
    input.by_ref().take(len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn get_long(input: &mut impl Read) -> io::Result<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a number of more than 64 bits"))
}

/// Appends an Avro int or long.
#[inline]
pub(super) fn put_long(out: &mut Vec<u8>, value: i64) {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    if zigzag < 0x80 {
        out.push(zigzag as u8);
    } else if zigzag < 0x4000 {
        out.extend_from_slice(&[zigzag as u8 | 0x80, (zigzag >> 7) as u8]);
    } else {
        put_many(out, zigzag);
    }
}

/// Three bytes and more. A copy of a fixed size cut afterwards is cheaper than one of a size that varies.
#[inline]
fn put_many(out: &mut Vec<u8>, mut zigzag: u64) {
    let mut bytes = [0u8; 10];
    let mut len = 0;
    while zigzag >= 0x80 {
        bytes[len] = zigzag as u8 | 0x80;
        zigzag >>= 7;
        len += 1;
    }
    bytes[len] = zigzag as u8;
    let end = out.len() + len + 1;
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

/// Appends Avro bytes or string.
#[inline]
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_come_back_at_every_length() {
        let mut values = vec![0, -1, 1, i64::MIN, i64::MAX];
        for bits in 0..63 {
            values.extend([1i64 << bits, (1 << bits) - 1, -(1 << bits)]);
        }
        for value in values {
            let mut bytes = Vec::new();
            put_long(&mut bytes, value);
            assert_eq!(get_long(&mut &bytes[..]).unwrap(), value);
        }
    }

    #[test]
    fn a_header_comes_back() {
        let bytes = header_of([("a", &b"1"[..]), ("b", b"")].into_iter(), [7; 16]);
        let (entries, sync) = read_header(&mut &bytes[..]).unwrap();
        assert_eq!((entries.len(), sync), (2, [7; 16]));
        assert!(read_header(&mut &bytes[..bytes.len() - 1]).is_err());
        assert!(read_header(&mut &b"PAR1"[..]).is_err());
    }
}
