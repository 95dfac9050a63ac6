//! The supervisor of one stage's workers: a worker that fails is replaced, the others go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::circuit::{Circuit, PROBE};
use crate::live::Halt;
use crate::region::{Alarm, Region, StageShared};
use crate::seat::Seat;
use crate::watchdog::Call;
use crate::worker::{Worker, keeps_state};

/// See the module.
pub(crate) struct Pool {
    pub(crate) region: Arc<Region>,
    pub(crate) stage: Arc<StageShared>,
    workers: BTreeMap<usize, Member>,
    circuit: Circuit,
    /// No worker would be replaced any more without it.
    _alarm: Alarm,
}

struct Member {
    epoch: u64,
    seat: Seat,
    backoff: Backoff,
}

/// A worker has come to its end.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Failed {
    pub(crate) index: usize,
    pub(crate) epoch: u64,
    pub(crate) message: String,
    /// Start the next one without a pause.
    pub(crate) at_once: bool,
}

/// A worker that took the place of one that failed has got something done.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Works;

impl Pool {
    pub(crate) fn new(region: Arc<Region>, stage: Arc<StageShared>) -> Self {
        let alarm = Alarm { region: region.clone(), whose: "pool" };
        Self { region, stage, workers: BTreeMap::new(), circuit: Circuit::default(), _alarm: alarm }
    }

    fn start_worker(&mut self, index: usize, ctx: &mut Context<Self>) {
        let backoff = self.workers.get(&index).map(|member| member.backoff.clone()).unwrap_or_default();
        let epoch = self.workers.get(&index).map_or(0, |member| member.epoch + 1);
        let seat = Seat::take(&*self.region.config.host, self.region.gives_way);
        let (region, stage, pool) = (self.region.clone(), self.stage.clone(), ctx.address());
        let restores = epoch > 0 && keeps_state(&region, &stage);
        let call = Arc::new(Call::default());
        self.stage.calls.insert(index, call.clone());
        Worker::start_in_arbiter(&seat.handle(), move |_| Worker { region, stage, pool, index, epoch, restores, call });
        self.stage.epochs.insert(index, epoch);
        if let Some(old) = self.workers.insert(index, Member { epoch, seat, backoff }) {
            old.seat.stop();
        }
    }
}

impl Actor for Pool {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let _ = self.stage.pool.set(ctx.address());
        for index in 0..self.region.node(self.stage.node).workers {
            self.start_worker(index, ctx);
        }
    }
}

impl Handler<Halt> for Pool {
    type Result = ();

    fn handle(&mut self, _: Halt, ctx: &mut Self::Context) {
        for member in self.workers.values() {
            member.seat.stop();
        }
        ctx.stop();
    }
}

impl Handler<Works> for Pool {
    type Result = ();

    fn handle(&mut self, _: Works, _: &mut Self::Context) {
        if self.circuit.works() {
            *self.stage.waits_for() = None;
            let stage = &self.region.node(self.stage.node).name;
            tracing::info!(%stage, "a worker got something done: the circuit is closed");
        }
    }
}

impl Handler<Failed> for Pool {
    type Result = ();

    fn handle(&mut self, failed: Failed, ctx: &mut Self::Context) {
        let Some(member) = self.workers.get_mut(&failed.index).filter(|member| member.epoch == failed.epoch) else {
            return;
        };
        let opens = !failed.at_once && self.circuit.failed(Instant::now());
        let is_open = self.circuit.is_open();
        let pause = if is_open {
            PROBE
        } else if failed.at_once {
            Duration::ZERO
        } else {
            member.backoff.next(&*self.region.config.host)
        };
        let stage = &self.region.node(self.stage.node).name;
        let (worker, pause_ms) = (failed.index, pause.as_millis() as u64);
        tracing::error!(%stage, worker, error = %failed.message, pause_ms, "a worker failed and is restarted; the others go on");
        if opens {
            tracing::error!(%stage, probe_s = PROBE.as_secs(), "it fails again and again: its circuit is open, and a worker is tried now and then until one gets something done");
        }
        if is_open {
            *self.stage.waits_for() = Some(format!("it fails again and again: {}", failed.message));
        }
        self.stage.counters.restarts.fetch_add(1, Ordering::Relaxed);
        ctx.run_later(pause, move |pool, ctx| pool.start_worker(failed.index, ctx));
    }
}
