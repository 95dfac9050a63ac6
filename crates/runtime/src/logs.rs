//! Logs: the append-only files of one stage, whose lengths are part of the cut.
//!
//! Stage code names Logs, the runtime holds their descriptors. A Log is written without a buffer in the process, so that
//! its length is what the file system has. Going back to a cut truncates each Log to its length there and removes the
//! ones that it does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_core::{Home, LogName, LogReader};

use crate::error::RunError;
use crate::failpoint;
use crate::host::{Host, HostFile, Open};
use crate::sync::Written;

/// Ending of files that are not for readers yet.
pub(crate) const STAGED: &str = ".staged";
/// Beside the staging directories of stages: files of requests that the owner has taken over. No stage has such a name.
pub(crate) const ACCEPTED: &str = "@accepted";
/// Descriptors that a stage keeps open, unless the process may have few. A step of 256 hours has three files for each.
/// Beyond it they are closed: a Log is opened again for its next append, and to be synced.
const OPEN_MAX: usize = 1_024;

/// Lengths of Logs in bytes.
pub(crate) type Lengths = BTreeMap<LogName, u64>;

/// The Logs of one stage.
pub(crate) struct Logs {
    host: Arc<dyn Host>,
    state_dir: PathBuf,
    output_dir: PathBuf,
    live: BTreeMap<LogName, Log>,
    /// In all of them. Asked for at each append to a pond, which may have thousands.
    bytes: u64,
    open: usize,
    open_max: usize,
    /// Written since the last call of `take_dirty`.
    dirty: BTreeSet<LogName>,
    /// Handed out by it, and not by `written` yet.
    unsynced: BTreeSet<LogName>,
    /// They are another's now: nothing may be written.
    is_closed: bool,
}

struct Log {
    length: u64,
    file: Option<Arc<dyn HostFile>>,
    /// An append failed midway: what is behind `length` has to go first.
    torn: bool,
}

impl Logs {
    /// The Logs of a stage, set back to `lengths`: what is longer is truncated, what is not named is removed, unless it
    /// is `staged`.
    pub(crate) fn restore(
        host: Arc<dyn Host>,
        state_dir: PathBuf,
        output_dir: PathBuf,
        lengths: &Lengths,
        staged: &BTreeSet<LogName>,
    ) -> Result<Self, RunError> {
        for dir in [&state_dir, &output_dir] {
            make_dirs(&*host, dir)?;
        }
        let open_max = usize::try_from(host.files_max() / 8).unwrap_or(OPEN_MAX).clamp(1, OPEN_MAX);
        let mut logs = Self {
            host,
            open_max,
            state_dir,
            output_dir,
            live: BTreeMap::new(),
            bytes: 0,
            open: 0,
            dirty: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            is_closed: false,
        };
        logs.go_back(lengths, staged)?;
        Ok(logs)
    }

