//! A disk in memory: what a process sees of it, and what of that is durable.
//!
//! What is written is seen at once and durable when it is synced. When the power fails, of all that was not synced some is kept and some is not: writes to
//! a file in any part and order, entries of a directory up to any one of them. As on journaling file systems, renaming is one step, and a file that was moved is
//! where it was moved to. A sync that fails leaves what was written visible, but it will never be written: a second sync that succeeds says nothing about it, as on
//! Linux.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::dice::Dice;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    files: BTreeMap<u64, File>,
    next_file: u64,
    seen: Names,
    durable: Names,
    /// Changes of names since the last sync of their directories, in order.
    changes: Vec<Change>,
}

type Names = BTreeMap<PathBuf, Entry>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Dir,
    File(u64),
}

#[derive(Debug, Default)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync, in order.
    writes: Vec<Write>,
}

#[derive(Debug)]
enum Write {
    Bytes(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug)]
enum Change {
    Made(PathBuf, Entry),
    Removed(PathBuf),
    Renamed(PathBuf, PathBuf, Entry),
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

impl Change {
    fn dirs(&self) -> [&Path; 2] {
        match self {
            Self::Made(path, _) | Self::Removed(path) => [dir_of(path), dir_of(path)],
            Self::Renamed(from, to, _) => [dir_of(from), dir_of(to)],
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        self.dirs().contains(&dir)
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Made(path, entry) => drop(names.insert(path.clone(), *entry)),
            Self::Removed(path) => drop(names.remove(path)),
            Self::Renamed(from, to, entry) => {
                names.remove(from);
                names.insert(to.clone(), *entry);
            }
        }
    }
}

impl Write {
    fn apply(&self, bytes: &mut Vec<u8>, part: usize) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Bytes(offset, written) => {
                let (start, written) = (*offset as usize, &written[..part.min(written.len())]);
                if bytes.len() < start + written.len() {
                    bytes.resize(start + written.len(), 0);
                }
                bytes[start..start + written.len()].copy_from_slice(written);
            }
        }
    }
}

impl File {
    fn write(&mut self, write: Write) {
        write.apply(&mut self.seen, usize::MAX);
        self.writes.push(write);
    }

    fn sync(&mut self) {
        for write in self.writes.drain(..) {
            write.apply(&mut self.durable, usize::MAX);
        }
    }

    /// Some of what was written becomes durable, the rest never.
    fn lose(&mut self, dice: &mut Dice) {
        let in_order = dice.one_in(2);
        let kept = dice.below(self.writes.len() as u64 + 1) as usize;
        for (at, write) in std::mem::take(&mut self.writes).iter().enumerate() {
            let is_kept = if in_order { at < kept } else { dice.one_in(2) };
            let part = match write {
                Write::Bytes(_, bytes) if at == kept || !is_kept => dice.below(bytes.len() as u64 + 1) as usize,
                _ => usize::MAX,
            };
            if is_kept || (in_order && at == kept && matches!(write, Write::Bytes(..))) {
                write.apply(&mut self.durable, part);
            }
        }
    }
}

