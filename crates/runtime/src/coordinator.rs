//! The coordinator of a region: starts barriers, collects what the stages say at them, and has cuts committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message};
use tidemill_core::{CutId, DEAD_LETTER_TYPE, Horizon, Moved, Positions, Request, SealReason, Seals};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::audit::{Audit, Books};
use crate::clocks::Clocks;
use crate::committer::Job;
use crate::drain::Drain;
use crate::error::RunError;
use crate::horizon::{Closing, Said, closing, end_of_input};
use crate::live::Halt;
use crate::progress::Progress;
use crate::publisher::{BATCHES_MAX, Unpublished};
use crate::reader::{Order, Reader};
use crate::region::{Reads, Region};
use crate::requests::Asked;
use crate::worker::Left;

mod ask;
mod cut;
mod listen;

use cut::{Cut, InFlight};

const TICK: Duration = Duration::from_millis(10);
/// Proposals take no more than one part in so many of the time. With 10,000 partitions one takes a millisecond.
const PROPOSE_PAUSE: u32 = 200;

/// See the module.
pub(crate) struct Coordinator {
    region: Arc<Region>,
    readers: Vec<Addr<Reader>>,
    /// Gone after the end.
    committer: Option<UnboundedSender<Job>>,
    audit: Audit,
    /// Event times and open hours as of the last barrier.
    cut_progress: Progress,
    in_flight: Option<InFlight>,
    next_cut: CutId,
    last_cut_at: Instant,
    /// When something was published last, or a stop was asked for.
    published_at: Instant,
    /// When it was asked last what there is to do.
    ticked: Clocks,
    /// Since when sources can't be read.
    deaf_since: Option<Instant>,
    /// No proposals before it.
    propose_from: Instant,
    asked: Asked,
    /// What somebody outside has asked for, and got with a cut that is not published yet.
    answered: Option<(CutId, Arc<Request>)>,
    /// Something may be asked for that waits for what is being published.
    request_waits: bool,
    /// Barriers that had come out of ponds at the last barrier.
    last_cut_barriers: u64,
    /// Bytes that had been read at the last barrier.
    last_cut_bytes: u64,
    /// Ponds that it fills may have something to say before anything comes.
    has_to_say: bool,
    phase: Phase,
    /// How many ends of each source are in the cut.
    ends_of: BTreeMap<Arc<str>, usize>,
    /// It was said that more hours are open than `max_open_hours`.
    has_told_of_open: bool,
    /// Since a stop was asked for.
    drain: Option<Drain>,
    done: Option<oneshot::Sender<Result<Ended, RunError>>>,
    pub(crate) timings: CutTimings,
}

/// Figures of cuts, for metrics.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct CutTimings {
    pub(crate) cuts: u64,
    pub(crate) last_ms: u64,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// A stop was asked for; the next barrier halts the sources.
    Stopping,
    /// All sources have ended; the next barrier flushes what is on its way, so that all open hours are known.
    Flushing,
    /// The next barrier seals all that is open.
    Sealing,
    /// The last barrier is on its way.
    Last(Ended),
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The input is at its end and everything is sealed.
    Finished,
    /// It was asked to stop; open hours stay open.
    Stopped,
}

/// A stage has passed a barrier.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Ack {
    pub(crate) node: usize,
    pub(crate) cut: CutId,
    pub(crate) left: Left,
    pub(crate) books: Books,
}

/// A source has put a barrier behind what it has handed on.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct SourceAck {
    pub(crate) node: usize,
    pub(crate) cut: CutId,
    /// What of it has moved since the barrier before.
    pub(crate) moved: Moved,
    pub(crate) read_bytes: u64,
    /// What it has seen itself since the barrier before.
    pub(crate) progress: Progress,
    /// What it has handed on since then.
    pub(crate) books: Books,
}

/// A cut is durable and its effects are done, but for what the publisher does.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Committed {
    pub(crate) cut: CutId,
    pub(crate) read_bytes: u64,
    pub(crate) took: Duration,
}

/// A batch of the outbox is published.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Published;

/// The run can't go on.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Fatal(pub(crate) RunError);

/// Stop: halt the sources, make a last cut, leave open hours open.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

