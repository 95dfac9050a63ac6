//! The pieces of one stage, as its workers see them.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use tidemill_core::PieceReader;

use super::{Pieces, unreadable};
use crate::error::RunError;
use crate::watchdog::Call;

/// The pieces of a stage, as one of its workers reads them.
pub(crate) struct OfStage {
    pub(super) pieces: Arc<Pieces>,
    pub(super) stage: Arc<str>,
    pub(super) call: Arc<Call>,
    /// What could not be read. A stage that fails by it is not to blame, nor are its events.
    pub(super) fault: Mutex<Option<RunError>>,
}

impl OfStage {
    fn fault(&self) -> MutexGuard<'_, Option<RunError>> {
        self.fault.lock().expect("no code panics while it holds the fault")
    }

    /// Whether something keeps the state from being read.
    pub(crate) fn has_fault(&self) -> bool {
        self.fault().is_some()
    }

    /// What keeps the state from being read, if it could not be.
    pub(crate) fn take_fault(&self) -> Option<RunError> {
        self.fault().take()
    }

    /// What the stage gave whole at the last cut; `None` when it gave nothing, or has not been there.
    pub(crate) fn whole(&self) -> io::Result<Option<Vec<u8>>> {
        let is_there = self.pieces.kept().places.get(&self.stage).is_some_and(|places| places.contains_key(""));
        if !is_there {
            return Ok(None);
        }
        let read = self.pieces.read_committed(&self.stage, "").inspect_err(|error| self.fails(error));
        Ok(Some(read?).filter(|bytes| !bytes.is_empty()))
    }

    fn fails(&self, error: &io::Error) {
        let path = &self.pieces.dir;
        let error = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), format!("the state of `{}`: {error}", self.stage)),
        };
        *self.fault() = Some(unreadable(path, error));
    }
}

impl PieceReader for OfStage {
    fn names(&self, prefix: &str) -> Vec<String> {
        let kept = self.pieces.kept();
        let places = kept.places.get(&self.stage).into_iter();
        let from = places.flat_map(|places| places.range(prefix.to_owned()..)).map(|(name, _)| name);
        let known = from.take_while(|name| name.starts_with(prefix)).filter(|name| !name.is_empty());
        let mut names: BTreeSet<&String> = known.collect();
        for (name, bytes) in
            kept.given.get(&self.stage).into_iter().flatten().filter(|(name, _)| name.starts_with(prefix))
        {
            match bytes {
                Some(_) if !name.is_empty() => names.insert(name),
                _ => names.remove(name),
            };
        }
        names.into_iter().cloned().collect()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.call.reads(|| self.pieces.read(&self.stage, name)).inspect_err(|error| self.fails(error))
    }
}
