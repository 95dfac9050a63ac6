//! The option `paths`: which files there are.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use glob::{MatchOptions, Pattern};
use tidemill_core::{Cure, SourceError};

use super::identity::FileId;
use crate::ingest::broken;

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// A file that matches.
pub(super) struct Found {
    /// The folder before the first wildcard of its pattern.
    pub(super) base: Arc<Path>,
    /// As it is matched: relative to the topology's folder if the pattern is.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) id: FileId,
    pub(super) len: u64,
    /// When it was changed last, where the file system says.
    pub(super) modified: Option<SystemTime>,
}

/// Paths and globs, relative to a folder.
pub(super) struct Patterns {
    base: PathBuf,
    texts: Vec<String>,
}

/// What is wrong with one path or glob.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("an empty path names no file".to_owned());
    }
    Pattern::new(text).map(drop).map_err(|error| format!("`{text}` is not a glob: {error}"))
}

impl Patterns {
    pub(super) fn new(base: &Path, texts: Vec<String>) -> Self {
        Self { base: base.to_owned(), texts }
    }

    fn covers(text: &str, name: &Path) -> bool {
        // Components, so that `./a` and `a` are the same.
        let plain: PathBuf = Path::new(text).components().skip_while(|part| part.as_os_str() == ".").collect();
        let glob = plain.to_str().and_then(|text| Pattern::new(text).ok());
        plain == name || glob.is_some_and(|glob| glob.matches_path_with(name, OPTIONS))
    }

    /// Each pattern, with the folder before its first wildcard.
    pub(super) fn bases(&self) -> impl Iterator<Item = (&str, Arc<Path>)> {
        self.texts.iter().map(|text| (text.as_str(), self.base_of(text)))
    }

    /// The folder before the first wildcard of the pattern that covers a name.
    pub(super) fn base_for(&self, name: &str) -> Option<Arc<Path>> {
        self.texts.iter().find(|text| Self::covers(text, Path::new(name))).map(|text| self.base_of(text))
    }

    fn base_of(&self, text: &str) -> Arc<Path> {
        let is_plain =
            |part: &Component<'_>| !part.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte));
        let path = Path::new(text);
        let plain: PathBuf = path.parent().into_iter().flat_map(Path::components).take_while(is_plain).collect();
        self.base.join(plain).into()
    }

    /// Every file that matches now, in order of name. With `all`, a pattern that matches nothing is an error.
    pub(super) fn expand(&self, all: bool) -> Result<Vec<Found>, SourceError> {
        let mut found = BTreeMap::new();
        for text in &self.texts {
            let mut matched = true;
            let literal = self.base.join(text);
            match fs::metadata(&literal) {
                Ok(metadata) if !metadata.is_file() => {
                    let message =
                        format!("`{}` is no file; for the files of a folder write \"{text}/*\"", literal.display());
                    return Err(broken(message, None));
                }
                Ok(metadata) => self.add(&mut found, &self.base_of(text), literal, &metadata),
                // Not there under this very name: it may be a glob.
                Err(error) if error.kind() == ErrorKind::NotFound => matched = self.expand_glob(text, &mut found)?,
                Err(error) => return Err(self.unreadable(&literal, error)),
            }
            if all && !matched {
                let base = if self.base.as_os_str().is_empty() { Path::new(".") } else { &self.base };
                let message =
                    format!("no file matches `{text}` in {}; put the files there or correct `paths`", base.display());
                return Err(SourceError { message, cure: Cure::GiveUp, source: None });
            }
        }
        Ok(found.into_values().collect())
    }

    /// Adds what matches; returns whether anything did.
    fn expand_glob(&self, text: &str, found: &mut BTreeMap<PathBuf, Found>) -> Result<bool, SourceError> {
        let pattern = match (Path::new(text).is_absolute(), self.base.to_str()) {
            (true, _) => text.to_owned(),
            (false, Some("")) => text.to_owned(),
            (false, Some(base)) => format!("{}/{text}", Pattern::escape(base)),
            (false, None) => {
                let message = format!("the folder {} is not UTF-8; write absolute paths", self.base.display());
                return Err(broken(message, None));
            }
        };
        let paths = glob::glob_with(&pattern, OPTIONS)
            .map_err(|error| broken(format!("`{text}` is not a glob"), Some(error.into())))?;
        let (mut matched, base) = (false, self.base_of(text));
        for path in paths {
            let path = path.map_err(|error| {
                let path = error.path().to_owned();
                self.unreadable(&path, error.into())
            })?;
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => {
                    matched = true;
                    self.add(found, &base, path, &metadata);
                }
                Ok(_) => {}
                // It went away just now, or is a link to nothing.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(self.unreadable(&path, error)),
            }
        }
        Ok(matched)
    }

    fn add(&self, found: &mut BTreeMap<PathBuf, Found>, base: &Arc<Path>, path: PathBuf, metadata: &Metadata) {
        let name = path.strip_prefix(&self.base).unwrap_or(&path);
        let name: PathBuf = name.components().skip_while(|part| part.as_os_str() == ".").collect();
        let name = name.to_string_lossy().into_owned();
        let (base, id, len) = (base.clone(), FileId::of(metadata), metadata.len());
        let modified = metadata.modified().ok();
        found.entry(path.clone()).or_insert(Found { base, name, path, id, len, modified });
    }

    fn unreadable(&self, path: &Path, error: std::io::Error) -> SourceError {
        let message =
            format!("can't look at `{}`: {error}; make it readable or take it out of `paths`", path.display());
        SourceError { message, cure: Cure::Reopen, source: Some(error.into()) }
    }
}
