//! Asking for a replay: files of letters, and which letters there are in those that were asked for before.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::reader::number_in;
use super::{LetterError, MAGIC, ReplayedLetter, directory, letter_at, number_of, path_of, push};
use crate::error::RunError;
use crate::host::{Host, System};
use crate::ledger::Ledger;
use crate::logs::make_dirs;
use crate::state_dir::{locked, write_new};

/// A file is closed when it has so many bytes: who reads it holds all of it.
const FILE_BYTES: usize = 16 << 20;

/// Why a replay can't be asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// There is no state: the topology never ran.
    #[error("there is no state directory {path}: the topology has not run, or `state.root` is another one")]
    NoState {
        /// Where it would be.
        path: PathBuf,
    },
    /// Somebody else is asking for a replay at this moment.
    #[error("another process is asking for a replay ({path} is locked); try again when it has ended")]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// An earlier request can't be read, so that nobody knows which letters it has.
    #[error("{path}: {source}. Put it back from a copy, or remove it: its letters may be replayed a second time then")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Files or the ledger can't be read or written.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Stage, reason, source, partition and position: letters that are the same in all of them are of one event that was refused
/// more than once.
type Identity = (String, String, String, String, u64);

/// The requests of a topology. While there is one, no other process can make any.
pub struct Requests {
    root: PathBuf,
    /// Held for life.
    _lock: File,
    /// How many letters of that identity were asked for, less those that [`Requests::is_new`] was asked about.
    before: HashMap<Identity, u64>,
    next: u64,
    file: Vec<u8>,
}

impl Requests {
    /// Reads the requests that there are. Holds some 200 bytes for each letter that was ever asked for.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn open(state_root: &Path) -> Result<Self, ReplayError> {
        if !state_root.exists() {
            return Err(ReplayError::NoState { path: state_root.to_owned() });
        }
        let dir = directory(state_root);
        make_dirs(&System, &dir)?;
        let path = dir.join("lock");
        let lock = locked(&path)?.ok_or(ReplayError::Busy { path })?;
        let committed = Ledger::peek(&System, state_root)?;
        let mut last = committed.map_or(0, |(committed, _)| number_in(&committed.positions));
        let mut before = HashMap::new();
        for path in System.list(&dir).map_err(RunError::io("list", &dir))? {
            let Some(number) = number_of(&path) else { continue };
            last = last.max(number);
            let file = System.read(&path).map_err(RunError::io("read", &path))?;
            let damaged = |error: LetterError| ReplayError::Damaged { path: path.clone(), source: error.into() };
            let mut at = 0;
            while let Some((letter, next)) = letter_at(&file, at).map_err(damaged)? {
                *before.entry(identity(&letter)).or_default() += 1;
                at = next;
            }
        }
        Ok(Self { root: state_root.to_owned(), _lock: lock, before, next: last + 1, file: MAGIC.to_vec() })
    }

    /// Whether a letter was not asked for before. An event that was refused again after a replay has another letter, which is new: so whoever
    /// asks has to ask once about each letter that there is of that identity.
    pub fn is_new(&mut self, letter: &ReplayedLetter) -> bool {
        match self.before.get_mut(&identity(letter)).filter(|before| **before > 0) {
            Some(before) => {
                *before -= 1;
                false
            }
            None => true,
        }
    }

    /// Asks for a letter.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn add(&mut self, letter: &ReplayedLetter) -> Result<(), ReplayError> {
        push(&mut self.file, letter)?;
        if self.file.len() >= FILE_BYTES { self.finish() } else { Ok(()) }
    }

    /// Hands over what was asked for since the last call.
    ///
    /// # Errors
    /// When a file can't be written: the letters in it were not asked for then.
    pub fn finish(&mut self) -> Result<(), ReplayError> {
        if self.file.len() == MAGIC.len() {
            return Ok(());
        }
        while !write_new(&System, &path_of(&self.root, self.next), &self.file)? {
            self.next += 1;
        }
        self.next += 1;
        self.file.truncate(MAGIC.len());
        Ok(())
    }
}

fn identity(letter: &ReplayedLetter) -> Identity {
    let ReplayedLetter { source, partition, position, stage, reason, .. } = letter;
    (stage.to_string(), reason.clone(), source.to_string(), partition.to_string(), *position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::tests::letter;

    fn ask(root: &Path, letters: &[u64]) -> Vec<bool> {
        let mut requests = Requests::open(root).unwrap();
        let mut ask = |letter| {
            let is_new = requests.is_new(&letter);
            if is_new {
                requests.add(&letter).unwrap();
            }
            is_new
        };
        let added = letters.iter().map(|position| ask(letter(*position))).collect();
        requests.finish().unwrap();
        added
    }

    #[test]
    fn a_letter_is_asked_for_once_and_one_that_came_back_once_more() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ask(dir.path(), &[1, 2]), [true, true]);
        assert_eq!(ask(dir.path(), &[1, 2, 3]), [false, false, true]);
        assert_eq!(ask(dir.path(), &[1, 2, 1, 3]), [false, false, true, false], "1 was refused again");
        assert_eq!(ask(dir.path(), &[1, 1, 2, 3]), [false; 4]);
        let files = std::fs::read_dir(directory(dir.path())).unwrap();
        assert_eq!(files.filter(|file| number_of(&file.as_ref().unwrap().path()).is_some()).count(), 3);
    }

    #[test]
    fn nobody_asks_beside_another_nor_where_an_earlier_request_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        ask(dir.path(), &[1]);
        let open = Requests::open(dir.path()).unwrap();
        assert!(matches!(Requests::open(dir.path()), Err(ReplayError::Busy { .. })));
        drop(open);
        let path = path_of(dir.path(), 1);
        let mut file = std::fs::read(&path).unwrap();
        *file.last_mut().unwrap() ^= 1;
        std::fs::write(&path, file).unwrap();
        assert!(matches!(Requests::open(dir.path()), Err(ReplayError::Damaged { .. })));
        assert!(matches!(Requests::open(&dir.path().join("no")), Err(ReplayError::NoState { .. })));
    }
}
