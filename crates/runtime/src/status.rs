//! What a running topology is doing, for the display, the summary, `tidemill status` and the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tidemill_core::{DEAD_LETTER_TYPE, Role, Shape, Tally, Tier};
use tidemill_topology::REPLAY;

use crate::delivery::DeliveryStatus;
use crate::pond::shared::PondShared;
use crate::region::{DeadKey, Region, SourceShared};
use crate::watermark::watermark;

/// A look at everything at one moment. Counts are since the state began.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Name of the topology.
    pub topology: String,
    /// Process id.
    pub pid: u32,
    /// Last committed cut of the region that has the sources.
    pub cut: u64,
    /// Milliseconds from the start of its barrier to the end of its effects.
    pub cut_duration_ms: u64,
    /// Bytes that would have to be read again after a failure.
    pub held_bytes: u64,
    /// Regions; the first has the sources.
    pub regions: Vec<RegionStatus>,
    /// Ponds.
    pub ponds: Vec<PondStatus>,
    /// Sources.
    pub sources: Vec<SourceStatus>,
    /// Stages and sinks, in topological order.
    pub stages: Vec<StageStatus>,
    /// Types.
    pub types: Vec<TypeStatus>,
    /// Dead letters since the process started.
    pub dead_letters: Vec<DeadLetterStatus>,
    /// Types of which the audit found events lost, repeated or exchanged since the process started.
    #[serde(default)]
    pub mismatches: Vec<MismatchStatus>,
}

/// A region.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegionStatus {
    /// `main`, or the stage or sink that it begins with.
    pub name: String,
    /// Last committed cut.
    pub cut: u64,
    /// Milliseconds since its barrier started.
    pub cut_age_ms: i64,
    /// Milliseconds from the start of its barrier to the end of its effects.
    pub cut_duration_ms: u64,
    /// The part of it that the commit took.
    pub cut_commit_ms: u64,
    /// Files of sealed hours that are not published yet.
    #[serde(default)]
    pub unpublished_files: u64,
    /// Milliseconds since the barrier that sealed the first of them; 0 when there are none.
    #[serde(default)]
    pub unpublished_ms: u64,
    /// Bytes that were handed on by its sources, or out of its ponds, since the process started.
    pub read_bytes: u64,
    /// The part of them that would have to be read again after a failure.
    pub held_bytes: u64,
    /// How often it was opened again.
    pub restarts: u64,
    /// Why it stands still until it is opened again.
    pub fault: Option<String>,
}

/// A pond.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PondStatus {
    /// The stage or sink that takes from it, a point, and the region that fills it.
    pub name: String,
    /// The stage or sink that takes from it.
    pub node: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub max_bytes: u64,
    /// Bytes that were not delivered, as of the last cut of the region behind it.
    pub unread_bytes: u64,
    /// It is full: sources wait, or events become dead letters.
    pub is_full: bool,
}

/// Dead letters of one source, reason and type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterStatus {
    /// The source that the events came from.
    pub source: String,
    /// Why they are dead letters.
    pub reason: String,
    /// Their type, where it is known.
    pub event_type: Option<String>,
    /// How many there are.
    pub count: u64,
}

/// What the audit found of a type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MismatchStatus {
    /// The type; empty for what was not parsed yet.
    pub event_type: String,
    /// How often counts did not agree; each place and hour counts by itself.
    pub count: u64,
    /// The last one: where, which hour, and what has happened.
    pub last: String,
}

/// A source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Whether it has come to its end.
    pub ended: bool,
    /// How often it was opened again after a failure.
    pub restarts: u64,
    /// Errors.
    pub errors: u64,
    /// Nanoseconds that it read.
    pub busy_ns: u64,
    /// Nanoseconds that it waited for room behind it.
    pub back_pressure_ns: u64,
    /// What it waits for before it can give anything.
    pub waits_for: Option<String>,
    /// Its partitions.
    pub partitions: Vec<PartitionStatus>,
}

/// A partition of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Its name.
    pub name: String,
    /// Position of the next record.
    pub position: u64,
    /// The part of it that is in the last committed cut.
    pub committed: u64,
    /// Highest event time, in milliseconds since 1970.
    pub max_event_ms: Option<i64>,
    /// Event time of its newest event, where it is so far ahead of the others that no hour is sealed because of it.
    #[serde(default)]
    pub far_ahead_ms: Option<i64>,
    /// Read to an end that stays.
    pub ended: bool,
    /// Holds no hour although it has not ended.
    pub idle: bool,
    /// For how long it has given nothing and proven nothing, in milliseconds; 0 when that is not so.
    #[serde(default)]
    pub silent_ms: u64,
    /// Records that are there and were not handed on, where the source knows.
    pub lag_events: Option<u64>,
    /// Age of the newest record that was handed on, in milliseconds, where there are newer ones.
    pub lag_ms: Option<u64>,
}

