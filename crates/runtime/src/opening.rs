//! Opening a region: its ledger, its Logs and snapshots as of the last cut, and the wiring of what will run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};

use dashmap::DashMap;
use tidemill_core::{DEAD_LETTER_TYPE, LatePolicy, Role, Tally};
use tidemill_topology::{DeadLetterCaps, Fingerprint, Lineage, MAIN, Node, Plan, Pond, RegionPlan};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::audit::Mismatch;
use crate::caps::Caps;
use crate::committer;
use crate::delivery::DeliveryStatus;
use crate::error::RunError;
use crate::failpoint;
use crate::inbox::Inbox;
use crate::ledger::{Committed, Ledger, Opened};
use crate::live::Live;
use crate::logs::Logs;
use crate::outlet::{Outlet, Target};
use crate::pieces::Pieces;
use crate::pond::reader::offset_in;
use crate::pond::shared::{PondShared, replay_bytes};
use crate::progress::Progress;
use crate::publisher::Publisher;
use crate::region::{Counters, DeadKey, Region, RunConfig, SourceShared, SourceState, StageShared};
use crate::registry::Registry;
use crate::replay::Ways;
use crate::run::Handle;
use crate::state_dir::{RegionDir, StateDir};
use crate::suspects::Suspects;

/// What the regions of a topology are opened with, the first time and again.
pub(crate) struct Opening {
    pub(crate) state: Arc<StateDir>,
    pub(crate) registry: Registry,
    pub(crate) config: RunConfig,
    pub(crate) suspects: Arc<Suspects>,
    pub(crate) fingerprint: Fingerprint,
    /// Number of the run, and whether it goes on with an earlier one, to its ends.
    pub(crate) run: u64,
    pub(crate) ends_hold: bool,
    /// In topological order.
    pub(crate) plans: Vec<Planned>,
    pub(crate) ponds: Vec<Pond>,
    /// Nodes behind each node, and how dead letters come back to the stages that refused them.
    pub(crate) leads: BTreeMap<Arc<str>, Arc<BTreeSet<Arc<str>>>>,
    pub(crate) ways: Arc<Ways>,
    /// What the ends of each pond know of each other. It outlives the regions, which may be opened again.
    pub(crate) shared: Mutex<Vec<Arc<PondShared>>>,
    /// Of each region.
    pub(crate) carried: Vec<Arc<Carried>>,
}

/// What is counted of a type since the process started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TypeCounts {
    /// Events that were parsed, repeated ones among them.
    pub(crate) events: u64,
    /// Those of them that came when their hour was sealed.
    pub(crate) late: u64,
    /// Events that producers have sent, and that did not come.
    pub(crate) missing: u64,
    /// Hours with events that were sealed.
    pub(crate) sealed: u64,
    /// Those of them that were sealed in time.
    pub(crate) sealed_in_time: u64,
    /// How long after its end and the allowed lateness the last one was sealed, in milliseconds.
    pub(crate) seal_delay_ms: Option<i64>,
}

impl TypeCounts {
    pub(crate) fn add(&mut self, more: &Self) {
        self.events += more.events;
        self.late += more.late;
        self.missing += more.missing;
        self.sealed += more.sealed;
        self.sealed_in_time += more.sealed_in_time;
        self.seal_delay_ms = more.seal_delay_ms.or(self.seal_delay_ms);
    }
}

/// What of a region goes on counting when it is opened again.
#[derive(Default)]
pub(crate) struct Carried {
    pub(crate) restarts: AtomicU64,
    pub(crate) types: DashMap<Arc<str>, TypeCounts>,
    /// By sink.
    pub(crate) deliveries: DashMap<Arc<str>, DeliveryStatus>,
    pub(crate) dead_letters: DashMap<DeadKey, u64>,
    /// Times that counts did not agree, by type, and what was wrong the last time.
    pub(crate) mismatches: DashMap<Arc<str>, (u64, String)>,
}

impl Carried {
    /// Tells of counts that do not agree.
    pub(crate) fn tell<'a>(&self, region: &str, mismatches: impl Iterator<Item = &'a Mismatch>) {
        for mismatch in mismatches {
            let Mismatch { place, event_type, expected, found, .. } = mismatch;
            let hour = mismatch.hour.map(|hour| hour.to_string()).unwrap_or_default();
            tracing::error!(
                region, %place, %event_type, %hour, kind = mismatch.kind(), expected = expected.events, found = found.events,
                expected_ids = %expected.ids, found_ids = %found.ids,
                "the audit does not hold: events were lost, repeated or exchanged"
            );
            let mut known = self.mismatches.entry(event_type.clone()).or_default();
            *known = (known.0 + 1, mismatch.to_string());
        }
    }
}

/// A region as it was planned.
#[derive(Clone)]
pub(crate) struct Planned {
    pub(crate) name: Arc<str>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) lineage: Arc<Lineage>,
}

impl From<RegionPlan> for Planned {
    fn from(RegionPlan { name, plan, lineage }: RegionPlan) -> Self {
        Self { name, plan: Arc::new(plan), lineage: Arc::new(lineage) }
    }
}

