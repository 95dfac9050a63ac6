//! Folders of files, by which a file that can't be found is told from one whose file system is not there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// What makes a folder the same folder: inode number and time of birth, in nanoseconds since 1970 where the file
/// system keeps it. Not the number of the device, which a restart of the machine may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FolderId {
    ino: u64,
    born_ns: u64,
}

/// The folders of a file when it was last seen: the one before the first wildcard of its pattern, and its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Folders {
    base: Option<FolderId>,
    parent: Option<FolderId>,
}

/// Folders as they are now; each is looked at once.
#[derive(Default)]
pub(super) struct FoldersNow(BTreeMap<PathBuf, Option<FolderId>>);

impl FoldersNow {
    /// `None` when there is none.
    pub(super) fn id(&mut self, folder: &Path) -> Option<FolderId> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        *self.0.entry(folder.to_owned()).or_insert_with(|| {
            let metadata = fs::metadata(folder).ok().filter(fs::Metadata::is_dir)?;
            let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
            Some(FolderId { ino: metadata.ino(), born_ns: born.map_or(0, |born| born.as_nanos() as u64) })
        })
    }

    /// Those of the file at `path`.
    pub(super) fn of(&mut self, base: &Path, path: &Path) -> Folders {
        Folders { base: self.id(base), parent: path.parent().and_then(|parent| self.id(parent)) }
    }

    /// Whether the folders of a file that can't be found are not the ones that it was seen in. A folder below the base
    /// may be gone for good, with its files; the base, or another folder in the place of one, is a file system that is
    /// not there.
    pub(super) fn differ(&mut self, known: Folders, base: &Path, path: &Path) -> bool {
        let now = self.of(base, path);
        let is_other = |known: Option<FolderId>, now: Option<FolderId>| known.zip(now).is_some_and(|(a, b)| a != b);
        now.base.is_none() || is_other(known.base, now.base) || is_other(known.parent, now.parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_that_is_missing_or_another_one_differs_and_a_folder_below_it_that_is_gone_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (base, day) = (dir.path().join("base"), dir.path().join("base/day"));
        fs::create_dir_all(&day).unwrap();
        let file = day.join("file");
        let known = FoldersNow::default().of(&base, &file);
        let differ = || FoldersNow::default().differ(known, &base, &file);
        assert!(!differ());
        fs::rename(&day, dir.path().join("aside")).unwrap();
        assert!(!differ());
        fs::create_dir(&day).unwrap();
        assert!(differ(), "another folder is there");
        fs::remove_dir(&day).unwrap();
        fs::rename(dir.path().join("aside"), &day).unwrap();
        assert!(!differ());
        fs::rename(&base, dir.path().join("away")).unwrap();
        assert!(differ());
        fs::create_dir(&base).unwrap();
        assert!(differ());
    }
}