impl Coordinator {
    pub(crate) fn new(
        region: Arc<Region>,
        readers: Vec<Addr<Reader>>,
        committer: UnboundedSender<Job>,
        done: oneshot::Sender<Result<Ended, RunError>>,
    ) -> Self {
        let next_cut = region.committed().last.cut + 1;
        let now_ms = region.config.host.now_ms();
        let mut cut_progress = Progress::at(&region.committed(), region.lineage.made_of(), now_ms);
        cut_progress.tell_opened(&region.committed().open);
        let has_to_say = !region.ponds_out.is_empty();
        let ticked = Clocks::now(&*region.config.host);
        // What was at its end reads nothing more until all of it is sealed.
        let phase = if region.is_closing() { Phase::Sealing } else { Phase::Running };
        Self {
            audit: Audit::new(region.plan.clone()),
            region,
            readers,
            committer: Some(committer),
            cut_progress,
            in_flight: None,
            next_cut,
            last_cut_at: Instant::now(),
            published_at: Instant::now(),
            ticked,
            deaf_since: None,
            propose_from: Instant::now(),
            asked: Asked::default(),
            answered: None,
            request_waits: false,
            last_cut_barriers: 0,
            last_cut_bytes: 0,
            has_to_say,
            phase,
            ends_of: BTreeMap::new(),
            has_told_of_open: false,
            drain: None,
            done: Some(done),
            timings: CutTimings::default(),
        }
    }

    fn end(&mut self, result: Result<Ended, RunError>) {
        // It ends with what it has in hand, and with it the ownership of the state. A region may be opened again in this process, behind that.
        self.committer = None;
        if let Ok(Ended::Finished) = result {
            self.region.ponds_out.iter().for_each(|pond| pond.end());
        }
        self.region.ended.store(true, Ordering::SeqCst);
        if let Some(done) = self.done.take() {
            let _ = done.send(result);
        }
    }

    fn tick(&mut self) {
        if self.done.is_none() {
            return;
        }
        self.listen();
        self.region.pass_on_parked();
        // A commit may have made room.
        for stage in &self.region.stages {
            self.region.look_at_pond(stage);
        }
        if let Some(cut) = &self.in_flight {
            let stuck = |drain: &mut Drain| drain.stuck(&self.region, &cut.waiting_for, Instant::now());
            if let Some(stuck) = self.drain.as_mut().and_then(stuck) {
                self.end(stuck.map(|()| Ended::Stopped));
            }
            return;
        }
        let read = self.region.read_bytes.load(Ordering::Relaxed);
        let has_read = read != self.last_cut_bytes;
        if self.phase == Phase::Running && self.region.config.until_end {
            let all_ended = self.region.sources.iter().all(|source| source.state().ended);
            if all_ended {
                self.phase = if has_read { Phase::Flushing } else { Phase::Sealing };
            }
        }
        let may_seal = self.may_seal();
        match self.phase {
            Phase::Flushing | Phase::Sealing if !may_seal => {}
            Phase::Stopping => {
                self.phase = Phase::Last(Ended::Stopped);
                self.start(Closing::default(), BTreeSet::new(), true, self.kind());
            }
            Phase::Flushing => {
                self.phase = Phase::Sealing;
                self.start(Closing::default(), BTreeSet::new(), true, Cut::Usual);
            }
            Phase::Sealing => {
                let closing = end_of_input(&self.region, &self.cut_progress);
                if !closing.is_empty() {
                    // Step by step, and once more for what these make.
                    return self.start(closing, BTreeSet::new(), true, Cut::Closing);
                }
                self.phase = Phase::Last(Ended::Finished);
                if !has_read && !self.region.can_free() && self.region.committed().last.finished {
                    return self.end_when_published(Ended::Finished);
                }
                self.start(closing, BTreeSet::new(), true, Cut::Finished);
            }
            Phase::Running => {
                let said = if may_seal { Said::of(&self.region) } else { Said::default() };
                let closing = if may_seal { self.proposed(&said) } else { Closing::default() };
                let interval = Duration::from_millis(self.region.config.cut_interval_ms);
                // Right behind a cut of the region before it, so that the two intervals do not add up.
                let passed = self.region.barriers_passed.load(Ordering::Relaxed) > self.last_cut_barriers;
                let interval = if passed { interval / 4 } else { interval };
                let has_news = has_read || self.has_to_say || self.region.can_free();
                let due = has_news && self.last_cut_at.elapsed() >= interval;
                let full = self.region.held_bytes() >= self.region.config.replay_bytes / 2;
                let is_asked = (self.request_waits || self.asked.is_due()) && self.request().is_some();
                if !closing.is_empty() || !said.passes.is_empty() || due || full || is_asked {
                    self.start(closing, said.passes, false, Cut::Usual);
                }
            }
            Phase::Last(ended) => self.end_when_published(ended),
        }
    }

