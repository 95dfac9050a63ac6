//! A topology that runs: its start, and the end of all of its regions.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::try_join_all;
use tidemill_core::{Positions, Tally};
use tidemill_topology::Plan;
use tokio::sync::Notify;

use crate::consistent::{consistent, follows};
use crate::coordinator::{Ended, Stop};
use crate::error::RunError;
use crate::finite::{Interrupted, can_end};
use crate::host::System;
use crate::ledger::{Committed, Ledger};
use crate::live::Live;
use crate::opening::{Opening, Planned};
use crate::region::{Reads, Region, RunConfig};
use crate::registry::Registry;
use crate::replay::{Ways, leads};
use crate::requests;
use crate::state_dir::{Owner, StateDir, StateLock};
use crate::status::Status;
use crate::suspects::Suspects;

/// A running topology.
pub struct Running {
    handle: Handle,
    opening: Opening,
    live: Vec<Live>,
    /// Cut of the sources' region that the run went on from; 0 at the first start.
    pub resumed_from: u64,
    /// Whether the state says that the input was read to its end before.
    pub was_finished: bool,
    /// It completes an interrupted run to the end, and follows its input then.
    follows_behind: bool,
}

/// Looks at a running topology and stops it, from any thread.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

/// What a run has not delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Short {
    /// Events that became dead letters.
    pub letters: u64,
    /// Those of them that limits refused: manifests say that their hours are short.
    pub refused: u64,
}

struct Shared {
    /// In topological order; the first has the sources.
    regions: Mutex<Vec<Arc<Region>>>,
    is_stopping: AtomicBool,
    stops: Notify,
}

impl Handle {
    fn regions(&self) -> MutexGuard<'_, Vec<Arc<Region>>> {
        self.0.regions.lock().expect("no code panics while it holds the regions")
    }

    /// What is short in what it has delivered: dead letters, and those of them that limits refused. Of a run to the
    /// end,
    /// over all processes that it took; of another, since the process began.
    #[must_use]
    pub fn short(&self) -> Short {
        let mut short = Short::default();
        for region in &*self.regions() {
            let tallies: Vec<_> = region.stages.iter().map(|stage| *stage.tally()).collect();
            let (now, before): (Tally, Tally) = (tallies.iter().sum(), region.before);
            short.letters += (now.dead + now.late).saturating_sub(before.dead + before.late);
            short.refused += now.refused.saturating_sub(before.refused);
        }
        short
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let regions = self.regions().clone();
        Status::of(&regions)
    }

    /// Why it is not ready: what has the sources can't run, or a source is not open, or waits for something. `None` when it is ready.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        let region = self.regions()[0].clone();
        if let Some(fault) = &*region.fault() {
            return Some(format!("it goes back to its last cut: {fault}"));
        }
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
        // Whoever is opened after this is told by it, whoever is there by the message.
        self.0.is_stopping.store(true, Ordering::SeqCst);
        self.0.stops.notify_waiters();
        self.regions().iter().for_each(|region| region.coordinator().do_send(Stop));
    }

    /// To be called before the process ends without waiting: what workers have in hand then did not kill it.
    pub fn abandon(&self) {
        // All regions have the same.
        self.regions()[0].suspects.forget_marks();
    }

    /// Waits until a stop is asked for.
    pub(crate) async fn stops(&self) {
        let stops = self.0.stops.notified();
        if !self.0.is_stopping.load(Ordering::SeqCst) {
            stops.await;
        }
    }

    /// A region was opened again, and runs.
    pub(crate) fn replace(&self, index: usize, region: Arc<Region>) {
        let mut regions = self.regions();
        if self.0.is_stopping.load(Ordering::SeqCst) {
            region.coordinator().do_send(Stop);
        }
        regions[index] = region;
    }
}

