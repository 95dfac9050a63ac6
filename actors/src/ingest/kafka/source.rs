//! The source: takes messages and hands them on in chunks, one partition at a time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tidemill_core::{Cure, Idle, Lag, Moved, PartitionPosition, Polled, Source, SourceContext, SourceError, Stretch};
use tracing::{error, info, warn};

use super::config::{Config, Framing, OnGap, Start};
use super::control::{Bounds, Control, EVERY, Place, Report, TELL_EVERY, TopicView};
use super::misconfigured;
use super::partition::Partition;
use super::schemas::Schemas;
use crate::ingest::Looked;
use crate::kafka::native::{Event, Queue};
use crate::kafka::registry::Registry;
use crate::kafka::voice::Voice;

/// A chunk is handed on at that size at the latest.
const CHUNK: usize = 1 << 20;
/// Bytes that partitions may collect for their chunks, all together.
const CHUNKS: usize = 64 << 20;
/// Longest wait for messages in one call.
const WAIT: Duration = Duration::from_millis(20);
/// How long to wait for schemas before it is looked again.
const SCHEMAS_WAIT: Duration = Duration::from_millis(5);
/// A partition that has something is handed on no later than this after it was taken, whatever others have.
const TURN: Duration = Duration::from_millis(200);
/// When a poll comes so long after the one before, somebody behind was full, or the machine stood still: that is nobody's silence.
const GAP: Duration = Duration::from_secs(1);
/// How often positions go to the group.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct KafkaSource {
    pub(super) name: Arc<str>,
    pub(super) config: Config,
    pub(super) until_end: bool,
    /// Where an earlier process of a run to the end has found the ends of partitions.
    pub(super) ends: Option<BTreeMap<Arc<str>, u64>>,
    /// What is read once more; where the group stands is left alone then.
    pub(super) stretch: Option<Arc<Stretch>>,
    queue: Queue<Voice>,
    control: Control,
    /// Where messages refer to schemas.
    pub(super) schemas: Option<Schemas>,
    pub(super) partitions: Vec<Partition>,
    index: HashMap<Place, usize>,
    /// Positions of the last cut, of partitions that the cluster has not told of yet.
    pub(super) saved: BTreeMap<Arc<str>, PartitionPosition>,
    pub(super) has_said_saved: bool,
    /// Whether there was no state: then `start` says where partitions start, else new ones start at their beginning.
    is_first_start: bool,
    /// Partitions that have something to hand on.
    ready: VecDeque<usize>,
    /// Whether they hand it on before more is taken.
    is_handing_on: bool,
    /// Whether all that have something wait for schemas.
    pub(super) waits_for_schemas: bool,
    waits: Option<Waits>,
    /// Whether the first report with all topics has come.
    pub(super) is_complete: bool,
    /// Of all partitions it is known where they begin and end.
    is_bounded: bool,
    /// When partitions that are quiet were asked about last.
    asked: Instant,
    /// Positions of the last cut, until they go to the group.
    to_commit: Vec<(Place, u64)>,
    committed: Instant,
    /// When messages were last taken: a gap in this is not the cluster's fault.
    polled: Looked,
    /// When it was asked for something last.
    called: Looked,
    /// Since when not all partitions are known, or the cluster does not answer.
    pub(super) blind_since: Option<Instant>,
    pub(super) hold_at_most: Duration,
    stalls: u32,
}

/// What is waited for.
struct Waits {
    what: String,
    since: Instant,
    told: Option<Instant>,
    /// Whether nothing is known yet.
    is_first: bool,
}

