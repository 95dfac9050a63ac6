//! Asks the cluster about topics and partitions, and commits to the group, on a thread of its own: such calls block.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::config::Start;
use crate::ingest::Looked;
use crate::kafka::native::describe_topics;
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
    /// When the round began.
    pub(super) asked: Looked,
    /// Id and number of partitions of each topic, or what is wrong with it; all in vain if the cluster did not answer.
    pub(super) topics: Result<BTreeMap<Arc<str>, Result<TopicView, String>>, String>,
    /// First offset, end, and where to start, of the partitions that were asked for.
    pub(super) bounds: BTreeMap<Place, Bounds>,
}

#[derive(Clone, Debug)]
pub(super) struct TopicView {
    pub(super) id: Arc<str>,
    pub(super) partitions: i32,
}

/// Offsets of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) low: u64,
    pub(super) high: u64,
    /// Where `start` says.
    pub(super) start: u64,
}

/// The threads, seen from the source. They end when this is dropped.
pub(super) struct Control {
    wanted: Sender<Vec<Place>>,
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
        let _ = self.wanted.send(places);
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
    fn run(self, wanted: &Receiver<Vec<Place>>, reports: &Sender<Report>) {
        let mut places = Vec::new();
        loop {
            if reports.send(self.ask(&places)).is_err() {
                return;
            }
            places = match wanted.recv_timeout(EVERY) {
                Ok(first) => {
                    // What can't be answered is asked again at once, but not without end at full speed.
                    std::thread::sleep(ASK_PAUSE);
                    // Who was asked for several times meanwhile is asked about once.
                    let all: BTreeSet<Place> = first.into_iter().chain(wanted.try_iter().flatten()).collect();
                    all.into_iter().collect()
                }
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    fn ask(&self, wanted: &[Place]) -> Report {
        let asked = Looked::now();
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
        let topics = topics.map(|all| {
            let view = |topic: &Arc<str>| match all.iter().find(|described| described.name == **topic) {
                Some(described) => match &described.outcome {
                    Ok((id, partitions)) => Ok(TopicView { id: id.as_str().into(), partitions: *partitions }),
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
        Report { asked, topics, bounds }
    }

    fn bounds(&self, (topic, partition): &Place) -> Result<Bounds, KafkaError> {
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
        Ok(Bounds { low: offset(low), high: offset(high), start: offset(start) })
    }
}
