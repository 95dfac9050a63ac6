//! The actor of a source, or of the end of a pond: polls it, hands its chunks on, and puts barriers between them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use tidemill_core::{Cure, CutId, Idle, Moved, Seals, SourceContext, SourceError, SourcePositions};
use tidemill_topology::REPLAY;
use tokio::time::Instant;

use crate::audit::Books;
use crate::backoff::Backoff;
use crate::barren::Barren;
use crate::coordinator::Fatal;
use crate::error::{RunError, error_chain};
use crate::intake::{Intake, Place, Taken, caught};
use crate::live::Halt;
use crate::pond::reader::{Heard, PARTITION, PondReader};
use crate::progress::{Progress, Seen};
use crate::region::{Alarm, Reads, Region, SourceShared};
use crate::replay::ReplayReader;
use crate::silence::Before;
use crate::stretch::Stretched;
use crate::stuck::Stuck;

mod place;

/// How often a source is asked how far it is behind.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A source that has to wait for so long is said to be paused.
const PAUSE_TOLD: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Reader {
    pub(crate) region: Arc<Region>,
    pub(crate) source: Arc<SourceShared>,
    orders: Arc<Mutex<VecDeque<Order>>>,
}

/// Put a barrier behind what has been handed on.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct Order {
    pub(crate) seals: Arc<Seals>,
    /// The sources, by node, that stand at seals which this barrier carries.
    pub(crate) passes: Arc<BTreeSet<usize>>,
    /// Read nothing after it.
    pub(crate) halt: bool,
}

impl Reader {
    pub(crate) fn start(region: Arc<Region>, source: Arc<SourceShared>, on: &actix::ArbiterHandle) -> Addr<Self> {
        Self::start_in_arbiter(on, move |_| Self { region, source, orders: Arc::default() })
    }
}

impl Actor for Reader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let reading = Reading {
            region: self.region.clone(),
            source: self.source.clone(),
            orders: self.orders.clone(),
            positions: SourcePositions::default(),
            moved: BTreeSet::new(),
            asked: None,
            number: 0,
            backoff: Backoff::default(),
            told_cut: 0,
            looked: Instant::now(),
            progress: Progress::default(),
            books: Books::default(),
            stuck: Stuck::default(),
            barren: Barren::default(),
            silent_before: Before::default(),
            has_answered: false,
        };
        ctx.spawn(reading.run().into_actor(self));
    }
}

impl Handler<Order> for Reader {
    type Result = ();

    fn handle(&mut self, order: Order, _: &mut Self::Context) {
        self.orders.lock().expect("no code panics while it holds the orders").push_back(order);
        self.source.control.notify_one();
    }
}

impl Handler<Halt> for Reader {
    type Result = ();

