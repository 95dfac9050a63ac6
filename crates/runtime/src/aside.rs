//! Setting state and output aside, for a run that starts over.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::RunError;
use crate::state_dir::{StateLock, belongs};

/// Sets the output root, when it belongs to the state directory, and then the state directory aside under names that end in
/// `.aside-<n>`: both, or nothing. Returns what was moved, from and to.
///
/// The output goes first: without it the state is whole and can be set aside once more, but an output whose state is gone is
/// refused by every later run.
///
/// # Errors
/// When a process owns the state, or something can't be moved.
pub fn set_aside(root: &Path, output: &Path) -> Result<Vec<(PathBuf, PathBuf)>, RunError> {
    if !root.exists() {
        return Ok(Vec::new());
    }
    let _lock = StateLock::take(root)?;
    let (root, output) = (plain(root), plain(output));
    let ours = belongs(&output, &root)?;
    // State that lies in the output root goes with it.
    let parts = match ours {
        true if lies_in(&root, &output)? => vec![&output],
        true => vec![&output, &root],
        false => vec![&root],
    };
    let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
    for from in parts {
        match move_aside(from) {
            Ok(to) => moved.push((from.clone(), to)),
            Err(source) => return Err(RunError::Aside { path: from.clone(), left: undo(&moved), source }),
        }
    }
    Ok(moved)
}

/// A path without slashes at its end or dots in between, so that a name can be put behind it.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

fn lies_in(inner: &Path, outer: &Path) -> Result<bool, RunError> {
    let real = |path: &Path| std::fs::canonicalize(path).map_err(RunError::io("resolve", path));
    Ok(real(inner)?.starts_with(real(outer)?))
}

fn move_aside(from: &Path) -> io::Result<PathBuf> {
    let name = from.file_name().ok_or_else(|| io::Error::other("it has no name of its own to be changed"))?;
    if std::env::current_dir()?.starts_with(std::fs::canonicalize(from)?) {
        // It can be renamed, but relative paths would follow it.
        return Err(io::Error::other("the working directory lies in it"));
    }
    let aside = |n: u32| {
        let mut name = name.to_owned();
        name.push(format!(".aside-{n}"));
        from.with_file_name(name)
    };
    let to = (1..).map(aside).find(|to| !to.exists()).expect("some number is free");
    std::fs::rename(from, &to).map(|()| to)
}

/// Moves back what was moved; says what is where then, and what to do.
fn undo(moved: &[(PathBuf, PathBuf)]) -> String {
    let lost: Vec<String> = (moved.iter().rev())
        .filter_map(|(from, to)| {
            let error = std::fs::rename(to, from).err()?;
            Some(format!("{} is now {} and can't be moved back: {error}", from.display(), to.display()))
        })
        .collect();
    let cause =
        "it can't be a mount point or hold the working directory, and the directory that it is in must be writable";
    match lost.is_empty() {
        true => format!(
            "state and output are where they were. Mend the cause ({cause}), or give this run its own `state.root` and `output.root`"
        ),
        false => {
            format!("{}. Move it back by hand, or mend the cause ({cause}) and say --fresh again", lost.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_dir::StateDir;

    fn take(root: &Path, output: &Path) -> Result<StateDir, RunError> {
        StateDir::take(std::sync::Arc::new(crate::host::System), StateLock::take(root)?, root, output)
    }

    #[test]
    fn setting_aside_moves_the_state_and_only_its_own_output() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, output) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("out"));
        drop(take(&a, &output).unwrap());
        drop(take(&b, &dir.path().join("other")).unwrap());
        assert_eq!(set_aside(&b, &output).unwrap().len(), 1);
        assert!(output.exists());
        assert_eq!(set_aside(&a, &output).unwrap().len(), 2);
        assert!(!output.exists());
    }

    #[test]
    fn paths_may_end_in_slashes_and_dots() {
        let dir = tempfile::tempdir().unwrap();
        let (state, output) = (dir.path().join("state/"), dir.path().join("out/./"));
        drop(take(&state, &output).unwrap());
        set_aside(&state, &output).unwrap();
        let there = |name: &str| dir.path().join(name).exists();
        assert!(there("out.aside-1") && there("state.aside-1") && !there("out") && !there("state"));
    }

    #[test]
    fn when_one_of_both_can_not_be_moved_both_stay() {
        // With `.aside-1` this name is longer than a name can be.
        let long = "x".repeat(250);
        for (state, output) in [("state", &*long), (&*long, "out")] {
            let dir = tempfile::tempdir().unwrap();
            let (state, output) = (dir.path().join(state), dir.path().join(output));
            drop(take(&state, &output).unwrap());
            let error = set_aside(&state, &output).unwrap_err();
            assert!(matches!(&error, RunError::Aside { path, .. } if path.ends_with(&long)), "{error}");
            assert!(error.to_string().contains("are where they were"), "{error}");
            take(&state, &output).expect("they belong together as before");
        }
    }

    #[test]
    fn state_in_the_output_root_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        let state = output.join("state");
        drop(take(&state, &output).unwrap());
        assert_eq!(set_aside(&state, &output).unwrap().len(), 1);
        assert!(!output.exists() && dir.path().join("out.aside-1/state/identity").exists());
    }

    #[test]
    fn what_holds_the_working_directory_is_not_moved_from_under_it() {
        let error = move_aside(&std::env::current_dir().unwrap()).unwrap_err();
        assert!(error.to_string().contains("working directory"), "{error}");
        assert!(move_aside(Path::new("..")).is_err() && move_aside(Path::new(".")).is_err());
    }
}
