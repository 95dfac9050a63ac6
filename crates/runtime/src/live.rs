//! A region that runs: its actors, and what is done when it can't go on.
//!
//! What a worker can't mend itself (a panic in the runtime's own code, a replay that does something else, a Log that can't be synced) takes its
//! region back to its last cut. It is opened again in the same process, after a pause as between workers: so it is parked, and tried now and then,
//! while the ponds before it keep what comes. Only what can't get better by itself ends the run: a source that would have to skip something, settings
//! that do not fit, and whatever happens in a run to the end of its input.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, Addr, AsyncContext, Message};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::committer;
use crate::coordinator::{Coordinator, Ended};
use crate::error::RunError;
use crate::opening::{Opening, Ready};
use crate::pool::Pool;
use crate::reader::Reader;
use crate::region::Region;
use crate::run::Handle;
use crate::seat::Seat;
use crate::watchdog;

/// The region is torn down: the actor that gets this ends.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Halt;

/// See the module.
pub(crate) struct Live {
    region: Arc<Region>,
    done: oneshot::Receiver<Result<Ended, RunError>>,
    coordinator: Addr<Coordinator>,
    pools: Vec<Addr<Pool>>,
    readers: Vec<(Addr<Reader>, Seat)>,
    committer: oneshot::Receiver<()>,
}

impl Ready {
    /// Starts its actors.
    pub(crate) fn run(self) -> Live {
        let Self { region, dir, ledger, publisher } = self;
        let (done, finished) = oneshot::channel();
        let host = region.config.host.clone();
        let mut readers = Vec::new();
        let (jobs, queue) = unbounded_channel();
        let coordinator = Coordinator::create(|context| {
            // Whoever fails tells the coordinator, so it must be known before anybody runs.
            let _ = region.coordinator.set(context.address());
            readers.extend(region.sources.iter().map(|source| {
                let seat = Seat::take(&*host, region.gives_way);
                (Reader::start(region.clone(), source.clone(), &seat.handle()), seat)
            }));
            let readers = readers.iter().map(|(reader, _)| reader.clone()).collect();
            Coordinator::new(region.clone(), readers, jobs, done)
        });
        let committer = committer::start(region.clone(), dir, ledger, publisher, queue);
        if host.has_threads() {
            watchdog::start(region.clone());
        }
        let pools = region.stages.iter().map(|stage| Pool::new(region.clone(), stage.clone()).start()).collect();
        Live { region, done: finished, coordinator, pools, readers, committer }
    }
}

impl Live {
    /// Waits for its end; opens it again as often as needed, if it may be.
    pub(crate) async fn supervise(
        mut self,
        opening: &Opening,
        index: usize,
        handle: &Handle,
    ) -> Result<Ended, RunError> {
        let mut backoff = Backoff::default();
        let mut is_first = true;
        loop {
            let ended = (&mut self.done).await;
            let ended = ended.unwrap_or_else(|_| Err(RunError::Internal("the coordinator is gone".into())));
            let error = match ended {
                Ok(ended) => {
                    // Another topology may run in this process after it.
                    self.tear_down().await;
                    return Ok(ended);
                }
                // A run to the end is looked at by somebody.
                Err(error) if opening.config.until_end => return Err(error),
                // What can't be built at the start is a mistake, and what a source can't go on with does not get better by itself.
                Err(error @ RunError::Start { .. }) if is_first => return Err(error),
                Err(error) if error.is_final() && !self.region.is_behind_ponds() => return Err(error),
                Err(error @ (RunError::Undrained { .. } | RunError::Unpublished { .. })) => return Err(error),
                Err(error) => error,
            };
            is_first = false;
            let region = self.region.clone();
            self.tear_down().await;
            self = match open_again(opening, index, handle, &region, &mut backoff, error).await {
                Some(live) => live,
                None => return Ok(Ended::Stopped),
            };
        }
    }

    /// Nothing of it has an effect any more when this is done. The region has ended already.
    async fn tear_down(self) {
        for stage in &self.region.stages {
            stage.logs().close();
        }
        self.pools.iter().for_each(|pool| pool.do_send(Halt));
        for (reader, seat) in &self.readers {
            reader.do_send(Halt);
            seat.stop();
        }
        // It ends with what it has in hand, of which the coordinator hears.
        let _ = self.committer.await;
        self.coordinator.do_send(Halt);
    }
}

/// Tries until the region runs again; `None` when a stop was asked for.
async fn open_again(
    opening: &Opening,
    index: usize,
    handle: &Handle,
    old: &Region,
    backoff: &mut Backoff,
    mut error: RunError,
) -> Option<Live> {
    let parked_since = Instant::now();
    old.ponds_out.iter().for_each(|pond| pond.park(parked_since));
    loop {
        let pause = backoff.next(&*opening.config.host);
        let (region, pause_ms) = (&old.name, pause.as_millis() as u64);
        tracing::error!(%region, error = %error.chain(), pause_ms, "the region goes back to its last cut; what comes is kept in ponds or stays in the sources, the other regions go on");
        *old.fault() = Some(error.chain());
        tokio::select! {
            biased;
            () = handle.stops() => return None,
            () = tokio::time::sleep(pause) => {}
        }
        opening.carried[index].restarts.fetch_add(1, Ordering::Relaxed);
        match opening.open(index) {
            Ok(ready) => {
                let region = ready.region.clone();
                let live = ready.run();
                handle.replace(index, region);
                return Some(live);
            }
            Err(again) => error = again,
        }
    }
}