impl KafkaSource {
    pub(super) fn open(config: Config, context: &SourceContext) -> Result<Self, SourceError> {
        let start = match &context.stretch {
            Some(stretch) => Start::Time(stretch.arrived_from_ms),
            None => config.start().map_err(misconfigured)?,
        };
        let group = config.group.clone().unwrap_or_else(|| format!("tidemill.{}.{}", context.topology, context.name));
        let (name, clusters) = (context.name.clone(), &context.clusters);
        let data = config.data_client(clusters, &group).map_err(misconfigured)?;
        let mut quiet = data.clone();
        // Both clients would say the same; the control client does, with the reasons.
        quiet.set_log_level(RDKafkaLogLevel::Emerg);
        let consumer = BaseConsumer::from_config_and_context(&quiet, Voice::default()).map_err(unusable)?;
        let control = config.control_client(clusters, &group).map_err(misconfigured)?;
        let control = Control::start(&name, &control, &config.topics, start).map_err(unusable)?;
        let registry = match config.framing {
            Framing::Messages => None,
            Framing::Avro => Some(Registry::of(clusters, &config.cluster).map_err(misconfigured)?),
        };
        let schemas = registry.map(|registry| Schemas::start(&name, registry));
        let queue = Queue::new(consumer).ok_or_else(|| broken_client("it has no queue"))?;
        let now = Instant::now();
        Ok(Self {
            name,
            config,
            until_end: context.until_end,
            ends: context.ends.clone(),
            stretch: context.stretch.clone(),
            queue,
            control,
            schemas,
            partitions: Vec::new(),
            index: HashMap::new(),
            saved: (*context.positions).clone(),
            has_said_saved: false,
            is_first_start: context.positions.is_empty(),
            ready: VecDeque::new(),
            is_handing_on: false,
            waits_for_schemas: false,
            waits: Some(Waits {
                what: "the cluster has not answered yet".to_owned(),
                since: now,
                told: None,
                is_first: true,
            }),
            is_complete: false,
            is_bounded: false,
            asked: now,
            to_commit: Vec::new(),
            committed: now,
            polled: Looked::now(),
            called: Looked::now(),
            blind_since: Some(now),
            hold_at_most: Duration::from_millis(context.limits.hold_at_most_ms.unsigned_abs()),
            stalls: 0,
        })
    }

    /// Takes in what the cluster has said.
    fn hear(&mut self) -> Result<(), SourceError> {
        while let Ok(report) = self.control.reports.try_recv() {
            self.hear_one(report)?;
        }
        // What the client says of its attempts comes before the cluster is given up for this round.
        if self.waits.as_ref().is_some_and(|waits| waits.is_first)
            && let Some(said) = self.control.voice.said()
        {
            self.wait_for(format!("cluster `{}` does not answer: {said}", self.config.cluster));
        }
        if let Some(Waits { what, since, .. }) = &self.waits
            && self.until_end
            && !self.is_complete
            && since.elapsed() >= self.config.connect_timeout()
        {
            let message = format!(
                "waited for {} s, and a run with --until-end is not to wait longer (`connect_timeout`): {what}",
                since.elapsed().as_secs()
            );
            return Err(SourceError { message, cure: Cure::GiveUp, source: None });
        }
        Ok(())
    }

    fn hear_one(&mut self, report: Report) -> Result<(), SourceError> {
        let topics = match report.topics {
            Ok(topics) => topics,
            Err(error) => {
                self.wait_for(format!("cluster `{}` does not answer: {error}", self.config.cluster));
                return Ok(());
            }
        };
        for (place, end) in &report.ends {
            let (Some(&at), Some(Ok(view))) = (self.index.get(place), topics.get(&place.0)) else { continue };
            // An end of another topic of that name proves nothing.
            if !self.partitions[at].is_of_other_topic(&view.id) && !self.partitions[at].heard(*end) {
                self.control.ask(vec![place.clone()]);
            }
        }
        let mut missing = Vec::new();
        let mut unbounded = Vec::new();
        for (topic, view) in &topics {
            match view {
                Ok(view) => self.hear_topic(topic, view, &report.bounds, &mut unbounded)?,
                Err(why) => {
                    let is_of = |name: &Arc<str>| name.rsplit_once('/').is_some_and(|(name, _)| *name == **topic);
                    let is_known = self.partitions.iter().any(|partition| partition.topic == *topic);
                    let was_there = is_known || self.saved.keys().any(is_of);
                    let help = if was_there {
                        "if it was deleted, what had not been read is lost; make it again, or take it out of `topics`"
                    } else {
                        "make it, or correct `topics`"
                    };
                    missing.push(format!("topic `{topic}` can't be read: {why}; {help}"));
                }
            }
        }
        self.is_bounded = unbounded.is_empty();
        if !self.is_bounded {
            self.control.ask(unbounded);
        }
        if !missing.is_empty() {
            self.wait_for(missing.join("; "));
        } else if self.is_bounded {
            self.is_complete = true;
            self.wait_no_more();
        }
        Ok(())
    }