/// A stage or sink.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StageStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Whether it is a sink.
    pub is_sink: bool,
    /// Whether it turns what sources read into events.
    pub is_parser: bool,
    /// What became of its records.
    pub tally: Tally,
    /// Calls that failed.
    pub errors: u64,
    /// Workers that were replaced.
    pub restarts: u64,
    /// Items that wait.
    pub queue_items: usize,
    /// Events and messages that wait; lines are not counted before they are parsed.
    pub queue_events: usize,
    /// Bytes that wait.
    pub queue_bytes: usize,
    /// Items that are kept for replay.
    pub replay_items: usize,
    /// Nanoseconds in calls, over all workers.
    pub busy_ns: u64,
    /// Nanoseconds that results waited for room behind the stage.
    pub back_pressure_ns: u64,
    /// Threads of workers that hung and were replaced, and that have not come back.
    pub stuck_threads: usize,
    /// Hours that it held open at the last barrier.
    pub open_hours: u64,
    /// What a sink waits for that takes no events now.
    pub waits_for: Option<String>,
    /// Of a sink: how long its events took from their arrival to the cut that has them.
    #[serde(default)]
    pub delivery: DeliveryStatus,
    /// Its workers.
    pub workers: Vec<WorkerStatus>,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its index in the pool.
    pub index: usize,
    /// How often it was replaced.
    pub epoch: u64,
}

/// An event type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TypeStatus {
    /// Its name.
    pub name: String,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// How much it matters.
    #[serde(default)]
    pub tier: String,
    /// Hours that have events and are not sealed.
    pub open_hours: usize,
    /// Hours sealed since the process started.
    pub sealed_hours: u64,
    /// Those of them that were sealed within `seal_within`.
    #[serde(default)]
    pub sealed_in_time: u64,
    /// How long after its end and the allowed lateness the last one was sealed, in milliseconds.
    #[serde(default)]
    pub seal_delay_ms: Option<i64>,
    /// Events parsed since the process started, as of the last cut, repeated ones among them.
    #[serde(default)]
    pub events: u64,
    /// Those of them that came when their hour was sealed.
    #[serde(default)]
    pub late_events: u64,
    /// Events that producers have sent, by their numbers, and that did not come, as far as it was noticed since the process started.
    #[serde(default)]
    pub missing_events: u64,
    /// Hours that end at or before this are sealed, in milliseconds since 1970.
    pub sealed_before_ms: Option<i64>,
    /// How far its events have come, in milliseconds since 1970.
    pub watermark_ms: Option<i64>,
    /// The partition that holds the watermark, or the producer.
    pub held_by: Option<String>,
    /// Producers that are not waited for, because nothing has come from them for their lease.
    #[serde(default)]
    pub silent_producers: u64,
}

