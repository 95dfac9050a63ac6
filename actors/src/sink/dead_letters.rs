//! The dead letters below an output root, read from the files of sealed hours.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use apache_avro::types::Value;
use tidemill_core::{DEAD_LETTER_TYPE, parse_time_ms};

use super::cat::{CatError, open};
use super::manifest::{ManifestError, finished};
use super::verify::is_revision;

/// Why some letters can't be read. It keeps nobody from reading the others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLettersError {
    /// A directory can't be listed.
    #[error("can't list {path}: {source}")]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest of an hour, or the mark that the hour is sealed, can't be read.
    #[error("can't read {path}: {source}; its hour is left out")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest of an hour is damaged.
    #[error("{path}: {source}; its hour is left out")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A file can't be read, or not to its end. The letters before the damage are there.
    #[error(transparent)]
    File(#[from] CatError),
    /// A record is something else.
    #[error("{path}, record {record}: it is no dead letter")]
    NoLetter {
        /// The file.
        path: PathBuf,
        /// Number of the record, from 0.
        record: u64,
    },
    /// A file has lost letters, or got some.
    #[error("{path}: it holds {found} letters, its manifest says {stated}")]
    Count {
        /// The file.
        path: PathBuf,
        /// Letters that it holds.
        found: u64,
        /// Letters that it should hold.
        stated: u64,
    },
}

/// A dead letter, as its file holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letter {
    /// Source that read the event.
    pub source: String,
    /// Partition of the source.
    pub partition: String,
    /// Position in the partition.
    pub position: i64,
    /// Stage that refused it.
    pub stage: String,
    /// Its type, where that was known.
    pub event_type: Option<String>,
    /// The label of what is wrong.
    pub reason: String,
    /// What is wrong, in words.
    pub message: String,
    /// When it was read, in milliseconds since 1970.
    pub arrived_at_ms: i64,
    /// The event as it was received, or its beginning.
    pub payload: Vec<u8>,
    /// Full length of the event in bytes.
    pub payload_bytes: i64,
}

impl Letter {
    /// How many fields a letter has; fields that a later version may add are not looked at.
    const FIELDS: usize = 10;

    fn of(record: Value) -> Option<Self> {
        let Value::Record(members) = record else { return None };
        let (mut letter, mut known) = (Self::default(), 0);
        for (name, value) in members {
            match (&*name, value) {
                ("source", Value::String(text)) => letter.source = text,
                ("partition", Value::String(text)) => letter.partition = text,
                ("position", Value::Long(position)) => letter.position = position,
                ("stage", Value::String(text)) => letter.stage = text,
                ("event_type", Value::Union(_, value)) => match *value {
                    Value::String(text) => letter.event_type = Some(text),
                    _ => letter.event_type = None,
                },
                ("reason", Value::String(text)) => letter.reason = text,
                ("message", Value::String(text)) => letter.message = text,
                ("arrived_at", Value::TimestampMillis(time)) => letter.arrived_at_ms = time,
                ("payload", Value::Bytes(bytes)) => letter.payload = bytes,
                ("payload_length", Value::Long(length)) => letter.payload_bytes = length,
                _ => continue,
            }
            known += 1;
        }
        (known == Self::FIELDS).then_some(letter)
    }
}

/// A directory of an hour.
struct SealedHour {
    start_ms: i64,
    path: PathBuf,
    /// Name and number of letters of each file.
    files: Vec<(String, u64)>,
}

/// The sealed hours of dead letters below a directory. Holds some 200 bytes for each of them, and no letter.
pub struct DeadLetters {
    hours: Vec<SealedHour>,
    arrived_ms: Range<i64>,
    /// Other types that there are sealed hours of.
    pub other_types: BTreeSet<String>,
}

impl DeadLetters {
    /// Finds the sealed hours that can have letters that arrived in this time (milliseconds since 1970). Entries whose names begin
    /// with `.` are not looked at. What can't be read goes to `fault`.
    ///
    /// # Errors
    /// When the directory itself can't be listed.
    pub fn find(
        directory: &Path,
        arrived_ms: Range<i64>,
        fault: &mut dyn FnMut(DeadLettersError),
    ) -> Result<Self, DeadLettersError> {
        let mut found = Self { hours: Vec::new(), arrived_ms, other_types: BTreeSet::new() };
        let mut open = directories(directory)?;
        while let Some(path) = open.pop() {
            if path.file_name().is_some_and(|name| is_revision(&name.to_string_lossy())) {
                found.add(path).unwrap_or_else(&mut *fault);
                continue;
            }
            match directories(&path) {
                Ok(below) => open.extend(below),
                Err(error) => fault(error),
            }
        }
        // The newest is the last, whatever the paths look like.
        found.hours.sort_by(|a, b| (a.start_ms, &a.path).cmp(&(b.start_ms, &b.path)));
        Ok(found)
    }

    /// Adds a directory if it is that of a sealed hour with such letters.
    fn add(&mut self, path: PathBuf) -> Result<(), DeadLettersError> {
        let manifest = finished(
            &path,
            |path, source| DeadLettersError::Read { path, source },
            |path, source| DeadLettersError::Manifest { path, source },
        )?;
        let Some(manifest) = manifest else { return Ok(()) };
        if manifest.event_type != DEAD_LETTER_TYPE {
            self.other_types.insert(manifest.event_type);
            return Ok(());
        }
        let time_ms = |text: &Option<String>| parse_time_ms(text.as_ref()?).ok();
        let (first, last) = (time_ms(&manifest.event_time.min), time_ms(&manifest.event_time.max));
        let is_before = last.is_some_and(|last| last < self.arrived_ms.start);
        if is_before || first.is_some_and(|first| first >= self.arrived_ms.end) {
            return Ok(());
        }
        let start_ms = time_ms(&Some(manifest.hour.start)).unwrap_or(i64::MIN);
        let files = manifest.files.into_iter().map(|file| (file.name, file.rows)).collect();
        self.hours.push(SealedHour { start_ms, path, files });
        Ok(())
    }

    /// Hands the letters to `each`, one by one, those of the newest files first, until it breaks off. Within a file they come in its
    /// order. What can't be read goes to `fault`.
    pub fn read<B>(
        &self,
        each: &mut dyn FnMut(Letter) -> ControlFlow<B>,
        fault: &mut dyn FnMut(DeadLettersError),
    ) -> ControlFlow<B> {
        for hour in self.hours.iter().rev() {
            for (name, stated) in hour.files.iter().rev() {
                match self.read_file(hour.path.join(name), *stated, each) {
                    Ok(flow) => flow?,
                    Err(error) => fault(error),
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn read_file<B>(
        &self,
        path: PathBuf,
        stated: u64,
        each: &mut dyn FnMut(Letter) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, DeadLettersError> {
        let mut found = 0;
        for record in open(&path)?.records {
            let record = record.map_err(|error| CatError::read(&path, found, Box::new(error)))?;
            let letter = Letter::of(record);
            let letter = letter.ok_or_else(|| DeadLettersError::NoLetter { path: path.clone(), record: found })?;
            found += 1;
            if self.arrived_ms.contains(&letter.arrived_at_ms)
                && let ControlFlow::Break(value) = each(letter)
            {
                return Ok(ControlFlow::Break(value));
            }
        }
        // A file that ends between two blocks looks whole.
        if found == stated {
            Ok(ControlFlow::Continue(()))
        } else {
            Err(DeadLettersError::Count { path, found, stated })
        }
    }
}

/// The directories in a directory.
fn directories(path: &Path) -> Result<Vec<PathBuf>, DeadLettersError> {
    let failed = |source| DeadLettersError::List { path: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !is_hidden && entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