    /// Compares what is known of a topic with what the cluster says.
    fn hear_topic(
        &mut self,
        topic: &Arc<str>,
        view: &TopicView,
        bounds: &BTreeMap<Place, Bounds>,
        unbounded: &mut Vec<Place>,
    ) -> Result<(), SourceError> {
        let mut fresh = Vec::new();
        for number in 0..view.count() {
            let place = (topic.clone(), number);
            let at = *self.index.entry(place.clone()).or_insert_with(|| {
                let name = super::partition_name(topic, number);
                self.partitions.push(Partition::new(topic, number, self.saved.remove(&name).as_ref()));
                self.partitions.len() - 1
            });
            let partition = &mut self.partitions[at];
            let Some(bounds) = bounds.get(&place) else {
                let is_unclear = !partition.is_assigned || partition.is_of_other_topic(&view.id);
                if is_unclear && partition.stopped.is_none() {
                    unbounded.push(place);
                }
                continue;
            };
            partition.heard(bounds.end());
            self.fix_end(at, bounds, view)?;
            let partition = &mut self.partitions[at];
            if partition.next.is_none() {
                // What was added while we were away, or later, is new from its beginning on.
                let is_new = !self.is_first_start || self.is_complete;
                let start = if is_new { bounds.low } else { bounds.start };
                (partition.next, partition.taken) = (Some(start), start);
            }
            if let Some(gap) = partition.gap(&view.id, *bounds, bounds.asked.at) {
                match self.config.on_gap {
                    OnGap::Continue => {
                        warn!(source = %self.name, partition = %partition.name, position = gap.low, "going on behind a gap \
                            (`on_gap = \"continue\"`): {}", gap.what);
                        partition.builder = Default::default();
                        partition.skip_to(gap.low, &view.id);
                        let until = self.stretch.as_ref().map(|stretch| {
                            stretch.is_gone(format!("partition {}: {}", partition.name, gap.what));
                            stretch.until.get(&partition.name).copied().unwrap_or(0)
                        });
                        let end = until.or(partition.end).unwrap_or(bounds.high);
                        partition.end = self.until_end.then_some(end.min(bounds.high));
                        unassign(&self.queue, partition);
                    }
                    OnGap::Stop => {
                        if partition.stopped.is_none() {
                            unassign(&self.queue, partition);
                        }
                        self.stop(at, gap.what)?;
                        continue;
                    }
                }
            }
            let partition = &mut self.partitions[at];
            partition.is_of(&view.id);
            if !partition.is_assigned {
                partition.is_assigned = true;
                partition.quiet_since = Instant::now();
                fresh.push(at);
            }
        }
        // A topic that was made again may have fewer.
        let gone = |partition: &Partition| partition.topic == *topic && partition.number >= view.count();
        for at in (0..self.partitions.len()).filter(|at| gone(&self.partitions[*at])).collect::<Vec<_>>() {
            let partition = &mut self.partitions[at];
            unassign(&self.queue, partition);
            match self.config.on_gap {
                OnGap::Continue => partition.end = Some(0),
                OnGap::Stop => {
                    let what = format!(
                        "partition {} is not there any more; what was behind {} is lost",
                        partition.name, partition.taken
                    );
                    self.stop(at, what)?;
                }
            }
        }
        if fresh.is_empty() { Ok(()) } else { self.assign(&fresh) }
    }

    /// Has the consumer fetch these partitions.
    fn assign(&mut self, fresh: &[usize]) -> Result<(), SourceError> {
        let mut list = TopicPartitionList::new();
        for at in fresh {
            let partition = &self.partitions[*at];
            let offset = Offset::Offset(partition.taken as i64);
            list.add_partition_offset(&partition.topic, partition.number, offset).map_err(unusable)?;
            info!(source = %self.name, partition = %partition.name, position = partition.taken, "assigned");
        }
        self.queue.consumer().incremental_assign(&list).map_err(unusable)
    }

