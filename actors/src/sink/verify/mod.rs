//! Checks what lies below an output root against what its manifests say.
//!
//! Everything that the files determine is recomputed (rows, bytes, SHA-256, hash of ids, times, types, schema, names);
//! the rest is covered by the manifest's own checksum.

mod content;
mod directory;
mod latest;
mod report;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;

pub use report::{Fault, FaultCode, Report};
pub(super) use walk::is_revision;

/// How far a verification is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Directories of hours that are done.
    pub done: usize,
    /// All that there are.
    pub directories: usize,
    /// Bytes read so far.
    pub bytes: u64,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
#[error("can't list {path}")]
pub struct VerifyError {
    /// The directory.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// Verifies all hours below `root`; entries of the root itself that begin with `.` are not looked at.
///
/// `published` are the paths (below the root, with `/`) of all that was ever published, from the index of the root: with it,
/// hours that are missing as a whole, and hours that nobody published, are found too. Take it while nothing is being published.
///
/// Reads every record, on all cores: about 1 µs of one core each.
///
/// # Errors
/// When the root can't be listed. What is wrong below it is in the report.
pub fn verify(
    root: &Path,
    published: Option<&BTreeSet<String>>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report, VerifyError> {
    let found = walk::walk(root).map_err(|(path, source)| VerifyError { path, source })?;
    let state = Mutex::new(Progress { directories: found.directories.len(), ..Progress::default() });
    let checked: Vec<_> = found
        .directories
        .par_iter()
        .map(|directory| {
            let checked = directory::check(root, directory);
            // A poisoned lock only means that `progress` panicked on another thread.
            let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            state.done += 1;
            state.bytes += checked.bytes;
            progress(*state);
            checked
        })
        .collect();
    let mut report = Report::default();
    let (mut hours, mut refused) = (BTreeSet::new(), BTreeMap::<_, u64>::new());
    let mut faults = found.faults;
    let mut revisions = latest::Revisions::default();
    for (directory, checked) in found.directories.iter().zip(checked) {
        revisions.add(&directory.path, checked.revision);
        report.directories += 1;
        report.files += checked.files;
        report.rows += checked.rows;
        report.bytes += checked.bytes;
        faults.extend(checked.faults);
        // All directories of an hour say the same.
        let revision = checked.revision.map_or(0, |(number, _)| number);
        let (sink, count) = checked.refused;
        let known = refused.entry((sink, checked.hour.clone(), revision)).or_default();
        *known = count.max(*known);
        hours.insert(checked.hour);
    }
    report.refused = refused.values().sum();
    faults.extend(found.latest.iter().filter_map(|path| revisions.check(root, path)));
    report.hours = hours.len() as u64;
    if let Some(published) = published {
        compare(&found.files, published, &mut faults);
    }
    report.add(faults);
    Ok(report)
}

/// Files that the index has and the root lacks, and the other way round.
fn compare(files: &BTreeSet<String>, published: &BTreeSet<String>, faults: &mut Vec<Fault>) {
    let mut fault = |code, path: &str, message: &str| {
        let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
        faults.push(Fault::new(code, directory, None, message.to_owned()).file(file));
    };
    for path in published.difference(files) {
        fault(FaultCode::MissingFile, path, "the index says that it was published, but it is not there");
    }
    for path in files.difference(published) {
        fault(FaultCode::ExtraFile, path, "it is there, but no intact line of the index says that it was published");
    }
}
