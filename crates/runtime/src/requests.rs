//! What somebody outside asks a stage for, while the topology runs or is at rest.
//!
//! A request is a file in the state directory, `requests/<id>.json`, which is written whole and never changed: [`Requesting`] writes it, from any
//! process. Its files lie in `<output>/.tidemill-staging/@given` by then, durably. The coordinator of the region that has the stage takes the files over, into
//! `@accepted`, where nobody else removes anything, gives the request to the next barrier, one at a time, and removes it when what the cut
//! seals is published. Between the two a crash leaves the request: the stage is asked once more, and knows the id.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill_core::Request;
use tokio::time::Instant;

use crate::error::RunError;
use crate::host::{Host, System};
use crate::logs::{ACCEPTED, STAGED, make_dirs};
use crate::state_dir::{StateDir, is_of, locked, staging, write_new};
use crate::sync::sync_all;

/// Where files of requests lie that were not taken over, beside the staging directories of stages. No stage has such a name.
pub(crate) const GIVEN: &str = "@given";
/// How often it is looked for requests.
const ASK_EVERY: Duration = Duration::from_millis(500);

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
    /// The output root belongs to another state directory, or to none.
    #[error(
        "{output} is not the output root of the state directory {state}: name the `output.root` and `state.root` that the topology runs with"
    )]
    OtherOutput {
        /// The output root.
        output: PathBuf,
        /// The state directory.
        state: PathBuf,
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
        if !state_root.join("identity").exists() {
            return Err(RequestError::NoState { path: state_root.to_owned() });
        }
        if !is_of(output_root, state_root)? {
            return Err(RequestError::OtherOutput { output: output_root.to_owned(), state: state_root.to_owned() });
        }
        let dir = directory(state_root);
        let (state_root, output_root) = (state_root.to_owned(), output_root.to_owned());
        for dir in [&dir, &staging(&output_root).join(GIVEN)] {
            make_dirs(&System, dir)?;
        }
        let path = dir.join("lock");
        let lock = locked(&path)?.ok_or(RequestError::Busy { path })?;
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
        sync_all(&System, &[given.as_path().into()])?;
        let text = serde_json::to_vec(request).map_err(|error| RunError::Internal(error.to_string()))?;
        write_new(&System, &path_of(&self.state_root, &request.id), &text)?;
        Ok(())
    }

    /// Whether a request still waits for its barrier, or for what comes of it to be published.
    #[must_use]
    pub fn is_pending(&self, id: &str) -> bool {
        path_of(&self.state_root, id).exists()
    }

    /// Takes a request back. When a barrier has it already, it is answered all the same.
    ///
    /// # Errors
    /// When its file can't be removed.
    pub fn withdraw(&self, id: &str) -> Result<(), RequestError> {
        Ok(forget(&System, &path_of(&self.state_root, id))?)
    }
}

impl Drop for Requesting {
    /// What was being made is room that others may wait for.
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(%error, "what was being made is left behind");
        }
    }
}

/// The owner's side of a region.
#[derive(Default)]
pub(crate) struct Asked {
    looked: Option<Instant>,
    /// Requests that can't be dealt with, of which that was told.
    told: BTreeSet<PathBuf>,
}