    /// Reads no further in a partition. It keeps its position and its hours.
    fn stop(&mut self, at: usize, what: String) -> Result<(), SourceError> {
        let partition = &mut self.partitions[at];
        let help = "to go on with what there is, set `on_gap = \"continue\"` and start again";
        let message = format!("{what}; {help}");
        if self.until_end {
            return Err(SourceError { message, cure: Cure::Stop, source: None });
        }
        if partition.stopped.is_none() {
            error!(source = %self.name, partition = %partition.name, "the partition is read no further: {message}");
            partition.stopped = Some((message, Instant::now()));
        }
        Ok(())
    }

    fn wait_for(&mut self, what: String) {
        let now = Instant::now();
        let waits = self.waits.get_or_insert(Waits { what: String::new(), since: now, told: None, is_first: false });
        // The same trouble again: once a minute. The details behind the colon change with each attempt.
        let trouble = |what: &str| what.split(": ").next().map(str::to_owned);
        let is_other = trouble(&waits.what) != trouble(&what);
        if is_other || waits.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            warn!(source = %self.name, waited_s = waits.since.elapsed().as_secs(), "waiting: {what}");
            waits.told = Some(now);
        }
        (waits.what, waits.is_first) = (what, false);
    }

    fn wait_no_more(&mut self) {
        if let Some(waits) = self.waits.take() {
            let (partitions, waited_ms) = (self.partitions.len(), waits.since.elapsed().as_millis() as u64);
            info!(source = %self.name, partitions, waited_ms, "the cluster answers");
            // What happened meanwhile says nothing about partitions.
            self.partitions.iter_mut().for_each(|partition| partition.quiet_since = Instant::now());
        }
    }

    /// Takes messages from the consumer until a partition has a full chunk, or no more come.
    fn fill(&mut self) {
        let begin = Instant::now();
        // Many partitions share the memory that few may have each.
        let chunk = (CHUNKS / self.partitions.len().max(1)).clamp(CHUNK / 16, CHUNK);
        loop {
            let is_drained = self.take();
            // Those that have little must not be passed over for ever by those that have much.
            let has_waited = |at: &usize| self.partitions[*at].ready_since.elapsed() >= TURN;
            if is_drained || begin.elapsed() >= WAIT || self.ready.front().is_some_and(has_waited) {
                self.is_handing_on = true;
                return;
            }
            let full = self.ready.iter().position(|at| self.partitions[*at].builder.bytes() >= chunk);
            if let Some(full) = full {
                if let Some(at) = self.ready.remove(full) {
                    self.ready.push_front(at);
                }
                return;
            }
        }
    }

    /// Takes a batch of messages. Returns whether the consumer has no more now.
    fn take(&mut self) -> bool {
        let (partitions, index, ready) = (&mut self.partitions, &self.index, &mut self.ready);
        let has_schemas = self.schemas.is_some();
        let mut troubles = Vec::new();
        // Messages come in runs of one partition.
        let mut last: Option<((usize, i32), usize)> = None;
        let is_drained = self.queue.take(WAIT, |event| match event {
            Event::Message(message) => {
                let at = match last {
                    Some((place, at)) if place == message.place() => at,
                    _ => {
                        let Some(at) = index.get(&(message.topic().into(), message.partition())) else { return };
                        last = Some((message.place(), *at));
                        if partitions[*at].builder.is_empty() {
                            ready.push_back(*at);
                            partitions[*at].ready_since = Instant::now();
                        }
                        *at
                    }
                };
                let partition = &mut partitions[at];
                let offset = message.offset() as u64;
                let is_wanted = partition.end.is_none_or(|end| offset < end) && offset >= partition.taken;
                if is_wanted && partition.is_assigned {
                    partition.builder.push(offset, &message);
                    if has_schemas {
                        partition.builder.note_schema(&message);
                    }
                    partition.taken = offset + 1;
                } else if let Some(end) = partition.end.filter(|end| offset >= *end) {
                    // Nothing before the end is left, whatever stands there: offsets may hold no message.
                    partition.at_end(end);
                }
            }
            Event::End { topic, partition, offset } => {
                if let Some(at) = index.get(&(topic.into(), partition)) {
                    partitions[*at].at_end(u64::try_from(offset).unwrap_or(0));
                }
            }
            Event::Failed { topic, partition, code, text } => {
                troubles.push((topic.map(Arc::<str>::from), partition, code, text));
            }
        });
        let stood_still = self.polled.again_after(self.config.stall_timeout());
        // Not the time before the wait: bounds that were asked for meanwhile would seem to be newer than the messages.
        ready.iter().for_each(|at| partitions[*at].quiet_since = self.polled.at);
        for (topic, number, code, text) in troubles {
            self.trouble(topic, number, code, &text);
        }
        if stood_still {
            // It was us who did not ask: somebody behind was full, or the machine stood still.
            self.partitions.iter_mut().for_each(|partition| partition.quiet_since = self.polled.at);
        }
        is_drained
    }

    /// The consumer has a problem with a partition, which only the cluster can say more about.
    fn trouble(&mut self, topic: Option<Arc<str>>, number: i32, code: RDKafkaErrorCode, text: &str) {
        let Some(topic) = topic else { return };
        let place = (topic, number);
        if let Some(at) = self.index.get(&place) {
            let partition = &mut self.partitions[*at];
            if code == RDKafkaErrorCode::AutoOffsetReset {
                // It fetches no more. What is right for it is told by its bounds.
                unassign(&self.queue, partition);
            }
            warn!(source = %self.name, partition = %partition.name, "{text}");
            self.control.ask(vec![place]);
        }
    }

    /// Shows positions in the group, asks about partitions that are quiet, and assigns those anew that should not be.
    fn look_after(&mut self) -> Result<(), SourceError> {
        if !self.to_commit.is_empty() && self.waits.is_none() && self.committed.elapsed() >= COMMIT_EVERY {
            self.committed = Instant::now();
            self.control.commit(std::mem::take(&mut self.to_commit));
        }
        if self.asked.elapsed() < EVERY {
            return Ok(());
        }
        self.asked = Instant::now();
        for partition in &mut self.partitions {
            if let Some((message, told)) = &mut partition.stopped
                && told.elapsed() >= TELL_EVERY
            {
                *told = Instant::now();
                error!(source = %self.name, partition = %partition.name, "the partition is still read no further: {message}");
            }
            let known = self.queue.known_watermarks(&partition.topic_name, partition.number);
            if let Some((_, high)) = known {
                partition.reaches(u64::try_from(high).unwrap_or(0));
            }
        }
        let is_quiet = |partition: &&Partition| partition.is_assigned && partition.quiet_since.elapsed() >= EVERY / 2;
        let quiet = self.partitions.iter().filter(is_quiet);
        let quiet: Vec<Place> = quiet.map(|partition| (partition.topic.clone(), partition.number)).collect();
        if !quiet.is_empty() {
            self.control.ask_ends(quiet);
        }
        let stall = self.config.stall_timeout();
        let has_stalled = |partition: &Partition| {
            partition.is_assigned
                && partition.is_behind()
                && !partition.is_done()
                && partition.quiet_since.elapsed() >= stall
        };
        if self.waits.is_some() {
            return Ok(());
        }
        let stalled: Vec<usize> = (0..self.partitions.len()).filter(|at| has_stalled(&self.partitions[*at])).collect();
        for at in &stalled {
            self.stalls += 1;
            let partition = &mut self.partitions[*at];
            warn!(source = %self.name, partition = %partition.name, position = partition.taken, stalls = self.stalls,
                "the partition has messages and gives none; it is assigned anew");
            unassign(&self.queue, partition);
            partition.is_assigned = true;
            partition.quiet_since = Instant::now();
        }
        if stalled.is_empty() { Ok(()) } else { self.assign(&stalled) }
    }

    /// What the partition that is next has to hand on. Those that wait for schemas let others go first.
    fn chunk(&mut self) -> Option<Polled> {
        self.waits_for_schemas = false;
        for _ in 0..self.ready.len() {
            let at = self.ready.pop_front()?;
            let partition = &mut self.partitions[at];
            let schemas = match &mut self.schemas {
                None => Some(BTreeMap::new()),
                Some(schemas) => schemas.of(partition.builder.schema_ids()),
            };
            let Some(schemas) = schemas else {
                self.ready.push_back(at);
                self.waits_for_schemas = true;
                continue;
            };
            let newest_ms = partition.builder.newest_ms();
            let chunk =
                partition.builder.take(&self.name, &partition.name, &partition.topic, partition.number, schemas);
            if let Some(chunk) = chunk {
                partition.handed_on(chunk.origin.next, newest_ms);
                return Some(Polled::Chunk(chunk));
            }
        }
        None
    }
}

