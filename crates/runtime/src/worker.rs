//! A worker: one actor on a thread of its own that leases items, calls the stage, and hands on what the calls brought about.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, WrapFuture};
use actix::fut::ActorFutureExt;
use tidemill_core::{
    Batch, Effects, Input, LogName, Publication, Role, Seals, Shape, Tally, dead_letter_batch,
};
use tidemill_topology::Port;

use crate::coordinator::{Ack, Fatal};
use crate::engine::{Engine, Failure, Outcome};
use crate::error::RunError;
use crate::item::{Item, Numbered};
use crate::pool::{Failed, Pool};
use crate::progress::Seen;
use crate::region::{Region, StageShared};

/// Pause between two tries of an append for which there is no room.
const APPEND_RETRY: Duration = Duration::from_millis(500);
/// How long a run that is to end by itself waits for room.
const NO_ROOM_MAX: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Worker {
    pub(crate) region: Arc<Region>,
    pub(crate) stage: Arc<StageShared>,
    pub(crate) pool: Addr<Pool>,
    pub(crate) index: usize,
    pub(crate) epoch: u64,
    /// Whether everything since the last committed cut has to be repeated.
    pub(crate) restores: bool,
}

/// The result of one item, waiting for its turn.
pub(crate) struct Done {
    effects: Effects,
    dead: Option<Batch>,
    seen: Vec<Seen>,
    barrier: Option<(Arc<Seals>, Vec<u8>)>,
}

