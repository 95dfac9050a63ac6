//! Asks the cluster about topics and partitions, and commits to the group, on a thread of its own: such calls block.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::config::Start;
use crate::ingest::Looked;
use crate::kafka::native::{PartitionView, describe_topics};
use crate::kafka::voice::Voice;

/// How often the cluster is asked.
pub(super) const EVERY: Duration = Duration::from_secs(3);
/// Shortest time between two rounds.
const ASK_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a trouble that goes on is told again.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(60);

/// A partition: topic and number.
pub(super) type Place = (Arc<str>, i32);

/// What the cluster said in one round.
#[derive(Debug)]
pub(super) struct Report {
    /// Id and number of partitions of each topic, or what is wrong with it; all in vain if the cluster did not answer.
    pub(super) topics: Result<BTreeMap<Arc<str>, Result<TopicView, String>>, String>,
    /// First offset, end, and where to start, of the partitions that were asked for.
    pub(super) bounds: BTreeMap<Place, Bounds>,
    /// Ends of those that were asked for, and have a leader.
    pub(super) ends: BTreeMap<Place, End>,
}

/// Where a partition ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) high: u64,
    /// When the cluster was asked for it: each answer is dated by itself, since others may take long.
    pub(super) asked: Looked,
}

/// What the cluster is to be asked of partitions.
enum Wanted {
    Bounds(Vec<Place>),
    Ends(Vec<Place>),
}

#[derive(Clone, Debug)]
pub(super) struct TopicView {
    pub(super) id: Arc<str>,
    pub(super) partitions: Vec<PartitionView>,
}

impl TopicView {
    /// Number of its partitions.
    pub(super) fn count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }
}

/// Offsets of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) low: u64,
    pub(super) high: u64,
    /// Where `start` says.
    pub(super) start: u64,
    /// When the cluster was asked.
    pub(super) asked: Looked,
}

impl Bounds {
    pub(super) fn end(&self) -> End {
        End { high: self.high, asked: self.asked }
    }
}

/// The threads, seen from the source. They end when this is dropped.
pub(super) struct Control {
    wanted: Sender<Wanted>,
    commits: Sender<Vec<(Place, u64)>>,
    pub(super) reports: Receiver<Report>,
    pub(super) voice: Voice,
}

impl Control {
    pub(super) fn start(
        source: &Arc<str>,
        config: &ClientConfig,
        topics: &[String],
        start: Start,
    ) -> Result<Self, KafkaError> {
        let voice = Voice::default();
        let consumer = Arc::new(BaseConsumer::from_config_and_context(config, voice.clone())?);
        let (wanted, asked) = channel();
        let (reports, heard) = channel();
        let (commits, committed) = channel();
        let topics: Vec<Arc<str>> = topics.iter().map(|topic| topic.as_str().into()).collect();
        let names = topics.iter().filter_map(|topic| CString::new(topic.as_bytes()).ok()).collect();
        let asker =
            Asker { source: source.clone(), consumer: consumer.clone(), voice: voice.clone(), topics, names, start };
        let _ = std::thread::Builder::new().name("kafka-control".into()).spawn(move || asker.run(&asked, &reports));
        // A commit without a coordinator takes as long as there is none, so it has a thread of its own.
        let source = source.clone();
        let committing = move || commit_all(&source, &consumer, &committed);
        let _ = std::thread::Builder::new().name("kafka-commit".into()).spawn(committing);
        Ok(Self { wanted, commits, reports: heard, voice })
    }

    /// Has the cluster asked at once, also for the bounds of these partitions.
    pub(super) fn ask(&self, places: Vec<Place>) {
        // The thread is there as long as this is.
        let _ = self.wanted.send(Wanted::Bounds(places));
    }

    /// Has the cluster asked where these partitions end: one request to each broker.
    pub(super) fn ask_ends(&self, places: Vec<Place>) {
        let _ = self.wanted.send(Wanted::Ends(places));
    }

    /// Shows positions in the group.
    pub(super) fn commit(&self, positions: Vec<(Place, u64)>) {
        let _ = self.commits.send(positions);
    }
}

/// Commits what comes; of several that wait, the last.
fn commit_all(source: &str, consumer: &BaseConsumer<Voice>, positions: &Receiver<Vec<(Place, u64)>>) {
    let mut troubled: Option<Instant> = None;
    while let Ok(first) = positions.recv() {
        let newest = positions.try_iter().last().unwrap_or(first);
        let mut list = TopicPartitionList::new();
        for ((topic, partition), next) in newest {
            let _ = list.add_partition_offset(&topic, partition, Offset::Offset(next as i64));
        }
        match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) if troubled.take().is_some() => info!(source, "positions are shown in the consumer group again"),
            Err(error) if troubled.is_none_or(|told| told.elapsed() >= TELL_EVERY) => {
                troubled = Some(Instant::now());
                warn!(source, %error, "positions can't be shown in the consumer group, so lag monitors do not see them; reading \
                    goes on. If others consume with this group, choose another `group`");
            }
            _ => {}
        }
    }
}