/// A region that could run.
pub(crate) struct Ready {
    pub(crate) region: Arc<Region>,
    pub(crate) dir: RegionDir,
    pub(crate) ledger: Ledger,
    pub(crate) publisher: Publisher,
}

impl Opening {
    /// Opens a region, the first time after those that feed it.
    pub(crate) fn open(&self, index: usize) -> Result<Ready, RunError> {
        let Planned { name, plan, lineage } = self.plans[index].clone();
        let dir = self.state.region(&name)?;
        let mut recovered = None;
        let mut logs: Vec<(usize, Logs)> = Vec::new();
        let fingerprint = (*name == *MAIN).then_some(&self.fingerprint);
        let opened = Ledger::open(&self.config.host, &dir.root, fingerprint, self.run, |committed| {
            recovered = Some(committer::recover(&dir, committed)?);
            for (index, node) in plan.nodes.iter().enumerate().filter(|(_, node)| node.role != Role::Source) {
                logs.push((index, restore_logs(&self.state, node, committed)?));
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
        let (pieces, publisher) =
            recovered.ok_or_else(|| RunError::Internal("a ledger was opened without its state".into()))?;
        let (fills, reads) = self.ponds_of(index, &committed);
        let carried = self.carried[index].clone();
        let wiring = Wiring { name, plan, lineage, committed, pieces, logs, fills, reads, carried };
        let region = Arc::new(wiring.region(self));
        Ok(Ready { region, dir, ledger, publisher })
    }

    /// Opens all regions again, behind a run to the end, to follow the input from there.
    pub(crate) fn follow(&mut self, handle: &Handle) -> Result<Vec<Live>, RunError> {
        (self.config.until_end, self.ends_hold) = (false, false);
        self.run += 1;
        // What their ends know is that nothing more comes.
        self.shared.get_mut().expect("no code panics while it holds the ponds").clear();
        let ready = (0..self.plans.len()).map(|index| self.open(index)).collect::<Result<Vec<_>, _>>()?;
        let run = |(index, ready): (usize, Ready)| {
            let region = ready.region.clone();
            let live = ready.run();
            handle.replace(index, region);
            live
        };
        Ok(ready.into_iter().enumerate().map(run).collect())
    }

    /// The share of a stage in the memory for state.
    fn memory_bytes(&self) -> u64 {
        let nodes = self.plans.iter().flat_map(|planned| &planned.plan.nodes);
        let has_state = |node: &&Node| node.role != Role::Source && node.kind.state == tidemill_core::State::Stateful;
        let stages = nodes.filter(has_state).count().max(1) as u64;
        self.config.state_memory_bytes / stages
    }

    /// The ponds that a region fills, and those that it reads.
    fn ponds_of(&self, index: usize, committed: &Committed) -> (Vec<Arc<PondShared>>, Vec<Arc<PondShared>>) {
        let mut shared = self.shared.lock().expect("no code panics while it holds the ponds");
        let mut fills = Vec::new();
        for pond in self.ponds.iter().filter(|pond| pond.from == index) {
            let lengths = committed.logs.get(&pond.name).cloned().unwrap_or_default();
            if let Some(known) = shared.iter().find(|known| known.name == pond.name) {
                known.reset(&lengths);
                fills.push(known.clone());
                continue;
            }
            let (logs, _) = self.state.stage_logs(&pond.name);
            let made = PondShared::new(pond, self.config.replay_bytes, logs, &lengths);
            shared.push(made.clone());
            fills.push(made);
        }
        let mut reads = Vec::new();
        let into = |name: &str| self.ponds.iter().any(|pond| *pond.name == *name && pond.to == index);
        for pond in shared.iter().filter(|shared| into(&shared.name)) {
            pond.consumed(offset_in(&committed.positions, &pond.name));
            reads.push(pond.clone());
        }
        (fills, reads)
    }
}

fn restore_logs(state: &StateDir, node: &Node, committed: &Committed) -> Result<Logs, RunError> {
    let (state_logs, output_logs) = state.stage_logs(&node.name);
    let lengths = committed.logs.get(&node.name).cloned().unwrap_or_default();
    Logs::restore(state.host.clone(), state_logs, output_logs, &lengths, &committed.staged(&node.name))
}

/// Where what a node sends goes.
fn targets(
    plan: &Plan,
    inboxes: &[Option<Arc<Inbox>>],
    leads: &BTreeMap<Arc<str>, Arc<BTreeSet<Arc<str>>>>,
    from: usize,
) -> Vec<Target> {
    let mut targets = Vec::new();
    for (node, inbox) in plan.nodes.iter().zip(inboxes) {
        let Some(inbox) = inbox else { continue };
        for (lane, edge) in node.inputs.iter().enumerate().filter(|(_, edge)| edge.from == from) {
            targets.push(Target {
                inbox: inbox.clone(),
                lane,
                port: edge.port,
                types: edge.types.clone(),
                node: node.name.clone(),
                leads_to: leads.get(&node.name).cloned().unwrap_or_default(),
            });
        }
    }
    targets
}

/// How many sinks take each type.
fn sinks(fingerprint: &Fingerprint) -> BTreeMap<Arc<str>, u64> {
    let mut sinks: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    for name in fingerprint.sinks().flat_map(|(_, _, accepts)| accepts) {
        *sinks.entry(name.as_str().into()).or_default() += 1;
    }
    sinks
}

/// What had become of records when a run began; it goes on with an earlier one when `ends_hold`.
fn before(committed: &Committed, ends_hold: bool) -> Tally {
    let last = &committed.last;
    match ends_hold && last.until_end {
        true => last.before,
        false => last.stages.values().map(|said| &said.tally).sum(),
    }
}

/// State leaves memory at cuts, so no more is in flight between two of them than there is memory for state; but so many
/// received bytes in any case.
const REPLAY_BYTES_MIN: u64 = 2 << 20;
/// Steps of niceness from one tier to the next: a third of a processor, while both want it.
pub(crate) const STEP: i32 = 5;

/// By how much the threads of a region give way. One behind ponds is as urgent as the most urgent type that comes to it, beside the most urgent one that
/// there is; the one that has the sources, as that.
fn gives_way(region: &str, plan: &Plan) -> i32 {
    let accepted = plan.nodes.iter().flat_map(|node| &node.accepts);
    // The letters of a region's own events do not make it more urgent; where they are all that comes, they are like most types.
    let comes = accepted.clone().filter(|of| *of.name != *DEAD_LETTER_TYPE).map(|of| of.tier).max();
    let comes = comes.or_else(|| accepted.map(|of| of.tier).max());
    let first = plan.types.iter().map(|of| of.tier).max();
    match (comes, first) {
        (Some(comes), Some(first)) if *region != *MAIN => STEP * (first as i32 - comes as i32).max(0),
        _ => 0,
    }
}

/// All that a region is made of.
struct Wiring {
    name: Arc<str>,
    plan: Arc<Plan>,
    lineage: Arc<Lineage>,
    committed: Committed,
    pieces: Arc<Pieces>,
    logs: Vec<(usize, Logs)>,
    /// The ponds that it fills, and those that it reads.
    fills: Vec<Arc<PondShared>>,
    reads: Vec<Arc<PondShared>>,
    carried: Arc<Carried>,
}

impl Wiring {
    fn region(self, opening: &Opening) -> Region {
        let Self { name, plan, lineage, committed, pieces, logs, fills, reads, carried } = self;
        let mut config = opening.config.clone();
        config.replay_bytes = config.replay_bytes.min(config.state_memory_bytes.max(REPLAY_BYTES_MIN));
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
        let targets = |from: usize| targets(&plan, &inboxes, &opening.leads, from);
        let is_pond = |index: usize| fills.iter().any(|pond| pond.name == plan.nodes[index].name);
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
                books: Mutex::default(),
                arrived: Mutex::default(),
                pending: Mutex::default(),
                acked: AtomicU64::new(committed.last.cut),
                counters: Counters::default(),
                epochs: DashMap::new(),
                open_hours: AtomicU64::new(0),
                waits_for: Mutex::default(),
                calls: DashMap::new(),
                stuck_threads: AtomicUsize::new(0),
                pool: OnceLock::new(),
                // Who fills a pond that may refuse events has said so.
                caps: Caps::new(if is_pond(index) { DeadLetterCaps::default() } else { plan.caps }),
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
        let ends = committed.ends.clone().filter(|_| opening.ends_hold);
        let before = before(&committed, opening.ends_hold);
        let sinks = sinks(&opening.fingerprint);
        let progress = Progress::at(&committed, lineage.made_of(), config.host.now_ms());
        let types = plan.types.iter().chain(plan.nodes.iter().flat_map(|node| &node.sends));
        let revised = types.filter(|event_type| event_type.late.policy == LatePolicy::Revise);
        let revised_types = revised.map(|event_type| (event_type.name.clone(), event_type.late)).collect();
        let gives_way = gives_way(&name, &plan);
        Region {
            name,
            lineage,
            gives_way,
            revised_types,
            opened: Instant::now(),
            listens_since: AtomicI64::new(i64::MIN),
            plan,
            config,
            registry: opening.registry.clone(),
            suspects: opening.suspects.clone(),
            ways: opening.ways.clone(),
            state_id: opening.state.id.clone(),
            key: opening.state.key.clone(),
            stages,
            sources,
            ponds_out: fills,
            committed: Mutex::new(committed),
            pieces,
            sinks,
            run: opening.run,
            ends,
            before,
            memory_bytes: opening.memory_bytes(),
            changed: Notify::new(),
            progress: Mutex::new(progress),
            barriers_passed: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            committed_bytes: AtomicU64::new(0),
            coordinator: OnceLock::new(),
            fault: Mutex::default(),
            ended: AtomicBool::new(false),
            carried,
            cut_duration_ms: AtomicU64::new(0),
            cut_commit_ms: AtomicU64::new(0),
        }
    }
}
