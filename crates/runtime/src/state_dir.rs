//! The state directory: one owner, one identity, and where everything in it lies.
//!
//! ```text
//! <root>/<topology>/lock              held for life by the process that owns the directory; names it
//!                   key               32 hex digits, made once: the secret that keys the ids of `dedup`
//!                   identity          16 hex digits, made once
//!                   ledger-*.log      see `ledger`
//!                   committed-<cut>, published-<cut>  empty files, see `mark`
//!                   pieces-<n>.log    the state of stages as of the last cut
//!                   logs/<stage>/     Logs that stages read when they are restored; the segments of ponds
//!                   regions/<name>/   ledger and state of the regions behind ponds
//!                   replay/           see `replay`
//!                   requests/         see `requests`
//! <output>/.tidemill-claim            the state directory that the output root belongs to
//! <output>/.tidemill-published        see `published`; older than the claim, so that it is missing only when somebody removed it
//! <output>/.tidemill-staging/<stage>/ Logs that become files for readers
//!                            @given/, @accepted/ files that came with requests; those that were taken over
//! ```

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use tidemill_core::{CutId, LogName, StateKey};
use tidemill_topology::MAIN;

use crate::error::RunError;
use crate::host::{Host, Open, System};
use crate::ledger::Ledger;
use crate::logs::{ACCEPTED, make_dirs, path_in};
use crate::mark::Mark;
use crate::published;
use crate::requests::{self, GIVEN};
use crate::sync::sync_all;

const CLAIM: &str = ".tidemill-claim";
/// Where the regions behind ponds are, in a state directory.
pub(crate) const REGIONS: &str = "regions";
const STAGING: &str = ".tidemill-staging";

/// Where files lie below an output root that are not for readers yet.
pub(crate) fn staging(output: &Path) -> PathBuf {
    output.join(STAGING)
}

const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Who owns a state directory now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Address of its admin server, when it has one.
    pub admin: Option<String>,
}

/// The lock of a state directory: who has it owns the directory. It ends when it is dropped, and with the process.
#[derive(Debug)]
pub struct StateLock {
    file: File,
}

/// Name of the file that has the secret.
const KEY: &str = "key";

/// An owned state directory.
pub(crate) struct StateDir {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) root: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) id: Arc<str>,
    pub(crate) key: StateKey,
    /// Held by whoever adds to the index: it has lines of all regions.
    pub(crate) publishing: Mutex<()>,
    lock: StateLock,
}

/// The part of it that belongs to one region.
#[derive(Clone)]
pub(crate) struct RegionDir {
    pub(crate) state: Arc<StateDir>,
    /// Where its ledger is.
    pub(crate) root: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Claim {
    state_id: String,
    state: PathBuf,
}

impl StateLock {
    /// Takes the lock, making the state directory if need be.
    ///
    /// # Errors
    /// [`RunError::Locked`] when another process has it.
    pub fn take(root: &Path) -> Result<Self, RunError> {
        // Who only asks for the owner holds a shared lock for a moment.
        for _ in 0..LOCK_TRIES {
            if let Some(lock) = Self::attempt(root)? {
                return Ok(lock);
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Err(RunError::Locked { path: root.to_owned(), owner: described(root) })
    }

    /// Takes the lock if nobody has it at this moment.
    pub(crate) fn attempt(root: &Path) -> Result<Option<Self>, RunError> {
        Self::open(root)?.map_or(Ok(None), |file| Self::lock(root, file))
    }

    fn open(root: &Path) -> Result<Option<File>, RunError> {
        make_dirs(&System, root)?;
        let path = lock_path(root);
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        match file {
            // The directory has been set aside since it was made.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            file => file.map(Some).map_err(RunError::io("open", path)),
        }
    }

    fn lock(root: &Path, file: File) -> Result<Option<Self>, RunError> {
        let path = lock_path(root);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(RunError::io("lock", path)(error.into())),
        }
        // Who had it may have set the directory aside, and the lock of what was there is worth nothing.
        let id = |file: Metadata| (file.dev(), file.ino());
        let ours = file.metadata().map(id).map_err(RunError::io("look at", &path))?;
        let is_there = std::fs::metadata(&path).is_ok_and(|there| id(there) == ours);
        Ok(is_there.then(|| Self { file }))
    }
}

impl StateDir {
    /// Takes a state directory that is locked, and the output root, making what is not there. On the system itself, `root` is what `lock` locks.
    pub(crate) fn take(host: Arc<dyn Host>, lock: StateLock, root: &Path, output: &Path) -> Result<Self, RunError> {
        let root = root.to_owned();
        // Whoever asks for something may be somebody else, who could make directories that are not ours.
        let of_requests = [requests::directory(&root), staging(output).join(GIVEN), staging(output).join(ACCEPTED)];
        for dir in [root.join("logs"), staging(output)].iter().chain(&of_requests) {
            make_dirs(&*host, dir)?;
        }
        let key = key(&*host, &root)?;
        let id = identity(&*host, &root)?;
        claim(&*host, output, &root, &id)?;
        Ok(Self { host, root, output: output.to_owned(), id, key, publishing: Mutex::new(()), lock })
    }

