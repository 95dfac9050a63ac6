//! The lock of a state directory, and who holds it.

use std::fs::File;
use std::process::Output;

use rustix::fs::{FlockOperation, flock};

use crate::{Place, Process, assert_exit, lines, printed, wait_for};

/// The lock file in a place.
pub const LOCK: &str = ".tidemill/plays/lock";

/// A place with a topology and some events.
pub fn place() -> Place {
    let place = Place::new();
    place.plays("");
    place.write("data/plays", lines(0..1_000));
    place
}

/// A run that goes on until it is stopped, and that owns the state by now.
#[track_caller]
pub fn holder(place: &Place) -> Process {
    let holder = Process::quiet(&mut place.run_command(&["plays.toml"]));
    let pid = holder.id();
    wait_for("the lock", || (announced(place)? == pid).then_some(()));
    holder
}

/// The process that the lock file names.
pub fn announced(place: &Place) -> Option<u32> {
    let lock: serde_json::Value = serde_json::from_slice(&std::fs::read(place.path(LOCK)).ok()?).ok()?;
    lock["pid"].as_u64()?.try_into().ok()
}

/// Locks the state directory as some process that Tidemill knows nothing of, and writes into the lock file.
pub fn lock(place: &Place, text: &str) -> File {
    let lock = File::create(place.write(LOCK, "")).expect("the lock file");
    flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("it is free");
    place.write(LOCK, text);
    lock
}

/// That a process did not take over, and says why.
#[track_caller]
pub fn assert_refused(take_over: &Output, words: &[&str]) {
    assert_exit(take_over, 75);
    let said = printed(take_over);
    for words in ["can't take over", "Nothing was opened"].iter().chain(words) {
        assert!(said.contains(words), "it does not say {words:?}: {said}");
    }
}
