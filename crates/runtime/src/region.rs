//! What the actors of one region share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use actix::Addr;
use dashmap::DashMap;
use tidemill_core::{
    Clusters, CutId, EventType, Idle, Lag, Late, LogName, Moved, PartitionPosition, Publication, SourcePositions,
    StateKey, Stretch, Tally,
};
use tidemill_topology::{Lineage, Node, Plan};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::audit::Books;
use crate::caps::Caps;
use crate::coordinator::{Coordinator, Fatal};
use crate::error::RunError;
use crate::horizon::Closing;
use crate::host::Host;
use crate::inbox::Inbox;
use crate::ledger::{Committed, Ends};
use crate::logs::Logs;
use crate::opening::Carried;
use crate::outlet::Outlet;
use crate::pieces::Pieces;
use crate::pond::reader::{Heard, PARTITION, offset_in};
use crate::pond::shared::PondShared;
use crate::pool::Pool;
use crate::producers::Hold;
use crate::progress::Progress;
use crate::registry::Registry;
use crate::replay::Ways;
use crate::silence::{self, Silences};
use crate::suspects::Suspects;
use crate::watchdog::Call;
use crate::worker::Done;

/// How long a run that is to end by itself waits for room on the disk.
pub(crate) const NO_ROOM_MAX: Duration = Duration::from_secs(30);

/// What a run reads.
#[derive(Clone, Debug, Default)]
pub enum Reads {
    /// Everything that its sources have.
    #[default]
    All,
    /// These parts of its sources, once more; nothing of sources without one. Such a run has a state and an output of its own, ends by itself, and seals no
    /// hour before all is read, so that no event is late.
    Stretches(Arc<BTreeMap<Arc<str>, Arc<Stretch>>>),
    /// Nothing: it makes the cuts that it is asked for.
    Nothing,
}

/// When a run to the end of the input seals hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SealAt {
    /// When all that it reads is read: nothing of it is late because of anything else of it.
    #[default]
    End,
    /// On the way, as watermarks pass.
    Watermark,
}

/// How a topology is run: the platform's part.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// The state directory of this topology.
    pub state_root: PathBuf,
    /// The output root.
    pub output_root: PathBuf,
    /// What it reads.
    pub reads: Reads,
    /// Stop at the end of the input, as it is at the start, and seal what is open.
    pub until_end: bool,
    /// When such a run seals hours.
    pub seal_at: SealAt,
    /// Longest time between two cuts while events flow, in milliseconds.
    pub cut_interval_ms: u64,
    /// Bound of each lane, in bytes.
    pub lane_bytes: usize,
    /// Received bytes that may be in flight since the last committed cut; at half of it a cut is due.
    pub replay_bytes: u64,
    /// State that all stages together keep in memory, in bytes; each has an equal share of it.
    pub state_memory_bytes: u64,
    /// How long nothing may move after a stop was asked for, in milliseconds; then the run ends without a last cut.
    pub drain_ms: u64,
    /// How long a call into a stage or sink may take, in milliseconds; then it counts as hung, and its worker is replaced.
    pub heartbeat_ms: u64,
    /// Clusters that sources and sinks connect to.
    pub clusters: Arc<Clusters>,
    /// Address of the admin server, for others to find it.
    pub admin: Option<String>,
    /// The machine that it runs on.
    pub host: Arc<dyn Host>,
}

/// A stage or sink.
pub(crate) struct StageShared {
    /// Index of its node in the plan.
    pub(crate) node: usize,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) outlet: Outlet<Done>,
    /// The pond that it is the end of that is written to.
    pub(crate) pond: Option<Arc<PondShared>>,
    pub(crate) logs: Mutex<Logs>,
    /// What became of all records so far; goes back with a restored stage.
    pub(crate) tally: Mutex<Tally>,
    /// What the stage has let out since the last barrier.
    pub(crate) progress: Mutex<Progress>,
    /// What it has counted since then.
    pub(crate) books: Mutex<Books>,
    /// Of a sink: when events came that it has dealt with since the last barrier (milliseconds since 1970), and how many.
    pub(crate) arrived: Mutex<BTreeMap<i64, u64>>,
    /// Logs to be published, and to be removed, with the next cut.
    pub(crate) pending: Mutex<(Vec<Publication>, Vec<LogName>)>,
    /// Last cut that the stage has acknowledged.
    pub(crate) acked: AtomicU64,
    pub(crate) counters: Counters,
    /// Epoch of each worker.
    pub(crate) epochs: DashMap<usize, u64>,
    /// Hours that it holds open.
    pub(crate) open_hours: AtomicU64,
    /// What a sink waits for that takes no events now.
    pub(crate) waits_for: Mutex<Option<String>>,
    /// The call that each worker is in.
    pub(crate) calls: DashMap<usize, Arc<Call>>,
    /// Threads of workers that were replaced because they hung, and that have not come back.
    pub(crate) stuck_threads: AtomicUsize,
    pub(crate) pool: OnceLock<Addr<Pool>>,
    pub(crate) caps: Caps,
}

