//! The threads that compress: rayon's, and for stages that give way to others, some that do so, too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Pools by how far they give way, made when they are needed first. There are as many as priorities of regions: two at most beside rayon's own.
static POOLS: Mutex<BTreeMap<i32, Option<Arc<ThreadPool>>>> = Mutex::new(BTreeMap::new());

/// Threads with the priority of the stage that they work for.
#[derive(Clone)]
pub(super) struct Compressors(Option<Arc<ThreadPool>>);

impl Compressors {
    /// Those for a stage that gives way so far. To be called on its thread: those that are started inherit its priority.
    pub(super) fn of(gives_way: i32) -> Self {
        if gives_way == 0 {
            return Self(None);
        }
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        Self(pools.entry(gives_way).or_insert_with(|| made(gives_way)).clone())
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

/// As many as rayon has. Where there are no threads to be had, rayon's own do the work.
fn made(gives_way: i32) -> Option<Arc<ThreadPool>> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(rayon::current_num_threads())
        .thread_name(move |index| format!("compute{gives_way}-{index}"))
        .build();
    pool.inspect_err(|error| tracing::warn!(%error, gives_way, "no threads of a lower priority can be started"))
        .ok()
        .map(Arc::new)
}