struct Asker {
    source: Arc<str>,
    consumer: Arc<BaseConsumer<Voice>>,
    voice: Voice,
    topics: Vec<Arc<str>>,
    names: Vec<CString>,
    start: Start,
}

impl Asker {
    fn run(self, wanted: &Receiver<Wanted>, reports: &Sender<Report>) {
        // Who was asked for several times meanwhile is asked about once.
        let (mut bounds, mut ends) = (BTreeSet::new(), BTreeSet::new());
        loop {
            if reports.send(self.ask(&bounds, &ends)).is_err() {
                return;
            }
            (bounds, ends) = (BTreeSet::new(), BTreeSet::new());
            match wanted.recv_timeout(EVERY) {
                Ok(first) => {
                    // What can't be answered is asked again at once, but not without end at full speed.
                    std::thread::sleep(ASK_PAUSE);
                    for more in std::iter::once(first).chain(wanted.try_iter()) {
                        match more {
                            Wanted::Bounds(places) => bounds.extend(places),
                            Wanted::Ends(places) => ends.extend(places),
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn ask(&self, wanted: &BTreeSet<Place>, ends: &BTreeSet<Place>) -> Report {
        // Errors and log lines come through the client's queue.
        let listen = || while self.consumer.poll(Duration::ZERO).is_some() {};
        let described = describe_topics(&self.consumer, &self.names, ANSWER, listen);
        listen();
        let topics = described.map_err(|error| match self.voice.said() {
            Some(said) => format!("{said} ({error})"),
            None => error,
        });
        if topics.is_ok() {
            self.voice.forget();
        }
        let topics: Result<BTreeMap<Arc<str>, Result<TopicView, String>>, String> = topics.map(|all| {
            let view = |topic: &Arc<str>| match all.iter().find(|described| described.name == **topic) {
                Some(described) => match &described.outcome {
                    Ok((id, partitions)) => Ok(TopicView { id: id.as_str().into(), partitions: partitions.clone() }),
                    Err((_, why)) => Err(why.clone()),
                },
                None => Err("the cluster says nothing of it".to_owned()),
            };
            self.topics.iter().map(|topic| (topic.clone(), view(topic))).collect()
        });
        let mut bounds = BTreeMap::new();
        if topics.is_ok() {
            for place in wanted {
                match self.bounds(place) {
                    Ok(found) => {
                        bounds.insert(place.clone(), found);
                    }
                    Err(error) => {
                        debug!(source = %self.source, topic = %place.0, partition = place.1, %error, "no offsets")
                    }
                }
            }
        }
        let ends = topics.as_ref().map_or_else(|_| BTreeMap::new(), |topics| self.ends(ends, topics));
        Report { topics, bounds, ends }
    }

    /// Ends of the partitions that have a leader: for those that have none, nobody can answer, and the client would
    /// wait for them.
    fn ends(
        &self,
        wanted: &BTreeSet<Place>,
        topics: &BTreeMap<Arc<str>, Result<TopicView, String>>,
    ) -> BTreeMap<Place, End> {
        let mut list = TopicPartitionList::new();
        for (topic, number) in wanted {
            let view = topics.get(topic).and_then(|view| view.as_ref().ok());
            let has_leader = |partition: &PartitionView| partition.number == *number && partition.has_leader;
            if view.is_some_and(|view| view.partitions.iter().any(has_leader)) {
                let _ = list.add_partition_offset(topic, *number, Offset::End);
            }
        }
        if list.count() == 0 {
            return BTreeMap::new();
        }
        let asked = Looked::now();
        // The end is what the protocol answers to the time that stands for it.
        let found = self.consumer.offsets_for_times(list, ANSWER).unwrap_or_else(|error| {
            debug!(source = %self.source, %error, "no ends");
            TopicPartitionList::new()
        });
        let found = found.elements();
        let known = found.iter().filter(|found| found.error().is_ok());
        let end = |found: &TopicPartitionListElem<'_>| {
            let Offset::Offset(high) = found.offset() else { return None };
            let topic = topics.keys().find(|topic| ***topic == *found.topic())?;
            Some(((topic.clone(), found.partition()), End { high: u64::try_from(high).ok()?, asked }))
        };
        known.filter_map(end).collect()
    }

    fn bounds(&self, (topic, partition): &Place) -> Result<Bounds, KafkaError> {
        let asked = Looked::now();
        let (low, high) = self.consumer.fetch_watermarks(topic, *partition, ANSWER)?;
        let start = match self.start {
            Start::Earliest => low,
            Start::Latest => high,
            Start::Time(ms) => {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(topic, *partition, Offset::Offset(ms))?;
                let found = self.consumer.offsets_for_times(list, ANSWER)?;
                match found.elements().first().map(|element| element.offset()) {
                    Some(Offset::Offset(offset)) => offset,
                    // No message is as young.
                    _ => high,
                }
            }
        };
        let offset = |value: i64| u64::try_from(value).unwrap_or(0);
        Ok(Bounds { low: offset(low), high: offset(high), start: offset(start), asked })
    }
}