/// What dead letters are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeadKey {
    pub(crate) source: Arc<str>,
    pub(crate) reason: &'static str,
    /// Where it is known.
    pub(crate) event_type: Option<Arc<str>>,
}

/// Counts that only grow.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) errors: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) busy_ns: AtomicU64,
    pub(crate) back_pressure_ns: AtomicU64,
}

/// A source, or the end of a pond that is read from.
pub(crate) struct SourceShared {
    pub(crate) node: usize,
    pub(crate) pond: Option<Arc<PondShared>>,
    pub(crate) outlet: Outlet<Done>,
    pub(crate) counters: Counters,
    pub(crate) epoch: AtomicU64,
    pub(crate) state: Mutex<SourceState>,
    pub(crate) control: Notify,
}

/// What a source says of itself.
#[derive(Default)]
pub(crate) struct SourceState {
    /// All its partitions, behind what it has handed on; `None` until it has opened.
    pub(crate) positions: Option<SourcePositions>,
    /// Partitions that hold no hour, with the instant until which that is proven.
    pub(crate) idle: Idle,
    /// For how long partitions have given nothing and proven nothing.
    pub(crate) silent: BTreeMap<Arc<str>, Duration>,
    /// For how long it could not be opened.
    pub(crate) fails_for: Duration,
    pub(crate) ended: bool,
    /// What it waits for before it can give anything.
    pub(crate) waits_for: Option<String>,
    /// How far its partitions are behind, where it knows.
    pub(crate) lag: BTreeMap<Arc<str>, Lag>,
    /// What the barriers in a pond up to the positions have said.
    pub(crate) heard: Arc<Heard>,
    /// Of a run to the end: where its partitions end, once it knows.
    pub(crate) ends: Option<BTreeMap<Arc<str>, u64>>,
    /// The seals that a pond stands at, until a barrier carries them.
    pub(crate) seals: Option<Closing>,
}

impl SourceState {
    /// These partitions have something to give.
    pub(crate) fn gives<'a>(&mut self, partitions: impl Iterator<Item = &'a Arc<str>>) {
        for partition in partitions {
            if self.idle.of(partition).is_some() {
                self.idle.except.insert(partition.clone(), None);
            }
            self.silent.remove(partition);
        }
    }

    /// Where its partitions are now.
    pub(crate) fn moves(&mut self, Moved { positions, gone }: Moved) {
        if positions.is_empty() && gone.is_empty() {
            return;
        }
        let known = Arc::make_mut(self.positions.get_or_insert_default());
        known.extend(positions);
        known.retain(|name, _| !gone.contains(name));
    }

    /// For how long a partition has given nothing and proven nothing.
    pub(crate) fn silence(&self, partition: &str, position: &PartitionPosition) -> Duration {
        if position.ended || self.idle.of(partition).is_some() {
            return Duration::ZERO;
        }
        self.silent.get(partition).copied().unwrap_or_default()
    }
}

