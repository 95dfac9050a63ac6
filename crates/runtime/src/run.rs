//! Starting a topology: its state, then each of its regions, and the end of all of them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};

use actix::{Actor, Addr, AsyncContext};
use dashmap::DashMap;
use futures_util::future::try_join_all;
use tidemill_core::Role;
use tidemill_topology::{Fingerprint, MAIN, Node, Plan, Pond, RegionPlan, Regions};
use tokio::sync::{Notify, oneshot};

use crate::committer;
use crate::coordinator::{Coordinator, Ended, Stop};
use crate::error::RunError;
use crate::failpoint;
use crate::horizon::lineage;
use crate::inbox::Inbox;
use crate::ledger::{Committed, Ledger, Opened};
use crate::logs::Logs;
use crate::outlet::{Outlet, Target};
use crate::pond::extent;
use crate::pond::reader::PARTITION;
use crate::pond::shared::{PondShared, replay_bytes};
use crate::pool::Pool;
use crate::progress::Progress;
use crate::reader::Reader;
use crate::region::{Counters, Region, RunConfig, SourceShared, SourceState, StageShared};
use crate::registry::Registry;
use crate::state_dir::{Owner, RegionDir, StateDir, StateLock};
use crate::status::Status;

/// A running topology.
pub struct Running {
    handle: Handle,
    done: Vec<oneshot::Receiver<Result<Ended, RunError>>>,
    /// Cut of the sources' region that the run went on from; 0 at the first start.
    pub resumed_from: u64,
    /// Whether the state says that the input was read to its end before.
    pub was_finished: bool,
    _pools: Vec<Addr<Pool>>,
    _arbiters: Vec<actix::Arbiter>,
}

/// Looks at a running topology and stops it, from any thread.
#[derive(Clone)]
pub struct Handle {
    /// In topological order; the first has the sources.
    regions: Arc<[Arc<Region>]>,
    ponds: Arc<[Arc<PondShared>]>,
}

impl Handle {
    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.regions, &self.ponds)
    }

    /// Why it is not ready: a source that is not open, or waits for something. `None` when it is ready.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        let region = &self.regions[0];
        region.sources.iter().find_map(|source| {
            let name = &region.node(source.node).name;
            let state = source.state();
            match (&state.positions, &state.waits_for) {
                (None, _) => Some(format!("source `{name}` is not open yet")),
                (_, Some(what)) => Some(format!("source `{name}`: {what}")),
                _ => None,
            }
        })
    }

    /// Asks it to stop: sources halt, a last cut is made, open hours stay open.
    pub fn stop(&self) {
        self.regions.iter().for_each(|region| region.coordinator().do_send(Stop));
    }
}

impl Running {
    /// For looking at it and stopping it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Why it could not go on; everything up to the last cut is safe.
    pub async fn wait(self) -> Result<Ended, RunError> {
        // The first that can't go on ends the run; otherwise it lasts until all have ended.
        let ended = try_join_all(self.done.into_iter().map(end_of)).await?;
        Ok(ended.into_iter().find(|ended| *ended == Ended::Stopped).unwrap_or(Ended::Finished))
    }
}

async fn end_of(region: oneshot::Receiver<Result<Ended, RunError>>) -> Result<Ended, RunError> {
    region.await.unwrap_or_else(|_| Err(RunError::Internal("the coordinator is gone".into())))
}

/// Number of the last cut that the ledger of a state directory holds; `None` when there is none. Touches nothing.
///
/// # Errors
/// When the ledger is damaged.
pub fn last_cut(state_root: &Path) -> Result<Option<u64>, RunError> {
    if !state_root.exists() {
        return Ok(None);
    }
    Ok(Ledger::peek(state_root)?.map(|(committed, _)| committed.last.cut))
}

/// Starts a topology. To be called inside an actix system.
///
/// # Errors
/// When the state can't be owned, read or followed, or the outputs can't be written.
pub fn start(plan: Plan, registry: Registry, config: RunConfig) -> Result<Running, RunError> {
    let lock = StateLock::take(&config.state_root)?;
    start_locked(plan, registry, config, lock)
}

