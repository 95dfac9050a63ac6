//! The machine that a process runs on: a disk, a clock, and the moment at which it dies.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidemill_runtime::{Host, HostFile, Open};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::dice::Dice;
use crate::disk::Disk;

/// When the clocks of all simulations begin: 2025-01-01.
pub(crate) const EPOCH_MS: i64 = 1_735_689_600_000;

/// What outlives the processes.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) disk: Disk,
    pub(crate) now_ms: i64,
}

/// What goes wrong with the machine while one process lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    /// The process dies at the disk operation of this number.
    pub(crate) dies_at: Option<u64>,
    /// There is no room between these numbers of operations.
    pub(crate) no_room: Option<(u64, u64)>,
    /// One sync of so many fails.
    pub(crate) failing_syncs: Option<u64>,
    pub(crate) clock: Clock,
}

/// One process's view of the machine. When the process is dead, nothing that it still does has an effect.
#[derive(Clone, Debug)]
pub(crate) struct Process(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    machine: Arc<Mutex<Machine>>,
    weather: Weather,
    dice: Dice,
    operations: u64,
    is_dead: bool,
    /// A sync failed, or there was no room.
    was_hurt: bool,
    started: Instant,
    started_ms: i64,
}

impl Process {
    /// To be called inside the runtime whose clock it lives by.
    pub(crate) fn start(machine: Arc<Mutex<Machine>>, weather: Weather, dice: Dice) -> Self {
        let started_ms = machine.lock().expect("nobody panicked").now_ms;
        let started = Instant::now();
        Self(Arc::new(Mutex::new(State {
            machine,
            weather,
            dice,
            operations: 0,
            is_dead: false,
            was_hurt: false,
            started,
            started_ms,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panicked")
    }

    pub(crate) fn die(&self) {
        self.lock().is_dead = true;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.lock().is_dead
    }

    pub(crate) fn was_hurt(&self) -> bool {
        self.lock().was_hurt
    }

    pub(crate) fn now_ms(&self) -> i64 {
        let state = self.lock();
        let running = state.started.elapsed();
        state.started_ms + running.as_millis() as i64 + state.weather.clock.ahead_ms(running)
    }

    fn with<T>(&self, call: impl FnOnce(&mut Disk, &mut Dice) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.lock();
        state.step()?;
        state.call(call)
    }

    /// A call that needs room.
    fn growing<T>(&self, call: impl FnOnce(&mut Disk, &mut Dice) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.lock();
        state.step()?;
        if !state.has_room() {
            return Err(ErrorKind::StorageFull.into());
        }
        state.call(call)
    }

    fn write(&self, file: u64, is_mark: bool, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.lock();
        if is_mark && !state.is_dead {
            return state.call(|disk, _| {
                disk.write(file, bytes, offset);
                Ok(())
            });
        }
        let was_dead = state.is_dead;
        let step = state.step();
        if was_dead {
            return step;
        }
        // The last one that a process does may be done in part.
        let full = !state.has_room();
        let part = if step.is_err() || full { state.dice.below(bytes.len() as u64 + 1) as usize } else { bytes.len() };
        state.call(|disk, _| {
            disk.write(file, &bytes[..part], offset);
            Ok(())
        })?;
        step?;
        if full { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn syncing(&self, path: &Path, call: impl FnOnce(&mut Disk, &mut Dice, bool) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        // What has no ledger yet can't go back to a cut.
        let may_fail = !path.ends_with("identity") && state.operations > 40;
        let fails = may_fail && state.weather.failing_syncs.is_some_and(|of| state.dice.one_in(of));
        state.was_hurt |= fails;
        state.call(|disk, dice| call(disk, dice, fails))?;
        if fails { Err(io::Error::other("a planned failure of a sync")) } else { Ok(()) }
    }
}

impl State {
    /// Counts an operation. An error when the process is dead, or dies with this one.
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        self.is_dead |= self.weather.dies_at == Some(self.operations);
        if self.is_dead { Err(io::Error::other("the process is dead")) } else { Ok(()) }
    }

    fn has_room(&mut self) -> bool {
        let full = self.weather.no_room.is_some_and(|(from, to)| (from..to).contains(&self.operations));
        self.was_hurt |= full;
        !full
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Disk, &mut Dice) -> io::Result<T>) -> io::Result<T> {
        call(&mut self.machine.lock().expect("nobody panicked").disk, &mut self.dice)
    }
}

impl Host for Process {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn HostFile>> {
        let empties = matches!(how, Open::Create | Open::CreatePrivate);
        let makes = empties || how == Open::Grow;
        let file = self.with(|disk, _| disk.open(path, makes, empties))?;
        // So many writes are marks of what is in hand that deaths at them would bring innocent events under suspicion.
        let is_mark = path.parent().is_some_and(|dir| dir.ends_with("suspects"));
        Ok(Box::new(OpenFile { process: self.clone(), file, is_mark }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.with(|disk, _| disk.read(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.with(|disk, _| disk.list(dir))
    }

    fn exists(&self, path: &Path) -> bool {
        self.with(|disk, _| Ok(disk.exists(path))).unwrap_or(false)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.growing(|disk, _| disk.create_dir(dir))
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        self.with(|disk, _| disk.remove(file))
    }

    fn rename(&self, from: &Path, to: &Path, replaces: bool) -> io::Result<()> {
        self.with(|disk, _| disk.rename(from, to, replaces))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.growing(|disk, _| disk.link(from, to))
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.syncing(path, |disk, dice, fails| {
            if fails {
                disk.fail_to_sync(path, dice);
                return Ok(());
            }
            disk.sync(path)
        })
    }

    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        self.syncing(path, |disk, _, fails| {
            if !fails {
                disk.sync_everything();
            }
            Ok(())
        })
    }

    fn file_system(&self, _: &Path) -> io::Result<u64> {
        Ok(0)
    }

    fn now_ms(&self) -> i64 {
        Self::now_ms(self)
    }

    fn suspended(&self) -> Duration {
        let state = self.lock();
        Duration::from_millis(state.weather.clock.suspended_ms(state.started.elapsed()))
    }

    fn random(&self) -> io::Result<u64> {
        Ok(self.lock().dice.next())
    }

    fn has_threads(&self) -> bool {
        false
    }
}

struct OpenFile {
    process: Process,
    file: u64,
    is_mark: bool,
}

impl HostFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.process.with(|disk, _| Ok(disk.bytes(self.file).len() as u64))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.process.with(|disk, _| {
            let from = disk.bytes(self.file).get(offset as usize..).unwrap_or_default();
            let count = from.len().min(bytes.len());
            bytes[..count].copy_from_slice(&from[..count]);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.process.write(self.file, self.is_mark, bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.process.with(|disk, _| {
            disk.set_len(self.file, length);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.process.syncing(Path::new(""), |disk, dice, fails| {
            match fails {
                true => disk.fail_to_sync_file(self.file, dice),
                false => disk.sync_file(self.file),
            }
            Ok(())
        })
    }
}
