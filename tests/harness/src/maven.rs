//! Programs that Maven fetches, once, below `target`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{assert_exit, cache};

/// A folder that `fill` has filled from what `wanted` describes. It is filled anew when that changes.
///
/// # Panics
/// When it can't be filled.
pub(crate) fn folder(name: &str, wanted: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let folder = cache().join(name);
    let note = folder.join("wanted");
    let lock = std::fs::File::create(cache().join(format!("{name}.lock"))).expect("a lock");
    // Several test programs may begin at once.
    lock.lock().expect("a lock of a local file");
    if std::fs::read_to_string(&note).ok().as_deref() != Some(wanted) {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        fill(&folder);
        std::fs::write(&note, wanted).expect("a note of what is there");
    }
    folder
}

/// Runs a goal of Maven's dependency plugin in a folder.
///
/// # Panics
/// When Maven is not there, or fails.
#[track_caller]
pub(crate) fn dependency_plugin(goal: &str, folder: &Path, args: &[String]) {
    let goal = format!("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:{goal}");
    let fetched = Command::new("mvn").args(["-q", "-B", &goal]).args(args).current_dir(folder).output();
    assert_exit(&fetched.unwrap_or_else(|error| panic!("mvn can't be run: {error}")), 0);
}
