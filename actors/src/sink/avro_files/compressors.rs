//! The threads that compress: rayon's, and for threads that give way to others, some that do so, too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tidemill_core::niceness;

/// Pools by niceness, made when they are needed first. There are as many as priorities of regions: two at most beside rayon's own.
static POOLS: Mutex<BTreeMap<i32, Option<Arc<ThreadPool>>>> = Mutex::new(BTreeMap::new());

/// Threads with the priority of the thread that they work for.
#[derive(Clone)]
pub(super) struct Compressors(Option<Arc<ThreadPool>>);

impl Compressors {
    /// Those for the calling thread.
    pub(super) fn of_this_thread() -> Self {
        let niceness = niceness::current();
        if niceness <= niceness::of_process() {
            return Self(None);
        }
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        Self(pools.entry(niceness).or_insert_with(|| made(niceness)).clone())
    }

    /// How many blocks can be compressed at a time.
    pub(super) fn threads(&self) -> usize {
        self.0.as_ref().map_or_else(rayon::current_num_threads, |pool| pool.current_num_threads())
    }

    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        match &self.0 {
            Some(pool) => pool.spawn(work),
            None => rayon::spawn(work),
        }
    }
}

/// Its threads are started here, and inherit the priority. Where there are no threads to be had, rayon's own do the work.
fn made(niceness: i32) -> Option<Arc<ThreadPool>> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(rayon::current_num_threads())
        .thread_name(move |index| format!("compute{niceness}-{index}"))
        .build();
    pool.inspect_err(|error| tracing::warn!(%error, niceness, "no threads of a lower priority can be started"))
        .ok()
        .map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn they_have_the_priority_of_whom_they_work_for() {
        let niceness_of = |compressors: Compressors| {
            let (sender, receiver) = std::sync::mpsc::channel();
            compressors.spawn(move || drop(sender.send(niceness::current())));
            receiver.recv().unwrap()
        };
        assert_eq!(niceness_of(Compressors::of_this_thread()), niceness::current());
        let lower = std::thread::spawn(move || {
            niceness::lower(4).unwrap();
            (niceness_of(Compressors::of_this_thread()), niceness::current())
        });
        let (of_compressor, own) = lower.join().unwrap();
        assert_eq!(of_compressor, own);
        assert!(own > niceness::current() || own == 19);
    }
}
