//! Starting a topology: state, ledger, wiring, actors.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use actix::{Actor, Addr, AsyncContext};
use dashmap::DashMap;
use tidemill_core::Role;
use tidemill_topology::{Node, Plan};
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
use crate::pool::Pool;
use crate::progress::Progress;
use crate::reader::Reader;
use crate::region::{Counters, Region, RunConfig, SourceShared, SourceState, StageShared};
use crate::registry::Registry;
use crate::state_dir::{Owner, StateDir};
use crate::status::Status;

/// A running topology.
pub struct Running {
    handle: Handle,
    done: oneshot::Receiver<Result<Ended, RunError>>,
    /// Cut that the run went on from; 0 at the first start.
    pub resumed_from: u64,
    /// Whether the state says that the input was read to its end before.
    pub was_finished: bool,
    /// Bytes of an incomplete record at the ledger's end that were dropped.
    pub dropped_bytes: u64,
    _pools: Vec<Addr<Pool>>,
    _arbiters: Vec<actix::Arbiter>,
}

/// Looks at a running topology and stops it, from any thread.
#[derive(Clone)]
pub struct Handle {
    region: Arc<Region>,
}

impl Handle {
    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.region.status()
    }

    /// Why it is not ready: a source that is not open, or waits for something. `None` when it is ready.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        self.region.sources.iter().find_map(|source| {
            let name = &self.region.node(source.node).name;
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
        self.region.coordinator().do_send(Stop);
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
        self.done.await.unwrap_or_else(|_| Err(RunError::Internal("the coordinator is gone".into())))
    }
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
    let mut state = StateDir::take(&config.state_root, &config.output_root)?;
    state.announce(&Owner { pid: std::process::id(), admin: config.admin.clone() })?;
    let mut snapshots = Default::default();
    let mut logs: Vec<(usize, Logs)> = Vec::new();
    let mut resumed = (0, false);
    let fingerprint = plan.fingerprint();
    let opened = Ledger::open(&config.state_root, |committed| {
        resumed = (committed.last.cut, committed.last.finished);
        if let Some(old) = &committed.fingerprint {
            let refused = old.compare(&fingerprint).into_iter().filter(|change| !change.compatible);
            let changes: Vec<String> = refused.map(|change| format!("  - {}; {}", change.what, change.help)).collect();
            if !changes.is_empty() {
                return Err(RunError::Incompatible { changes });
            }
        }
        snapshots = committer::recover(&state, committed)?;
        for (index, node) in plan.nodes.iter().enumerate().filter(|(_, node)| node.role != Role::Source) {
            logs.push((index, restore_logs(&state, node, committed)?));
        }
        failpoint::hit("logs-restored");
        committed.fingerprint = Some(fingerprint);
        Ok(())
    })?;
    let Opened { ledger, committed, dropped_bytes } = opened;
    if dropped_bytes > 0 {
        tracing::warn!(
            dropped_bytes,
            cut = committed.last.cut,
            "the ledger ended in an incomplete record, which was dropped; going on from the cut before"
        );
    }
    let region = Arc::new(wire(plan, registry, config, &state, committed, snapshots, logs));
    let (done, finished) = oneshot::channel();
    let arbiters: Vec<_> = region.sources.iter().map(|_| actix::Arbiter::new()).collect();
    let jobs = committer::start(region.clone(), state, ledger);
    Coordinator::create(|context| {
        // Whoever fails tells the coordinator, so it must be known before anybody runs.
        let _ = region.coordinator.set(context.address());
        let sources = region.sources.iter().zip(&arbiters);
        let readers = sources.map(|(source, on)| Reader::start(region.clone(), source.clone(), &on.handle())).collect();
        Coordinator::new(region.clone(), readers, jobs, done)
    });
    let pools = region.stages.iter().map(|stage| Pool::new(region.clone(), stage.clone()).start()).collect();
    Ok(Running {
        handle: Handle { region },
        done: finished,
        resumed_from: resumed.0,
        was_finished: resumed.1,
        dropped_bytes,
        _pools: pools,
        _arbiters: arbiters,
    })
}

fn restore_logs(state: &StateDir, node: &Node, committed: &Committed) -> Result<Logs, RunError> {
    let (state_logs, output_logs) = state.stage_logs(&node.name);
    let lengths = committed.logs.get(&node.name).cloned().unwrap_or_default();
    Logs::restore(state_logs, output_logs, &lengths)
}

fn wire(
    plan: Plan,
    registry: Registry,
    config: RunConfig,
    state: &StateDir,
    committed: Committed,
    snapshots: std::collections::BTreeMap<Arc<str>, Arc<[u8]>>,
    logs: Vec<(usize, Logs)>,
) -> Region {
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
        lineage,
        plan: Arc::new(plan),
        config,
        registry,
        state_id: state.id.clone(),
        stages,
        sources,
        committed: Mutex::new(committed),
        snapshots: Mutex::new(snapshots),
        changed: Notify::new(),
        progress: Mutex::new(progress),
        read_bytes: AtomicU64::new(0),
        committed_bytes: AtomicU64::new(0),
        coordinator: OnceLock::new(),
        hours_sealed: DashMap::new(),
        dead_letters: DashMap::new(),
        cut_duration_ms: AtomicU64::new(0),
        cut_commit_ms: AtomicU64::new(0),
    }
}
