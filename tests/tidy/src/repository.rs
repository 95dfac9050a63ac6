//! The files of the repository, and the earlier forms of its list.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::known::{Excess, Known};
use crate::measure::{ParseError, measure};

/// Where the list is.
const KNOWN: &str = "tests/tidy/known.txt";

/// A checkout of the repository.
pub struct Repository {
    root: PathBuf,
}

/// Why the repository can't be looked at.
#[derive(Debug)]
pub enum RepositoryError {
    /// A file can't be read or written.
    File(PathBuf, std::io::Error),
    /// Git can't be run, or fails.
    Git(String),
    /// A Rust file can't be parsed.
    Parse(ParseError),
    /// A list has a line that is no entry.
    Known(String),
}

impl fmt::Display for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Git(error) => write!(f, "the rules apply to the files that git knows: {error}"),
            Self::Parse(error) => error.fmt(f),
            Self::Known(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for RepositoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            Self::Parse(error) => Some(error),
            Self::Git(_) | Self::Known(_) => None,
        }
    }
}

impl Repository {
    /// The repository that this crate is a part of.
    #[must_use]
    pub fn this() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Self { root: root.canonicalize().unwrap_or(root) }
    }

    /// Paths of all files that git tracks or would add, from the root. One that was removed is left out.
    ///
    /// # Errors
    /// Git can't be run, or fails.
    pub fn files(&self) -> Result<Vec<String>, RepositoryError> {
        let listed = self.git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        let mut files: Vec<String> = listed.split_terminator('\0').map(str::to_owned).collect();
        files.retain(|path| self.root.join(path).is_file());
        files.sort_unstable();
        files.dedup();
        Ok(files)
    }

    /// The text of a file; `None` where it is not UTF-8.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(&self, path: &str) -> Result<Option<String>, RepositoryError> {
        let path = self.root.join(path);
        let bytes = std::fs::read(&path).map_err(|error| RepositoryError::File(path, error))?;
        Ok(String::from_utf8(bytes).ok())
    }

    /// Everything that is larger than its rule allows.
    ///
    /// # Errors
    /// A file can't be read or parsed.
    pub fn found(&self) -> Result<Known, RepositoryError> {
        let mut found: Vec<Excess> = Vec::new();
        for path in self.files()? {
            if let Some(text) = self.read(&path)? {
                found.extend(measure(&path, &text).map_err(RepositoryError::Parse)?);
            }
        }
        Ok(Known::new(found))
    }

    /// The list as it stands in the checkout.
    ///
    /// # Errors
    /// It can't be read, or has a line that is no entry.
    pub fn known(&self) -> Result<Known, RepositoryError> {
        Known::parse(&self.read(KNOWN)?.unwrap_or_default()).map_err(RepositoryError::Known)
    }

    /// Writes the list.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_known(&self, known: &Known) -> Result<(), RepositoryError> {
        let path = self.root.join(KNOWN);
        std::fs::write(&path, known.to_string()).map_err(|error| RepositoryError::File(path, error))
    }

    /// The lists that were committed on the way to the checkout, oldest first, each with its commit. A merge counts
    /// as one step.
    /// A clone without its history has fewer.
    ///
    /// # Errors
    /// Git can't be run, or fails; a list has a line that is no entry.
    pub fn committed(&self) -> Result<Vec<(String, Known)>, RepositoryError> {
        let commits =
            self.git(&["log", "--first-parent", "--diff-filter=AM", "--reverse", "--format=%h", "--", KNOWN])?;
        let list = |commit: &str| {
            let text = self.git(&["show", &format!("{commit}:{KNOWN}")])?;
            Ok((commit.to_owned(), Known::parse(&text).map_err(RepositoryError::Known)?))
        };
        commits.lines().map(list).collect()
    }

    fn git(&self, args: &[&str]) -> Result<String, RepositoryError> {
        let mut git = Command::new("git");
        // In a hook of git they are those of another checkout.
        git.env_remove("GIT_DIR").env_remove("GIT_INDEX_FILE").env_remove("GIT_WORK_TREE");
        let output = git.arg("-C").arg(&self.root).args(args).output();
        let output = output.map_err(|error| RepositoryError::Git(format!("git can't be run: {error}")))?;
        if !output.status.success() {
            return Err(RepositoryError::Git(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