/// The same, with the lock of the state directory of `config` in hand.
///
/// # Errors
/// When the state can't be read or followed, or the outputs can't be written.
pub fn start_locked(plan: Plan, registry: Registry, config: RunConfig, lock: StateLock) -> Result<Running, RunError> {
    let mut state = StateDir::take(lock, &config.output_root)?;
    state.announce(&Owner { pid: std::process::id(), admin: config.admin.clone() })?;
    let state = Arc::new(state);
    let fingerprint = plan.fingerprint();
    let divided = plan.regions();
    let mut running = Running {
        handle: Handle { regions: Arc::new([]), ponds: Arc::new([]) },
        done: Vec::new(),
        resumed_from: 0,
        was_finished: false,
        _pools: Vec::new(),
        _arbiters: Vec::new(),
    };
    let mut ponds: Vec<Arc<PondShared>> = Vec::new();
    consistent(&state, &divided, &fingerprint)?;
    // All of them are ready before any of them runs.
    let mut ready = Vec::new();
    for (index, region) in divided.regions.into_iter().enumerate() {
        let opened = Opening { state: &state, registry: &registry, config: &config, fingerprint: &fingerprint };
        let opened = opened.open(region, index, &divided.ponds, &mut ponds)?;
        let last = opened.region.committed().last.clone();
        if index == 0 {
            (running.resumed_from, running.was_finished) = (last.cut, true);
        }
        running.was_finished &= last.finished;
        ready.push(opened);
    }
    let regions = ready.iter().map(|opened| opened.region.clone()).collect();
    running.handle = Handle { regions, ponds: ponds.into() };
    ready.into_iter().for_each(|opened| opened.run(&mut running));
    Ok(running)
}

/// What all regions are opened with.
struct Opening<'a> {
    state: &'a Arc<StateDir>,
    registry: &'a Registry,
    config: &'a RunConfig,
    fingerprint: &'a Fingerprint,
}

/// A region that could run.
struct Ready {
    region: Arc<Region>,
    dir: RegionDir,
    ledger: Ledger,
}

impl Opening<'_> {
    /// Opens a region after those that feed it. The ponds that it fills are added to `shared`.
    fn open(
        &self,
        region: RegionPlan,
        index: usize,
        ponds: &[Pond],
        shared: &mut Vec<Arc<PondShared>>,
    ) -> Result<Ready, RunError> {
        let RegionPlan { name, plan } = region;
        let dir = self.state.region(&name)?;
        let mut snapshots = Default::default();
        let mut logs: Vec<(usize, Logs)> = Vec::new();
        let opened = Ledger::open(&dir.root, |committed| {
            if *name == *MAIN {
                committed.fingerprint = Some(self.fingerprint.clone());
            }
            snapshots = committer::recover(&dir, committed)?;
            for (index, node) in plan.nodes.iter().enumerate().filter(|(_, node)| node.role != Role::Source) {
                logs.push((index, restore_logs(self.state, node, committed)?));
            }
            failpoint::hit("logs-restored");
            Ok(())
        })?;
        let Opened { ledger, committed, dropped_bytes } = opened;
        if dropped_bytes > 0 {
            tracing::warn!(
                region = %name,
                dropped_bytes,
                cut = committed.last.cut,
                "the ledger ended in an incomplete record, which was dropped; going on from the cut before"
            );
        }
        let mut fills = Vec::new();
        for pond in ponds.iter().filter(|pond| pond.from == index) {
            let lengths = committed.logs.get(&pond.name).cloned().unwrap_or_default();
            let (logs, _) = self.state.stage_logs(&pond.name);
            fills.push(PondShared::new(pond, self.config.replay_bytes, logs, &lengths));
        }
        shared.extend(fills.iter().cloned());
        let mut reads = Vec::new();
        for pond in shared.iter().filter(|shared| ponds.iter().any(|pond| pond.name == shared.name && pond.to == index))
        {
            let position = committed.last.positions.get(&pond.name).and_then(|positions| positions.get(PARTITION));
            pond.consumed(position.map_or(0, |position| position.next));
            reads.push(pond.clone());
        }
        let wiring = Wiring { name, plan, committed, snapshots, logs, fills, reads };
        let region = Arc::new(wiring.region(self));
        Ok(Ready { region, dir, ledger })
    }
}