/// What a barrier left behind in a stage, for the coordinator.
pub(crate) struct Left {
    pub(crate) snapshot: Vec<u8>,
    pub(crate) logs: Vec<(LogName, u64)>,
    pub(crate) publications: Vec<Publication>,
    pub(crate) retired: Vec<LogName>,
    pub(crate) tally: Tally,
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let work = work(
            self.region.clone(),
            self.stage.clone(),
            Watch { pool: self.pool.clone(), index: self.index, epoch: self.epoch, reported: false },
            self.restores,
        );
        ctx.spawn(work.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// Tells the supervisor of the worker's end, whatever the reason.
struct Watch {
    pool: Addr<Pool>,
    index: usize,
    epoch: u64,
    reported: bool,
}

impl Watch {
    fn report(&mut self, message: String, at_once: bool) {
        self.reported = true;
        self.pool.do_send(Failed { index: self.index, epoch: self.epoch, message, at_once });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.reported && std::thread::panicking() {
            self.report("the worker's own code panicked".into(), false);
        }
    }
}

async fn work(region: Arc<Region>, stage: Arc<StageShared>, mut watch: Watch, restores: bool) {
    let name = region.node(stage.node).name.clone();
    if restores && let Err(error) = go_back(&region, &stage).await {
        region.coordinator().do_send(Fatal(error));
        return;
    }
    let mut engine = match Engine::build(&region, &stage).await {
        Ok(engine) => engine,
        Err(message) if watch.epoch == 0 => {
            region.coordinator().do_send(Fatal(RunError::Start { node: name.to_string(), message }));
            return;
        }
        Err(message) => return watch.report(format!("it can't be built: {message}"), false),
    };
    if restores {
        let items = stage.inbox.replay();
        tracing::info!(stage = %name, items, "restored from the last cut; replaying what came since");
    }
    loop {
        let item = stage.inbox.lease().await;
        let begin = Instant::now();
        let outcome = engine.run(&region, &name, &item).await;
        stage.counters.busy_ns.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        let done = match outcome.map(|outcome| done(&region, &stage, &item, outcome)) {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                region.coordinator().do_send(Fatal(error));
                return;
            }
            Err(failure) => {
                drop(engine);
                let at_once = give_back(&region, &stage, item, &failure);
                return watch.report(failure.message, at_once);
            }
        };
        if item.item.cut().is_some() {
            stage.open_hours.store(engine.open_hours() as u64, Ordering::Relaxed);
        }
        if stage.outlet.is_repeat(item.number) {
            release(&region, &stage, item.number, done, true).await;
        } else if stage.outlet.leave(item.number, done) {
            while let Some((number, done)) = stage.outlet.next() {
                release(&region, &stage, number, done, false).await;
            }
        }
    }
}

/// Sets a stage back to the last committed cut. An acknowledged cut that is being committed is awaited first.
async fn go_back(region: &Region, stage: &StageShared) -> Result<(), RunError> {
    let name = &region.node(stage.node).name;
    region.settled(stage).await;
    let (lengths, tally) = {
        let committed = region.committed();
        let tally = committed.last.stages.get(name).map(|said| said.tally).unwrap_or_default();
        (committed.logs.get(name).cloned().unwrap_or_default(), tally)
    };
    *stage.tally() = tally;
    stage.logs().go_back(&lengths)
}

/// Puts a failed item back: first as it is, then halved, down to the one record that can't be dealt with.
/// Returns whether to go on without a pause, because this is a search and not a fault of its own.
fn give_back(region: &Region, stage: &StageShared, item: Numbered, failure: &Failure) -> bool {
    stage.counters.errors.fetch_add(1, Ordering::Relaxed);
    if keeps_state(region, stage) {
        stage.inbox.hold();
    }
    let failures = item.failures + 1;
    let is_search = failures >= 2 && matches!(item.item, Item::Data(_));
    let next = if is_search { item.item.bisect(failure.part, &failure.message) } else { item.item };
    stage.inbox.give_back(Numbered { item: next, failures, ..item });
    is_search
}

pub(crate) fn keeps_state(region: &Region, stage: &StageShared) -> bool {
    region.node(stage.node).kind.state == tidemill_core::State::Stateful
}

/// Checks a call's effects and gets them ready to be handed on.
fn done(region: &Region, stage: &StageShared, item: &Numbered, outcome: Outcome) -> Result<Done, RunError> {
    let node = region.node(stage.node);
    let Outcome { effects, snapshot } = outcome;
    let barrier = match (&item.item, snapshot) {
        (Item::Barrier(seals), Some(snapshot)) => Some((seals.clone(), snapshot)),
        _ => None,
    };
    let rows: u64 = effects.batches.iter().map(|batch| batch.len() as u64).sum();
    let tally = &effects.tally;
    let letters = tally.dead + tally.late == effects.dead.len() as u64;
    let sent = node.role == Role::Sink || barrier.is_some() || tally.sent == rows;
    if !tally.is_conserved() || !letters || !sent {
        let what = format!(
            "`{}` does not account for its records: {tally:?}, {rows} rows sent, {} dead letters",
            node.name,
            effects.dead.len()
        );
        return Err(RunError::Internal(what));
    }
    let dead = dead_letter_batch(&node.name, &effects.dead, region.plan.limits.max_event_bytes);
    if dead.is_some() && !stage.outlet.targets.iter().any(|target| target.port == Port::DeadLetters) {
        let letter = &effects.dead[0];
        return Err(RunError::Internal(format!(
            "`{}` has dead letters, and nothing takes them: {} at {}:{} ({})",
            node.name, letter.message, letter.origin.partition, letter.position, letter.reason.as_str()
        )));
    }
    let bucket_ms = region.plan.limits.bucket_ms;
    let seen = match node.kind.input {
        Shape::Rows => Vec::new(),
        _ => effects.batches.iter().filter_map(|batch| Seen::of(batch, bucket_ms)).collect(),
    };
    Ok(Done { effects, dead, seen, barrier })
}

/// Hands on a result: Logs first, then what goes to other stages, then the word to the coordinator; last, the lease ends.
async fn release(region: &Region, stage: &StageShared, number: u64, done: Done, is_repeat: bool) {
    let Done { effects, dead, seen, barrier } = done;
    let Effects { batches, notes, appends, publications, retired, tally, .. } = effects;
    for (log, bytes) in &appends {
        append(region, stage, log, bytes).await;
    }
    stage.tally().add(&tally);
    if !is_repeat {
        let dead_seen = dead.as_ref().and_then(|batch| Seen::of(batch, region.plan.limits.bucket_ms));
        if !seen.is_empty() || dead_seen.is_some() {
            let mut progress = region.progress();
            seen.into_iter().for_each(|seen| progress.see(seen, true));
            dead_seen.into_iter().for_each(|seen| progress.see(seen, false));
        }
        let data: Vec<Input> = notes.into_iter().map(Input::Note).chain(batches.into_iter().map(Input::Rows)).collect();
        if !data.is_empty() || dead.is_some() {
            let begin = Instant::now();
            stage.outlet.send(number, data, dead).await;
            stage.counters.back_pressure_ns.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
    }
    if let Some((seals, snapshot)) = barrier {
        stage.outlet.send_barrier(number, &seals);
        let logs = stage.logs().take_dirty().into_iter().collect();
        let left = Left { snapshot, logs, publications, retired, tally: *stage.tally() };
        stage.acked.store(seals.cut, Ordering::SeqCst);
        region.coordinator().do_send(Ack { node: stage.node, cut: seals.cut, left });
    }
    stage.inbox.complete(number);
}

/// Appends to a Log; while there is no room, the stage's input waits.
async fn append(region: &Region, stage: &StageShared, log: &LogName, bytes: &[u8]) {
    let begin = Instant::now();
    let mut tries = 0u32;
    loop {
        let Err(error) = stage.logs().append(log, bytes) else { return };
        if tries.is_multiple_of(20) {
            let stage = &region.node(stage.node).name;
            tracing::error!(%stage, error = %error.chain(), "can't write; inputs wait and nothing is lost. Make room, or mend the directory");
        }
        tries += 1;
        if region.config.until_end && begin.elapsed() > NO_ROOM_MAX {
            region.coordinator().do_send(Fatal(error));
            return std::future::pending().await;
        }
        actix_rt::time::sleep(APPEND_RETRY).await;
    }
}