fn not_found() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Disk {
    pub(crate) fn exists(&self, path: &Path) -> bool {
        path == Path::new("/") || self.seen.contains_key(path)
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.seen.get(path) {
            Some(Entry::File(file)) => Ok(*file),
            Some(Entry::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(not_found()),
        }
    }

    fn entered(&self, path: &Path) -> io::Result<()> {
        let dir = dir_of(path);
        if self.exists(dir) { Ok(()) } else { Err(not_found()) }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.changes.push(change);
    }

    pub(crate) fn open(&mut self, path: &Path, makes: bool, empties: bool) -> io::Result<u64> {
        match self.file(path) {
            Ok(file) => {
                if empties {
                    self.set_len(file, 0);
                }
                Ok(file)
            }
            Err(error) if makes && error.kind() == ErrorKind::NotFound => {
                self.entered(path)?;
                self.next_file += 1;
                let file = self.next_file;
                self.files.insert(file, File::default());
                self.change(Change::Made(path.to_owned(), Entry::File(file)));
                Ok(file)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn bytes(&self, file: u64) -> &[u8] {
        &self.files[&file].seen
    }

    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.bytes(self.file(path)?).to_vec())
    }

    pub(crate) fn write(&mut self, file: u64, bytes: &[u8], offset: u64) {
        self.files.get_mut(&file).expect("it is open").write(Write::Bytes(offset, bytes.to_vec()));
    }

    pub(crate) fn set_len(&mut self, file: u64, length: u64) {
        self.files.get_mut(&file).expect("it is open").write(Write::Length(length));
    }

    pub(crate) fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        if !self.exists(dir) {
            return Err(not_found());
        }
        let below = self.seen.range(dir.to_owned()..).take_while(|(path, _)| path.starts_with(dir));
        Ok(below.map(|(path, _)| path).filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    /// Paths of all files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.seen.iter().filter(|(_, entry)| matches!(entry, Entry::File(_))).map(|(path, _)| path)
    }

    pub(crate) fn create_dir(&mut self, dir: &Path) -> io::Result<()> {
        if self.exists(dir) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.entered(dir)?;
        self.change(Change::Made(dir.to_owned(), Entry::Dir));
        Ok(())
    }

    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.change(Change::Removed(path.to_owned()));
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path, replaces: bool) -> io::Result<()> {
        let file = self.file(from)?;
        self.entered(to)?;
        if self.exists(to) && !replaces {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.change(Change::Renamed(from.to_owned(), to.to_owned(), Entry::File(file)));
        Ok(())
    }

    pub(crate) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.file(from)?;
        self.entered(to)?;
        if self.exists(to) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.change(Change::Made(to.to_owned(), Entry::File(file)));
        Ok(())
    }

    /// Makes a file's bytes durable, or a directory's entries.
    pub(crate) fn sync(&mut self, path: &Path) -> io::Result<()> {
        match self.seen.get(path) {
            Some(Entry::File(file)) => self.sync_file(*file),
            Some(Entry::Dir) => self.sync_dir(path),
            None if path == Path::new("/") => self.sync_dir(path),
            None => return Err(not_found()),
        }
        Ok(())
    }

    pub(crate) fn sync_file(&mut self, file: u64) {
        self.files.get_mut(&file).expect("it is open").sync();
    }

    fn sync_dir(&mut self, dir: &Path) {
        self.keep_changes(|change| change.is_in(dir));
    }

    /// What is chosen of the changes becomes durable; the others wait.
    fn keep_changes(&mut self, is_kept: impl FnMut(&Change) -> bool) {
        let changes = std::mem::take(&mut self.changes);
        let mut kept: Vec<bool> = changes.iter().map(is_kept).collect();
        // A journal has a directory before what was moved there.
        for at in (0..changes.len()).rev().filter(|at| matches!(changes[*at], Change::Renamed(..))) {
            let [_, to] = changes[at].dirs();
            for before in 0..at {
                let leads_there = matches!(&changes[before], Change::Made(dir, Entry::Dir) if to.starts_with(dir));
                kept[before] |= kept[at] && leads_there;
            }
        }
        let mut waiting: Vec<Change> = Vec::new();
        for (change, is_kept) in changes.into_iter().zip(kept) {
            if is_kept {
                // What was renamed from is not there any more, whenever it was made.
                if let Change::Renamed(from, ..) = &change {
                    waiting.retain(|other| !matches!(other, Change::Made(path, _) if path == from));
                }
                change.apply(&mut self.durable);
            } else {
                waiting.push(change);
            }
        }
        self.changes = waiting;
    }

    /// Makes everything durable.
    pub(crate) fn sync_everything(&mut self) {
        self.files.values_mut().for_each(File::sync);
        self.keep_changes(|_| true);
    }

    /// A sync of this path fails: what was written to the file may be lost, although it is seen.
    pub(crate) fn fail_to_sync(&mut self, path: &Path, dice: &mut Dice) {
        if let Ok(file) = self.file(path) {
            self.fail_to_sync_file(file, dice);
        }
    }

    pub(crate) fn fail_to_sync_file(&mut self, file: u64, dice: &mut Dice) {
        self.files.get_mut(&file).expect("it is open").lose(dice);
    }

    /// The power fails: what is seen next is what was durable, and some of the rest.
    pub(crate) fn lose_power(&mut self, dice: &mut Dice) {
        let mut kept: BTreeMap<PathBuf, u64> = BTreeMap::new();
        for dir in self.changes.iter().flat_map(Change::dirs).collect::<BTreeSet<_>>() {
            let here = self.changes.iter().filter(|change| change.is_in(dir)).count() as u64;
            kept.insert(dir.to_owned(), dice.below(here + 1));
        }
        let mut kept_here: Vec<bool> = Vec::new();
        for change in &self.changes {
            let mut is_kept = false;
            for dir in change.dirs().into_iter().collect::<BTreeSet<_>>() {
                let left = kept.get_mut(dir).expect("each has a number");
                is_kept |= *left > 0;
                *left = left.saturating_sub(1);
            }
            kept_here.push(is_kept);
        }
        let mut kept_here = kept_here.into_iter();
        self.keep_changes(|_| kept_here.next().expect("one for each"));
        self.changes.clear();
        for file in self.files.values_mut() {
            file.lose(dice);
            file.seen.clone_from(&file.durable);
        }
        let names = std::mem::take(&mut self.durable);
        let mut found = Names::new();
        for (path, entry) in names {
            let dir = dir_of(&path);
            if dir == Path::new("/") || found.get(dir) == Some(&Entry::Dir) {
                found.insert(path, entry);
            }
        }
        self.durable.clone_from(&found);
        self.seen = found;
        let named: BTreeSet<u64> = self
            .seen
            .values()
            .filter_map(|entry| if let Entry::File(file) = entry { Some(*file) } else { None })
            .collect();
        self.files.retain(|file, _| named.contains(file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (Disk, u64) {
        let mut disk = Disk::default();
        disk.create_dir(Path::new("/d")).unwrap();
        disk.sync(Path::new("/")).unwrap();
        let file = disk.open(Path::new("/d/f"), true, false).unwrap();
        disk.write(file, b"one", 0);
        (disk, file)
    }

    #[test]
    fn what_is_synced_outlives_the_power_and_nothing_else_has_to() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..200 {
            let (mut disk, file) = disk();
            disk.sync_file(file);
            disk.sync(Path::new("/d")).unwrap();
            disk.write(file, b"two", 3);
            disk.lose_power(&mut Dice::new(seed));
            outcomes.insert(disk.read(Path::new("/d/f")).unwrap());
        }
        assert!(outcomes.iter().all(|bytes| bytes.starts_with(b"one")));
        assert!(outcomes.contains(&b"one"[..]) && outcomes.contains(&b"onetwo"[..]) && outcomes.contains(&b"onet"[..]));
    }

    #[test]
    fn a_file_whose_directory_was_not_synced_may_be_gone() {
        let there = |seed| {
            let (mut disk, file) = disk();
            disk.sync_file(file);
            disk.lose_power(&mut Dice::new(seed));
            disk.exists(Path::new("/d/f"))
        };
        assert!((0..50).any(there) && !(0..50).all(there));
    }

    #[test]
    fn a_sync_that_follows_a_failed_one_says_nothing_about_what_was_written_before() {
        let kept = |seed| {
            let (mut disk, file) = disk();
            disk.sync(Path::new("/d")).unwrap();
            disk.fail_to_sync_file(file, &mut Dice::new(seed));
            assert_eq!(disk.bytes(file), b"one", "it is seen");
            disk.sync_file(file);
            disk.lose_power(&mut Dice::new(seed));
            disk.read(Path::new("/d/f")).unwrap() == b"one"
        };
        assert!((0..50).any(kept) && !(0..50).all(kept));
    }

    #[test]
    fn a_rename_is_one_step() {
        for seed in 0..50 {
            let (mut disk, file) = disk();
            disk.create_dir(Path::new("/e")).unwrap();
            disk.sync_everything();
            disk.rename(Path::new("/d/f"), Path::new("/e/f"), false).unwrap();
            disk.lose_power(&mut Dice::new(seed));
            assert!(disk.exists(Path::new("/d/f")) != disk.exists(Path::new("/e/f")));
            assert_eq!(disk.bytes(file), b"one");
        }
    }
}