impl Source for KafkaSource {
    fn poll(&mut self) -> Result<Polled, SourceError> {
        let passed = self.called.again();
        if passed >= GAP {
            let now = Instant::now();
            let forgive = |since: &mut Instant| *since = since.checked_add(passed).unwrap_or(now).min(now);
            self.partitions.iter_mut().for_each(|partition| forgive(&mut partition.gave_at));
            self.blind_since.as_mut().into_iter().for_each(forgive);
        }
        self.hear()?;
        match self.waits.is_some() || !self.is_bounded {
            true => drop(self.blind_since.get_or_insert_with(Instant::now)),
            false => self.blind_since = None,
        }
        self.look_after()?;
        // What waits for schemas is bounded: nothing more is taken meanwhile.
        if !self.is_handing_on && !self.waits_for_schemas {
            if self.until_end && self.is_complete && self.partitions.iter().all(Partition::is_done) {
                return Ok(Polled::Ended);
            }
            self.fill();
        }
        if let Some(chunk) = self.chunk() {
            return Ok(chunk);
        }
        if self.waits_for_schemas {
            return Ok(Polled::Idle(SCHEMAS_WAIT));
        }
        self.is_handing_on = false;
        Ok(Polled::Idle(Duration::from_millis(1)))
    }

    fn ends(&self) -> Option<BTreeMap<Arc<str>, u64>> {
        self.fixed_ends()
    }

