//! What somebody outside asks a stage for, while the topology runs or is at rest.
//!
//! A request is a file in the state directory, `requests/<id>.json`, which is written whole and never changed: [`Requesting`] writes it, from any
//! process. The coordinator of the region that has the stage gives it to the next barrier, one at a time, and removes the file when the cut is
//! committed and its effects are done. Between the two a crash leaves the file: the stage is asked once more, and knows the id.
//!
//! Files that come with a request lie in `<output>/.tidemill-staging/@given`, durably, before the request is made.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use tidemill_core::Request;

use crate::error::RunError;
use crate::host::{Host, System};
use crate::logs::{GIVEN, STAGED, make_dirs, sync_all};
use crate::state_dir::{staging, write_new};

/// Why nothing can be asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no state: the topology never ran.
    #[error("there is no state directory {path}: the topology has not run, or `state.root` is another one")]
    NoState {
        /// Where it would be.
        path: PathBuf,
    },
    /// Somebody else is asking at this moment.
    #[error("another process is asking for something ({path} is locked); try again when it has ended")]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// Files can't be read or written.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Asks the stages of a topology. While there is one, no other process can.
pub struct Requesting {
    state_root: PathBuf,
    output_root: PathBuf,
    /// Held for life.
    _lock: File,
}

impl Requesting {
    /// Takes the right to ask. What a process that was killed has left is removed, but not the requests that it has made.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn open(state_root: &Path, output_root: &Path) -> Result<Self, RequestError> {
        if !state_root.exists() {
            return Err(RequestError::NoState { path: state_root.to_owned() });
        }
        let dir = directory(state_root);
        let (state_root, output_root) = (state_root.to_owned(), output_root.to_owned());
        for dir in [&dir, &staging(&output_root).join(GIVEN)] {
            make_dirs(&System, dir)?;
        }
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(RunError::io("open", &path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(RequestError::Busy { path }),
            Err(error) => return Err(RunError::io("lock", path)(error.into()).into()),
        }
        let requesting = Self { state_root, output_root, _lock: lock };
        requesting.clear()?;
        Ok(requesting)
    }

    /// A directory beside the output, in the same file system, for what is being made. It goes with the next [`Requesting`] at the latest.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        staging(&self.output_root).join("@scratch")
    }

    /// Removes the scratch directory and all that is in it, and files that were given for requests, unless there is one that waits.
    ///
    /// # Errors
    /// When something can't be removed.
    pub fn clear(&self) -> Result<(), RequestError> {
        let scratch = self.scratch();
        match std::fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(RunError::io("remove", scratch)(error).into());
            }
            _ => {}
        }
        if waiting(&System, &self.state_root)?.is_empty() {
            let given = staging(&self.output_root).join(GIVEN);
            for path in System.list(&given).map_err(RunError::io("list", &given))? {
                System.remove(&path).map_err(RunError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Moves a file that is durable from the scratch directory to where a stage can publish it, under a name that no other file has.
    ///
    /// # Errors
    /// When it can't be moved.
    pub fn give(&self, from: &Path, name: &str) -> Result<(), RequestError> {
        let to = staging(&self.output_root).join(GIVEN).join(format!("{name}{STAGED}"));
        Ok(System.rename(from, &to, false).map_err(RunError::io("move", from))?)
    }

    /// Makes a request, durably, with the files that were given before.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn ask(&self, request: &Request) -> Result<(), RequestError> {
        let given = staging(&self.output_root).join(GIVEN);
        sync_all(&System, [given.as_path()].into_iter())?;
        let text = serde_json::to_vec(request).map_err(|error| RunError::Internal(error.to_string()))?;
        write_new(&System, &path_of(&self.state_root, &request.id), &text)?;
        Ok(())
    }

    /// Whether a request still waits for its barrier, or for the end of its cut.
    #[must_use]
    pub fn is_pending(&self, id: &str) -> bool {
        path_of(&self.state_root, id).exists()
    }

    /// Takes a request back. When a barrier has it already, it is answered all the same.
    ///
    /// # Errors
    /// When its file can't be removed.
    pub fn withdraw(&self, id: &str) -> Result<(), RequestError> {
        Ok(done(&System, &self.state_root, id)?)
    }
}

/// The first request, in order of ids, for a stage that `is_own`. One that can't be understood, or that wants a path that is not free, is refused: it is
/// removed, and the log says why.
pub(crate) fn next(
    host: &dyn Host,
    state_root: &Path,
    output_root: &Path,
    is_own: impl Fn(&str) -> bool,
) -> Result<Option<Request>, RunError> {
    for path in waiting(host, state_root)? {
        let text = match host.read(&path) {
            // Taken back, or another region's, and done.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            read => read.map_err(RunError::io("read", &path))?,
        };
        let request: Request = match serde_json::from_slice(&text) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a request can't be understood, and is removed");
                host.remove(&path).map_err(RunError::io("remove", &path))?;
                continue;
            }
        };
        if !is_own(&request.stage) {
            continue;
        }
        if let Some(taken) = request.free.iter().find(|path| host.exists(&output_root.join(path))) {
            tracing::error!(id = request.id, stage = %request.stage, path = taken, "a request is refused: what it is to publish is there already");
            done(host, state_root, &request.id)?;
            continue;
        }
        return Ok(Some(request));
    }
    Ok(None)
}

