//! What makes a file the same file after a restart, a rename or a rewrite.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes at the beginning of a file that are taken as its fingerprint.
pub(super) const HEAD: usize = 1024;

/// Device and inode number: the same file under whatever name, until it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { dev: metadata.dev(), ino: metadata.ino() }
    }
}

/// Hash of the first bytes of a file, up to [`HEAD`], as long as they were when it was taken. Inode numbers are used again,
/// and a file may be rewritten in place: then these differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    len: usize,
    xxh3: u64,
}

impl Head {
    fn read(path: &Path, most: usize) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut bytes = [0; HEAD];
        let mut len = 0;
        while len < most {
            match file.read_at(&mut bytes[len..most], len as u64)? {
                0 => break,
                count => len += count,
            }
        }
        Ok(Self { len, xxh3: xxh3_64(&bytes[..len]) })
    }

    /// The head of a file as it is now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Self::read(path, HEAD)
    }

    /// Whether it was taken of an empty file, or of one that could not be read: it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it says enough to know a file by it alone.
    pub(super) fn is_full(&self) -> bool {
        self.len == HEAD
    }

    /// Whether the file at `path` begins with the same bytes. A file that can't be read is taken for the same:
    /// the failure shows when it is read on.
    pub(super) fn matches(&self, path: &Path) -> bool {
        self.is_empty() || Self::read(path, self.len).map_or(true, |now| now == *self)
    }
}
