//! One file, or one generation of it, as a partition.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tidemill_core::PartitionPosition;

use super::folders::Folders;
use super::identity::{FileId, Head};
use super::reader::Reader;

/// What a partition's file is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It matches.
    Live,
    /// It matched, but has another name now, or none: it is read to its end.
    Rotated,
    /// It can't be found, and was read to its end. Its position is kept.
    Gone,
    /// It can't be found, and may have more to give: it was not read to its end, or its folder is not there.
    Lost,
    /// The paths do not name it any more. Its position is kept.
    Unwanted,
    /// It was read to its end, and another file took its place.
    Closed,
}

/// What goes into [`PartitionPosition::resume`].
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ResumePoint {
    /// The name without its generation.
    stem: String,
    generation: u32,
    /// Where the file was last.
    path: String,
    #[serde(flatten)]
    seen: Seen,
    /// For how long it could not be found although it may have more to give, in milliseconds.
    lost_ms: u64,
}

/// A file as it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    id: FileId,
    head: Head,
    closed: bool,
    /// Length of the file when it was last seen, and whether it was read to its end then.
    len: u64,
    at_end: bool,
    folders: Folders,
    given_up: bool,
}

/// What a position has said, but for the path, and for how long the file is lost.
#[derive(PartialEq)]
struct Said {
    next: u64,
    ended: bool,
    seen: Seen,
}

pub(super) struct Partition {
    pub(super) name: Arc<str>,
    pub(super) stem: String,
    pub(super) generation: u32,
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) head: Head,
    pub(super) position: u64,
    pub(super) state: State,
    /// Read to an end that stays.
    pub(super) ended: bool,
    pub(super) reader: Option<Reader>,
    /// Since when it has been at its end; `None` when it has something to be read, as far as is known.
    pub(super) quiet_since: Option<Instant>,
    /// When its end was last found to be its end, milliseconds since 1970.
    pub(super) looked_at_ms: i64,
    /// Length of the file when it was last looked at.
    pub(super) len: u64,
    /// When it was changed last, as of that look.
    pub(super) modified: Option<SystemTime>,
    /// Where reading stops (`--until-end`).
    pub(super) limit: Option<u64>,
    /// Position at which reading stops, where it is read once more.
    pub(super) until: Option<u64>,
    /// After a failure: not before.
    pub(super) retry_at: Option<Instant>,
    /// It was read to its end as it was last seen.
    pub(super) at_end: bool,
    /// Those in which it was last seen.
    pub(super) folders: Folders,
    /// Since when it can't be found although it may have more to give.
    pub(super) lost_since: Option<Instant>,
    /// For how long before that.
    pub(super) lost_before: Duration,
    /// That was for so long that it counts as gone.
    pub(super) given_up: bool,
    /// That is because its folder is not the one that it was seen in.
    pub(super) folder_differs: bool,
    /// What its last position said.
    said: Option<(Said, PathBuf)>,
}

/// Name of the partition of a file's `generation`, from 1.
pub(super) fn name_of(stem: &str, generation: u32) -> String {
    if generation == 1 { stem.to_owned() } else { format!("{stem}@{generation}") }
}

impl Partition {
    pub(super) fn new(stem: String, generation: u32, path: PathBuf, id: FileId, head: Head) -> Self {
        let name = name_of(&stem, generation);
        Self {
            name: name.into(),
            stem,
            generation,
            path,
            id,
            head,
            position: 0,
            state: State::Live,
            ended: false,
            reader: None,
            quiet_since: None,
            looked_at_ms: i64::MIN,
            len: 0,
            modified: None,
            limit: None,
            until: None,
            retry_at: None,
            at_end: false,
            folders: Folders::default(),
            lost_since: None,
            lost_before: Duration::ZERO,
            given_up: false,
            folder_differs: false,
            said: None,
        }
    }

    /// A partition as it was at the last cut.
    pub(super) fn restore(name: &Arc<str>, position: &PartitionPosition) -> Result<Self, serde_json::Error> {
        let resume: ResumePoint = serde_json::from_str(&position.resume)?;
        let seen = resume.seen;
        let mut partition = Self::new(resume.stem, resume.generation, resume.path.into(), seen.id, seen.head);
        partition.name = name.clone();
        partition.position = position.next;
        (partition.len, partition.at_end, partition.folders) = (seen.len, seen.at_end, seen.folders);
        (partition.lost_before, partition.given_up) = (Duration::from_millis(resume.lost_ms), seen.given_up);
        if seen.closed {
            partition.state = State::Closed;
            partition.ended = true;
        }
        Ok(partition)
    }

    /// The same, to be read once more.
    pub(super) fn rewound(self) -> Self {
        Self { position: 0, state: State::Live, ended: false, ..self }
    }

    /// Its position, unless it is the same as the last time.
    pub(super) fn moved(&mut self) -> Option<PartitionPosition> {
        let said = Said { next: self.position, ended: self.ended, seen: self.seen() };
        // As bytes: paths compare slowly.
        let is_same = |(known, path): &(Said, PathBuf)| *known == said && path.as_os_str() == self.path.as_os_str();
        // How long it is lost goes on.
        if self.lost_since.is_none() && self.said.as_ref().is_some_and(is_same) {
            return None;
        }
        self.said = Some((said, self.path.clone()));
        Some(self.position())
    }

    fn seen(&self) -> Seen {
        Seen {
            id: self.id,
            head: self.head,
            closed: self.state == State::Closed,
            len: self.len,
            at_end: self.at_end,
            folders: self.folders,
            given_up: self.given_up,
        }
    }

    fn position(&self) -> PartitionPosition {
        let resume = serde_json::to_string(&ResumePoint {
            stem: self.stem.clone(),
            generation: self.generation,
            path: self.path.to_string_lossy().into_owned(),
            seen: self.seen(),
            lost_ms: u64::try_from(self.lost_for().as_millis()).unwrap_or(u64::MAX),
        });
        let resume = resume.expect("it has names for keys");
        PartitionPosition { next: self.position, resume: resume.into(), ended: self.ended }
    }

    /// For how long it can't be found although it may have more to give.
    pub(super) fn lost_for(&self) -> Duration {
        self.lost_before + self.lost_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// It is there.
    pub(super) fn found(&mut self) {
        (self.lost_since, self.lost_before, self.given_up) = (None, Duration::ZERO, false);
    }
}
