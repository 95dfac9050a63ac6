//! The effects of committed records: Logs become files for readers, Logs that are not needed go. All of it can be
//! redone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tidemill_core::Publication;

use crate::error::RunError;
use crate::failpoint;
use crate::host::Host;
use crate::published::{note, noted};
use crate::state_dir::StateDir;
use crate::sync::{Written, sync_all};

/// Logs that become files for readers: where each lies, with what becomes of it; and how far that has come.
///
/// A rename moves each to its place. It replaces nothing, unless it is to: what is there already is somebody else's,
/// and is refused. A Log that is gone was published before. Readers may have taken the file since then, and its directory.
pub(crate) struct Publishing {
    staged: Vec<(PathBuf, Publication)>,
    is_noted: bool,
    moved: usize,
    /// Directories to be synced. As bytes: paths compare slowly.
    touched: BTreeSet<OsString>,
}

impl Publishing {
    pub(crate) fn of(staged: Vec<(PathBuf, Publication)>) -> Self {
        Self { staged, is_noted: false, moved: 0, touched: BTreeSet::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.staged.is_empty()
    }

    /// Publishes them. After an error it may be called again, and goes on where it was.
    pub(crate) fn go_on(&mut self, state: &StateDir) -> Result<(), RunError> {
        self.go_on_below(&*state.host, &state.output, &state.publishing)
    }

    /// Refuses a Log that is gone although nothing says that it was ever published: no index has its path, so no rename
    /// was tried.
    fn refuse_lost(&self, host: &dyn Host, output: &Path) -> Result<(), RunError> {
        let is_gone = |(from, publication): &&(PathBuf, Publication)| {
            !host.exists(from) && !host.exists(&output.join(&publication.path))
        };
        let gone: Vec<_> = self.staged.iter().filter(is_gone).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let noted = noted(host, output)?;
        match gone.into_iter().find(|(_, publication)| !noted.contains(&publication.path)) {
            Some((from, publication)) => {
                let what = format!("{} is neither staged nor published", publication.path);
                Err(RunError::Corrupt { what, path: from.clone() })
            }
            None => Ok(()),
        }
    }

    fn go_on_below(&mut self, host: &dyn Host, output: &Path, publishing: &Mutex<()>) -> Result<(), RunError> {
        if !self.is_noted {
            for (_, publication) in &self.staged {
                checked(publication)?;
            }
            self.refuse_lost(host, output)?;
            // The index has lines of all regions; files are of one.
            let _noting = publishing.lock().expect("no code panics while it publishes");
            note(host, output, self.staged.iter().map(|(_, publication)| publication.path.as_str()))?;
            self.is_noted = true;
        }
        failpoint::hit("index-synced");
        while let Some((from, publication)) = self.staged.get(self.moved) {
            let to = output.join(checked(publication)?);
            let dir = to.parent().unwrap_or(output);
            if !self.touched.contains(dir.as_os_str()) {
                make_dirs(host, output, dir)?;
            }
            // Those above, too: who made them may have died before they were synced.
            for above in dir.ancestors().take_while(|above| above.starts_with(output)) {
                if !self.touched.insert(above.into()) {
                    break;
                }
            }
            self.touched.extend(from.parent().map(OsString::from));
            move_to(host, output, from, to, publication)?;
            self.moved += 1;
            failpoint::hit("file-published");
        }
        let touched: Vec<Written> = self.touched.iter().map(|dir| Written::that_may_be_gone(dir.into())).collect();
        sync_all(host, &touched)?;
        failpoint::hit("directories-synced");
        Ok(())
    }
}

/// Tries when a reader takes a directory away while a file is on its way there.
const MOVES_MAX: usize = 10;

fn move_to(
    host: &dyn Host,
    output: &Path,
    from: &Path,
    to: PathBuf,
    publication: &Publication,
) -> Result<(), RunError> {
    for _ in 0..MOVES_MAX {
        match host.rename(from, &to, publication.replaces) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound && !host.exists(from) => {
                // Whether its directories were synced when it was published is not known.
                if !host.exists(&to) {
                    let path = to.display();
                    tracing::warn!(%path, "it was published before, and somebody has taken it; `verify` names it");
                }
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_dirs(host, output, to.parent().unwrap_or(output))?
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let what = format!("another file stands where {} is to be published", from.display());
                return Err(RunError::Corrupt { what, path: to });
            }
            Err(error) => return Err(RunError::io("publish", to)(error)),
        }
    }
    Err(RunError::io("publish", to)(ErrorKind::NotFound.into()))
}