    fn moved(&mut self) -> Moved {
        self.what_moved()
    }

    fn idle(&self) -> Idle {
        self.what_is_idle()
    }

    fn silent_partitions(&self) -> BTreeMap<Arc<str>, Duration> {
        self.what_is_silent()
    }

    fn committed(&mut self, positions: &BTreeMap<Arc<str>, PartitionPosition>) {
        let position = |partition: &Partition| {
            let next = positions.get(&partition.name)?.next;
            Some(((partition.topic.clone(), partition.number), next))
        };
        if self.stretch.is_none() {
            self.to_commit = self.partitions.iter().filter_map(position).collect();
        }
    }

    fn lag(&self) -> BTreeMap<Arc<str>, Lag> {
        self.partitions.iter().map(|partition| (partition.name.clone(), partition.lag())).collect()
    }

    fn waits_for(&self) -> Option<String> {
        let stopped = self.partitions.iter().filter_map(|partition| partition.stopped.as_ref().map(|(what, _)| what));
        let waits = self.waits.iter().map(|waits| &waits.what);
        let schemas = self.schemas.iter().filter_map(Schemas::trouble);
        waits.chain(stopped).chain(schemas).next().cloned()
    }
}

/// Has the consumer fetch a partition no more.
fn unassign(queue: &Queue<Voice>, partition: &mut Partition) {
    if !std::mem::take(&mut partition.is_assigned) {
        return;
    }
    let mut list = TopicPartitionList::new();
    list.add_partition(&partition.topic, partition.number);
    if let Err(error) = queue.consumer().incremental_unassign(&list) {
        warn!(partition = %partition.name, %error, "can't be unassigned");
    }
    info!(partition = %partition.name, position = partition.taken, "revoked");
}

/// librdkafka refuses a property, or can't do what it is there for.
fn unusable(error: KafkaError) -> SourceError {
    match error {
        KafkaError::ClientConfig(_, why, name, value) => {
            let value = tidemill_core::shown_property(&name, &value).map(|value| format!(" = \"{value}\""));
            SourceError {
                message: format!(
                    "librdkafka refuses the property {name}{}: {why}; correct it in the cluster's settings or in `properties`",
                    value.unwrap_or_default()
                ),
                cure: Cure::Reconfigure,
                source: None,
            }
        }
        KafkaError::ClientCreation(why) => SourceError {
            message: format!("librdkafka can't work with these properties: {why}"),
            cure: Cure::Reconfigure,
            source: None,
        },
        other => SourceError {
            message: "the Kafka client failed".to_owned(),
            cure: Cure::Reopen,
            source: Some(other.into()),
        },
    }
}

fn broken_client(why: &str) -> SourceError {
    SourceError { message: format!("the Kafka client can't be used: {why}"), cure: Cure::Stop, source: None }
}
