//! A worker: one actor on a thread of its own that leases items, calls the stage, and hands on what the calls brought about.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::fut::ActorFutureExt;
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, WrapFuture};
use tidemill_core::{
    Batch, Counts, CutId, Effects, Input, LogName, Publication, Role, Seals, Shape, Tally, dead_letter_batch,
};
use tidemill_topology::{Node, Port};

use crate::audit::{self, Books};
use crate::coordinator::{Ack, Fatal};
use crate::engine::{Engine, Failure, Outcome};
use crate::error::RunError;
use crate::failpoint;
use crate::item::{Item, Numbered, Part};
use crate::pieces::Changes;
use crate::pool::{Failed, Pool, Works};
use crate::progress::{Progress, Seen};
use crate::region::{Alarm, DeadKey, NO_ROOM_MAX, Region, StageShared};
use crate::watchdog::Call;

/// Pause between two tries of an append for which there is no room.
const APPEND_RETRY: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Worker {
    pub(crate) region: Arc<Region>,
    pub(crate) stage: Arc<StageShared>,
    pub(crate) pool: Addr<Pool>,
    pub(crate) index: usize,
    pub(crate) epoch: u64,
    /// Whether everything since the last committed cut has to be repeated.
    pub(crate) restores: bool,
    pub(crate) call: Arc<Call>,
}

/// The result of one item, waiting for its turn.
pub(crate) struct Done {
    effects: Effects,
    dead: Option<Batch>,
    /// What the dead letters are counted by, and how many there are of each.
    dead_counts: BTreeMap<DeadKey, u64>,
    seen: Vec<Seen>,
    books: Books,
    /// Of a sink: when its events came (milliseconds since 1970), and how many.
    arrived: Vec<(i64, u64)>,
    barrier: Option<(Arc<Seals>, Vec<u8>)>,
}