/// Removes files; one that is gone already is fine.
pub(crate) fn remove(host: &dyn Host, paths: impl Iterator<Item = PathBuf>) -> Result<(), RunError> {
    for path in paths {
        match host.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(RunError::io("remove", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes a directory below `root`.
fn make_dirs(host: &dyn Host, root: &Path, dir: &Path) -> Result<(), RunError> {
    match host.create_dir(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && dir != root => {
            make_dirs(host, root, dir.parent().unwrap_or(root))?;
            make_dirs(host, root, dir)
        }
        Err(error) => Err(RunError::io("create", dir)(error)),
    }
}

/// A publication's path, which must stay below the root and fit into a line of the index.
fn checked(publication: &Publication) -> Result<&Path, RunError> {
    let bad = publication.path.split('/').any(|part| matches!(part, "" | "." | "..") || part.contains(['\0', '\n']));
    if bad {
        return Err(RunError::Internal(format!("a sink wants to publish at `{}`", publication.path)));
    }
    Ok(Path::new(&publication.path))
}

#[cfg(test)]
mod tests {
    use tidemill_core::{Home, LogName};

    use super::*;
    use crate::host::System;
    use crate::published::{empty, index_path, published};

    fn publication(path: &str) -> Publication {
        Publication { log: LogName { home: Home::Output, name: "x".into() }, path: path.into(), replaces: false }
    }

    fn publish(dir: &Path, from: &Path, publication: &Publication) -> Result<(), RunError> {
        let mut publishing = Publishing::of(vec![(from.to_owned(), publication.clone())]);
        publishing.go_on_below(&System, dir, &Mutex::default())
    }

    fn output() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(index_path(dir.path()), empty()).unwrap();
        dir
    }

    #[test]
    fn publishing_twice_is_the_same_as_once_and_replaces_nothing() {
        let dir = output();
        let from = dir.path().join("x.staged");
        let publication = publication("a/b/x.avro");
        std::fs::write(&from, "1").unwrap();
        publish(dir.path(), &from, &publication).unwrap();
        publish(dir.path(), &from, &publication).unwrap();
        assert_eq!(std::fs::read(dir.path().join("a/b/x.avro")).unwrap(), b"1");
        std::fs::write(&from, "2").unwrap();
        assert!(matches!(publish(dir.path(), &from, &publication), Err(RunError::Corrupt { .. })));
        assert_eq!(std::fs::read(dir.path().join("a/b/x.avro")).unwrap(), b"1");
    }

    #[test]
    fn readers_may_take_what_they_are_given_while_the_rest_comes() {
        let dir = output();
        let [one, two] = ["1", "2"].map(|name| {
            let from = dir.path().join(format!("{name}.staged"));
            std::fs::write(&from, name).unwrap();
            (from, publication(&format!("a/b/{name}.avro")))
        });
        // The second was not there yet when the first was published, and taken with its folder.
        publish(dir.path(), &one.0, &one.1).unwrap();
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        let mut both = Publishing::of(vec![one.clone(), two]);
        both.go_on_below(&System, dir.path(), &Mutex::default()).unwrap();
        assert!(!dir.path().join("a/b/1.avro").exists());
        assert_eq!(std::fs::read(dir.path().join("a/b/2.avro")).unwrap(), b"2");
        // All of it is taken before its directories are synced.
        both.touched.insert(dir.path().join("a/gone").into());
        both.go_on_below(&System, dir.path(), &Mutex::default()).unwrap();
        let never = publish(dir.path(), &dir.path().join("3.staged"), &publication("a/b/3.avro"));
        assert!(matches!(never, Err(RunError::Corrupt { .. })), "nobody has ever published it");
    }

    #[test]
    fn what_is_to_be_replaced_is_replaced_once() {
        let dir = output();
        let from = dir.path().join("x.staged");
        let publication = Publication { replaces: true, ..publication("a/latest") };
        for text in ["1", "2"] {
            std::fs::write(&from, text).unwrap();
            publish(dir.path(), &from, &publication).unwrap();
            publish(dir.path(), &from, &publication).unwrap();
            assert_eq!(std::fs::read_to_string(dir.path().join("a/latest")).unwrap(), text);
        }
    }

    #[test]
    fn nothing_is_published_outside_the_root_or_on_two_lines_of_the_index() {
        let dir = output();
        let from = dir.path().join("x.staged");
        for path in ["../x", "a/../../x", "/x", "a//x", "", "a\nb"] {
            std::fs::write(&from, "1").unwrap();
            assert!(publish(dir.path(), &from, &publication(path)).is_err(), "{path}");
        }
        assert!(published(dir.path()).unwrap().unwrap().paths.unwrap().is_empty(), "nothing is noted either");
    }
}