/// See the module.
pub(crate) struct Region {
    /// `main`, or the node that it begins with.
    pub(crate) name: Arc<str>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) config: RunConfig,
    pub(crate) registry: Registry,
    pub(crate) suspects: Arc<Suspects>,
    /// How dead letters come back.
    pub(crate) ways: Arc<Ways>,
    pub(crate) state_id: Arc<str>,
    pub(crate) key: StateKey,
    pub(crate) stages: Vec<Arc<StageShared>>,
    pub(crate) sources: Vec<Arc<SourceShared>>,
    /// The ponds that it fills.
    pub(crate) ponds_out: Vec<Arc<PondShared>>,
    pub(crate) committed: Mutex<Committed>,
    /// State of its stages as of the last committed cut.
    pub(crate) pieces: Arc<Pieces>,
    /// How many sinks of the topology take each type.
    pub(crate) sinks: BTreeMap<Arc<str>, u64>,
    /// Number of the run.
    pub(crate) run: u64,
    /// The ends that an earlier process has fixed for this run, by source and partition.
    pub(crate) ends: Option<Ends>,
    /// What had become of records in all its stages when the run began: a run to the end goes on over processes.
    pub(crate) before: Tally,
    /// State that each of its stages keeps in memory, in bytes.
    pub(crate) memory_bytes: u64,
    /// A cut was committed, or room for reading came free.
    pub(crate) changed: Notify,
    pub(crate) progress: Mutex<Progress>,
    /// Barriers of the regions before it that have come out of ponds.
    pub(crate) barriers_passed: AtomicU64,
    /// Bytes that sources have handed on, in all.
    pub(crate) read_bytes: AtomicU64,
    /// The part of them that lies before the last committed cut.
    pub(crate) committed_bytes: AtomicU64,
    pub(crate) lineage: Arc<Lineage>,
    /// By how many steps of niceness its threads give way to those of other regions.
    pub(crate) gives_way: i32,
    /// Types whose late events are published as revisions.
    pub(crate) revised_types: BTreeMap<Arc<str>, Late>,
    /// When it was opened.
    pub(crate) opened: Instant,
    /// Since when, by the clock, all sources can be read, as of the coordinator's last tick; in milliseconds since 1970.
    pub(crate) listens_since: AtomicI64,
    pub(crate) coordinator: OnceLock<Addr<Coordinator>>,
    /// Why it is not running, until it is opened again.
    pub(crate) fault: Mutex<Option<String>>,
    /// It has come to its end: what its workers still have in hand must have no effect.
    pub(crate) ended: AtomicBool,
    /// Counts since the process started.
    pub(crate) carried: Arc<Carried>,
    /// Milliseconds from the start of the last barrier to the end of its effects, and of its commit alone.
    pub(crate) cut_duration_ms: AtomicU64,
    pub(crate) cut_commit_ms: AtomicU64,
}

impl Region {
    pub(crate) fn node(&self, index: usize) -> &Node {
        &self.plan.nodes[index]
    }

    /// The ponds that it reads, as deliveries name them.
    pub(crate) fn pond_ids(&self) -> Vec<Arc<str>> {
        let ponds = self.sources.iter().filter_map(|source| source.pond.as_ref());
        ponds.map(|pond| pond.id(&self.state_id)).collect()
    }

    /// Whether its input comes out of ponds.
    pub(crate) fn is_behind_ponds(&self) -> bool {
        self.sources.iter().any(|source| source.pond.is_some())
    }

    /// Whether it comes out of more than one.
    pub(crate) fn has_several_ponds(&self) -> bool {
        self.sources.iter().filter(|source| source.pond.is_some()).nth(1).is_some()
    }

    pub(crate) fn coordinator(&self) -> &Addr<Coordinator> {
        self.coordinator.get().expect("the coordinator is there before any worker")
    }

