//! Which files there are, and which of them are which partition.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use tidemill_core::{Cure, SourceError};
use tracing::{info, warn};

use super::folders::FoldersNow;
use super::identity::{FileId, Head};
use super::partition::{Partition, State, name_of};
use super::patterns::Found;
use super::source::FileSource;
use crate::ingest::now_ms;

impl FileSource {
    /// Looks at the files that match: takes up new ones, follows renamed ones, notices rewritten and missing ones.
    pub(super) fn scan(&mut self) -> Result<(), SourceError> {
        let begin_ms = now_ms();
        // A run to the end has nothing to wait for: what it can't look at now it gives up, or stops at.
        let found = self.patterns.expand(self.until_end).map_err(|error| match error.cure {
            Cure::Reopen if self.until_end => SourceError { cure: Cure::Stop, ..error },
            _ => error,
        })?;
        let known: BTreeMap<FileId, usize> = (self.partitions.iter().enumerate())
            .filter(|(_, partition)| partition.state != State::Closed)
            .map(|(index, partition)| (partition.id, index))
            .collect();
        let before = self.partitions.len();
        // One file under several names (links) is one partition; it keeps the name that it has.
        let mut files: BTreeMap<FileId, Vec<Found>> = BTreeMap::new();
        for file in found {
            files.entry(file.id).or_default().push(file);
        }
        let mut seen = HashSet::new();
        let mut new = Vec::new();
        let mut folders = FoldersNow::default();
        for (id, mut names) in files {
            let index = known.get(&id).copied();
            let own = index.and_then(|index| names.iter().position(|name| name.path == self.partitions[index].path));
            let file = names.swap_remove(own.unwrap_or(0));
            match index {
                Some(index) if self.is_still(index, &file) => {
                    seen.insert(index);
                    self.look_at(index, file, &mut folders);
                }
                _ => new.push(file),
            }
        }
        // In order of name, so that generations are numbered the same way each time.
        new.sort_by(|one, other| one.name.cmp(&other.name));
        for file in new {
            match self.copy_of(&file, &seen) {
                Some(index) => {
                    info!(source = %self.source, partition = %self.partitions[index].name, "the file is another one with the same beginning: read on");
                    self.partitions[index].id = file.id;
                    seen.insert(index);
                    self.look_at(index, file, &mut folders);
                }
                None if self.finished(&file) => {}
                None if self.end_of(&name_of(&file.name, self.next_generation(&file.name)), file.len).is_none() => {
                    let path = file.path.display();
                    info!(source = %self.source, "{path} came after the run to the end began: the next run reads it");
                }
                None => self.take_up(file, &mut folders),
            }
        }
        for index in 0..before {
            if matches!(self.partitions[index].state, State::Live | State::Lost) && !seen.contains(&index) {
                self.look_for(index, &mut folders);
            }
        }
        self.look_for_folders(&mut folders);
        self.scanned_at_ms = begin_ms;
        self.touched.extend(0..self.partitions.len());
        Ok(())
    }

    /// Notes which patterns have no folder.
    fn look_for_folders(&mut self, folders: &mut FoldersNow) {
        for (pattern, base) in self.patterns.bases() {
            let is_there = folders.id(&base).is_some();
            match (is_there, self.missing.contains_key(pattern)) {
                (false, false) => {
                    let folder = base.display();
                    warn!(source = %self.source, "the folder {folder} of `{pattern}` is not there: its files are waited for");
                    self.missing.insert(pattern.into(), Instant::now());
                }
                (true, true) => drop(self.missing.remove(pattern)),
                _ => {}
            }
        }
    }

    pub(super) fn next_generation(&self, stem: &str) -> u32 {
        let of_stem = self.partitions.iter().filter(|partition| partition.stem == stem);
        let mut generation = of_stem.map(|partition| partition.generation).max().unwrap_or(0) + 1;
        // A file may really be called `path@2`.
        while self.partitions.iter().any(|other| *other.name == *name_of(stem, generation)) {
            generation += 1;
        }
        generation
    }

    /// Whether a file with the inode of a partition is its file. If it was rewritten in place, its contents become a new
    /// generation; if the inode is another file's now, it is a new file.
    fn is_still(&mut self, index: usize, file: &Found) -> bool {
        let partition = &self.partitions[index];
        if partition.head.matches(&file.path) {
            return true;
        }
        if partition.path != file.path {
            return false;
        }
        self.supersede(index, "begins otherwise than it did");
        // The new generation has this inode too, and is in the list: nothing is to be taken up.
        true
    }

    /// Notes how a partition's file is now.
    fn look_at(&mut self, index: usize, file: Found, folders: &mut FoldersNow) {
        let until_end = self.until_end;
        let end = self.end_of(&self.partitions[index].name, file.len);
        let partition = &mut self.partitions[index];
        if partition.state == State::Closed {
            return;
        }
        if partition.path != file.path {
            info!(source = %self.source, partition = %partition.name, "the file is called {} now", file.path.display());
            partition.path = file.path;
        }
        partition.state = State::Live;
        partition.found();
        partition.folders = folders.of(&file.base, &partition.path);
        if !partition.head.is_full()
            && let Ok(head) = Head::of(&partition.path)
        {
            partition.head = head;
        }
        let changed = partition.len != file.len;
        (partition.len, partition.modified) = (file.len, file.modified);
        partition.at_end &= !changed;
        if until_end {
            partition.limit = end;
            if end.is_none() {
                return;
            }
        }
        if partition.reader.is_none() && (changed || until_end || partition.quiet_since.is_none()) {
            self.waiting.insert(partition.name.clone(), index);
        }
    }

