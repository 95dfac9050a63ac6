//! Workers that hang: a call into a stage or sink that does not come back is given up, and its worker replaced.
//!
//! A worker is watched inside calls only: waiting for items, for room or for a sink that is down is not hanging. A call that is seen at so many
//! looks in a row is given up; looks and not a clock, so that a process that was stopped and goes on finds nobody guilty. Giving up is one
//! atomic step against the return of the call: either the worker has come back, and goes on, or it is *fenced*, its item is another's, and nothing
//! that it returns is taken. A thread can't be ended from outside: it stays until its call comes back, and there may be so many of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::coordinator::Fatal;
use crate::engine::Failure;
use crate::opening::STEP;
use crate::pool::Failed;
use crate::region::{Region, StageShared};
use crate::worker::give_back;

/// Looks within a heartbeat.
const LOOKS: u32 = 4;
/// Threads of one stage that may be stuck at a time. Beyond it, the stage stands still: something hangs whatever it is given.
const STUCK_MAX: usize = 32;
const FENCED: u64 = u64::MAX;

/// The call that a worker is in.
#[derive(Default)]
pub(crate) struct Call {
    /// Odd inside a call; grows with each.
    number: AtomicU64,
    item: AtomicU64,
    part: AtomicUsize,
    may_be_the_data: AtomicBool,
    /// Odd while it reads state from the disk; grows with each read.
    reads: AtomicU64,
}

impl Call {
    /// The worker has leased an item.
    pub(crate) fn holds(&self, item: u64) {
        self.item.store(item, Ordering::SeqCst);
    }

    /// A call for part `part` of the item begins.
    pub(crate) fn begins(&self, part: usize, may_be_the_data: bool) {
        self.part.store(part, Ordering::SeqCst);
        self.may_be_the_data.store(may_be_the_data, Ordering::SeqCst);
        self.number.fetch_add(1, Ordering::SeqCst);
    }

    /// It has come back, or nothing was going on. `false`: the worker is fenced, and nothing that it has in hand counts.
    pub(crate) fn is_back(&self) -> bool {
        let number = self.number.load(Ordering::SeqCst);
        if number == FENCED {
            return false;
        }
        let is_inside = number % 2 == 1;
        !is_inside || self.number.compare_exchange(number, number + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Reads state. A disk that does not answer makes nobody guilty.
    pub(crate) fn reads<T>(&self, read: impl FnOnce() -> T) -> T {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let read = read();
        self.reads.fetch_add(1, Ordering::SeqCst);
        read
    }

    fn fence(&self, number: u64) -> bool {
        self.number.compare_exchange(number, FENCED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Watches the workers of a region until it ends.
pub(crate) fn start(region: Arc<Region>) {
    let thread = std::thread::Builder::new().name("watchdog".into());
    thread.spawn(move || run(&region)).expect("the system can start a thread");
}

/// How long a call may take. Threads that give way get a third of a processor, or a ninth, while others want it.
fn patience(region: &Region) -> Duration {
    let tiers = region.gives_way / STEP;
    Duration::from_millis(region.config.heartbeat_ms) * 3u32.pow(tiers.max(0).unsigned_abs())
}

fn run(region: &Region) {
    let heartbeat = patience(region);
    // The stage and the index of each worker; the call that it was in and its reads, and how often it was seen there.
    let mut seen: HashMap<(usize, usize), ((u64, u64), u32)> = HashMap::new();
    while !region.ended.load(Ordering::SeqCst) {
        std::thread::sleep(heartbeat / LOOKS);
        for (at, stage) in region.stages.iter().enumerate() {
            let workers: Vec<_> = stage.calls.iter().map(|entry| (*entry.key(), entry.value().clone())).collect();
            for (index, call) in workers {
                let number = call.number.load(Ordering::SeqCst);
                let reads = call.reads.load(Ordering::SeqCst);
                let (last, times) = seen.entry((at, index)).or_default();
                if *last != (number, reads) {
                    (*last, *times) = ((number, reads), 0);
                }
                if number == FENCED || number.is_multiple_of(2) {
                    continue;
                }
                *times += 1;
                if *times > LOOKS {
                    *times = 0;
                    if !reads.is_multiple_of(2) {
                        let name = &region.node(stage.node).name;
                        tracing::error!(
                            stage = %name, worker = index,
                            "a read of its state has not come back for long: look at the disk of the state directory"
                        );
                        continue;
                    }
                    give_up(region, stage, index, &call, number);
                }
            }
        }
    }
}

fn give_up(region: &Region, stage: &StageShared, index: usize, call: &Call, number: u64) {
    let name = &region.node(stage.node).name;
    if stage.stuck_threads.load(Ordering::SeqCst) >= STUCK_MAX {
        tracing::error!(stage = %name, worker = index, threads = STUCK_MAX, "a worker hangs, as others of the stage do that were replaced: the stage stands still. Nothing is lost; a restart of the process goes on at the last cut");
        return;
    }
    // Before anybody takes its place: a worker that is not the newest can't be looked up any more.
    let epoch = stage.epochs.get(&index).map_or(0, |epoch| *epoch);
    if !call.fence(number) {
        return;
    }
    stage.stuck_threads.fetch_add(1, Ordering::SeqCst);
    region.suspects.forget_mark(name, index, epoch);
    let message = format!("it hangs: a call has not come back for {} ms", patience(region).as_millis());
    let failure = Failure {
        part: call.part.load(Ordering::SeqCst),
        message: message.clone(),
        may_be_the_data: call.may_be_the_data.load(Ordering::SeqCst),
    };
    let at_once = match stage.inbox.leased(call.item.load(Ordering::SeqCst)) {
        Some(item) => match give_back(region, stage, item, &failure) {
            Ok(at_once) => at_once,
            Err(error) => return region.coordinator().do_send(Fatal(error)),
        },
        None => false,
    };
    if let Some(pool) = stage.pool.get() {
        pool.do_send(Failed { index, epoch, message, at_once });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_the_call_comes_back_or_its_worker_is_fenced() {
        let call = Call::default();
        call.begins(0, true);
        let number = call.number.load(Ordering::SeqCst);
        assert!(call.is_back() && !call.fence(number), "it was back first");
        call.begins(0, true);
        assert!(!call.fence(number), "another call is no reason");
        assert!(call.fence(number + 2) && !call.is_back());
        assert!(!call.is_back(), "for ever");
    }
}
