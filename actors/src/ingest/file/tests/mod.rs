//! The source as a whole, over real files.

mod avro;
mod changes;
mod finite;
mod order;
mod vanished;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_core::{
    Framing, Limits, Options, PartitionPosition, Polled, RawChunk, SourceContext, SourceError, SourceKind,
};

use tidemill_testkit::Followed;

use super::FileKind;

/// A folder, and a source over it.
struct Bench {
    folder: TempDir,
    options: Value,
    max_event: usize,
}

impl Bench {
    fn new(paths: &[&str]) -> Self {
        let options = json!({
            "paths": paths, "framing": "lines", "compression": "auto", "idle_timeout": 0, "rescan": 0,
            "read_size": 65_536, "order": "none", "max_open_files": 64,
        });
        Self { folder: tempfile::tempdir().unwrap(), options, max_event: 1 << 20 }
    }

    fn with(mut self, option: &str, value: impl Into<Value>) -> Self {
        self.options[option] = value.into();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().append(true).open(self.path(name)).unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }

    fn open(&self, until_end: bool, positions: &Positions) -> Result<Followed, SourceError> {
        self.open_with(until_end, positions, None)
    }

    fn open_with(
        &self,
        until_end: bool,
        positions: &Positions,
        ends: Option<BTreeMap<Arc<str>, u64>>,
    ) -> Result<Followed, SourceError> {
        let Value::Object(options) = self.options.clone() else { unreachable!() };
        let limits = Limits { max_event_bytes: self.max_event, ..tidemill_testkit::limits() };
        let source = FileKind.open(&SourceContext {
            topology: "t".into(),
            name: "files".into(),
            options: Options(options),
            limits: Arc::new(limits),
            base_dir: self.folder.path().to_owned(),
            until_end,
            ends,
            positions: Arc::new(positions.clone()),
            clusters: Arc::default(),
            stretch: None,
        });
        Ok(source?.into())
    }

    /// Reads all to the end, and says where that left the partitions.
    fn read_to_end(&self, positions: &Positions) -> Result<(Vec<RawChunk>, Positions), SourceError> {
        let mut source = self.open(true, positions)?;
        let chunks = drain(&mut source)?;
        Ok((chunks, source.positions()))
    }
}

type Positions = BTreeMap<Arc<str>, PartitionPosition>;

fn none() -> Positions {
    Positions::new()
}

/// All chunks up to the end, or until there is nothing new.
fn drain(source: &mut Followed) -> Result<Vec<RawChunk>, SourceError> {
    let mut chunks: Vec<RawChunk> = Vec::new();
    let mut quiet = 0;
    loop {
        match source.poll()? {
            Polled::Chunk(chunk) => {
                let position = source.positions()[&chunk.origin.partition].next;
                assert_eq!(position, chunk.origin.next, "the position is behind what was given");
                if let Some(last) = chunks.iter().rev().find(|last| last.origin.partition == chunk.origin.partition) {
                    assert_eq!(last.origin.next, chunk.origin.first, "no gaps, no repeats");
                }
                chunks.push(chunk);
                quiet = 0;
            }
            Polled::Ended => return Ok(chunks),
            // Twice: the first may only have found out that a file changed.
            Polled::Idle(after) if !after.is_zero() && quiet == 2 => return Ok(chunks),
            Polled::Idle(after) => quiet += usize::from(!after.is_zero()),
        }
    }
}

/// The bytes of each partition.
fn texts(chunks: &[RawChunk]) -> BTreeMap<String, String> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for chunk in chunks {
        let text = std::str::from_utf8(&chunk.bytes).unwrap();
        texts.entry(chunk.origin.partition.to_string()).or_default().push_str(text);
    }
    texts
}

fn text_of(chunks: &[RawChunk], partition: &str) -> String {
    texts(chunks).remove(partition).unwrap_or_default()
}

fn numbered_lines(count: usize) -> String {
    (0..count).map(|line| format!("line {line}\n")).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).unwrap()
}

fn rename(bench: &Bench, from: &str, to: &str) {
    fs::rename(bench.path(from), bench.path(to)).unwrap();
}
