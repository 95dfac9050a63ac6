//! A worker's value: the stage or the sink itself, built from the last committed cut, and the calls into it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tidemill_core::{
    Batch, DeadLetter, DeliveryId, Effects, Input, Reason, Refused, Role, Seals, SinkContext, SinkError, Stage,
    StageContext, StageError, StageInput,
};
use tokio::time::Instant;

use crate::audit::{ByHour, Written, notes};
use crate::error::error_chain;
use crate::external::{ExternalSink, OpenHours};
use crate::item::{Item, Numbered, Part, bury};
use crate::logs::Lengths;
use crate::pieces::OfStage;
use crate::region::{Region, StageShared};
use crate::registry::SinkEntry;
use crate::suspects::{Mark, Range};
use crate::watchdog::Call;

/// What nobody reads: of a worker that was replaced nothing counts.
const REPLACED: &str = "it has hung, and was replaced";
/// How often it is told that a sink still takes nothing.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) enum Engine {
    Stage(Box<dyn Stage>, Written),
    Sink(Box<dyn ExternalSink>, SinkState),
}

/// What the runtime keeps for a sink that delivers by itself.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct SinkState {
    hours: OpenHours,
    resume: Option<Vec<u8>>,
}

/// For whom calls are made.
#[derive(Clone, Copy)]
struct Caller<'a> {
    region: &'a Region,
    shared: &'a StageShared,
    name: &'a str,
    call: &'a Call,
    /// The part of the item that they are for.
    part: usize,
    may_be_the_data: bool,
    /// What the item holds.
    in_hand: Option<&'a Range>,
}

impl Caller<'_> {
    /// Calls into a stage.
    fn watched<T>(&self, call: impl FnOnce() -> Result<T, StageError>) -> Result<T, String> {
        self.call.begins(self.part, self.may_be_the_data);
        let answer = call();
        if !self.call.is_back() {
            return Err(REPLACED.to_owned());
        }
        answer.map_err(|error| error_chain(&error))
    }

    /// Calls into a sink: watched while it computes or blocks, not while it waits. `None` when it has hung.
    async fn polled<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let mut call = std::pin::pin!(call);
        std::future::poll_fn(|context| {
            self.call.begins(self.part, false);
            let answer = call.as_mut().poll(context);
            if self.call.is_back() { answer.map(Some) } else { Poll::Ready(None) }
        })
        .await
    }
}

/// A call failed.
pub(crate) struct Failure {
    /// The part of the item that it failed on.
    pub(crate) part: usize,
    pub(crate) message: String,
    /// Whether the records in hand may be what it fails on. A sink of one's own names such records itself; anything else is
    /// an outage.
    pub(crate) may_be_the_data: bool,
}

/// What a call brought about.
pub(crate) struct Outcome {
    pub(crate) effects: Effects,
    pub(crate) snapshot: Option<Vec<u8>>,
    /// At a barrier: what a sink has written since the one before, if it says so.
    pub(crate) written: Option<ByHour>,
}

/// The kind of a stage or sink, or of the end of a pond.
fn kind_of(region: &Region, stage: &StageShared) -> Option<SinkEntry> {
    let node = region.node(stage.node);
    match (node.role, &stage.pond) {
        (_, Some(pond)) => Some(SinkEntry::Logged(Arc::new(pond.writer()))),
        (Role::Sink, None) => region.registry.sinks.get(node.kind.name).cloned(),
        _ => region.registry.stages.get(node.kind.name).cloned().map(SinkEntry::Logged),
    }
}

