//! What the runtime asks of the machine that it runs on: files, the wall clock, random numbers, and threads.
//!
//! Everything that decides whether an event is lost goes through here, so that a simulation can take the machine's place: one whose power fails between
//! any two writes. The lock of the state directory does not, because it is about processes.

mod system;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use system::System;

/// See the module. Calls block.
pub trait Host: Send + Sync + Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// As the system says.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn HostFile>>;

    /// What a file holds.
    ///
    /// # Errors
    /// As the system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Paths of what a directory holds, in any order.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Whether there is a file or directory.
    fn exists(&self, path: &Path) -> bool;

    /// Makes a directory.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, file: &Path) -> io::Result<()>;

    /// Gives a file another name in the same file system, in one step.
    ///
    /// # Errors
    /// As the system says; `AlreadyExists` when there is a file of that name and it is not to be replaced.
    fn rename(&self, from: &Path, to: &Path, replaces: bool) -> io::Result<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    /// As the system says.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes a file's bytes durable, or a directory's entries.
    ///
    /// # Errors
    /// As the system says. What was written may be lost then, and a second call that succeeds says nothing about it.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Makes everything durable in the file system that holds a path.
    ///
    /// # Errors
    /// As [`Host::sync`].
    fn sync_file_system(&self, path: &Path) -> io::Result<()>;

    /// A number for the file system that holds a path.
    ///
    /// # Errors
    /// As the system says.
    fn file_system(&self, path: &Path) -> io::Result<u64>;

    /// Bytes that wait to be written to the disks of the machine, of all processes, where it is known.
    fn dirty_bytes(&self) -> Option<u64> {
        None
    }

    /// How many files the process may have open.
    fn files_max(&self) -> u64 {
        u64::MAX
    }

    /// Wall clock, milliseconds since 1970.
    fn now_ms(&self) -> i64;

    /// For how long the machine has been suspended since it was started. Time goes on by the wall clock then, and by
    /// no other.
    fn suspended(&self) -> Duration {
        Duration::ZERO
    }

    /// A random number.
    ///
    /// # Errors
    /// When the system has none.
    fn random(&self) -> io::Result<u64>;

    /// Whether actors get threads of their own. Without, everything runs on the thread that starts a topology, and nobody watches for calls that
    /// hang.
    fn has_threads(&self) -> bool;
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// To be read; it must be there.
    Read,
    /// To be read and written; it must be there.
    Write,
    /// To be written; it is made if it is not there.
    Grow,
    /// To be written; it is made, or emptied if it is there.
    Create,
    /// The same; nobody but its owner may read it.
    CreatePrivate,
}

/// An open file. Nothing of it is kept in the process.
#[allow(clippy::len_without_is_empty)] // the length is asked for, never whether it is zero
pub trait HostFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// As the system says.
    fn len(&self) -> io::Result<u64>;

    /// Reads from an offset on; fewer bytes than asked for only at the end.
    ///
    /// # Errors
    /// As the system says.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `bytes` from an offset on.
    ///
    /// # Errors
    /// As the system says; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(bytes, offset)? == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Writes all the bytes at an offset. After an error a part of them may be there.
    ///
    /// # Errors
    /// As the system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts it off, or fills it up with zeros.
    ///
    /// # Errors
    /// As the system says.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes its bytes durable, not its name.
    ///
    /// # Errors
    /// As [`Host::sync`].
    fn sync(&self) -> io::Result<()>;
}