    /// Sets every Log back to its length in a cut. What is `staged` is not touched: it is to be published.
    pub(crate) fn go_back(&mut self, lengths: &Lengths, staged: &BTreeSet<LogName>) -> Result<(), RunError> {
        if self.is_closed {
            return Err(RunError::Internal("a log is truncated after it was closed".into()));
        }
        self.live.clear();
        self.bytes = lengths.values().sum();
        self.open = 0;
        self.dirty.clear();
        self.unsynced.clear();
        for (home, dir) in [(Home::State, self.state_dir.clone()), (Home::Output, self.output_dir.clone())] {
            for path in self.host.list(&dir).map_err(RunError::io("list", &dir))? {
                let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(STAGED));
                let name = name.map(|name| LogName { home, name: name.to_owned() });
                let is_kept = name.is_some_and(|name| lengths.contains_key(&name) || staged.contains(&name));
                if !is_kept {
                    self.host.remove(&path).map_err(RunError::io("remove", &path))?;
                }
            }
        }
        for (name, length) in lengths {
            let path = self.path(name);
            let file = self.host.open(&path, Open::Write).map_err(RunError::io("open", &path))?;
            let found = file.len().map_err(RunError::io("look at", &path))?;
            if found < *length {
                let what = format!("a log has {found} bytes, but the last cut says {length}");
                return Err(RunError::Corrupt { what, path });
            }
            if found > *length {
                file.set_len(*length).map_err(RunError::io("truncate", &path))?;
                failpoint::hit("log-truncated");
                self.dirty.insert(name.clone());
            }
            self.live.insert(name.clone(), Log { length: *length, file: None, torn: false });
        }
        Ok(())
    }

    /// Lets nothing be written any more: whoever opens them next may truncate them.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Bytes in all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where a Log lies.
    pub(crate) fn path(&self, name: &LogName) -> PathBuf {
        path_in(&self.state_dir, &self.output_dir, name)
    }

    /// Appends to a Log, whole or not at all: after an error the Log is as long as before.
    pub(crate) fn append(&mut self, name: &LogName, bytes: &[u8]) -> Result<(), RunError> {
        if self.is_closed {
            return Err(RunError::Internal("a log is written after it was closed".into()));
        }
        let path = self.path(name);
        if !self.live.contains_key(name) {
            if self.host.exists(&path) {
                let name = &name.name;
                return Err(RunError::Internal(format!("the log {name} is written while it waits to be published")));
            }
            self.live.insert(name.clone(), Log { length: 0, file: None, torn: false });
        }
        if self.open >= self.open_max && self.live.get(name).is_some_and(|log| log.file.is_none()) {
            self.close_some();
        }
        let Some(log) = self.live.get_mut(name) else { return Err(RunError::Internal("a log vanished".into())) };
        let file = match &mut log.file {
            Some(file) => file,
            None => {
                let file = self.host.open(&path, Open::Grow).map_err(RunError::io("open", &path))?;
                self.open += 1;
                log.file.insert(Arc::from(file))
            }
        };
        if log.torn {
            file.set_len(log.length).map_err(RunError::io("truncate", &path))?;
            log.torn = false;
        }
        if let Err(error) = file.write_at(bytes, log.length) {
            log.torn = file.set_len(log.length).is_err();
            return Err(RunError::io("append to", path)(error));
        }
        log.length += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        self.dirty.insert(name.clone());
        Ok(())
    }

    /// The Logs written since the last call, with their lengths now.
    pub(crate) fn take_dirty(&mut self) -> Lengths {
        let dirty = std::mem::take(&mut self.dirty);
        self.unsynced.extend(dirty.iter().cloned());
        dirty.into_iter().filter_map(|name| self.live.get(&name).map(|log| (name.clone(), log.length))).collect()
    }

    /// Closes those that need not be synced; all of them, when none is.
    fn close_some(&mut self) {
        let waits = |name: &LogName| self.dirty.contains(name) || self.unsynced.contains(name);
        let synced = self.live.iter_mut().filter(|(name, log)| log.file.is_some() && !waits(name));
        let closed = synced.map(|(_, log)| log.file = None).count();
        self.open -= closed;
        if closed == 0 {
            self.live.values_mut().for_each(|log| log.file = None);
            self.open = 0;
        }
    }

    /// A Log as it is to be made durable.
    pub(crate) fn written(&mut self, name: &LogName) -> Written {
        self.unsynced.remove(name);
        Written::of(self.path(name), self.live.get(name).and_then(|log| log.file.clone()))
    }

    /// A Log was published or retired: it is none any more.
    pub(crate) fn forget(&mut self, name: &LogName) {
        if let Some(log) = self.live.remove(name) {
            self.bytes -= log.length;
            self.open -= usize::from(log.file.is_some());
        }
        self.dirty.remove(name);
        self.unsynced.remove(name);
    }

    /// Reads Logs as long as they are in `lengths`.
    pub(crate) fn reader<'a>(&'a self, lengths: &'a Lengths) -> impl LogReader + 'a {
        Reader { logs: self, lengths }
    }
}