impl Asked {
    /// Whether it is time to look for requests, where nothing else makes a barrier.
    pub(crate) fn is_due(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= ASK_EVERY)
    }

    /// Whether there may be any, of this region or another one. Touches nothing.
    pub(crate) fn any(&mut self, host: &dyn Host, state_root: &Path) -> bool {
        self.looked = Some(Instant::now());
        waiting(host, state_root).is_ok_and(|paths| !paths.is_empty())
    }

    /// The first request, in order of ids, for a stage that `is_own`, with its files in hand. One that can't be understood, that wants a path that is not
    /// free, or whose files are gone, is refused: it is removed, and the log says why. One that can't be read is passed over.
    pub(crate) fn next(
        &mut self,
        host: &dyn Host,
        state_root: &Path,
        output_root: &Path,
        is_own: impl Fn(&str) -> bool,
    ) -> Option<Request> {
        self.looked = Some(Instant::now());
        let paths = waiting(host, state_root).inspect_err(|error| tracing::error!(%error, "requests can't be listed"));
        for path in paths.unwrap_or_default() {
            match look(host, &path, output_root, &is_own) {
                Ok(Looked::Taken(request)) => return Some(request),
                Ok(Looked::Others) => {}
                Ok(Looked::Refused(request, why)) => {
                    tracing::error!(path = %path.display(), why, "a request is refused");
                    let gone = match &request {
                        Some(request) => done(host, state_root, output_root, request),
                        None => forget(host, &path),
                    };
                    self.check(&path, gone);
                }
                Err(error) => self.check(&path, Err(error)),
            }
        }
        None
    }

    fn check(&mut self, path: &Path, result: Result<(), RunError>) {
        if let Err(error) = result
            && self.told.insert(path.to_owned())
        {
            tracing::error!(path = %path.display(), error = %error.chain(), "a request can't be dealt with: make its files ours, or remove it");
        }
    }
}

enum Looked {
    Taken(Request),
    /// It is for a stage of another region, or it is not there any more.
    Others,
    /// Why; with the request, where it can be understood.
    Refused(Option<Request>, String),
}

fn look(host: &dyn Host, path: &Path, output_root: &Path, is_own: &impl Fn(&str) -> bool) -> Result<Looked, RunError> {
    let text = match host.read(path) {
        // Taken back, or another region's, and done.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Looked::Others),
        read => read.map_err(RunError::io("read", path))?,
    };
    let request: Request = match serde_json::from_slice(&text) {
        Ok(request) => request,
        Err(error) => return Ok(Looked::Refused(None, format!("it can't be understood: {error}"))),
    };
    if !is_own(&request.stage) {
        return Ok(Looked::Others);
    }
    if let Some(taken) = request.free.iter().find(|path| host.exists(&output_root.join(path))) {
        let why =
            format!("`{taken}` is there already: it was published by a process that died then, or something else was");
        return Ok(Looked::Refused(Some(request), why));
    }
    if let Some(name) = request.files.iter().find(|name| name.contains(['/', '\0'])) {
        let why = format!("`{name}` is no name of a file");
        // Nothing by such a name is touched.
        return Ok(Looked::Refused(None, why));
    }
    let (given, accepted) = (staging(output_root).join(GIVEN), staging(output_root).join(ACCEPTED));
    for name in &request.files {
        let name = format!("{name}{STAGED}");
        let (from, to) = (given.join(&name), accepted.join(&name));
        match host.rename(&from, &to, false) {
            // It was taken over before.
            Err(error) if error.kind() == ErrorKind::NotFound && host.exists(&to) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let why = format!("its file `{name}` is gone");
                return Ok(Looked::Refused(Some(request.clone()), why));
            }
            renamed => renamed.map_err(RunError::io("take over", from))?,
        }
    }
    if !request.files.is_empty() {
        sync_all(host, &[accepted.as_path().into(), given.as_path().into()])?;
    }
    Ok(Looked::Taken(request))
}

/// A request is answered: it goes, and what was not published of its files.
pub(crate) fn done(host: &dyn Host, state_root: &Path, output_root: &Path, request: &Request) -> Result<(), RunError> {
    let accepted = staging(output_root).join(ACCEPTED);
    for name in &request.files {
        forget(host, &accepted.join(format!("{name}{STAGED}")))?;
    }
    forget(host, &path_of(state_root, &request.id))
}