/// Looks at all ledgers before anything is changed: whether the state can be used with the topology as it is now, and whether the regions
/// agree on their ponds.
fn consistent(state: &StateDir, divided: &Regions, fingerprint: &Fingerprint) -> Result<(), RunError> {
    let mut ledgers: Vec<Option<Committed>> = Vec::new();
    for region in &divided.regions {
        let root = state.region_root(&region.name);
        let peeked = if root.exists() { Ledger::peek(&root)? } else { None };
        ledgers.push(peeked.map(|(committed, _)| committed));
    }
    if let Some(main) = &ledgers[0] {
        follows(main, fingerprint)?;
    }
    for pond in &divided.ponds {
        let written = ledgers[pond.from].as_ref().and_then(|committed| committed.logs.get(&pond.name));
        let Some(written) = written.filter(|written| !written.is_empty()) else { continue };
        let (first, end) = extent(written);
        let (from, to) = (&divided.regions[pond.from].name, &divided.regions[pond.to].name);
        let path = state.region_root(to);
        let Some(read) = &ledgers[pond.to] else {
            let what =
                format!("the ledger of region `{to}` is gone: how far its pond `{}` was delivered is lost", pond.name);
            return Err(RunError::Corrupt { what, path });
        };
        let positions = read.last.positions.get(&pond.name);
        let at = positions.and_then(|positions| positions.get(PARTITION)).map_or(0, |position| position.next);
        if !(first..=end).contains(&at) {
            let what = format!(
                "region `{to}` has read the pond `{}` up to byte {at}, but region `{from}` has bytes {first} to {end} of it: one of their ledgers has lost records",
                pond.name
            );
            return Err(RunError::Corrupt { what, path });
        }
    }
    Ok(())
}

/// Whether the state can be used with the topology as it is now.
fn follows(committed: &Committed, fingerprint: &Fingerprint) -> Result<(), RunError> {
    let Some(old) = &committed.fingerprint else { return Ok(()) };
    let refused = old.compare(fingerprint).into_iter().filter(|change| !change.compatible);
    let changes: Vec<String> = refused.map(|change| format!("  - {}; {}", change.what, change.help)).collect();
    if changes.is_empty() { Ok(()) } else { Err(RunError::Incompatible { changes }) }
}

impl Ready {
    /// Starts its actors.
    fn run(self, running: &mut Running) {
        let Self { region, dir, ledger } = self;
        let (done, finished) = oneshot::channel();
        let arbiters: Vec<_> = region.sources.iter().map(|_| actix::Arbiter::new()).collect();
        let jobs = committer::start(region.clone(), dir, ledger);
        Coordinator::create(|context| {
            // Whoever fails tells the coordinator, so it must be known before anybody runs.
            let _ = region.coordinator.set(context.address());
            let sources = region.sources.iter().zip(&arbiters);
            let readers =
                sources.map(|(source, on)| Reader::start(region.clone(), source.clone(), &on.handle())).collect();
            Coordinator::new(region.clone(), readers, jobs, done)
        });
        let pools = region.stages.iter().map(|stage| Pool::new(region.clone(), stage.clone()).start());
        running._pools.extend(pools);
        running._arbiters.extend(arbiters);
        running.done.push(finished);
    }
}

fn restore_logs(state: &StateDir, node: &Node, committed: &Committed) -> Result<Logs, RunError> {
    let (state_logs, output_logs) = state.stage_logs(&node.name);
    let lengths = committed.logs.get(&node.name).cloned().unwrap_or_default();
    Logs::restore(state_logs, output_logs, &lengths)
}