    /// Writes into the lock file who holds it.
    pub(crate) fn announce(&mut self, owner: &Owner) -> Result<(), RunError> {
        let text = serde_json::to_string(owner).map_err(|error| RunError::Internal(error.to_string()))?;
        let file = &mut self.lock.file;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(RunError::io("write", lock_path(&self.root)))
    }

    /// Where the ledger of a region is.
    pub(crate) fn region_root(&self, name: &str) -> PathBuf {
        if name == MAIN { self.root.clone() } else { self.root.join(REGIONS).join(name) }
    }

    /// The part of a region.
    pub(crate) fn region(self: &Arc<Self>, name: &str) -> Result<RegionDir, RunError> {
        let root = self.region_root(name);
        make_dirs(&*self.host, &root)?;
        Ok(RegionDir { state: self.clone(), root })
    }

    /// Where the Logs of a stage lie, one by one.
    pub(crate) fn log_paths(&self, stage: &str) -> impl Fn(&LogName) -> PathBuf + use<> {
        let (state_logs, output_logs) = self.stage_logs(stage);
        move |log| path_in(&state_logs, &output_logs, log)
    }

    pub(crate) fn stage_logs(&self, stage: &str) -> (PathBuf, PathBuf) {
        (self.root.join("logs").join(stage), staging(&self.output).join(stage))
    }
}

impl RegionDir {
    /// Moves one of its marks from a cut to another one.
    pub(crate) fn set_mark(&self, mark: Mark, before: CutId, cut: CutId) -> Result<(), RunError> {
        mark.set(&*self.state.host, &self.root, before, cut)
    }