    fn handle(&mut self, _: Halt, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

struct Reading {
    region: Arc<Region>,
    source: Arc<SourceShared>,
    orders: Arc<Mutex<VecDeque<Order>>>,
    /// Behind what has been handed on: where a replaced source opens.
    positions: SourcePositions,
    /// Partitions that have moved since the last barrier.
    moved: BTreeSet<Arc<str>>,
    /// When it was asked last which partitions give nothing.
    asked: Option<Instant>,
    number: u64,
    backoff: Backoff,
    /// Last cut that the source was told of.
    told_cut: CutId,
    /// When it was asked last how far it is behind.
    looked: Instant,
    /// Event times and hours seen since the last barrier.
    progress: Progress,
    /// What it has handed on since then.
    books: Books,
    stuck: Stuck,
    barren: Barren,
    /// For how long partitions had been silent at the cut that it goes on from.
    silent_before: Before,
    /// Since it failed last.
    has_answered: bool,
}

impl Reading {
    async fn run(mut self) {
        let _alarm = Alarm { region: self.region.clone(), whose: "reader" };
        (self.positions, self.silent_before) = {
            let committed = self.region.committed();
            let positions = committed.positions.get(&self.name()).cloned().unwrap_or_default();
            let silent_before = Before::of(committed.silent.get(&self.name()), &positions);
            (positions, silent_before)
        };
        // A barrier may come before the pond can be opened. What can't be read is told when it is.
        let at = self.positions.get(PARTITION).filter(|_| self.source.pond.is_some());
        self.source.state().heard = Arc::new(Heard::at(at).unwrap_or_default());
        let mut opened: Option<Intake> = None;
        let mut halted = matches!(self.region.config.reads, Reads::Nothing) || self.region.is_closing();
        let name = self.name();
        loop {
            let order = self.orders.lock().expect("no code panics while it holds the orders").pop_front();
            if let Some(order) = order {
                halted |= order.halt;
                if let Some(intake) = opened.as_mut().filter(|_| order.passes.contains(&self.source.node)) {
                    intake.pass();
                    self.books.damage.extend(intake.damage());
                    self.source.state().seals = None;
                    if let Err(error) = self.publish(intake, false) {
                        self.failed(error).await;
                        opened = None;
                    }
                }
                self.barrier(&order);
                continue;
            }
            if halted || self.source.state().stands() {
                self.source.control.notified().await;
                continue;
            }
            let source = match opened.take() {
                Some(source) => source,
                None => match self.open() {
                    Ok(source) => source,
                    Err(error) => {
                        self.failed(error).await;
                        continue;
                    }
                },
            };
            tokio::select! {
                biased;
                () = self.source.control.notified() => {
                    opened = Some(source);
                    continue;
                }
                () = patient(&name, "what was read has to be in a cut first", self.region.may_read(), || {
                    // Meanwhile nobody looks whether more has come.
                    self.source.state().idle = Idle::default();
                }) => {}
            }
            opened = match self.attend(source) {
                Ok(source) => self.poll(source).await,
                Err(error) => {
                    self.failed(error).await;
                    None
                }
            };
        }
    }

    fn name(&self) -> Arc<str> {
        self.region.node(self.source.node).name.clone()
    }

    fn open(&mut self) -> Result<Intake, SourceError> {
        self.source.state().seals = None;
        let mut intake = self.intake()?;
        self.look_at(&intake)?;
        let place = intake.place()?;
        let now = Arc::new(place.moved.positions);
        let Moved { positions, gone } = Moved::between(&self.positions, &now);
        self.moved.extend(positions.into_keys().chain(gone));
        self.source.state().positions = Some(now);
        self.asked = None;
        self.show(Place { moved: Moved::default(), ..place }, Some(intake.still()?), false);
        Ok(intake)
    }

    fn intake(&self) -> Result<Intake, SourceError> {
        let node = self.region.node(self.source.node);
        if let Some(pond) = &self.source.pond {
            let at = self.positions.get(PARTITION);
            let reader = PondReader::open(
                self.region.config.host.clone(),
                pond.clone(),
                &self.region.state_id,
                node.sends.clone(),
                at,
                self.region.plan.limits.bucket_ms,
            )?;
            return Ok(Intake::Pond(Box::new(reader)));
        }
        if *node.name == *REPLAY {
            let config = &self.region.config;
            let (host, root, ways) = (config.host.clone(), config.state_root.clone(), self.region.ways.clone());
            let reader = ReplayReader::open(host, root, ways, config.until_end, &self.positions)?;
            return Ok(Intake::Replay(Box::new(reader)));
        }
        let stretch = match &self.region.config.reads {
            Reads::Stretches(stretches) => Some(stretches.get(&node.name).cloned().unwrap_or_default()),
            Reads::All | Reads::Nothing => None,
        };
        let context = SourceContext {
            topology: (*self.region.plan.name).into(),
            name: node.name.clone(),
            options: node.options.clone(),
            limits: self.region.plan.limits.clone(),
            base_dir: self.region.plan.base_dir.clone(),
            until_end: self.region.config.until_end,
            positions: self.positions.clone(),
            ends: self.source.state().ends.clone().or_else(|| self.region.ends.as_ref()?.get(&node.name).cloned()),
            clusters: self.region.config.clusters.clone(),
            stretch: stretch.clone(),
        };
        let kind = self.region.registry.sources.get(node.kind.name);
        let kind = kind.ok_or_else(|| fatal(format!("there is no kind `{}`", node.kind.name)))?;
        let source = caught(|| kind.open(&context))?;
        Ok(Intake::Source(match stretch {
            Some(stretch) => Box::new(Stretched::new(source, &stretch, &self.positions)),
            None => source,
        }))
    }

    /// Tells the source of the last cut, and asks it now and then how it is.
    fn attend(&mut self, mut intake: Intake) -> Result<Intake, SourceError> {
        let (cut, positions) = {
            let committed = self.region.committed();
            let cut = committed.last.cut;
            let positions = (cut > self.told_cut).then(|| committed.positions.get(&self.name()).cloned());
            (cut, positions.flatten())
        };
        if let Some(positions) = positions {
            self.told_cut = cut;
            intake.committed(&positions)?;
        }
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.look_at(&intake)?;
        }
        Ok(intake)
    }

    fn look_at(&self, intake: &Intake) -> Result<(), SourceError> {
        let (waits_for, lag) = intake.look()?;
        let ends = if self.region.config.until_end { intake.ends()? } else { None };
        let mut state = self.source.state();
        // What takes the place of a file that the run reads has an end, too.
        state.ends = ends.or(state.ends.take());
        (state.waits_for, state.lag) = (waits_for, lag);
        Ok(())
    }

    /// Polls once. `None` means that the source has to be opened anew, or is not needed any more.
    async fn poll(&mut self, mut intake: Intake) -> Option<Intake> {
        let begin = Instant::now();
        let bucket_ms = self.region.plan.limits.bucket_ms;
        let taken = intake.take(bucket_ms, self.region.config.replay_bytes);
        self.has_answered |= taken.is_ok();
        self.source.counters.busy_ns.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        match taken {
            Ok(Taken::Parts { parts, bytes, seen, books, barriers }) => {
                let source = self.source.clone();
                let sent = source.outlet.send(self.number + 1, parts, None);
                let behind = self.hand_on(intake, sent, bytes, seen, books).await;
                self.region.barriers_passed.fetch_add(barriers, Ordering::Relaxed);
                behind
            }
            Ok(Taken::Letter(part, stage, bytes)) => {
                let source = self.source.clone();
                let sent = source.outlet.send_to(self.number + 1, &stage, part);
                self.hand_on(intake, sent, bytes, Vec::new(), Books::default()).await
            }
            Ok(Taken::Seals(closing)) => {
                self.source.state().seals = Some(closing);
                Some(intake)
            }
            Ok(Taken::Idle(pause)) => {
                if let Err(error) = self.publish(&mut intake, false) {
                    self.failed(error).await;
                    return None;
                }
                let more = async {
                    match &self.source.pond {
                        Some(pond) => pond.changed.notified().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = self.source.control.notified() => {}
                    () = more => {}
                    () = tokio::time::sleep(pause) => {}
                }
                Some(intake)
            }
            Ok(Taken::Ended) => {
                self.asked = None;
                let ended = self.look_at(&intake).and_then(|()| self.publish(&mut intake, true));
                if let Err(error) = ended {
                    self.failed(error).await;
                }
                None
            }
            Err(error) => {
                self.failed(error).await;
                None
            }
        }
    }

    /// Sends what was taken, under the next number.
    async fn hand_on(
        &mut self,
        mut intake: Intake,
        sent: impl Future<Output = ()>,
        bytes: u64,
        seen: Vec<Seen>,
        books: Books,
    ) -> Option<Intake> {
        // Before it goes out: a source that fails here is opened where it begins.
        let behind = match intake.place() {
            Ok(behind) => behind,
            Err(error) => {
                self.failed(error).await;
                return None;
            }
        };
        // What is at hand now is not proven to be all, however long it waits for room.
        self.source.state().gives(behind.moved.positions.keys());
        self.number += 1;
        let begin = Instant::now();
        patient(&self.name(), "a stage behind it has no room", sent, || self.source.state().idle = Idle::default())
            .await;
        self.source.counters.back_pressure_ns.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.region.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.books.add(books);
        for seen in seen {
            let bucket_ms = self.region.plan.limits.bucket_ms;
            self.region.progress().see(&seen, bucket_ms);
            self.progress.see(&seen, bucket_ms);
            self.progress.count(&seen);
        }
        let still = match self.still(&intake) {
            Ok(still) => still,
            Err(error) => {
                self.show(behind, None, false);
                self.failed(error).await;
                return None;
            }
        };
        self.show(behind, still, false);
        // `sent` may never have had to wait: let the actor's messages in.
        tokio::task::yield_now().await;
        Some(intake)
    }

    /// The source failed: wait and open it again behind what was handed on, or give up if that would skip something.
    async fn failed(&mut self, error: SourceError) {
        if let Some(positions) = self.source.state().positions.clone() {
            self.positions = positions;
        }
        // Who can't be asked proves nothing.
        let now = Instant::now();
        // What a source says when it has just been opened again, before it was asked for anything, is no proof.
        let idle = std::mem::take(&mut self.source.state().idle);
        let idle = if std::mem::take(&mut self.has_answered) { idle } else { Idle::default() };
        self.stuck.failed(&self.positions, &idle, now);
        {
            let mut state = self.source.state();
            state.fails_for = self.stuck.fails_for() + self.silent_before.whole();
            state.silent = self.stuck.of(&self.positions, now);
            self.silent_before.add(&mut state.silent);
        }
        let source = self.name();
        self.source.counters.errors.fetch_add(1, Ordering::Relaxed);
        if error.cure != Cure::Reopen {
            let message = error_chain(&error);
            let prefix = format!("source `{source}`");
            let message = if message.starts_with(&prefix) { message } else { format!("{prefix}: {message}") };
            let fault = match error.cure {
                Cure::GiveUp => RunError::Unavailable(message),
                Cure::Reconfigure => RunError::Settings(message),
                Cure::Stop | Cure::Reopen => RunError::Source { message },
            };
            self.region.coordinator().do_send(Fatal(fault));
            self.source.state().ended = true;
            return;
        }
        let pause = self.backoff.next(&*self.region.config.host);
        tracing::error!(%source, error = %error_chain(&error), pause_ms = pause.as_millis() as u64, "the source failed and is opened again; nothing is skipped");
        self.source.counters.restarts.fetch_add(1, Ordering::Relaxed);
        self.source.epoch.fetch_add(1, Ordering::Relaxed);
        let _ = tokio::time::timeout(pause.max(Duration::from_millis(1)), self.source.control.notified()).await;
    }
}

/// Waits for `until`; when that takes long, it says so, and when it is over.
async fn patient<T>(source: &str, why: &str, until: impl Future<Output = T>, long: impl FnOnce()) -> T {
    let begin = Instant::now();
    tokio::pin!(until);
    if let Ok(done) = tokio::time::timeout(PAUSE_TOLD, until.as_mut()).await {
        return done;
    }
    long();
    tracing::warn!(source, "paused: {why}");
    let done = until.await;
    tracing::info!(source, paused_ms = begin.elapsed().as_millis() as u64, "resumed");
    done
}

fn fatal(message: String) -> SourceError {
    SourceError { message, cure: Cure::Stop, source: None }
}