    pub(crate) fn committed(&self) -> MutexGuard<'_, Committed> {
        self.committed.lock().expect("no code panics while it holds the committed cut")
    }

    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect("no code panics while it holds the progress")
    }

    pub(crate) fn fault(&self) -> MutexGuard<'_, Option<String>> {
        self.fault.lock().expect("no code panics while it holds a fault")
    }

    /// Takes note of the bytes that a pond's writer has on disk, and wakes the sources when they may read again. Says whether they have to wait.
    pub(crate) fn look_at_pond(&self, stage: &StageShared) -> bool {
        let Some(pond) = &stage.pond else { return false };
        let was = pond.blocks();
        let blocks = pond.look(stage.logs().bytes());
        if was && !blocks {
            self.changed.notify_waiters();
        }
        blocks
    }

    /// When nothing can come from any of its ponds, nothing can come into those that it fills.
    pub(crate) fn pass_on_parked(&self) {
        let since = self.sources.iter().map(|source| source.parked_since());
        if let Some(since) = since.collect::<Option<Vec<Instant>>>().and_then(|since| since.into_iter().max()) {
            self.ponds_out.iter().for_each(|pond| pond.park(since));
        }
    }

    /// Whether a barrier would free a segment of a pond that it fills.
    pub(crate) fn can_free(&self) -> bool {
        self.ponds_out.iter().any(|pond| pond.can_free())
    }

    /// For how long partitions of its sources have been silent. A source of which none is any more has none here.
    pub(crate) fn silences(&self) -> BTreeMap<Arc<str>, Silences> {
        let of_source =
            |source: &Arc<SourceShared>| (self.node(source.node).name.clone(), silence::of(&source.state()));
        self.sources.iter().map(of_source).collect()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Waits for ever when the region has come to its end.
    pub(crate) async fn lives(&self) {
        if self.has_ended() {
            std::future::pending().await
        }
    }

    /// A type that the topology declares; they are in order of name.
    pub(crate) fn declared(&self, event_type: &str) -> Option<&EventType> {
        let at = self.plan.types.binary_search_by(|declared| (*declared.name).cmp(event_type)).ok()?;
        Some(&self.plan.types[at])
    }

    /// What the producers of a type hold now.
    pub(crate) fn producers_hold(&self, event_type: &str, now_ms: i64) -> Hold {
        // Markers are waited for by those that they speak for.
        let said = self.declared(event_type).and_then(|declared| declared.producers.as_ref());
        let Some(said) = said.filter(|said| said.marks.is_empty()) else { return Hold::default() };
        let sealed_ms = self.committed().sealed_before_ms.get(event_type).copied().unwrap_or(i64::MIN);
        let is_behind = |at_ms: i64| self.plan.limits.open_from_ms(at_ms) < sealed_ms;
        let begun_ms = self.listens_since_ms(now_ms);
        match self.progress().producers.get(event_type) {
            Some(producers) => Hold::of(producers, said.lease_ms, begun_ms, now_ms, is_behind),
            None => Hold::default(),
        }
    }

    /// Since when producers are listened to.
    pub(crate) fn listens_since_ms(&self, now_ms: i64) -> i64 {
        let opened_ms = now_ms.saturating_sub(i64::try_from(self.opened.elapsed().as_millis()).unwrap_or(i64::MAX));
        self.listens_since.load(Ordering::Relaxed).max(opened_ms)
    }

    /// Whether sources have to wait before they may read on.
    pub(crate) fn must_wait(&self) -> bool {
        self.held_bytes() >= self.config.replay_bytes || self.ponds_out.iter().any(|pond| pond.blocks())
    }

    /// Bytes that would have to be replayed now.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed).saturating_sub(self.committed_bytes.load(Ordering::Relaxed))
    }

    /// Waits until the last cut that `stage` acknowledged is committed, effects and all.
    pub(crate) async fn settled(&self, stage: &StageShared) -> CutId {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let cut = self.committed().last.cut;
            if cut >= stage.acked.load(Ordering::SeqCst) {
                return cut;
            }
            changed.await;
        }
    }

    /// Waits until sources may read on.
    pub(crate) async fn may_read(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.must_wait() {
                return;
            }
            changed.await;
        }
    }
}

impl StageShared {
    pub(crate) fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().expect("no code panics while it holds logs")
    }

    pub(crate) fn pending(&self) -> MutexGuard<'_, (Vec<Publication>, Vec<LogName>)> {
        self.pending.lock().expect("no code panics while it holds what is pending")
    }

    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect("no code panics while it holds the progress")
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no code panics while it holds the books")
    }

    pub(crate) fn arrived(&self) -> MutexGuard<'_, BTreeMap<i64, u64>> {
        self.arrived.lock().expect("no code panics while it holds arrivals")
    }

    pub(crate) fn waits_for(&self) -> MutexGuard<'_, Option<String>> {
        self.waits_for.lock().expect("no code panics while it holds what is waited for")
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no code panics while it holds a tally")
    }
}

impl SourceState {
    /// Nothing is to be read, for now or ever.
    pub(crate) fn stands(&self) -> bool {
        self.ended || self.seals.is_some()
    }
}

impl SourceShared {
    /// Since when a pond that was read to its end has nothing to come: the region that fills it is parked.
    pub(crate) fn parked_since(&self) -> Option<Instant> {
        let pond = self.pond.as_ref()?;
        let since = pond.parked_since()?;
        let state = self.state();
        let next = state.positions.as_ref()?.get(PARTITION)?.next;
        (state.seals.is_none() && pond.is_empty_at(next)).then_some(since)
    }

    /// Tells the pond that it is the end of how far it was read, as of the last cut.
    pub(crate) fn tell_pond(&self, region: &Region) {
        let Some(pond) = &self.pond else { return };
        pond.consumed(offset_in(&region.committed().positions, &pond.name));
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, SourceState> {
        self.state.lock().expect("no code panics while it holds a source's state")
    }
}

/// Ends the run if the thread that holds it panics in the runtime's own code: nothing can be said then of what it had in hand.
pub(crate) struct Alarm {
    pub(crate) region: Arc<Region>,
    pub(crate) whose: &'static str,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let fault = RunError::Internal(format!("the {}'s own code panicked; see the log", self.whose));
            self.region.coordinator().do_send(Fatal(fault));
        }
    }
}