impl Engine {
    /// Builds the value of a worker of `stage` from the last committed cut.
    pub(crate) async fn build(region: &Region, stage: &StageShared, pieces: &Arc<OfStage>) -> Result<Self, String> {
        let node = region.node(stage.node);
        let input = StageInput {
            name: node.name.clone(),
            options: node.options.clone(),
            types: node.accepts.clone(),
            limits: region.plan.limits.clone(),
        };
        let snapshot = pieces.whole().map_err(|error| error_chain(&error))?;
        match kind_of(region, stage).ok_or_else(|| format!("there is no kind `{}`", node.kind.name))? {
            SinkEntry::Logged(kind) => {
                let (lengths, sealed_before_ms) = {
                    let committed = region.committed();
                    let lengths: Lengths = committed.logs.get(&node.name).cloned().unwrap_or_default();
                    (lengths, committed.sealed_before_ms.clone())
                };
                let logs = stage.logs();
                let context = StageContext {
                    input,
                    outputs: node.sends.clone(),
                    state_id: region.state_id.clone(),
                    key: &region.key,
                    topology: region.plan.name.clone(),
                    sealed_before_ms,
                    snapshot: snapshot.as_deref(),
                    pieces: pieces.clone(),
                    memory_bytes: region.memory_bytes,
                    logs: &logs.reader(&lengths),
                    gives_way: region.gives_way,
                };
                let mut stage = std::panic::catch_unwind(AssertUnwindSafe(|| kind.build(&context)))
                    .map_err(|panic| panic_text(&*panic))?
                    .map_err(|error| error_chain(&error))?;
                let written = Written::since(&mut *stage);
                Ok(Self::Stage(stage, written))
            }
            SinkEntry::External(kind) => {
                let state: SinkState = match snapshot {
                    Some(bytes) => postcard::from_bytes(&bytes).map_err(|error| format!("its snapshot: {error}"))?,
                    None => SinkState::default(),
                };
                let context = SinkContext {
                    input,
                    base_dir: region.plan.base_dir.clone(),
                    clusters: region.config.clusters.clone(),
                    ponds: region.pond_ids(),
                };
                let call = Call::default();
                let caller = Caller {
                    region,
                    shared: stage,
                    name: &node.name,
                    call: &call,
                    part: 0,
                    may_be_the_data: false,
                    in_hand: None,
                };
                let open = retrying(caller, async || kind.open(context.clone(), state.resume.clone()).await);
                match AssertUnwindSafe(open).catch_unwind().await {
                    Ok(Ok(sink)) => Ok(Self::Sink(sink, state)),
                    Ok(Err(trouble)) => Err(trouble.text()),
                    Err(panic) => Err(panic_text(&*panic)),
                }
            }
        }
    }

    /// Whether it does the same when an item comes again. What is outside may answer otherwise.
    pub(crate) fn repeats_itself(&self) -> bool {
        matches!(self, Self::Stage(..))
    }

    /// Deals with one item. Nothing has happened when it fails.
    pub(crate) async fn run(
        &mut self,
        region: &Region,
        shared: &StageShared,
        name: &str,
        call: &Call,
        mark: &Mark,
        item: &Numbered,
    ) -> Result<Outcome, Failure> {
        let mut effects = Effects::default();
        // A pond takes everything; what it could not take would have nowhere to go.
        let may_be_the_data = matches!(self, Self::Stage(..)) && shared.pond.is_none();
        let caller = Caller { region, shared, name, call, part: 0, may_be_the_data, in_hand: None };
        match &item.item {
            Item::Data(parts) => {
                let mut written = Vec::new();
                let in_hand = if may_be_the_data { Range::covering(parts) } else { None };
                mark.set(in_hand.as_ref());
                for (at, part) in parts.iter().enumerate() {
                    let caller = Caller { part: at, in_hand: in_hand.as_ref(), ..caller };
                    let id = match part {
                        Part::Live(_) | Part::Suspect(_) => None,
                        Part::Delivery(_, id) => Some(id),
                        Part::Poison(input, error) => {
                            bury(input, format!("the stage failed on this event, twice: {error}"), &mut effects);
                            continue;
                        }
                    };
                    if let Some(batch) = passing(region, shared, part.input()) {
                        effects.tally.received += batch.len() as u64;
                        effects.tally.sent += batch.len() as u64;
                        effects.batches.push(batch.clone());
                        continue;
                    }
                    let call = self.process(caller, mark, part.input(), id, &mut effects, &mut written);
                    let called = AssertUnwindSafe(call).catch_unwind().await;
                    called.unwrap_or_else(|panic| Err(panic_text(&*panic))).map_err(|message| Failure {
                        part: at,
                        message,
                        may_be_the_data,
                    })?;
                }
                let settled = AssertUnwindSafe(self.settle(caller, &written, &mut effects)).catch_unwind().await;
                settled.unwrap_or_else(|panic| Err(panic_text(&*panic))).map_err(|message| Failure {
                    part: 0,
                    message,
                    may_be_the_data: false,
                })?;
                mark.clear();
                Ok(Outcome { effects, snapshot: None, written: None })
            }
            Item::Barrier(seals) => {
                let called = AssertUnwindSafe(self.barrier(caller, seals, &mut effects)).catch_unwind().await;
                let (snapshot, written) = called
                    .unwrap_or_else(|panic| Err(panic_text(&*panic)))
                    .map_err(|message| Failure { part: 0, message, may_be_the_data: false })?;
                Ok(Outcome { effects, snapshot: Some(snapshot), written })
            }
        }
    }