    /// A partition whose file is missing, when this file is a copy of it: of the same name, with the same first KiB.
    fn copy_of(&self, file: &Found, seen: &HashSet<usize>) -> Option<usize> {
        let mut missing = self.partitions.iter().enumerate().filter(|(index, partition)| {
            !seen.contains(index)
                && partition.reader.is_none()
                && matches!(partition.state, State::Live | State::Gone | State::Lost)
                && partition.stem == file.name
                && partition.head.is_full()
                && partition.head.matches(&file.path)
        });
        let (index, partition) = missing.next()?;
        // The partition's own file may have been renamed, and this one only begin like it.
        self.elsewhere(partition).is_none().then_some(index)
    }

    /// Whether the file was read to its end as a partition that is closed.
    fn finished(&self, file: &Found) -> bool {
        let closed = self.partitions.iter().rev().find(|partition| {
            partition.state == State::Closed
                && partition.id == file.id
                && partition.path == file.path
                && !partition.head.is_empty()
                && partition.head.matches(&file.path)
        });
        let Some(closed) = closed else { return false };
        if file.len > closed.len {
            warn!(source = %self.source, partition = %closed.name, "{} has grown after it was finished: what was added is not read", file.path.display());
        }
        true
    }

    /// Makes a partition of a file.
    fn take_up(&mut self, file: Found, folders: &mut FoldersNow) {
        let generation = self.next_generation(&file.name);
        // A file that can't be read is a partition all the same: the failure shows when its turn comes.
        let head = Head::of(&file.path).unwrap_or_default();
        let seen_in = folders.of(&file.base, &file.path);
        let mut partition = Partition::new(file.name, generation, file.path, file.id, head);
        partition.folders = seen_in;
        if generation > 1 {
            warn!(source = %self.source, partition = %partition.name, "{} is another file than before", partition.path.display());
        }
        (partition.len, partition.modified) = (file.len, file.modified);
        partition.limit = self.until_end.then(|| self.end_of(&partition.name, file.len)).flatten();
        self.waiting.insert(partition.name.clone(), self.partitions.len());
        self.partitions.push(partition);
    }

    /// Where the file of a partition is in its folder, under whatever name.
    fn elsewhere(&self, partition: &Partition) -> Option<PathBuf> {
        let is_it = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && FileId::of(&metadata) == partition.id)
                && partition.head.matches(path)
        };
        let entries = fs::read_dir(partition.path.parent()?).ok()?;
        let mut names: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        names.sort();
        names.into_iter().find(is_it)
    }

    /// The file of a partition does not match any more: finds out what became of it.
    pub(super) fn look_for(&mut self, index: usize, folders: &mut FoldersNow) {
        self.touched.insert(index);
        let partition = &self.partitions[index];
        let base = self.patterns.base_for(&partition.stem);
        let wanted = base.is_some();
        let folder_differs = base.is_some_and(|base| folders.differ(partition.folders, &base, &partition.path));
        // One that is lost is looked for once more when its folder is back.
        let may_be_there = partition.state != State::Lost || partition.folder_differs && !folder_differs;
        let place = may_be_there.then(|| self.elsewhere(partition)).flatten();
        let until_end = self.until_end;
        let end = self.ends.as_ref().and_then(|ends| ends.get(&self.partitions[index].name)).copied();
        let partition = &mut self.partitions[index];
        let (source, name, position) = (&self.source, partition.name.clone(), partition.position);
        self.waiting.remove(&name);
        match place {
            _ if !wanted => {
                info!(%source, partition = %name, position, "`paths` do not name it any more: its position is kept");
                partition.state = State::Unwanted;
                self.close(index);
            }
            Some(path) => {
                warn!(%source, partition = %name, position, "it is {} now and not matched any more: it is read to its end", path.display());
                let len = fs::metadata(&path).map_or(u64::MAX, |metadata| metadata.len());
                partition.limit = until_end.then(|| end.unwrap_or(len));
                partition.path = path;
                partition.state = State::Rotated;
                partition.found();
                if partition.reader.is_none() {
                    partition.quiet_since = None;
                    self.waiting.insert(name, index);
                }
            }
            None if partition.reader.is_some() && !folder_differs => {
                warn!(%source, partition = %name, position, "{} was deleted: what is left of it is read", partition.path.display());
                // The path, and maybe the inode number too, is another file's from now on.
                partition.path = PathBuf::new();
                partition.state = State::Rotated;
            }
            None => {
                // Of an empty file nothing was to be read.
                let is_read = partition.at_end || partition.len == 0 && partition.position == 0;
                partition.given_up |= partition.lost_for() > self.give_up_after;
                let is_lost = !partition.given_up && (folder_differs || !is_read);
                let state = if is_lost { State::Lost } else { State::Gone };
                if partition.state != state {
                    let path = partition.path.display();
                    let what = match (folder_differs, is_lost) {
                        _ if partition.given_up => "could not be found for long: it is waited for no more",
                        (true, _) => "can't be found, and its folder is missing or another one: it is waited for",
                        (false, true) => "can't be found, and was not read to its end: it is waited for",
                        (false, false) => "can't be found: it was read to its end",
                    };
                    match is_lost || partition.given_up {
                        true => warn!(%source, partition = %name, position, "{path} {what}"),
                        false => info!(%source, partition = %name, position, "{path} {what}"),
                    }
                }
                (partition.state, partition.folder_differs) = (state, folder_differs);
                partition.lost_since = is_lost.then(|| partition.lost_since.unwrap_or_else(Instant::now));
                self.close(index);
            }
        }
    }
}