impl Status {
    pub(crate) fn of(regions: &[Arc<Region>]) -> Self {
        let main = &regions[0];
        let told: Vec<RegionStatus> = regions.iter().map(|region| region.status()).collect();
        let mut status = Self {
            topology: main.plan.name.to_string(),
            pid: std::process::id(),
            cut: told[0].cut,
            cut_duration_ms: told[0].cut_duration_ms,
            held_bytes: told[0].held_bytes,
            regions: told,
            ponds: regions.iter().flat_map(|region| &region.ponds_out).map(|pond| pond_status(pond)).collect(),
            sources: main.source_status(),
            stages: regions.iter().flat_map(|region| region.stage_status()).collect(),
            types: Vec::new(),
            dead_letters: dead_letter_status(regions),
            mismatches: mismatch_status(regions),
        };
        for event_type in regions.iter().flat_map(|region| region.type_status()) {
            // Behind a pond, a type is what it was before it.
            if !status.types.iter().any(|known| known.name == event_type.name) {
                status.types.push(event_type);
            }
        }
        for region in &regions[1..] {
            // Where it is made, its rows are counted.
            for derived in &region.lineage.derived {
                let counts = region.carried.types.get(&derived.name).map(|counts| *counts).unwrap_or_default();
                let of_type = status.types.iter_mut().filter(|of| *of.name == *derived.name);
                of_type.for_each(|of| (of.events, of.late_events) = (counts.events, counts.late));
            }
        }
        status
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn pond_status(pond: &PondShared) -> PondStatus {
    let fill = pond.fill();
    PondStatus {
        name: pond.name.to_string(),
        node: pond.node.to_string(),
        bytes: fill.bytes,
        max_bytes: pond.options.max_bytes,
        unread_bytes: fill.unread_bytes,
        is_full: pond.is_full(),
    }
}

fn dead_letter_status(regions: &[Arc<Region>]) -> Vec<DeadLetterStatus> {
    let mut counts: BTreeMap<DeadKey, u64> = BTreeMap::new();
    for entry in regions.iter().flat_map(|region| region.carried.dead_letters.iter()) {
        *counts.entry(entry.key().clone()).or_default() += *entry.value();
    }
    let status = |(key, count): (DeadKey, u64)| DeadLetterStatus {
        source: key.source.to_string(),
        reason: key.reason.to_owned(),
        event_type: key.event_type.map(|name| name.to_string()),
        count,
    };
    counts.into_iter().map(status).collect()
}

fn mismatch_status(regions: &[Arc<Region>]) -> Vec<MismatchStatus> {
    let mut all: BTreeMap<Arc<str>, (u64, String)> = BTreeMap::new();
    for entry in regions.iter().flat_map(|region| region.carried.mismatches.iter()) {
        let (count, last) = entry.value();
        let known = all.entry(entry.key().clone()).or_default();
        *known = (known.0 + count, last.clone());
    }
    let status =
        |(event_type, (count, last)): (Arc<str>, _)| MismatchStatus { event_type: event_type.to_string(), count, last };
    all.into_iter().map(status).collect()
}

impl Region {
    fn status(&self) -> RegionStatus {
        let (unpublished, now_ms) = (self.unpublished(), self.config.host.now_ms());
        let waits_ms = unpublished.since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms).max(0));
        let committed = self.committed();
        RegionStatus {
            name: self.name.to_string(),
            cut: committed.last.cut,
            cut_age_ms: if committed.last.cut == 0 { 0 } else { now_ms - committed.last.at_ms },
            cut_duration_ms: load(&self.cut_duration_ms),
            cut_commit_ms: load(&self.cut_commit_ms),
            unpublished_files: unpublished.files as u64,
            unpublished_ms: waits_ms.unsigned_abs(),
            read_bytes: load(&self.read_bytes),
            held_bytes: self.held_bytes(),
            restarts: load(&self.carried.restarts),
            fault: self.fault().clone(),
        }
    }

    fn source_status(&self) -> Vec<SourceStatus> {
        let (positions, sealed_ms) = {
            let committed = self.committed();
            let letters = |(name, _): &(&Arc<str>, &i64)| ***name != *DEAD_LETTER_TYPE;
            let sealed_ms = committed.sealed_before_ms.iter().filter(letters).map(|(_, at_ms)| *at_ms).max();
            (committed.positions.clone(), sealed_ms)
        };
        // Where nothing was ever replayed, nobody needs to be told so.
        let is_told = |source: &&Arc<SourceShared>| {
            let has_any = source.state().positions.as_ref().is_some_and(|positions| !positions.is_empty());
            has_any || *self.node(source.node).name != *REPLAY
        };
        let sources = self.sources.iter().filter(is_told).map(|source| {
            let node = self.node(source.node);
            let state = source.state();
            let progress = self.progress();
            let seen = progress.seen.get(&node.name);
            let before = positions.get(&node.name);
            let partitions =
                state.positions.iter().flat_map(|positions| &**positions).map(|(name, position)| PartitionStatus {
                    name: name.to_string(),
                    position: position.next,
                    committed: before.and_then(|before| before.get(name)).map_or(0, |position| position.next),
                    max_event_ms: seen.and_then(|seen| seen.get(name)?.last()).map(|newest| newest.at_ms),
                    far_ahead_ms: seen
                        .and_then(|seen| seen.get(name)?.far_ahead_ms(&self.plan.limits))
                        .filter(|at_ms| !self.seals_at_end() && sealed_ms.is_none_or(|sealed_ms| *at_ms >= sealed_ms)),
                    ended: position.ended,
                    idle: state.idle.of(name).is_some(),
                    silent_ms: state.silence(name, position).as_millis() as u64,
                    lag_events: state.lag.get(name).map(|lag| lag.events),
                    lag_ms: state.lag.get(name).map(|lag| lag.ms),
                });
            SourceStatus {
                name: node.name.to_string(),
                kind: node.kind.name.to_owned(),
                ended: state.ended,
                restarts: load(&source.counters.restarts),
                errors: load(&source.counters.errors),
                busy_ns: load(&source.counters.busy_ns),
                back_pressure_ns: load(&source.counters.back_pressure_ns),
                waits_for: state.waits_for.clone(),
                partitions: partitions.collect(),
            }
        });
        sources.collect()
    }