/// What a barrier left behind in a stage, for the coordinator.
pub(crate) struct Left {
    /// What changed of its state; what is always written has no name.
    pub(crate) pieces: Changes,
    pub(crate) logs: Vec<(LogName, u64)>,
    pub(crate) publications: Vec<Publication>,
    pub(crate) retired: Vec<LogName>,
    pub(crate) tally: Tally,
    /// What the stage has let out since the barrier before.
    pub(crate) progress: Progress,
    /// Types that it makes, of which late rows wait for the end of a revision.
    pub(crate) revising: Vec<Arc<str>>,
    /// Events of types that producers have sent, and that did not come.
    pub(crate) missing: Vec<(Arc<str>, u64)>,
    /// Of a sink: when events came that it has dealt with since the barrier before (milliseconds since 1970), and how many.
    pub(crate) arrived: BTreeMap<i64, u64>,
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let work = work(
            self.region.clone(),
            self.stage.clone(),
            Watch { pool: self.pool.clone(), index: self.index, epoch: self.epoch, call: self.call.clone() },
            self.restores,
        );
        ctx.spawn(work.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// Tells the supervisor of the worker's end.
struct Watch {
    pool: Addr<Pool>,
    index: usize,
    epoch: u64,
    call: Arc<Call>,
}

impl Watch {
    /// No worker can be made: for what it says, or because its state can't be read.
    fn not_built(&self, region: &Region, name: &str, message: String, fault: Option<RunError>) {
        match fault {
            // Neither the stage nor its events are to blame.
            Some(fault) => region.coordinator().do_send(Fatal(fault)),
            None if self.epoch == 0 => {
                region.coordinator().do_send(Fatal(RunError::Start { node: name.to_owned(), message }));
            }
            None => self.report(format!("it can't be built: {message}"), false),
        }
    }

    fn report(&self, message: String, at_once: bool) {
        self.pool.do_send(Failed { index: self.index, epoch: self.epoch, message, at_once });
    }
}

async fn work(region: Arc<Region>, stage: Arc<StageShared>, watch: Watch, restores: bool) {
    let _alarm = Alarm { region: region.clone(), whose: "worker" };
    let name = region.node(stage.node).name.clone();
    let mut restored_from = None;
    if restores {
        match go_back(&region, &stage).await {
            Ok(cut) => restored_from = Some(cut),
            Err(error) => {
                region.coordinator().do_send(Fatal(error));
                return;
            }
        }
    }
    let pieces = region.pieces.reader(name.clone(), watch.call.clone());
    let mut engine = match Engine::build(&region, &stage, &pieces).await {
        Ok(engine) if !pieces.has_fault() => engine,
        failed => return watch.not_built(&region, &name, failed.err().unwrap_or_default(), pieces.take_fault()),
    };
    if let Some(cut) = restored_from {
        let items = stage.inbox.replay(cut);
        tracing::info!(stage = %name, items, "restored from the last cut; replaying what came since");
    }
    let mark = region.suspects.mark(&name, watch.index, watch.epoch);
    let mut has_worked = watch.epoch == 0;
    loop {
        stage.caps.let_pass().await;
        let item = stage.inbox.lease().await;
        failpoint::at("item-leased").await;
        region.lives().await;
        watch.call.holds(item.number);
        let begin = Instant::now();
        let outcome = engine.run(&region, &stage, &name, &watch.call, &mark, &item).await;
        if !watch.call.is_back() {
            stage.stuck_threads.fetch_sub(1, Ordering::SeqCst);
            tracing::info!(stage = %name, worker = watch.index, "a worker that hung and was replaced has come back; what it did does not count");
            return;
        }
        stage.counters.busy_ns.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        failpoint::at("item-done").await;
        if let Some(fault) = pieces.take_fault() {
            return region.coordinator().do_send(Fatal(fault));
        }
        let mut done = match outcome.map(|outcome| done(&region, &stage, &item, outcome)) {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                region.coordinator().do_send(Fatal(error));
                return;
            }
            Err(failure) => {
                drop(engine);
                match give_back(&region, &stage, item, &failure) {
                    Ok(at_once) => watch.report(failure.message, at_once),
                    Err(error) => region.coordinator().do_send(Fatal(error)),
                }
                return;
            }
        };
        if let Some(outcome) = item.outcome.filter(|outcome| *outcome != done.effects.tally) {
            if engine.repeats_itself() {
                region.coordinator().do_send(Fatal(differs(&name, &item)));
                return;
            }
            // What is outside may refuse other rows than the first time; those went out, or into dead letters, then.
            done.effects.tally = outcome;
        }
        if item.item.cut().is_some() {
            stage.open_hours.store(engine.open_hours() as u64, Ordering::Relaxed);
        }
        if stage.outlet.is_repeat(item.number) {
            release(&region, &stage, item.number, done, true).await;
            continue;
        }
        if !std::mem::replace(&mut has_worked, true) {
            watch.pool.do_send(Works);
        }
        if stage.outlet.leave(item.number, done) {
            while let Some((number, done)) = stage.outlet.next() {
                release(&region, &stage, number, done, false).await;
            }
        }
    }
}

/// Sets a stage back to the last committed cut and returns its number. An acknowledged cut that is being committed is
/// awaited first; no other can be committed before this stage has acknowledged it.
async fn go_back(region: &Region, stage: &StageShared) -> Result<CutId, RunError> {
    let name = &region.node(stage.node).name;
    region.settled(stage).await;
    let (cut, lengths, staged, tally) = {
        let committed = region.committed();
        let tally = committed.last.stages.get(name).map(|said| said.tally).unwrap_or_default();
        let lengths = committed.logs.get(name).cloned().unwrap_or_default();
        (committed.last.cut, lengths, committed.staged(name), tally)
    };
    *stage.tally() = tally;
    *stage.pending() = Default::default();
    stage.logs().go_back(&lengths, &staged)?;
    Ok(cut)
}

/// A replay did something else than the first time: what went on from there can't be called back.
fn differs(stage: &str, item: &Numbered) -> RunError {
    RunError::Internal(format!(
        "`{stage}` did not do the same when item {} was replayed; the next run goes back to the last cut",
        item.number
    ))
}

/// Puts a failed item back; what may be to blame is suspected, then halved, down to the one record that can't be dealt with.
/// Returns whether to go on without a pause, because this is a search and not a fault of its own.
pub(crate) fn give_back(
    region: &Region,
    stage: &StageShared,
    item: Numbered,
    failure: &Failure,
) -> Result<bool, RunError> {
    stage.counters.errors.fetch_add(1, Ordering::Relaxed);
    if keeps_state(region, stage) {
        stage.inbox.hold();
    }
    let (next, is_search) = match failure.may_be_the_data {
        true => item.item.blame(failure.part, &failure.message),
        false => (item.item.clone(), false),
    };
    if is_search && item.outcome.is_some() {
        return Err(differs(&region.node(stage.node).name, &item));
    }
    stage.inbox.give_back(Numbered { item: next, ..item });
    Ok(is_search)
}

pub(crate) fn keeps_state(region: &Region, stage: &StageShared) -> bool {
    region.node(stage.node).kind.state == tidemill_core::State::Stateful
}

/// Whether a call accounts for what it was given, and keeps its state as it is to.
fn accounts(node: &Node, effects: &Effects, is_barrier: bool) -> Result<(), RunError> {
    let rows: u64 = effects.batches.iter().map(|batch| batch.len() as u64).sum();
    let tally = &effects.tally;
    let letters = tally.dead + tally.late == effects.dead.len() as u64;
    let sent = node.role == Role::Sink || is_barrier || tally.sent == rows;
    if !tally.is_conserved() || !letters || !sent {
        let what = format!(
            "`{}` does not account for its records: {tally:?}, {rows} rows sent, {} dead letters",
            node.name,
            effects.dead.len()
        );
        return Err(RunError::Internal(what));
    }
    if !is_barrier && !effects.pieces.is_empty() || effects.pieces.iter().any(|(name, _)| name.is_empty()) {
        let what = format!("`{}` gives pieces of state outside of a barrier, or one without a name", node.name);
        return Err(RunError::Internal(what));
    }
    Ok(())
}

/// Checks a call's effects and gets them ready to be handed on.
fn done(region: &Region, stage: &StageShared, item: &Numbered, outcome: Outcome) -> Result<Done, RunError> {
    let node = region.node(stage.node);
    let Outcome { mut effects, snapshot, written } = outcome;
    let barrier = match (&item.item, snapshot) {
        (Item::Barrier(seals), Some(snapshot)) => Some((seals.clone(), snapshot)),
        _ => None,
    };
    accounts(node, &effects, barrier.is_some())?;
    let tally = &effects.tally;
    let parts = match &item.item {
        Item::Data(parts) => &parts[..],
        Item::Barrier(_) => &[],
    };
    let given: Option<u64> = parts.iter().map(|part| part.input().records()).sum();
    if given.is_some_and(|given| given != tally.received) {
        let what = format!("`{}` was given {given:?} records, and accounts for {tally:?}", node.name);
        return Err(RunError::Internal(what));
    }
    let bucket_ms = region.plan.limits.bucket_ms;
    let inputs: Vec<&Batch> = parts.iter().filter_map(|part| part.input().rows()).collect();
    if let Some(wrong) = audit::wrong_row(&node.name, &inputs, &effects.batches, bucket_ms) {
        region.carried.tell(&region.name, std::iter::once(&wrong));
        return Err(RunError::Audit { what: wrong.to_string(), more: 0 });
    }
    let mut dead = dead_letter_batch(&node.name, &effects.dead, region.plan.limits.max_event_bytes);
    if dead.is_some() && !stage.outlet.targets.iter().any(|target| target.port == Port::DeadLetters) {
        let letter = &effects.dead[0];
        return Err(RunError::Internal(format!(
            "`{}` has dead letters, and nothing takes them: {} at {}:{} ({})",
            node.name,
            letter.message,
            letter.origin.partition,
            letter.position,
            letter.reason.as_str()
        )));
    }
    let mut dead_counts = BTreeMap::new();
    for letter in &effects.dead {
        let key = DeadKey {
            source: letter.origin.source.clone(),
            reason: letter.reason.as_str(),
            event_type: letter.event_type.clone(),
        };
        *dead_counts.entry(key).or_default() += 1;
    }
    for batch in effects.batches.iter_mut().chain(&mut dead) {
        batch.counts = Some(Counts::of(batch, bucket_ms));
    }
    let made = match node.kind.input {
        Shape::Rows => &[],
        _ => &effects.batches[..],
    };
    let max_ahead_ms = region.plan.limits.max_ahead_ms;
    let seen = made
        .iter()
        .chain(&dead)
        .filter_map(|batch| Seen::of(batch, Counts::of(batch, bucket_ms).hours(), Some(max_ahead_ms)))
        .collect();
    // A replayed letter is like any other event behind the stage where it entered.
    for batch in effects.batches.iter_mut().filter(|batch| batch.origin.enters.as_ref() == Some(&node.name)) {
        batch.origin = batch.origin.entered();
    }
    let mut books = Books { written, ..Books::default() };
    parts.iter().for_each(|part| books.take(part.input(), &node.name, bucket_ms));
    books.effects(&effects, dead.as_ref(), bucket_ms);
    let is_sink = node.role == Role::Sink && stage.pond.is_none();
    let arrived = inputs.iter().filter(|_| is_sink).map(|batch| (batch.arrived_at_ms, batch.len() as u64)).collect();
    Ok(Done { effects, dead, dead_counts, seen, books, arrived, barrier })
}

/// Hands on a result: Logs first, then what goes to other stages, then the word to the coordinator; last, the lease ends.
async fn release(region: &Region, stage: &StageShared, number: u64, done: Done, is_repeat: bool) {
    let Done { effects, dead, dead_counts, seen, books, arrived, barrier } = done;
    let Effects { batches, mut notes, appends, publications, retired, mut pieces, missing, revising, tally, .. } =
        effects;
    for (log, bytes) in &appends {
        append(region, stage, log, bytes).await;
        failpoint::at("log-appended").await;
    }
    region.look_at_pond(stage);
    stage.tally().add(&tally);
    {
        let mut pending = stage.pending();
        pending.0.extend(publications);
        pending.1.extend(retired);
    }
    if !is_repeat {
        stage.books().add(books);
        for (at_ms, events) in arrived {
            *stage.arrived().entry(at_ms).or_default() += events;
        }
        let bucket_ms = region.plan.limits.bucket_ms;
        for seen in &seen {
            region.progress().see(seen, bucket_ms);
            let mut of_stage = stage.progress();
            of_stage.see(seen, bucket_ms);
            of_stage.count(seen);
        }
        if let Some(why) = stage.caps.count(&tally) {
            pause(region, stage, why);
        }
        for (key, count) in dead_counts {
            *region.carried.dead_letters.entry(key).or_default() += count;
        }
        if let Some((seals, _)) = &barrier {
            let node = region.node(stage.node);
            notes.extend(audit::notes(&node.name, seals.cut, &stage.books().given, bucket_ms));
        }
        let data = notes.into_iter().map(Input::Note).chain(batches.into_iter().map(Input::Rows));
        let data: Vec<Part> = data.map(Part::Live).collect();
        if !data.is_empty() || dead.is_some() {
            let begin = Instant::now();
            stage.outlet.send(number, data, dead).await;
            stage.counters.back_pressure_ns.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
    }
    failpoint::at("item-sent").await;
    let Some((seals, snapshot)) = barrier else { return stage.inbox.complete(number, tally) };
    stage.outlet.send_barrier(number, &seals);
    let logs = stage.logs().take_dirty().into_iter().collect();
    let (publications, retired) = std::mem::take(&mut *stage.pending());
    let progress = std::mem::take(&mut *stage.progress());
    let books = std::mem::take(&mut *stage.books());
    let (tally_now, arrived) = (*stage.tally(), std::mem::take(&mut *stage.arrived()));
    pieces.push((String::new(), Some(snapshot)));
    let pieces: Changes = pieces.into_iter().map(|(name, bytes)| (name, bytes.map(Arc::new))).collect();
    region.pieces.give(&region.node(stage.node).name, &pieces);
    let left = Left { pieces, logs, publications, retired, tally: tally_now, progress, revising, missing, arrived };
    stage.acked.store(seals.cut, Ordering::SeqCst);
    // The lease ends before the word goes out: the cut may be committed as soon as it does.
    stage.inbox.complete(number, tally);
    region.coordinator().do_send(Ack { node: stage.node, cut: seals.cut, left, books });
}

/// Too many dead letters: the stage is paused. A run to the end is looked at by somebody, and ends.
fn pause(region: &Region, stage: &StageShared, why: String) {
    let name = &region.node(stage.node).name;
    if region.config.until_end {
        let node = name.to_string();
        return region.coordinator().do_send(Fatal(RunError::DeadLetters { node, why }));
    }
    tracing::error!(stage = %name, "paused: {why}; its input waits, and nothing is lost. `tidemill dead-letters` says what is wrong with them; mend it, or raise the cap, and start again");
    *stage.waits_for() = Some(format!("paused: {why}"));
}

/// Appends to a Log; while there is no room, the stage's input waits.
async fn append(region: &Region, stage: &StageShared, log: &LogName, bytes: &[u8]) {
    let begin = tokio::time::Instant::now();
    let mut tries = 0u32;
    loop {
        let Err(error) = stage.logs().append(log, bytes) else { return };
        region.lives().await;
        if !matches!(error, RunError::Io { .. }) {
            region.coordinator().do_send(Fatal(error));
            return std::future::pending().await;
        }
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
