//! Marks: cuts in the names of empty files, beside a region's ledger. A rename moves them, which needs no room on the
//! disk.

use std::io::ErrorKind;
use std::path::Path;

use tidemill_core::CutId;

use crate::error::RunError;
use crate::host::{Host, Open};

/// What a mark says of its cut.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    /// It is committed: the last record of the ledger can't be lost unnoticed then. It is not synced, as the record
    /// itself says more to those who come after a loss of power.
    Committed,
    /// What it and those before it have put into the outbox is published, durably.
    Published,
}

impl Mark {
    fn prefix(self) -> &'static str {
        match self {
            Self::Committed => "committed-",
            Self::Published => "published-",
        }
    }

    /// Moves it from a cut to another one.
    pub(crate) fn set(self, host: &dyn Host, dir: &Path, before: CutId, cut: CutId) -> Result<(), RunError> {
        let path = |cut: CutId| dir.join(format!("{}{cut}", self.prefix()));
        match host.rename(&path(before), &path(cut), true) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                host.open(&path(cut), Open::Create).map(drop).map_err(RunError::io("create", path(cut)))
            }
            renamed => renamed.map_err(RunError::io("rename", path(before))),
        }
    }

    /// The cut that it stands at, the newest where a crash has left several; 0 when there is none. Touches nothing.
    pub(crate) fn find(self, host: &dyn Host, dir: &Path) -> Result<CutId, RunError> {
        let paths = host.list(dir).map_err(RunError::io("list", dir))?;
        Ok(paths.iter().filter_map(|path| self.cut_of(path)).max().unwrap_or(0))
    }

    /// Removes those that stand at an older cut.
    pub(crate) fn remove_older(self, host: &dyn Host, dir: &Path, cut: CutId) -> Result<(), RunError> {
        for path in host.list(dir).map_err(RunError::io("list", dir))? {
            if self.cut_of(&path).is_some_and(|marked| marked < cut) {
                host.remove(&path).map_err(RunError::io("remove", path))?;
            }
        }
        Ok(())
    }

    fn cut_of(self, path: &Path) -> Option<CutId> {
        path.file_name()?.to_str()?.strip_prefix(self.prefix())?.parse().ok()
    }
}
