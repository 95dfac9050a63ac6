//! The source of replayed letters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_buffer::Buffer;
use tidemill_core::{
    Cure, Framing, Input, MessageTable, MessageTime, Messages, Origin, PartitionPosition, Positions, RawChunk,
    SourceError, Span,
};
use tidemill_topology::REPLAY;

use super::{LetterError, ReplayedLetter, Ways, directory, letter_at, number_of, path_of};
use crate::host::Host;

/// The one partition.
const PARTITION: &str = "letters";
/// How often it is looked for requests.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the reader gave.
pub(crate) enum Replayed {
    /// A letter, and the stage that parses it.
    Letter(Input, Arc<str>),
    /// Nothing now.
    Empty(Duration),
    /// Nothing ever again.
    Ended,
}

/// See the module.
pub(crate) struct ReplayReader {
    host: Arc<dyn Host>,
    state_root: PathBuf,
    ways: Arc<Ways>,
    until_end: bool,
    place: Place,
    /// The request at `place`.
    file: Option<Vec<u8>>,
}

/// Where the next letter is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    /// Letters before it, in all.
    letters: u64,
    /// Number of the request; 0 before the first.
    number: u64,
    /// Offset in its file.
    offset: u64,
}

impl Place {
    fn of(position: &PartitionPosition) -> Option<Self> {
        let (number, offset) = position.resume.split_once(' ')?;
        Some(Self { letters: position.next, number: number.parse().ok()?, offset: offset.parse().ok()? })
    }

    fn position(self) -> PartitionPosition {
        // It has no time of its own, so it must not hold any hour.
        PartitionPosition { next: self.letters, resume: format!("{} {}", self.number, self.offset).into(), ended: true }
    }
}

/// Number of the request at which the positions of a cut are.
pub(super) fn number_in(positions: &Positions) -> u64 {
    let position = positions.get(REPLAY).and_then(|partitions| partitions.get(PARTITION));
    position.and_then(Place::of).map_or(0, |place| place.number)
}

impl ReplayReader {
    pub(crate) fn open(
        host: Arc<dyn Host>,
        state_root: PathBuf,
        ways: Arc<Ways>,
        until_end: bool,
        positions: &BTreeMap<Arc<str>, PartitionPosition>,
    ) -> Result<Self, SourceError> {
        let place = match positions.get(PARTITION) {
            None => Place::default(),
            Some(position) => Place::of(position).ok_or_else(|| SourceError {
                message: format!("the position of the replay of dead letters is not understood: {}", position.resume),
                cure: Cure::Stop,
                source: None,
            })?,
        };
        Ok(Self { host, state_root, ways, until_end, place, file: None })
    }

    /// Behind what was given; none before there was anything.
    pub(crate) fn positions(&self) -> BTreeMap<Arc<str>, PartitionPosition> {
        let position = (self.place != Place::default()).then(|| (PARTITION.into(), self.place.position()));
        position.into_iter().collect()
    }

    /// The next letter.
    pub(crate) fn draw(&mut self) -> Result<Replayed, SourceError> {
        loop {
            let Some(letter) = self.next()? else {
                return Ok(if self.until_end { Replayed::Ended } else { Replayed::Empty(LOOK_EVERY) });
            };
            match self.ways.find(&letter.source, &letter.stage) {
                Ok((parser, stage)) => return Ok(Replayed::Letter(Input::Raw(chunk(letter, stage)), parser)),
                // The letter itself is still where it was.
                Err(why) => tracing::error!(
                    source = %letter.source, partition = %letter.partition, position = letter.position, stage = %letter.stage, why,
                    "a dead letter can't be replayed as the topology is now; it is left out"
                ),
            }
        }
    }

    fn next(&mut self) -> Result<Option<ReplayedLetter>, SourceError> {
        loop {
            let path = path_of(&self.state_root, self.place.number);
            if self.file.is_none() && self.place.number > 0 && self.host.exists(&path) {
                self.file = Some(self.host.read(&path).map_err(|error| failed("read", &path, error))?);
            }
            if let Some(file) = &self.file {
                let offset = usize::try_from(self.place.offset).unwrap_or(usize::MAX);
                if let Some((letter, next)) =
                    letter_at(file, offset).map_err(|error| damaged(&path, self.place.letters, error))?
                {
                    self.place.letters += 1;
                    self.place.offset = next as u64;
                    return Ok(Some(letter));
                }
            }
            let Some(number) = self.following()? else { return Ok(None) };
            self.place = Place { letters: self.place.letters, number, offset: 0 };
            self.file = None;
        }
    }