    /// Goes through an input event by event, each of them marked, when the process died with events of it in hand; `false` when there is no need.
    fn is_gone_through(
        &mut self,
        caller: Caller<'_>,
        mark: &Mark,
        input: &Input,
        effects: &mut Effects,
    ) -> Result<bool, String> {
        let suspects = &caller.region.suspects;
        let Self::Stage(stage, _) = self else { return Ok(false) };
        if !suspects.are_any() || !caller.may_be_the_data {
            return Ok(false);
        }
        let is_suspect = |range: &Range| suspects.is_suspect(caller.name, range);
        let Some(range) = Range::of(input).filter(is_suspect) else { return Ok(false) };
        tracing::warn!(
            stage = caller.name,
            ?range,
            "the process died more than once with these events in hand: they are gone through one by one"
        );
        let mut left = vec![input.clone()];
        while let Some(piece) = left.pop() {
            let range = Range::of(&piece);
            let suspect = range.as_ref().filter(|range| is_suspect(range));
            if let Some((head, tail)) = suspect.and_then(|_| piece.split()) {
                left.extend([tail, head]);
                continue;
            }
            if let Some(deaths) = suspect.and_then(|range| suspects.convicts(caller.name, range)) {
                bury(&piece, format!("the process died on this event, {deaths} times"), effects);
                continue;
            }
            mark.set(range.as_ref());
            caller.watched(|| stage.process(&piece, effects))?;
        }
        Ok(true)
    }

    async fn process<'i>(
        &mut self,
        caller: Caller<'_>,
        mark: &Mark,
        input: &'i Input,
        id: Option<&DeliveryId>,
        effects: &mut Effects,
        written: &mut Vec<(DeliveryId, &'i Batch)>,
    ) -> Result<(), String> {
        if self.is_gone_through(caller, mark, input, effects)? {
            mark.set(caller.in_hand);
            return Ok(());
        }
        match self {
            Self::Stage(stage, _) => caller.watched(|| stage.process(input, effects)),
            Self::Sink(sink, state) => {
                let Input::Rows(batch) = input else { return Ok(()) };
                let Some(id) = id else { return Err("events for a sink have to come from its pond".into()) };
                let refused = match retrying(caller, async || sink.write(batch, id.clone()).await).await {
                    Ok(()) => Vec::new(),
                    Err(Trouble::Refused(rows)) => rows,
                    Err(trouble) => return Err(trouble.text()),
                };
                state.hours.add(batch, caller.region.plan.limits.bucket_ms);
                effects.tally.received += batch.len() as u64;
                effects.tally.sent += batch.len() as u64;
                refuse(batch, refused, effects)?;
                written.push((id.clone(), batch));
                Ok(())
            }
        }
    }

    /// Waits until it is known what became of all that was written.
    async fn settle(
        &mut self,
        caller: Caller<'_>,
        written: &[(DeliveryId, &Batch)],
        effects: &mut Effects,
    ) -> Result<(), String> {
        let Self::Sink(sink, _) = self else { return Ok(()) };
        let refused = retrying(caller, async || sink.settle().await).await.map_err(Trouble::text)?;
        let mut by_delivery: BTreeMap<DeliveryId, Vec<(usize, String)>> = BTreeMap::new();
        for Refused { id, row, reason } in refused {
            by_delivery.entry(id).or_default().push((row, reason));
        }
        for (id, rows) in by_delivery {
            let Some((_, batch)) = written.iter().find(|(known, _)| *known == id) else {
                return Err(format!("the sink refused rows of {id}, which was settled before or never written"));
            };
            refuse(batch, rows, effects)?;
        }
        Ok(())
    }

