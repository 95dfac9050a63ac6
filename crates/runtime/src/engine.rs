//! A worker's value: the stage or the sink itself, built from the last committed cut, and the calls into it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tidemill_core::{
    CutId, DeadLetter, DeliveryId, Effects, Input, Reason, Role, Seals, SinkContext, SinkError, Stage, StageContext,
    StageInput,
};

use crate::error::error_chain;
use crate::external::{ExternalSink, OpenHours};
use crate::item::{Item, Numbered, Part, bury};
use crate::logs::Lengths;
use crate::region::{Region, StageShared};
use crate::registry::SinkEntry;

/// See the module.
pub(crate) enum Engine {
    Stage(Box<dyn Stage>),
    Sink(Box<dyn ExternalSink>, SinkState),
}

/// What the runtime keeps for a sink that delivers by itself.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct SinkState {
    hours: OpenHours,
    after_cut: CutId,
    number: u64,
    resume: Option<Vec<u8>>,
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
}

impl Engine {
    /// Builds the value of a worker of `stage` from the last committed cut.
    pub(crate) async fn build(region: &Region, stage: &StageShared) -> Result<Self, String> {
        let node = region.node(stage.node);
        let input = StageInput {
            name: node.name.clone(),
            options: node.options.clone(),
            types: node.accepts.clone(),
            limits: region.plan.limits.clone(),
        };
        let snapshot = region.snapshot_of(&node.name);
        let kind = match node.role {
            Role::Sink => region.registry.sinks.get(node.kind.name).cloned(),
            _ => region.registry.stages.get(node.kind.name).cloned().map(SinkEntry::Logged),
        };
        match kind.ok_or_else(|| format!("there is no kind `{}`", node.kind.name))? {
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
                    topology: region.plan.name.clone(),
                    sealed_before_ms,
                    snapshot: snapshot.as_deref(),
                    logs: &logs.reader(&lengths),
                };
                let built = std::panic::catch_unwind(AssertUnwindSafe(|| kind.build(&context)));
                match built {
                    Ok(Ok(stage)) => Ok(Self::Stage(stage)),
                    Ok(Err(error)) => Err(error_chain(&error)),
                    Err(panic) => Err(panic_text(&*panic)),
                }
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
                };
                loop {
                    let opened = AssertUnwindSafe(kind.open(context.clone(), state.resume.clone())).catch_unwind();
                    match opened.await {
                        Ok(Ok(sink)) => return Ok(Self::Sink(sink, state)),
                        Ok(Err(SinkError::Retry { after, source })) => {
                            tracing::warn!(sink = %node.name, cause = %error_chain(&*source), "the sink can't be opened; trying again");
                            actix_rt::time::sleep(after).await;
                        }
                        Ok(Err(error)) => return Err(error_chain(&error)),
                        Err(panic) => return Err(panic_text(&*panic)),
                    }
                }
            }
        }
    }

    /// Deals with one item. Nothing has happened when it fails.
    pub(crate) async fn run(&mut self, region: &Region, name: &str, item: &Numbered) -> Result<Outcome, Failure> {
        let mut effects = Effects::default();
        let may_be_the_data = matches!(self, Self::Stage(_));
        match &item.item {
            Item::Data(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    let called = match part {
                        Part::Live(input) => {
                            AssertUnwindSafe(self.process(region, name, input, &mut effects)).catch_unwind().await
                        }
                        Part::Poison(input, error) => {
                            bury(input, error, &mut effects);
                            continue;
                        }
                    };
                    called.unwrap_or_else(|panic| Err(panic_text(&*panic))).map_err(|message| Failure {
                        part: at,
                        message,
                        may_be_the_data,
                    })?;
                }
                Ok(Outcome { effects, snapshot: None })
            }
            Item::Barrier(seals) => {
                let called = AssertUnwindSafe(self.barrier(region, name, seals, &mut effects)).catch_unwind().await;
                let snapshot = called.unwrap_or_else(|panic| Err(panic_text(&*panic))).map_err(|message| Failure {
                    part: 0,
                    message,
                    may_be_the_data: false,
                })?;
                Ok(Outcome { effects, snapshot: Some(snapshot) })
            }
        }
    }

    async fn process(
        &mut self,
        region: &Region,
        name: &str,
        input: &Input,
        effects: &mut Effects,
    ) -> Result<(), String> {
        match self {
            Self::Stage(stage) => stage.process(input, effects).map_err(|error| error_chain(&error)),
            Self::Sink(sink, state) => {
                let Input::Rows(batch) = input else { return Ok(()) };
                let id = DeliveryId { after_cut: state.after_cut, number: state.number };
                let rows = batch.len() as u64;
                let mut refused = retrying(name, async || sink.write(batch, id).await).await?;
                refused.sort_by_key(|(row, _)| *row);
                refused.dedup_by_key(|(row, _)| *row);
                if let Some((row, _)) = refused.iter().find(|(row, _)| !batch.indexes().any(|other| other == *row)) {
                    return Err(format!("the sink refused row {row}, which it was not given"));
                }
                state.number += 1;
                state.hours.add(batch, region.plan.limits.bucket_ms);
                effects.tally.received += rows;
                effects.tally.dead += refused.len() as u64;
                effects.tally.sent += rows - refused.len() as u64;
                for (row, reason) in refused {
                    effects.dead.push(DeadLetter::of_row(batch, row, Reason::Refused, reason));
                }
                Ok(())
            }
        }
    }

    async fn barrier(
        &mut self,
        region: &Region,
        name: &str,
        seals: &Arc<Seals>,
        effects: &mut Effects,
    ) -> Result<Vec<u8>, String> {
        match self {
            Self::Stage(stage) => {
                stage.seal(seals, effects).map_err(|error| error_chain(&error))?;
                stage.snapshot(effects).map_err(|error| error_chain(&error))
            }
            Self::Sink(sink, state) => {
                for (event_type, hour) in state.hours.close(seals, region.plan.limits.bucket_ms) {
                    nothing_refused(retrying(name, async || sink.seal(&event_type, hour).await).await?)?;
                }
                let mut resume = None;
                let flushed = retrying(name, async || {
                    resume = Some(sink.flush(seals.cut).await?);
                    Ok(())
                });
                nothing_refused(flushed.await?)?;
                (state.resume, state.after_cut, state.number) = (resume, seals.cut, 0);
                postcard::to_stdvec(state).map_err(|error| error.to_string())
            }
        }
    }

    pub(crate) fn open_hours(&self) -> usize {
        match self {
            Self::Stage(stage) => stage.open_hours().values().sum(),
            Self::Sink(_, state) => state.hours.len(),
        }
    }
}

/// Calls a sink again for as long as it says `Retry`. Returns the rows that it refused.
async fn retrying(
    name: &str,
    mut call: impl AsyncFnMut() -> Result<(), SinkError>,
) -> Result<Vec<(usize, String)>, String> {
    let mut tries = 0u64;
    loop {
        match call().await {
            Ok(()) => return Ok(Vec::new()),
            Err(SinkError::Reject { rows }) => return Ok(rows),
            Err(SinkError::Retry { after, source }) => {
                if tries.is_power_of_two() || tries == 0 {
                    tracing::warn!(sink = name, tries, cause = %error_chain(&*source), "the sink does not take events; its input waits");
                }
                tries += 1;
                actix_rt::time::sleep(after).await;
            }
            Err(error) => return Err(error_chain(&error)),
        }
    }
}

/// Rows can be refused when they are written, not later.
fn nothing_refused(rows: Vec<(usize, String)>) -> Result<(), String> {
    match rows.first() {
        None => Ok(()),
        Some((_, reason)) => Err(format!("the sink refused rows that it had taken: {reason}")),
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("no message"))
}