    /// Refuses a ledger that ends before a cut that was committed or published.
    pub(crate) fn check_marks(&self, cut: CutId) -> Result<(), RunError> {
        for mark in [Mark::Committed, Mark::Published] {
            let marked = mark.find(&*self.state.host, &self.root)?;
            if marked > cut {
                let what =
                    format!("the ledger ends with cut {cut}, but cut {marked} was committed: its record is lost");
                return Err(RunError::Corrupt { what, path: self.root.clone() });
            }
        }
        // Who died between a record and its mark leaves an older one.
        Mark::Committed.remove_older(&*self.state.host, &self.root, cut)
    }
}

/// Whether an output root belongs to a state directory, which is locked.
pub(crate) fn belongs(output: &Path, root: &Path) -> Result<bool, RunError> {
    let id = identity(&System, root)?;
    Ok(read_claim(&System, output)?.is_some_and(|claim| claim.state_id == *id))
}

/// Whether an output root belongs to a state directory, by what both say. Touches nothing.
pub(crate) fn is_of(output: &Path, root: &Path) -> Result<bool, RunError> {
    let path = root.join("identity");
    let id = System.read(&path).map_err(RunError::io("read", path))?;
    Ok(read_claim(&System, output)?.is_some_and(|claim| claim.state_id.as_bytes() == id))
}

/// The process that owns the state directory now; `None` when nobody does.
pub fn owner_of(root: &Path) -> Option<Owner> {
    let file = File::open(lock_path(root)).ok()?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    Some(announced(root).unwrap_or(Owner { pid: 0, admin: None }))
}

/// Where the lock of a state directory is.
pub(crate) fn lock_path(root: &Path) -> PathBuf {
    root.join("lock")
}

/// Who was the last to say that it owns the state directory; whether it still does, the lock says.
pub(crate) fn announced(root: &Path) -> Option<Owner> {
    serde_json::from_slice(&std::fs::read(lock_path(root)).ok()?).ok()
}

/// The same in words.
pub(crate) fn described(root: &Path) -> String {
    announced(root).map_or_else(|| "its process id is not known".to_owned(), |owner| format!("process {}", owner.pid))
}

fn identity(host: &dyn Host, root: &Path) -> Result<Arc<str>, RunError> {
    let path = root.join("identity");
    match host.read(&path).map(String::from_utf8) {
        Ok(Ok(text)) if text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(text.into()),
        Ok(_) => Err(RunError::Corrupt { what: "the identity is not 16 hex digits".into(), path }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let random = host.random().map_err(RunError::io("make a random number for", &path))?;
            let text = format!("{random:016x}");
            match write_new(host, &path, text.as_bytes())? {
                true => Ok(text.into()),
                false => identity(host, root),
            }
        }
        Err(error) => Err(RunError::io("read", path)(error)),
    }
}

/// The secret of a state directory. It is there before the identity: a directory that has the one and not the other
/// has lost it.
fn key(host: &dyn Host, root: &Path) -> Result<StateKey, RunError> {
    let path = root.join(KEY);
    let corrupt = |what: &str| RunError::Corrupt { what: what.into(), path: path.clone() };
    match host.read(&path) {
        Ok(text) => {
            let key = std::str::from_utf8(&text).ok().and_then(StateKey::parse);
            key.ok_or_else(|| corrupt("the key is not 32 hex digits"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && host.exists(&root.join("identity")) => {
            // Another version had none: its ledger says so.
            Ledger::peek(host, root)?;
            Err(corrupt("there is no key, and `dedup` knows nothing again without it: put it back from a backup"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let random = || host.random().map_err(RunError::io("make a random number for", &path));
            let text = format!("{:016x}{:016x}", random()?, random()?);
            let made = write_private(host, &path, text.as_bytes())?;
            // Somebody may have been faster.
            if made { StateKey::parse(&text).ok_or_else(|| corrupt("it can't be made")) } else { key(host, root) }
        }
        Err(error) => Err(RunError::io("read", path)(error)),
    }
}

/// Whether a state directory has claimed the output root.
#[must_use]
pub fn is_claimed(output: &Path) -> bool {
    output.join(CLAIM).exists()
}

/// The state directory that has claimed the output root; `None` when there is no claim, or the directory is not here.
pub(crate) fn claimed_by(output: &Path) -> Result<Option<PathBuf>, RunError> {
    let claim = read_claim(&System, output)?;
    Ok(claim.map(|claim| claim.state).filter(|state| state.exists()))
}

fn read_claim(host: &dyn Host, output: &Path) -> Result<Option<Claim>, RunError> {
    let path = output.join(CLAIM);
    match host.read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| RunError::Corrupt { what: format!("the claim can't be understood: {error}"), path }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RunError::io("read", path)(error)),
    }
}

fn claim(host: &dyn Host, output: &Path, root: &Path, id: &str) -> Result<(), RunError> {
    match read_claim(host, output)? {
        Some(claim) if claim.state_id == id => published::take(host, output),
        Some(claim) => Err(RunError::Claimed { path: output.to_owned(), owner: claim.state.display().to_string() }),
        None => {
            let state = std::path::absolute(root).map_err(RunError::io("resolve", root))?;
            let text = serde_json::to_vec(&Claim { state_id: id.to_owned(), state })
                .map_err(|error| RunError::Internal(error.to_string()))?;
            write_new(host, &published::index_path(output), published::empty().as_bytes())?;
            match write_new(host, &output.join(CLAIM), &text)? {
                true => published::take(host, output),
                // Somebody was faster: it is theirs, or it was ours already.
                false => claim(host, output, root, id),
            }
        }
    }
}

/// Locks a file, making it if need be; `None` when another process has it. The lock ends when the file is dropped.
pub(crate) fn locked(path: &Path) -> Result<Option<File>, RunError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(RunError::io("open", path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(RunError::io("lock", path)(error.into())),
    }
}

/// Writes a small file so that it is there whole or not at all; `false` when one is there already.
pub(crate) fn write_new(host: &dyn Host, path: &Path, bytes: &[u8]) -> Result<bool, RunError> {
    write_as(host, path, bytes, Open::Create)
}

/// The same for the eyes of the owner alone.
fn write_private(host: &dyn Host, path: &Path, bytes: &[u8]) -> Result<bool, RunError> {
    write_as(host, path, bytes, Open::CreatePrivate)
}

fn write_as(host: &dyn Host, path: &Path, bytes: &[u8], how: Open) -> Result<bool, RunError> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let file = host.open(&temporary, how).map_err(RunError::io("create", &temporary))?;
    file.write_at(bytes, 0).and_then(|()| file.sync()).map_err(RunError::io("write", &temporary))?;
    let linked = host.link(&temporary, path);
    host.remove(&temporary).map_err(RunError::io("remove", &temporary))?;
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
        linked => linked.map_err(RunError::io("create", path))?,
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    sync_all(host, &[dir.into()])?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(root: &Path, output: &Path) -> Result<StateDir, RunError> {
        StateDir::take(Arc::new(System), StateLock::take(root)?, root, output)
    }

    #[test]
    fn the_lock_of_a_directory_that_was_set_aside_is_worth_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a");
        let opened = StateLock::open(&root).unwrap().unwrap();
        std::fs::rename(&root, dir.path().join("a.aside-1")).unwrap();
        assert!(StateLock::lock(&root, opened).unwrap().is_none(), "the directory is gone");
        let opened = StateLock::open(&root).unwrap().unwrap();
        std::fs::rename(&root, dir.path().join("a.aside-2")).unwrap();
        let new = StateLock::attempt(&root).unwrap().expect("the new directory is free");
        assert!(StateLock::lock(&root, opened).unwrap().is_none(), "another one is in its place");
        assert!(StateLock::attempt(&root).unwrap().is_none());
        drop(new);
    }

    #[test]
    fn an_output_root_that_belongs_to_another_state_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        let first = take(&dir.path().join("a"), &output).unwrap();
        let id = first.id.clone();
        drop(first);
        assert!(matches!(take(&dir.path().join("b"), &output), Err(RunError::Claimed { .. })));
        assert_eq!(take(&dir.path().join("a"), &output).unwrap().id, id, "its own state gets it again");
    }

    #[test]
    fn an_index_is_there_from_the_claim_on_and_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let (state, output) = (dir.path().join("a"), dir.path().join("out"));
        drop(take(&state, &output).unwrap());
        assert!(published::published(&output).unwrap().unwrap().damaged.is_empty());
        std::fs::remove_file(published::index_path(&output)).unwrap();
        assert!(matches!(take(&state, &output), Err(RunError::Corrupt { .. })));
        // A crash between the two leaves an index without a claim.
        std::fs::write(published::index_path(&output), published::empty()).unwrap();
        std::fs::remove_file(output.join(CLAIM)).unwrap();
        drop(take(&state, &output).unwrap());
    }
}