    async fn barrier(
        &mut self,
        caller: Caller<'_>,
        seals: &Arc<Seals>,
        effects: &mut Effects,
    ) -> Result<(Vec<u8>, Option<ByHour>), String> {
        match self {
            Self::Stage(stage, written) => {
                let node = caller.region.node(caller.shared.node);
                if node.role == Role::Sink && caller.shared.pond.is_none() {
                    let came = caller.shared.books().came();
                    let came = notes(&node.name, seals.cut, &came, caller.region.plan.limits.bucket_ms);
                    for note in came {
                        caller.watched(|| stage.process(&Input::Note(note), effects))?;
                    }
                }
                caller.watched(|| stage.seal(seals, effects))?;
                let snapshot = caller.watched(|| stage.snapshot(effects))?;
                let written = caller.watched(|| Ok(written.until(&mut **stage, &effects.closed)))?;
                Ok((snapshot, written))
            }
            Self::Sink(sink, state) => {
                for (event_type, hour) in state.hours.close(seals, caller.region.plan.limits.bucket_ms) {
                    let sealed = retrying(caller, async || sink.seal(&event_type, hour).await).await;
                    sealed.map_err(Trouble::text)?;
                }
                let flushed = retrying(caller, async || sink.flush(seals.cut).await).await;
                state.resume = Some(flushed.map_err(Trouble::text)?);
                Ok((postcard::to_stdvec(state).map_err(|error| error.to_string())?, None))
            }
        }
    }

    pub(crate) fn open_hours(&self) -> usize {
        match self {
            Self::Stage(stage, _) => stage.open_hours().values().sum(),
            Self::Sink(_, state) => state.hours.len(),
        }
    }
}

/// Replayed letters that enter at a later stage: this one has dealt with them before.
fn passing<'a>(region: &Region, stage: &StageShared, input: &'a Input) -> Option<&'a Batch> {
    let Input::Rows(batch) = input else { return None };
    let enters = batch.origin.enters.as_ref()?;
    // A pond has to keep them.
    (stage.pond.is_none() && *enters != region.node(stage.node).name).then_some(batch)
}

/// Why a sink did not do what it was called for.
enum Trouble {
    Refused(Vec<(usize, String)>),
    Failed(String),
}

impl Trouble {
    /// As an error. Rows can be refused when they are written, not later.
    fn text(self) -> String {
        match self {
            Self::Refused(rows) => {
                let reason = rows.into_iter().next().map_or_else(String::new, |(_, reason)| reason);
                format!("the sink refused rows where there are none to refuse: {reason}")
            }
            Self::Failed(message) => message,
        }
    }
}

/// Calls a sink again for as long as it says `Retry`. What it waits for is shown meanwhile, and told once a minute.
async fn retrying<T>(caller: Caller<'_>, mut call: impl AsyncFnMut() -> Result<T, SinkError>) -> Result<T, Trouble> {
    let Caller { region, shared, name, .. } = caller;
    let mut waits: Option<(Instant, Instant)> = None;
    let answer = loop {
        region.lives().await;
        let Some(answered) = caller.polled(call()).await else {
            break Err(Trouble::Failed(REPLACED.to_owned()));
        };
        match answered {
            Ok(done) => break Ok(done),
            Err(SinkError::Reject { rows }) => break Err(Trouble::Refused(rows)),
            Err(SinkError::Retry { after, source }) => {
                let (cause, now) = (error_chain(&*source), Instant::now());
                let (since, told) = waits.unwrap_or((now, now));
                if waits.is_none() || told.elapsed() >= TELL_EVERY {
                    let waited_s = since.elapsed().as_secs();
                    tracing::warn!(sink = name, waited_s, %cause, "waiting: the sink takes no events; its input waits, and nothing is lost");
                    waits = Some((since, now));
                }
                *shared.waits_for() = Some(cause);
                actix_rt::time::sleep(after).await;
            }
            Err(error) => break Err(Trouble::Failed(error_chain(&error))),
        }
    };
    if let Some((since, _)) = waits {
        *shared.waits_for() = None;
        tracing::info!(sink = name, waited_ms = since.elapsed().as_millis() as u64, "the sink answers");
    }
    answer
}

/// Makes dead letters of rows that a sink refused, which were counted as sent.
fn refuse(batch: &Batch, mut rows: Vec<(usize, String)>, effects: &mut Effects) -> Result<(), String> {
    rows.sort_by_key(|(row, _)| *row);
    rows.dedup_by_key(|(row, _)| *row);
    if let Some((row, _)) = rows.iter().find(|(row, _)| !batch.indexes().any(|other| other == *row)) {
        return Err(format!("the sink refused row {row}, which it was not given"));
    }
    effects.tally.dead += rows.len() as u64;
    effects.tally.sent -= rows.len() as u64;
    for (row, reason) in rows {
        effects.dead.push(DeadLetter::of_row(batch, row, Reason::Refused, reason));
    }
    Ok(())
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("no message"))
}
