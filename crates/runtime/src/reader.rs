//! The actor of a source: polls it, hands its chunks on, and puts barriers between them.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use tidemill_core::{Cure, CutId, Input, PartitionPosition, Polled, Seals, Source, SourceContext, SourceError};

use crate::backoff::Backoff;
use crate::coordinator::{Fatal, SourceAck};
use crate::engine::panic_text;
use crate::error::{RunError, error_chain};
use crate::region::{Alarm, Region, SourceShared};

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
            positions: BTreeMap::new(),
            number: 0,
            backoff: Backoff::default(),
            told_cut: 0,
            looked: Instant::now(),
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

/// Positions of all partitions, and those that hold no hour.
type Behind = (BTreeMap<Arc<str>, PartitionPosition>, Vec<Arc<str>>);

struct Reading {
    region: Arc<Region>,
    source: Arc<SourceShared>,
    orders: Arc<Mutex<VecDeque<Order>>>,
    /// Behind what has been handed on: where a replaced source opens.
    positions: BTreeMap<Arc<str>, PartitionPosition>,
    number: u64,
    backoff: Backoff,
    /// Last cut that the source was told of.
    told_cut: CutId,
    /// When it was asked last how far it is behind.
    looked: Instant,
}

impl Reading {
    async fn run(mut self) {
        let _alarm = Alarm { region: self.region.clone(), whose: "reader" };
        self.positions = {
            let committed = self.region.committed();
            committed.last.positions.get(&self.name()).cloned().unwrap_or_default()
        };
        let mut opened: Option<Box<dyn Source>> = None;
        let mut halted = false;
        let name = self.name();
        loop {
            let order = self.orders.lock().expect("no code panics while it holds the orders").pop_front();
            if let Some(order) = order {
                halted |= order.halt;
                self.barrier(&order);
                continue;
            }
            if halted || self.source.state().ended {
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
                () = patient(&name, "what was read has to be in a cut first", self.region.may_read()) => {}
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

    fn open(&self) -> Result<Box<dyn Source>, SourceError> {
        let node = self.region.node(self.source.node);
        let context = SourceContext {
            topology: (*self.region.plan.name).into(),
            name: node.name.clone(),
            options: node.options.clone(),
            limits: self.region.plan.limits.clone(),
            base_dir: self.region.plan.base_dir.clone(),
            until_end: self.region.config.until_end,
            positions: self.positions.clone(),
            clusters: self.region.config.clusters.clone(),
        };
        let kind = self.region.registry.sources.get(node.kind.name);
        let kind = kind.ok_or_else(|| fatal(format!("there is no kind `{}`", node.kind.name)))?;
        let source = caught(|| kind.open(&context))?;
        self.look_at(&*source)?;
        self.publish(&*source, false)?;
        Ok(source)
    }

    /// Tells the source of the last cut, and asks it now and then how it is.
    fn attend(&mut self, mut source: Box<dyn Source>) -> Result<Box<dyn Source>, SourceError> {
        let (cut, positions) = {
            let committed = self.region.committed();
            let cut = committed.last.cut;
            let positions = (cut > self.told_cut).then(|| committed.last.positions.get(&self.name()).cloned());
            (cut, positions.flatten())
        };
        if let Some(positions) = positions {
            self.told_cut = cut;
            caught(|| {
                source.committed(&positions);
                Ok(())
            })?;
        }
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.look_at(&*source)?;
        }
        Ok(source)
    }

    fn look_at(&self, source: &dyn Source) -> Result<(), SourceError> {
        let (waits_for, lag) = caught(|| Ok((source.waits_for(), source.lag())))?;
        let mut state = self.source.state();
        (state.waits_for, state.lag) = (waits_for, lag);
        Ok(())
    }

    /// Polls once. `None` means that the source has to be opened anew, or is not needed any more.
    async fn poll(&mut self, mut source: Box<dyn Source>) -> Option<Box<dyn Source>> {
        let begin = Instant::now();
        let polled = caught(|| source.poll());
        self.source.counters.busy_ns.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        match polled {
            Ok(Polled::Chunk(chunk)) => {
                let bytes = chunk.bytes.len() as u64;
                // Before the chunk goes out: a source that fails here is opened where this chunk begins.
                let behind = match Self::look(&*source) {
                    Ok(behind) => behind,
                    Err(error) => {
                        self.failed(error).await;
                        return None;
                    }
                };
                self.number += 1;
                let begin = Instant::now();
                let sent = self.source.outlet.send(self.number, vec![Input::Raw(chunk)], None);
                patient(&self.name(), "a stage behind it has no room", sent).await;
                self.source.counters.back_pressure_ns.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
                self.region.read_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.show(behind, false);
                // `send` may never have had to wait: let the actor's messages in.
                tokio::task::yield_now().await;
                Some(source)
            }
            Ok(Polled::Idle(pause)) => {
                if let Err(error) = self.publish(&*source, false) {
                    self.failed(error).await;
                    return None;
                }
                let _ = tokio::time::timeout(pause, self.source.control.notified()).await;
                Some(source)
            }
            Ok(Polled::Ended) => {
                if let Err(error) = self.publish(&*source, true) {
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

    /// Takes over the source's positions, which now are behind what was handed on, and shows them.
    fn publish(&self, source: &dyn Source, ended: bool) -> Result<(), SourceError> {
        self.show(Self::look(source)?, ended);
        Ok(())
    }

    fn look(source: &dyn Source) -> Result<Behind, SourceError> {
        caught(|| Ok((source.positions(), source.idle_partitions())))
    }

    fn show(&self, (positions, idle): Behind, ended: bool) {
        let mut state = self.source.state();
        (state.positions, state.idle, state.ended) = (Some(positions), idle, ended);
    }

    fn barrier(&mut self, order: &Order) {
        let positions = self.source.state().positions.clone().unwrap_or_else(|| self.positions.clone());
        let mut seals = (*order.seals).clone();
        seals.positions.insert(self.name(), positions.clone());
        self.number += 1;
        self.source.outlet.send_barrier(self.number, &Arc::new(seals));
        self.region.coordinator().do_send(SourceAck {
            node: self.source.node,
            cut: order.seals.cut,
            positions,
            read_bytes: self.region.read_bytes.load(Ordering::Relaxed),
        });
    }

    /// The source failed: wait and open it again behind what was handed on, or give up if that would skip something.
    async fn failed(&mut self, error: SourceError) {
        if let Some(positions) = self.source.state().positions.clone() {
            self.positions = positions;
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
        let pause = self.backoff.next(Instant::now());
        tracing::error!(%source, error = %error_chain(&error), pause_ms = pause.as_millis() as u64, "the source failed and is opened again; nothing is skipped");
        self.source.counters.restarts.fetch_add(1, Ordering::Relaxed);
        self.source.epoch.fetch_add(1, Ordering::Relaxed);
        let _ = tokio::time::timeout(pause.max(Duration::from_millis(1)), self.source.control.notified()).await;
    }
}

/// Waits for `until`; when that takes long, it says so, and when it is over.
async fn patient<T>(source: &str, why: &str, until: impl Future<Output = T>) -> T {
    let begin = Instant::now();
    tokio::pin!(until);
    if let Ok(done) = tokio::time::timeout(PAUSE_TOLD, until.as_mut()).await {
        return done;
    }
    tracing::warn!(source, "paused: {why}");
    let done = until.await;
    tracing::info!(source, paused_ms = begin.elapsed().as_millis() as u64, "resumed");
    done
}

fn fatal(message: String) -> SourceError {
    SourceError { message, cure: Cure::Stop, source: None }
}

/// Calls into a source; a panic is an error that may be tried again.
fn caught<T>(call: impl FnOnce() -> Result<T, SourceError>) -> Result<T, SourceError> {
    std::panic::catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(SourceError { message: panic_text(&*panic), cure: Cure::Reopen, source: None }))
}