/// A request is answered.
pub(crate) fn done(host: &dyn Host, state_root: &Path, id: &str) -> Result<(), RunError> {
    let path = path_of(state_root, id);
    match host.remove(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(RunError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Files of requests, in order of ids.
fn waiting(host: &dyn Host, state_root: &Path) -> Result<Vec<PathBuf>, RunError> {
    let dir = directory(state_root);
    let mut paths = match host.list(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(RunError::io("list", &dir))?,
    };
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    Ok(paths)
}

fn directory(state_root: &Path) -> PathBuf {
    state_root.join("requests")
}

fn path_of(state_root: &Path, id: &str) -> PathBuf {
    directory(state_root).join(format!("{id}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str, stage: &str) -> Request {
        Request {
            id: id.into(),
            stage: stage.into(),
            free: vec!["a/rev=1".into()],
            body: serde_json::json!({ "x": 1 }),
        }
    }

    #[test]
    fn requests_come_one_after_the_other_until_they_are_done() {
        let dir = tempfile::tempdir().unwrap();
        let (state, output) = (dir.path().join("state"), dir.path().join("out"));
        std::fs::create_dir(&state).unwrap();
        let next = |stage: &str| next(&System, &state, &output, |own| own == stage).unwrap().map(|request| request.id);
        assert_eq!(next("files"), None, "nobody has ever asked");
        let asking = Requesting::open(&state, &output).unwrap();
        assert!(matches!(Requesting::open(&state, &output), Err(RequestError::Busy { .. })));
        for (id, stage) in [("1", "files"), ("2", "other"), ("3", "files")] {
            asking.ask(&request(id, stage)).unwrap();
        }
        assert_eq!((next("files"), next("other")), (Some("1".into()), Some("2".into())));
        assert_eq!(next("files").as_deref(), Some("1"), "it is not done");
        done(&System, &state, "1").unwrap();
        assert_eq!(next("files").as_deref(), Some("3"));
        assert!(!asking.is_pending("1") && asking.is_pending("3"));
        asking.withdraw("3").unwrap();
        assert_eq!(next("files"), None);
    }

    #[test]
    fn what_is_damaged_or_in_the_way_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (state, output) = (dir.path().join("state"), dir.path().join("out"));
        assert!(matches!(Requesting::open(&state, &output), Err(RequestError::NoState { .. })));
        std::fs::create_dir(&state).unwrap();
        let asking = Requesting::open(&state, &output).unwrap();
        asking.ask(&request("1", "files")).unwrap();
        std::fs::write(path_of(&state, "0"), "{").unwrap();
        std::fs::create_dir_all(output.join("a/rev=1")).unwrap();
        assert_eq!(next(&System, &state, &output, |_| true).unwrap(), None);
        assert!(!asking.is_pending("0") && !asking.is_pending("1"));
    }

    #[test]
    fn what_a_killed_process_left_goes_but_not_what_a_request_needs() {
        let dir = tempfile::tempdir().unwrap();
        let (state, output) = (dir.path().join("state"), dir.path().join("out"));
        std::fs::create_dir(&state).unwrap();
        let asking = Requesting::open(&state, &output).unwrap();
        std::fs::create_dir(asking.scratch()).unwrap();
        let from = asking.scratch().join("x");
        std::fs::write(&from, "1").unwrap();
        asking.give(&from, "x").unwrap();
        asking.ask(&request("1", "files")).unwrap();
        let given = staging(&output).join(GIVEN).join("x.staged");
        drop(asking);
        let asking = Requesting::open(&state, &output).unwrap();
        assert!(given.exists() && !asking.scratch().exists());
        asking.withdraw("1").unwrap();
        drop(asking);
        Requesting::open(&state, &output).unwrap();
        assert!(!given.exists());
    }
}