/// All that a region is made of.
struct Wiring {
    name: Arc<str>,
    plan: Plan,
    committed: Committed,
    snapshots: std::collections::BTreeMap<Arc<str>, Arc<[u8]>>,
    logs: Vec<(usize, Logs)>,
    /// The ponds that it fills, and those that it reads.
    fills: Vec<Arc<PondShared>>,
    reads: Vec<Arc<PondShared>>,
}

impl Wiring {
    fn region(self, opening: &Opening<'_>) -> Region {
        let Self { name, plan, committed, snapshots, logs, fills, reads } = self;
        let mut config = opening.config.clone();
        for pond in &fills {
            config.replay_bytes = replay_bytes(config.replay_bytes, pond.options);
        }
        let inboxes: Vec<Option<Arc<Inbox>>> = (plan.nodes.iter())
            .map(|node| {
                let keeps_replay = node.kind.state == tidemill_core::State::Stateful;
                (node.role != Role::Source)
                    .then(|| Inbox::new(node.inputs.len(), config.lane_bytes, node.workers, keeps_replay))
            })
            .collect();
        let targets = |from: usize| -> Vec<Target> {
            let mut targets = Vec::new();
            for (node, inbox) in plan.nodes.iter().zip(&inboxes) {
                let Some(inbox) = inbox else { continue };
                for (lane, edge) in node.inputs.iter().enumerate().filter(|(_, edge)| edge.from == from) {
                    let (inbox, port, types) = (inbox.clone(), edge.port, edge.types.clone());
                    targets.push(Target { inbox, lane, port, types });
                }
            }
            targets
        };
        let mut stages = Vec::new();
        for (index, logs) in logs {
            let Some(inbox) = inboxes[index].clone() else { continue };
            let tally = committed.last.stages.get(&plan.nodes[index].name).map(|said| said.tally).unwrap_or_default();
            stages.push(Arc::new(StageShared {
                node: index,
                inbox,
                outlet: Outlet::new(targets(index)),
                pond: fills.iter().find(|pond| pond.name == plan.nodes[index].name).cloned(),
                logs: Mutex::new(logs),
                tally: Mutex::new(tally),
                progress: Mutex::default(),
                pending: Mutex::default(),
                acked: AtomicU64::new(committed.last.cut),
                counters: Counters::default(),
                epochs: DashMap::new(),
                open_hours: AtomicU64::new(0),
                waits_for: Mutex::default(),
            }));
        }
        let sources = (plan.nodes.iter().enumerate().filter(|(_, node)| node.role == Role::Source))
            .map(|(index, _)| {
                Arc::new(SourceShared {
                    node: index,
                    pond: reads.iter().find(|pond| pond.name == plan.nodes[index].name).cloned(),
                    outlet: Outlet::new(targets(index)),
                    counters: Counters::default(),
                    epoch: AtomicU64::new(0),
                    state: Mutex::new(SourceState::default()),
                    control: Notify::new(),
                })
            })
            .collect();
        let progress = Progress::at(&committed);
        let lineage = lineage(&plan);
        Region {
            name,
            lineage,
            plan: Arc::new(plan),
            config,
            registry: opening.registry.clone(),
            state_id: opening.state.id.clone(),
            stages,
            sources,
            ponds_out: fills,
            committed: Mutex::new(committed),
            snapshots: Mutex::new(snapshots),
            changed: Notify::new(),
            progress: Mutex::new(progress),
            read_bytes: AtomicU64::new(0),
            committed_bytes: AtomicU64::new(0),
            coordinator: OnceLock::new(),
            ended: AtomicBool::new(false),
            hours_sealed: DashMap::new(),
            dead_letters: DashMap::new(),
            cut_duration_ms: AtomicU64::new(0),
            cut_commit_ms: AtomicU64::new(0),
        }
    }
}