    /// Whether a cut may seal: what it seals would only wait behind what waits already, and maybe behind a request.
    fn may_seal(&self) -> bool {
        let waits = self.region.unpublished().batches;
        waits == 0 || waits < BATCHES_MAX && !self.request_waits
    }

    /// Comes to the end when all is published. A stop waits no longer for that than for a stage.
    fn end_when_published(&mut self, ended: Ended) {
        let Unpublished { batches, files, .. } = self.region.unpublished();
        let max = Duration::from_millis(self.region.config.drain_ms);
        let waits_since = self.published_at.max(self.last_cut_at);
        if batches == 0 {
            self.end(Ok(ended));
        } else if (ended == Ended::Stopped || self.drain.is_some()) && waits_since.elapsed() >= max {
            self.end(Err(RunError::Unpublished { files, seconds: max.as_secs() }));
        }
    }

    /// What a cut is to its run, between barriers that seal.
    fn kind(&self) -> Cut {
        if self.region.is_closing() { Cut::Closing } else { Cut::Usual }
    }

    /// What may be closed now. That looks at all partitions: where they are very many, not at every tick.
    fn proposed(&mut self, said: &Said) -> Closing {
        let begin = Instant::now();
        let reads = &self.region.config.reads;
        // What is read once more has no late events: all hours are sealed at its end.
        let is_live = matches!(reads, Reads::All);
        let is_behind_ponds = self.region.is_behind_ponds();
        let waits_for_end = self.region.seals_at_end() && !is_behind_ponds;
        if !is_live || waits_for_end || begin < self.propose_from && !is_behind_ponds {
            return Closing::default();
        }
        let closing = closing(&self.region, said, &self.cut_progress, self.region.config.host.now_ms());
        if !closing.is_step {
            self.propose_from = Instant::now() + PROPOSE_PAUSE * begin.elapsed();
        }
        closing
    }

    fn start(&mut self, closing: Closing, passes: BTreeSet<usize>, halt: bool, kind: Cut) {
        let cut = self.next_cut;
        self.next_cut += 1;
        self.has_to_say = false;
        self.last_cut_barriers = self.region.barriers_passed.load(Ordering::Relaxed);
        let request = self.request();
        let consumed = self.region.ponds_out.iter().map(|pond| (pond.name.clone(), pond.consumed_offset())).collect();
        let seals = Arc::new(Seals {
            cut,
            at_ms: self.region.config.host.now_ms(),
            horizons: closing.horizons,
            revised: closing.revised,
            without: closing.without,
            positions: Positions::new(),
            is_whole: true,
            positions_of: Vec::new(),
            consumed,
            request,
        });
        let nodes = (self.region.stages.iter().map(|stage| stage.node))
            .chain(self.region.sources.iter().map(|source| source.node))
            .collect();
        self.in_flight = Some(InFlight {
            cut,
            started: Instant::now(),
            seals: seals.clone(),
            waiting_for: nodes,
            positions: Positions::new(),
            gone: BTreeMap::new(),
            left: BTreeMap::new(),
            seen: Vec::new(),
            read_bytes: None,
            kind,
            books: BTreeMap::new(),
            counts: BTreeMap::new(),
            arrived: BTreeMap::new(),
        });
        let passes = Arc::new(passes);
        for reader in &self.readers {
            reader.do_send(Order { seals: seals.clone(), passes: passes.clone(), halt });
        }
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |coordinator, _| coordinator.tick());
    }
}

impl Handler<Ack> for Coordinator {
    type Result = ();

    fn handle(&mut self, ack: Ack, _: &mut Self::Context) {
        let name = self.region.node(ack.node).name.clone();
        if let Some(cut) = self.in_flight.as_mut().filter(|cut| cut.cut == ack.cut) {
            cut.waiting_for.remove(&ack.node);
            cut.books.insert(ack.node, ack.books);
            cut.left.insert(name, ack.left);
            self.complete();
        }
    }
}

impl Handler<SourceAck> for Coordinator {
    type Result = ();