    fn stage_status(&self) -> Vec<StageStatus> {
        let stages = self.stages.iter().filter(|stage| stage.pond.is_none()).map(|stage| {
            let node = self.node(stage.node);
            let fill = stage.inbox.fill();
            let mut workers: Vec<_> = (stage.epochs.iter())
                .map(|entry| WorkerStatus { index: *entry.key(), epoch: *entry.value() })
                .collect();
            workers.sort_by_key(|worker| worker.index);
            StageStatus {
                name: node.name.to_string(),
                kind: node.kind.name.to_owned(),
                is_sink: node.role == Role::Sink,
                is_parser: node.role == Role::Stage && node.kind.input != Shape::Rows,
                tally: *stage.tally(),
                errors: load(&stage.counters.errors),
                restarts: load(&stage.counters.restarts),
                queue_items: fill.items,
                queue_events: fill.events,
                queue_bytes: fill.bytes,
                replay_items: fill.replay_items,
                busy_ns: load(&stage.counters.busy_ns),
                back_pressure_ns: load(&stage.counters.back_pressure_ns),
                stuck_threads: stage.stuck_threads.load(Ordering::Relaxed),
                open_hours: load(&stage.open_hours),
                waits_for: stage.waits_for().clone(),
                delivery: self.carried.deliveries.get(&node.name).map(|known| known.clone()).unwrap_or_default(),
                workers,
            }
        });
        stages.collect()
    }

    /// The tier of a type that a stage makes.
    fn tier_of_made(&self, name: &str) -> Tier {
        let made = self.plan.nodes.iter().flat_map(|node| &node.sends);
        made.filter(|made| *made.name == *name).map(|made| made.tier).next().unwrap_or_default()
    }

    fn type_status(&self) -> Vec<TypeStatus> {
        let sealed = self.committed().sealed_before_ms.clone();
        let received = self.lineage.types.iter().map(|(name, origins)| (name, Some(origins)));
        let is_known = |name: &Arc<str>| self.lineage.types.iter().any(|(known, _)| known == name);
        let derived = self.lineage.derived.iter().filter(|derived| !is_known(&derived.name));
        let made = derived.map(|derived| (&derived.name, Some(&derived.origins).filter(|of| !of.is_empty())));
        received
            .chain(made)
            .map(|(name, origins)| {
                let now_ms = self.config.host.now_ms();
                let watermark = origins.map(|origins| watermark(self, origins, now_ms)).unwrap_or_default();
                let hold = origins.map(|_| self.producers_hold(name, now_ms)).unwrap_or_default();
                let lowest =
                    hold.lowest.filter(|(at_ms, _)| watermark.at_ms.is_none_or(|watermark| *at_ms < watermark));
                let (watermark_ms, held_by) = match lowest {
                    Some((at_ms, producer)) => (watermark.at_ms.map(|_| at_ms), Some(format!("producer {producer}"))),
                    None => (watermark.at_ms, watermark.held_by),
                };
                let open_hours = self.progress().open.get(name).map_or(0, std::collections::BTreeSet::len);
                let counts = self.carried.types.get(name).map(|counts| *counts).unwrap_or_default();
                let declared = self.declared(name);
                let tier = declared.map_or_else(|| self.tier_of_made(name), |declared| declared.tier);
                TypeStatus {
                    name: name.to_string(),
                    owner: declared.and_then(|declared| declared.owner.clone()),
                    tier: tier.as_str().to_owned(),
                    open_hours,
                    sealed_hours: counts.sealed,
                    sealed_in_time: counts.sealed_in_time,
                    seal_delay_ms: counts.seal_delay_ms,
                    events: counts.events,
                    late_events: counts.late,
                    missing_events: counts.missing,
                    sealed_before_ms: sealed.get(name).copied(),
                    watermark_ms,
                    held_by,
                    silent_producers: hold.silent.len() as u64,
                }
            })
            .collect()
    }
}
