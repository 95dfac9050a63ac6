//! Places at which a test can kill or stop the process. Compiled to nothing without the feature `failpoints`.
//!
//! `TIDEMILL_FAILPOINT` is `name:n`: the process kills itself with SIGKILL when `name` is reached for the n-th time. `name:n:kind` counts only
//! while the cut in hand is of a kind: `sealing` when it publishes files, `last` when it ends the input. With `:stop` at its end the process
//! stops (SIGSTOP) instead, as one that hangs.
//! A simulation in the process can take part in every point instead, see [`decide_by`].
//! `TIDEMILL_LEDGER_BYTES` is the size beyond which a new ledger file, or a new segment of pieces, begins.

use crate::ledger::Record;

/// Kills or stops the process when that is planned for here and now.
#[cfg(feature = "failpoints")]
pub(crate) fn hit(name: &str) {
    on::reach(name);
}

/// The same, in a place where others may come first.
#[cfg(feature = "failpoints")]
pub(crate) async fn at(name: &str) {
    match on::reach(name) {
        Decision::GoOn => {}
        Decision::Wait(pause) => tokio::time::sleep(pause).await,
        Decision::Panic => panic!("a planned panic of the runtime's own code at {name}"),
    }
}

/// What happens at a point where others may come first.
#[cfg(feature = "failpoints")]
#[derive(Clone, Copy, Debug)]
pub enum Decision {
    /// Nothing.
    GoOn,
    /// Others come first, for so long.
    Wait(std::time::Duration),
    /// A panic of the runtime's own code.
    Panic,
}

/// What decides, given a point's name.
#[cfg(feature = "failpoints")]
pub type Decide = Box<dyn FnMut(&str) -> Decision>;

/// Has every point on this thread decided by a function; by none when it is gone.
#[cfg(feature = "failpoints")]
pub fn decide_by(decide: Option<Decide>) {
    on::DECIDE.set(decide);
}

/// On this thread, a new ledger file, or a new segment of pieces, begins beyond so many bytes.
#[cfg(feature = "failpoints")]
pub fn state_files_of(bytes: Option<u64>) {
    on::STATE_FILE_BYTES.set(bytes);
}

/// On this thread, one barrier seals so many hours at most.
#[cfg(feature = "failpoints")]
pub fn steps_of(hours: Option<u64>) {
    on::STEP_HOURS.set(hours);
}

/// How many hours one barrier seals at most.
#[cfg(feature = "failpoints")]
pub(crate) fn step_hours(usual: u64) -> u64 {
    on::STEP_HOURS.get().unwrap_or(usual)
}

/// Says which cut is in hand: the one that is being committed, or the last one when a run starts.
#[cfg(feature = "failpoints")]
pub(crate) fn cut(record: &Record) {
    on::SEALING.set(record.stages.values().any(|said| !said.publications.is_empty()));
    on::LAST.set(record.closing);
}

/// Says of which cut a batch is that is being published.
#[cfg(feature = "failpoints")]
pub(crate) fn publication(closing: bool) {
    on::SEALING.set(true);
    on::LAST.set(closing);
}

/// The size beyond which a new ledger file, or a new segment of pieces, begins.
#[cfg(feature = "failpoints")]
pub(crate) fn state_file_bytes(usual: u64) -> u64 {
    let usual = on::STATE_FILE_BYTES.get().unwrap_or(usual);
    std::env::var("TIDEMILL_LEDGER_BYTES").map_or(usual, |bytes| bytes.parse().expect("a number of bytes"))
}

#[cfg(feature = "failpoints")]
mod on {
    use std::cell::{Cell, RefCell};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use std::thread::LocalKey;

    use rustix::process::{Signal, getpid, kill_process};

    use super::{Decide, Decision};

    thread_local! {
        // Each region commits and publishes on threads of its own.
        pub(super) static SEALING: Cell<bool> = const { Cell::new(false) };
        pub(super) static LAST: Cell<bool> = const { Cell::new(false) };
        pub(super) static STEP_HOURS: Cell<Option<u64>> = const { Cell::new(None) };
        pub(super) static STATE_FILE_BYTES: Cell<Option<u64>> = const { Cell::new(None) };
        pub(super) static DECIDE: RefCell<Option<Decide>> = const { RefCell::new(None) };
    }
    pub(super) fn reach(name: &str) -> Decision {
        if let Some(plan) = &*PLAN {
            plan.hit(name);
        }
        DECIDE.with_borrow_mut(|decide| decide.as_mut().map_or(Decision::GoOn, |decide| decide(name)))
    }

    pub(super) static PLAN: LazyLock<Option<Plan>> = LazyLock::new(|| {
        let text = std::env::var("TIDEMILL_FAILPOINT").ok()?;
        Some(Plan::of(&text).unwrap_or_else(|| panic!("TIDEMILL_FAILPOINT = {text:?} is no plan")))
    });

    pub(super) struct Plan {
        name: String,
        left: AtomicU64,
        /// Whether the cut in hand has to be of the kind; `None` when any will do.
        kind: Option<&'static LocalKey<Cell<bool>>>,
        stops: bool,
    }

    impl Plan {
        fn of(text: &str) -> Option<Self> {
            let (text, stops) = text.strip_suffix(":stop").map_or((text, false), |text| (text, true));
            let mut parts = text.split(':');
            let (name, left) = (parts.next()?.to_owned(), AtomicU64::new(parts.next()?.parse().ok()?));
            let kind = match parts.next() {
                None => None,
                Some("sealing") => Some(&SEALING),
                Some("last") => Some(&LAST),
                Some(_) => return None,
            };
            Some(Self { name, left, kind, stops })
        }

        pub(super) fn hit(&self, name: &str) {
            let counts = self.name == name && self.kind.is_none_or(LocalKey::get);
            if counts && self.left.fetch_sub(1, SeqCst) == 1 {
                if !self.stops {
                    let _ = kill_process(getpid(), Signal::KILL);
                    return;
                }
                let _ = kill_process(getpid(), Signal::STOP);
                // The signal may reach another thread first, and this one must not come any further.
                loop {
                    std::thread::park();
                }
            }
        }
    }
}

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn hit(_name: &str) {}

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) async fn at(_name: &str) {}

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn cut(_record: &Record) {}

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn publication(_closing: bool) {}

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn state_file_bytes(usual: u64) -> u64 {
    usual
}

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn step_hours(usual: u64) -> u64 {
    usual
}
