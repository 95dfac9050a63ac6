//! Revisions of hours as they are published, without their events.

use std::path::{Path, PathBuf};

use tidemill_core::parse_time_ms;

use super::manifest::{MANIFEST_NAME, Manifest, ManifestError, finished};

/// A revision of an hour that is published: one directory.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Start of the hour, in milliseconds since 1970.
    pub start_ms: i64,
    /// When it was sealed (wall clock), in milliseconds since 1970.
    pub sealed_at_ms: i64,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// Why a directory can't be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevisionError {
    /// A file of it can't be read.
    #[error("can't read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its manifest is damaged.
    #[error("the manifest {path} is damaged: {source}")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
    },
    /// Its manifest holds a time that is none.
    #[error("the manifest {path} is damaged: {what}")]
    Time {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl Revision {
    /// Reads the manifest of a directory, and checks its checksum; its files are not looked at. `None` when the directory has no mark: readers are not
    /// meant to see it yet.
    ///
    /// # Errors
    /// See [`RevisionError`].
    pub fn read(directory: &Path) -> Result<Option<Self>, RevisionError> {
        let manifest = finished(
            directory,
            |path, source| RevisionError::Read { path, source },
            |path, source| RevisionError::Manifest { path, source },
        )?;
        let Some(manifest) = manifest else { return Ok(None) };
        match (parse_time_ms(&manifest.hour.start), parse_time_ms(&manifest.sealed_at)) {
            (Ok(start_ms), Ok(sealed_at_ms)) => Ok(Some(Self { start_ms, sealed_at_ms, manifest })),
            (Err(what), _) | (_, Err(what)) => Err(RevisionError::Time { path: directory.join(MANIFEST_NAME), what }),
        }
    }

    /// First instant behind its hour, in milliseconds since 1970.
    #[must_use]
    pub fn end_ms(&self) -> i64 {
        self.start_ms.saturating_add(self.manifest.hour.width_ms)
    }
}
