//! The machine itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Resource, getrlimit};
#[cfg(target_os = "linux")]
use rustix::time::{ClockId, clock_gettime};

use super::{Host, HostFile, Open};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Host for System {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn HostFile>> {
        let file = match how {
            Open::Read => File::open(path),
            Open::Write => OpenOptions::new().read(true).write(true).open(path),
            Open::Grow => OpenOptions::new().create(true).truncate(false).write(true).open(path),
            Open::Create => OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path),
            Open::CreatePrivate => OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path),
        };
        Ok(Box::new(file?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir(dir)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        std::fs::remove_file(file)
    }

    fn rename(&self, from: &Path, to: &Path, replaces: bool) -> io::Result<()> {
        let flags = if replaces { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        Ok(renameat_with(CWD, from, CWD, to, flags)?)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }

    fn file_system(&self, path: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(path)?.dev())
    }

    fn dirty_bytes(&self) -> Option<u64> {
        // Linux only: elsewhere there is no such file.
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let dirty = text.lines().find_map(|line| line.strip_prefix("Dirty:")?.trim().strip_suffix(" kB"))?;
        Some(dirty.parse::<u64>().ok()? << 10)
    }

    fn files_max(&self) -> u64 {
        getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
    }

    fn now_ms(&self) -> i64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }

    #[cfg(target_os = "linux")]
    fn suspended(&self) -> Duration {
        let of = |clock: ClockId| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
        // In this order, what passes between the two calls makes it less than nothing, never a suspension.
        let boot = of(ClockId::Boottime);
        boot.saturating_sub(of(ClockId::Monotonic))
    }

    fn random(&self) -> io::Result<u64> {
        let mut random = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        Ok(u64::from_le_bytes(random))
    }

    fn has_threads(&self) -> bool {
        true
    }
}

impl HostFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match FileExt::read_at(self, &mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        Self::set_len(self, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}