/// Where a Log of a stage lies, given the stage's two directories.
pub(crate) fn path_in(state_dir: &Path, output_dir: &Path, name: &LogName) -> PathBuf {
    let dir = match name.home {
        Home::State => state_dir.to_owned(),
        Home::Output => output_dir.to_owned(),
        Home::Request => output_dir.with_file_name(ACCEPTED),
    };
    dir.join(format!("{}{STAGED}", name.name))
}

struct Reader<'a> {
    logs: &'a Logs,
    lengths: &'a Lengths,
}

impl LogReader for Reader<'_> {
    fn open(&self, log: &LogName) -> std::io::Result<Box<dyn Read>> {
        let length = self.lengths.get(log).ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::NotFound, format!("log `{}` is not in the cut", log.name))
        })?;
        let file = self.logs.host.open(&self.logs.path(log), Open::Read)?;
        Ok(Box::new(std::io::BufReader::with_capacity(1 << 20, Reading { file, offset: 0 }.take(*length))))
    }
}

/// What is in a file from an offset on.
struct Reading {
    file: Box<dyn HostFile>,
    offset: u64,
}

impl Read for Reading {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(bytes, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Makes a directory and those above it, durably.
pub(crate) fn make_dirs(host: &dyn Host, dir: &Path) -> Result<(), RunError> {
    fn make(host: &dyn Host, dir: &Path) -> std::io::Result<()> {
        let Some(above) = dir.parent() else { return Ok(()) };
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        if host.exists(dir) {
            // Who made it may have died before this. What is not ours may not be ours to open either.
            return match host.sync(above) {
                Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => Err(error),
                _ => Ok(()),
            };
        }
        make(host, above)?;
        match host.create_dir(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => host.sync(above),
        }
    }
    make(host, dir).map_err(RunError::io("create", dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    fn name(text: &str) -> LogName {
        LogName { home: Home::State, name: text.to_owned() }
    }

    #[test]
    fn going_back_truncates_what_grew_and_removes_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let (state, output) = (dir.path().join("s"), dir.path().join("o"));
        let mut logs =
            Logs::restore(Arc::new(System), state.clone(), output, &Lengths::new(), &BTreeSet::new()).unwrap();
        logs.append(&name("a"), b"12345").unwrap();
        let cut = logs.take_dirty();
        logs.append(&name("a"), b"678").unwrap();
        logs.append(&name("b"), b"x").unwrap();
        logs.go_back(&cut, &BTreeSet::new()).unwrap();
        assert_eq!(std::fs::read(logs.path(&name("a"))).unwrap(), b"12345");
        assert!(!logs.path(&name("b")).exists());
        logs.append(&name("a"), b"6").unwrap();
        let mut text = String::new();
        logs.reader(&cut).open(&name("a")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "12345", "a reader sees the cut only");
    }

    #[test]
    fn a_log_that_waits_to_be_published_stays_and_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let (state, output) = (dir.path().join("s"), dir.path().join("o"));
        let mut logs =
            Logs::restore(Arc::new(System), state.clone(), output, &Lengths::new(), &BTreeSet::new()).unwrap();
        logs.append(&name("a"), b"123").unwrap();
        logs.forget(&name("a"));
        logs.go_back(&Lengths::new(), &BTreeSet::from([name("a")])).unwrap();
        assert!(matches!(logs.append(&name("a"), b"4"), Err(RunError::Internal(_))));
        assert_eq!(std::fs::read(logs.path(&name("a"))).unwrap(), b"123");
    }

    #[test]
    fn a_log_shorter_than_its_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (state, output) = (dir.path().join("s"), dir.path().join("o"));
        let mut logs =
            Logs::restore(Arc::new(System), state.clone(), output.clone(), &Lengths::new(), &BTreeSet::new()).unwrap();
        logs.append(&name("a"), b"123").unwrap();
        let cut = Lengths::from([(name("a"), 4)]);
        assert!(matches!(
            Logs::restore(Arc::new(System), state, output, &cut, &BTreeSet::new()),
            Err(RunError::Corrupt { .. })
        ));
    }
}