impl Running {
    /// For looking at it and stopping it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits for its end. Regions that can't go on are opened again only while somebody waits here.
    ///
    /// # Errors
    /// Why it could not go on; everything up to the last cut is safe.
    pub async fn wait(self) -> Result<Ended, RunError> {
        let Self { handle, mut opening, mut live, mut follows_behind, .. } = self;
        loop {
            let ends = live.into_iter().enumerate().map(|(index, live)| live.supervise(&opening, index, &handle));
            // The first that can't go on ends the run; otherwise it lasts until all have ended.
            let ended = try_join_all(ends).await.inspect_err(|_| opening.suspects.forget_marks())?;
            opening.suspects.forget();
            let ended = ended.into_iter().find(|ended| *ended == Ended::Stopped).unwrap_or(Ended::Finished);
            if !std::mem::take(&mut follows_behind) || ended == Ended::Stopped {
                return Ok(ended);
            }
            tracing::info!("the interrupted run is complete: all its hours are sealed. Following the input now");
            live = opening.follow(&handle)?;
        }
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
    Ok(Ledger::peek(&System, state_root)?.map(|(committed, _)| committed.last.cut))
}

/// Positions of the sources as of the last cut that the ledger of a state directory holds; none when there is no cut. Touches nothing.
///
/// # Errors
/// When the ledger is damaged.
pub fn last_positions(state_root: &Path) -> Result<Positions, RunError> {
    let committed = Ledger::peek(&System, state_root)?;
    Ok(committed.map(|(committed, _)| committed.positions).unwrap_or_default())
}

/// Whether a topology can go on with a state directory, if there is a cut in it. Touches nothing.
///
/// # Errors
/// [`RunError::Incompatible`] when it can't; or when the ledger is damaged.
pub fn can_follow(state_root: &Path, plan: &Plan) -> Result<(), RunError> {
    match Ledger::peek(&System, state_root)? {
        Some((committed, _)) => follows(&committed, &plan.fingerprint()),
        None => Ok(()),
    }
}

/// Number of a run that begins, or goes on.
fn run_of(cuts: &[Option<Committed>], goes_on: bool) -> u64 {
    let runs = cuts.iter().flatten().map(|cut| cut.last.run);
    match goes_on {
        true => cuts.iter().flatten().next().map_or(0, |main| main.last.run),
        false => runs.max().map_or(1, |last| last + 1),
    }
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
pub fn start_locked(
    plan: Plan,
    registry: Registry,
    mut config: RunConfig,
    lock: StateLock,
) -> Result<Running, RunError> {
    let mut state = StateDir::take(config.host.clone(), lock, &config.state_root, &config.output_root)?;
    state.announce(&Owner { pid: std::process::id(), admin: config.admin.clone() })?;
    let fingerprint = plan.fingerprint();
    let ways = Arc::new(Ways::of(&plan));
    let ends = can_end(&plan, &registry);
    let divided = plan.regions();
    let cuts = consistent(&state, &divided, &fingerprint)?;
    let interrupted = Interrupted::of(&cuts);
    let was_finished = cuts.iter().all(|cut| cut.as_ref().is_some_and(|cut| cut.last.finished));
    let follows_behind = !config.until_end && interrupted.is_closing;
    if follows_behind {
        tracing::warn!("a run with --until-end was interrupted while it sealed its hours: that is completed first");
        config.until_end = true;
    }
    if config.until_end && matches!(config.reads, Reads::All) {
        ends?;
    }
    let suspects = Arc::new(Suspects::take(config.host.clone(), &state.root)?);
    let carried = divided.regions.iter().map(|_| Arc::default()).collect();
    let plans: Vec<Planned> = divided.regions.into_iter().map(Planned::from).collect();
    let opening = Opening {
        carried,
        leads: leads(plans.iter().map(|planned| &*planned.plan)),
        ways,
        state: Arc::new(state),
        suspects,
        registry,
        run: run_of(&cuts, config.until_end && interrupted.ends_hold),
        ends_hold: config.until_end && interrupted.ends_hold,
        config,
        fingerprint,
        plans,
        ponds: divided.ponds,
        shared: Mutex::default(),
    };
    // All of them are ready before any of them runs.
    let ready = (0..opening.plans.len()).map(|index| opening.open(index)).collect::<Result<Vec<_>, _>>()?;
    let stages = opening.plans.iter().flat_map(|planned| &planned.plan.nodes);
    let staged = ready.iter().flat_map(|ready| ready.region.committed().requested()).collect();
    requests::clear(&opening.state, &stages.map(|node| &*node.name).collect(), &staged)?;
    let resumed_from = ready[0].region.committed().last.cut;
    let regions = Mutex::new(ready.iter().map(|ready| ready.region.clone()).collect());
    let handle = Handle(Arc::new(Shared { regions, is_stopping: AtomicBool::new(false), stops: Notify::new() }));
    let live = ready.into_iter().map(|ready| ready.run()).collect();
    Ok(Running { handle, opening, live, resumed_from, was_finished, follows_behind })
}