/// When a process starts, all of whose regions are open: removes files that were taken over for requests that are gone,
/// unless they are `staged`, and refuses requests for stages that there are not.
pub(crate) fn clear(state: &StateDir, stages: &BTreeSet<&str>, staged: &BTreeSet<String>) -> Result<(), RunError> {
    let host = &*state.host;
    let mut needed: BTreeSet<String> = staged.iter().map(|name| format!("{name}{STAGED}")).collect();
    for path in waiting(host, &state.root)? {
        // What can't be read is told when it is looked for.
        let text = host.read(&path).unwrap_or_default();
        let Ok(request) = serde_json::from_slice::<Request>(&text) else { continue };
        if stages.contains(&*request.stage) {
            needed.extend(request.files.iter().map(|name| format!("{name}{STAGED}")));
            continue;
        }
        tracing::error!(path = %path.display(), stage = %request.stage, "a request is refused: the topology has no such stage");
        forget(host, &path)?;
    }
    let accepted = staging(&state.output).join(ACCEPTED);
    for path in host.list(&accepted).map_err(RunError::io("list", &accepted))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !needed.contains(&*name) {
            forget(host, &path)?;
        }
    }
    Ok(())
}

/// Removes a file that may be gone already.
fn forget(host: &dyn Host, path: &Path) -> Result<(), RunError> {
    match host.remove(path) {
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

pub(crate) fn directory(state_root: &Path) -> PathBuf {
    state_root.join("requests")
}

fn path_of(state_root: &Path, id: &str) -> PathBuf {
    directory(state_root).join(format!("{id}.json"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state_dir::StateLock;

    fn request(id: &str, stage: &str, files: &[&str]) -> Request {
        Request {
            id: id.into(),
            stage: stage.into(),
            free: vec!["a/rev=1".into()],
            files: files.iter().map(|name| (*name).to_owned()).collect(),
            body: serde_json::json!({ "x": 1 }),
        }
    }

    struct Roots {
        dir: tempfile::TempDir,
    }

    impl Roots {
        fn new() -> Self {
            let roots = Self { dir: tempfile::tempdir().unwrap() };
            drop(roots.owned());
            roots
        }

        fn state(&self) -> PathBuf {
            self.dir.path().join("state")
        }

        fn output(&self) -> PathBuf {
            self.dir.path().join("out")
        }

        fn owned(&self) -> StateDir {
            let (state, output) = (self.state(), self.output());
            StateDir::take(Arc::new(System), StateLock::take(&state).unwrap(), &state, &output).unwrap()
        }

        fn asking(&self) -> Requesting {
            Requesting::open(&self.state(), &self.output()).unwrap()
        }

        fn next(&self, stage: &str) -> Option<String> {
            let next = Asked::default().next(&System, &self.state(), &self.output(), |own| own == stage);
            next.map(|request| request.id)
        }

        /// Names of files that were given, and of those that were taken over.
        fn files(&self) -> [Vec<String>; 2] {
            [GIVEN, ACCEPTED].map(|dir| {
                let paths = System.list(&staging(&self.output()).join(dir)).unwrap();
                paths.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
            })
        }

        fn give(&self, asking: &Requesting, name: &str) {
            std::fs::create_dir_all(asking.scratch()).unwrap();
            let from = asking.scratch().join(name);
            std::fs::write(&from, "1").unwrap();
            asking.give(&from, name).unwrap();
        }
    }

    #[test]
    fn requests_come_one_after_the_other_until_they_are_done() {
        let roots = Roots::new();
        assert_eq!(roots.next("files"), None, "nobody has ever asked");
        let asking = roots.asking();
        assert!(matches!(Requesting::open(&roots.state(), &roots.output()), Err(RequestError::Busy { .. })));
        for (id, stage) in [("1", "files"), ("2", "other"), ("3", "files")] {
            asking.ask(&request(id, stage, &[])).unwrap();
        }
        assert_eq!((roots.next("files"), roots.next("other")), (Some("1".into()), Some("2".into())));
        assert_eq!(roots.next("files").as_deref(), Some("1"), "it is not done");
        done(&System, &roots.state(), &roots.output(), &request("1", "files", &[])).unwrap();
        assert_eq!(roots.next("files").as_deref(), Some("3"));
        assert!(!asking.is_pending("1") && asking.is_pending("3"));
        asking.withdraw("3").unwrap();
        assert_eq!(roots.next("files"), None);
    }

    #[test]
    fn what_is_damaged_or_in_the_way_or_has_lost_its_files_is_refused_and_holds_up_nobody() {
        let roots = Roots::new();
        let asking = roots.asking();
        asking.ask(&request("1", "files", &["gone"])).unwrap();
        asking.ask(&request("2", "files", &["../x"])).unwrap();
        std::fs::write(path_of(&roots.state(), "0"), "{").unwrap();
        // Nobody can read that.
        std::fs::create_dir(path_of(&roots.state(), "00")).unwrap();
        asking.ask(&request("3", "files", &[])).unwrap();
        assert_eq!(roots.next("files").as_deref(), Some("3"));
        assert!(["0", "1", "2"].iter().all(|id| !asking.is_pending(id)));
        std::fs::create_dir_all(roots.output().join("a/rev=1")).unwrap();
        assert_eq!(roots.next("files"), None);
        assert!(!asking.is_pending("3"));
    }

    #[test]
    fn files_that_were_taken_over_stay_whatever_those_who_ask_do() {
        let roots = Roots::new();
        let asking = roots.asking();
        roots.give(&asking, "x");
        asking.ask(&request("1", "files", &["x"])).unwrap();
        drop(asking);
        let asking = roots.asking();
        assert!(!asking.scratch().exists());
        assert_eq!(roots.files(), [vec!["x".to_owned()], vec![]], "a request waits for it");
        assert_eq!(roots.next("files").as_deref(), Some("1"));
        asking.withdraw("1").unwrap();
        drop(asking);
        drop(roots.asking());
        assert_eq!(roots.files(), [vec![], vec!["x".to_owned()]], "its barrier may be on its way");
        let clear = |stages: [&str; 1], staged: &[&str]| {
            let staged = staged.iter().map(|name| (*name).to_owned()).collect();
            clear(&roots.owned(), &stages.into(), &staged).unwrap();
        };
        clear(["files"], &["x"]);
        assert_eq!(roots.files()[1], ["x"], "its cut was committed, and it is to be published");
        // A process that starts knows that there is none.
        clear(["files"], &[]);
        assert_eq!(roots.files(), [const { Vec::<String>::new() }; 2]);
    }

    #[test]
    fn what_was_given_and_nobody_asked_for_goes_and_so_do_requests_for_stages_that_are_gone() {
        let roots = Roots::new();
        let asking = roots.asking();
        roots.give(&asking, "x");
        drop(asking);
        drop(roots.asking());
        assert_eq!(roots.files(), [const { Vec::<String>::new() }; 2]);
        let asking = roots.asking();
        roots.give(&asking, "y");
        asking.ask(&request("1", "files", &["y"])).unwrap();
        assert_eq!(roots.next("files").as_deref(), Some("1"));
        clear(&roots.owned(), &BTreeSet::from(["files"]), &BTreeSet::new()).unwrap();
        assert_eq!(roots.files()[1], ["y"], "it will be asked for once more");
        clear(&roots.owned(), &BTreeSet::from(["others"]), &BTreeSet::new()).unwrap();
        assert!(!asking.is_pending("1") && roots.files()[1].is_empty());
    }

    #[test]
    fn nobody_asks_where_there_is_no_state_or_another_output() {
        let (roots, others) = (Roots::new(), Roots::new());
        let open = |state: &Path, output: &Path| Requesting::open(state, output).err();
        assert!(matches!(open(&others.dir.path().join("no"), &others.output()), Some(RequestError::NoState { .. })));
        assert!(matches!(open(&roots.state(), &others.output()), Some(RequestError::OtherOutput { .. })));
    }
}