    fn handle(&mut self, ack: SourceAck, _: &mut Self::Context) {
        let name = self.region.node(ack.node).name.clone();
        if let Some(cut) = self.in_flight.as_mut().filter(|cut| cut.cut == ack.cut) {
            cut.waiting_for.remove(&ack.node);
            cut.positions.insert(name.clone(), Arc::new(ack.moved.positions));
            cut.gone.insert(name, ack.moved.gone);
            cut.seen.push(ack.progress);
            cut.books.insert(ack.node, ack.books);
            // With several sources the first to answer says least: what is read after it counts as held.
            cut.read_bytes = Some(cut.read_bytes.map_or(ack.read_bytes, |least| least.min(ack.read_bytes)));
            self.complete();
        }
    }
}

impl Handler<Committed> for Coordinator {
    type Result = ();

    fn handle(&mut self, committed: Committed, _: &mut Self::Context) {
        let Some(cut) = self.in_flight.take() else { return };
        self.last_cut_at = Instant::now();
        if committed.read_bytes != self.last_cut_bytes {
            // It has got something done.
            self.region.ponds_out.iter().for_each(|pond| pond.unpark());
        }
        self.last_cut_bytes = committed.read_bytes;
        self.region.committed_bytes.store(committed.read_bytes, Ordering::Relaxed);
        for stage in &self.region.stages {
            stage.inbox.committed(committed.cut);
        }
        for source in &self.region.sources {
            source.tell_pond(&self.region);
        }
        if let Some(request) = &cut.seals.request {
            self.answered = Some((cut.cut, request.clone()));
        }
        self.answer();
        self.region.changed.notify_waiters();
        self.timings.cuts += 1;
        self.timings.last_ms = cut.started.elapsed().as_millis() as u64;
        self.region.cut_duration_ms.store(self.timings.last_ms, Ordering::Relaxed);
        self.region.cut_commit_ms.store(committed.took.as_millis() as u64, Ordering::Relaxed);
        for (name, more) in &cut.counts {
            self.region.carried.types.entry(name.clone()).or_default().add(more);
        }
        let now_ms = self.region.config.host.now_ms();
        for (sink, arrived) in &cut.arrived {
            let mut delivery = self.region.carried.deliveries.entry(sink.clone()).or_default();
            for (at_ms, events) in arrived {
                delivery.add(now_ms.saturating_sub(*at_ms).max(0).unsigned_abs(), *events);
            }
        }
        let is_of_types = |horizon: &&Horizon| *horizon.event_type != *DEAD_LETTER_TYPE;
        let sealed: Vec<&Horizon> = cut.seals.horizons.iter().filter(is_of_types).collect();
        if let Some(last) = sealed.iter().max_by_key(|horizon| horizon.sealed_before_ms) {
            let before = tidemill_core::format_time_ms(last.sealed_before_ms);
            tracing::info!(region = %self.region.name, cut = cut.cut, types = sealed.len(), %before, reason = ?last.reason, "hours sealed");
            if sealed.iter().any(|horizon| horizon.reason == SealReason::Silent) {
                tracing::error!(region = %self.region.name, cut = cut.cut, without = ?cut.seals.without, "hours sealed without partitions or producers that have given nothing for longer than `hold_at_most` or their `lease`; what comes from them is late, the manifests name them");
            }
        }
        if !cut.seals.revised.is_empty() {
            tracing::info!(region = %self.region.name, cut = cut.cut, types = ?cut.seals.revised, "late events go into revisions of their hours");
        }
        self.tick();
    }
}

impl Handler<Published> for Coordinator {
    type Result = ();

    fn handle(&mut self, _: Published, _: &mut Self::Context) {
        self.published_at = Instant::now();
        self.answer();
        self.tick();
    }
}

impl Handler<Fatal> for Coordinator {
    type Result = ();

    fn handle(&mut self, fatal: Fatal, _: &mut Self::Context) {
        self.end(Err(fatal.0));
    }
}

impl Handler<Halt> for Coordinator {
    type Result = ();

    fn handle(&mut self, _: Halt, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Stop> for Coordinator {
    type Result = ();

    fn handle(&mut self, _: Stop, _: &mut Self::Context) {
        let region = &self.region;
        self.drain.get_or_insert_with(|| Drain::begin(region, Instant::now()));
        self.published_at = Instant::now();
        region.stages.iter().for_each(|stage| stage.caps.lift());
        if !matches!(self.phase, Phase::Last(_)) {
            self.phase = Phase::Stopping;
        }
    }
}