    /// Number of the request behind the one it is at.
    fn following(&self) -> Result<Option<u64>, SourceError> {
        let dir = directory(&self.state_root);
        if !self.host.exists(&dir) {
            return Ok(None);
        }
        let paths = self.host.list(&dir).map_err(|error| failed("list", &dir, error))?;
        let numbers = paths.iter().filter_map(|path| number_of(path));
        Ok(numbers.filter(|number| *number > self.place.number).min())
    }
}

fn failed(action: &str, path: &Path, error: std::io::Error) -> SourceError {
    SourceError {
        message: format!("can't {action} {}", path.display()),
        cure: Cure::Reopen,
        source: Some(error.into()),
    }
}

fn damaged(path: &Path, letters: u64, error: LetterError) -> SourceError {
    SourceError {
        message: format!(
            "the request {} for a replay of dead letters is damaged ({letters} letters were replayed in all). Put it back from a copy, or remove it and ask for the replay again",
            path.display()
        ),
        cure: Cure::Stop,
        source: Some(error.into()),
    }
}

/// A letter as its source would give it: a message, whatever it was.
fn chunk(letter: ReplayedLetter, stage: Arc<str>) -> RawChunk {
    let ReplayedLetter { source, partition, position, arrived_at_ms, payload, .. } = letter;
    // As partitions of Kafka are named.
    let (topic, number) = partition.rsplit_once('/').unwrap_or((&partition, ""));
    let table = MessageTable {
        topic: topic.into(),
        partition: number.parse().unwrap_or_default(),
        positions: vec![position],
        values: vec![Span { start: 0, len: payload.len() as u32 }],
        keys: Vec::new(),
        times: vec![MessageTime::Unknown],
        headers: Vec::new(),
        header_ends: Vec::new(),
        schemas: BTreeMap::new(),
    };
    let origin = Origin { source, partition, first: position, next: position + 1, enters: Some(stage) };
    RawChunk {
        origin: Arc::new(origin),
        bytes: Buffer::from_vec(payload),
        framing: Framing::Messages(Messages::new(Arc::new(table))),
        arrived_at_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;
    use crate::replay::Requests;
    use crate::replay::tests::letter;

    fn open(root: &Path, positions: &BTreeMap<Arc<str>, PartitionPosition>) -> ReplayReader {
        let ways = [(("lines".into(), "parse".into()), Ok("parse".into()))];
        let ways = Arc::new(Ways::from_pairs(ways));
        ReplayReader::open(Arc::new(System), root.to_owned(), ways, false, positions).unwrap()
    }

    fn drawn(reader: &mut ReplayReader) -> Vec<u64> {
        std::iter::from_fn(|| match reader.draw().unwrap() {
            Replayed::Letter(Input::Raw(chunk), _) => Some(chunk.origin.first),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn requests_are_read_one_after_the_other_and_from_any_position_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = open(dir.path(), &BTreeMap::new());
        assert!(drawn(&mut reader).is_empty());
        assert!(reader.positions().is_empty());
        for position in [1, 2] {
            let mut requests = Requests::open(dir.path()).unwrap();
            requests.add(&letter(position)).unwrap();
            requests.add(&letter(position + 10)).unwrap();
            requests.add(&ReplayedLetter { stage: "gone".into(), ..letter(position) }).unwrap();
            requests.finish().unwrap();
        }
        let mut places = vec![reader.positions()];
        for expected in [1, 11, 2, 12] {
            assert!(
                matches!(reader.draw().unwrap(), Replayed::Letter(Input::Raw(chunk), _) if chunk.origin.first == expected)
            );
            places.push(reader.positions());
        }
        assert!(drawn(&mut reader).is_empty());
        places.push(reader.positions());
        let left: Vec<usize> = places.iter().map(|place| drawn(&mut open(dir.path(), place)).len()).collect();
        assert_eq!(left, [4, 3, 2, 1, 0, 0]);
        // What was read is not needed any more.
        std::fs::remove_file(path_of(dir.path(), 1)).unwrap();
        assert_eq!(drawn(&mut open(dir.path(), &places[3])), [12]);
    }
}
