//! What is there: directories of revisions, and all that should not be.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::report::{Fault, FaultCode};
use crate::sink::latest::LATEST_NAME;

/// A directory `.../rev=N`.
pub(super) struct RevisionDirectory {
    /// Below the root, with `/`.
    pub(super) path: String,
    pub(super) files: BTreeSet<String>,
}

#[derive(Default)]
pub(super) struct Found {
    pub(super) directories: Vec<RevisionDirectory>,
    /// Directories of hours that have a pointer to their latest revision.
    pub(super) latest: Vec<String>,
    /// Paths of all files.
    pub(super) files: BTreeSet<String>,
    pub(super) faults: Vec<Fault>,
}

/// Whether a directory's name is that of a revision.
pub(in crate::sink) fn is_revision(name: &str) -> bool {
    name.strip_prefix("rev=").is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Lists all below `root`; an error is about the root itself.
pub(super) fn walk(root: &Path) -> Result<Found, (PathBuf, io::Error)> {
    let mut found = Found::default();
    // Directories that are yet to be listed: path below the root.
    let mut open = vec![String::new()];
    while let Some(path) = open.pop() {
        let directory = if path.is_empty() { root.to_owned() } else { root.join(&path) };
        let (mut names, sub) = match list(&directory, path.is_empty()) {
            Ok(listed) => listed,
            Err(error) if path.is_empty() => return Err((directory, error)),
            Err(error) => {
                found.faults.push(Fault::new(FaultCode::Unreadable, &path, None, format!("can't list it: {error}")));
                continue;
            }
        };
        let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        found.files.extend(names.iter().map(|name| join(name)));
        if is_revision(path.rsplit('/').next().unwrap_or_default()) {
            for name in sub {
                let message = "a directory among the files of an hour".to_owned();
                found.faults.push(Fault::new(FaultCode::ExtraFile, &path, None, message).file(&name));
            }
            found.directories.push(RevisionDirectory { path, files: names });
            continue;
        }
        let is_hour = sub.iter().any(|name| is_revision(name));
        if is_hour && names.remove(LATEST_NAME) {
            found.latest.push(path.clone());
        } else if sub.is_empty() && names.len() == 1 {
            // Nothing but the pointer is left.
            names.remove(LATEST_NAME);
        }
        if names.is_empty() && sub.is_empty() && !path.is_empty() {
            let message = "the directory is empty: an hour is missing".to_owned();
            found.faults.push(Fault::new(FaultCode::EmptyDirectory, &path, None, message));
        }
        for name in names {
            let message = "a file outside the directory of an hour's revision".to_owned();
            found.faults.push(Fault::new(FaultCode::ExtraFile, &path, None, message).file(&name));
        }
        open.extend(sub.iter().map(|name| join(name)));
    }
    found.directories.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Names of files (and whatever is no directory), names of directories. Hidden entries of the root are the program's own.
fn list(directory: &Path, is_root: bool) -> io::Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_root && name.starts_with('.') {
            continue;
        }
        if entry.file_type()?.is_dir() { &mut directories } else { &mut files }.insert(name);
    }
    Ok((files, directories))
}
