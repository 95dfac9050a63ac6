//! The supervisor of one stage's workers: a worker that fails is replaced, the others go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};

use crate::backoff::Backoff;
use crate::live::Halt;
use crate::region::{Region, StageShared};
use crate::seat::Seat;
use crate::watchdog::Call;
use crate::worker::{Worker, keeps_state};

/// See the module.
pub(crate) struct Pool {
    pub(crate) region: Arc<Region>,
    pub(crate) stage: Arc<StageShared>,
    workers: BTreeMap<usize, Member>,
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

impl Pool {
    pub(crate) fn new(region: Arc<Region>, stage: Arc<StageShared>) -> Self {
        Self { region, stage, workers: BTreeMap::new() }
    }

    fn start_worker(&mut self, index: usize, ctx: &mut Context<Self>) {
        let backoff = self.workers.get(&index).map(|member| member.backoff.clone()).unwrap_or_default();
        let epoch = self.workers.get(&index).map_or(0, |member| member.epoch + 1);
        let seat = Seat::take(&*self.region.config.host);
        let (region, stage, pool) = (self.region.clone(), self.stage.clone(), ctx.address());
        let restores = epoch > 0 && keeps_state(&region, &stage);
        let call = Arc::new(Call::default());
        self.stage.calls.insert(index, call.clone());
        Worker::start_in_arbiter(&seat.handle(), move |_| Worker {
            region,
            stage,
            pool,
            index,
            epoch,
            restores,
            call,
        });
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

impl Handler<Failed> for Pool {
    type Result = ();

    fn handle(&mut self, failed: Failed, ctx: &mut Self::Context) {
        let Some(member) = self.workers.get_mut(&failed.index).filter(|member| member.epoch == failed.epoch) else {
            return;
        };
        let pause = if failed.at_once { Duration::ZERO } else { member.backoff.next(&*self.region.config.host) };
        let stage = &self.region.node(self.stage.node).name;
        let (worker, pause_ms) = (failed.index, pause.as_millis() as u64);
        tracing::error!(%stage, worker, error = %failed.message, pause_ms, "a worker failed and is restarted; the others go on");
        self.stage.counters.restarts.fetch_add(1, Ordering::Relaxed);
        ctx.run_later(pause, move |pool, ctx| pool.start_worker(failed.index, ctx));
    }
}
