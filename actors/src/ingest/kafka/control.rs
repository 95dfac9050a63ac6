//! Asks the cluster about topics and partitions, and commits to the group, on a thread of its own: such calls block.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::config::Start;
use crate::kafka::native::describe_topics;

/// How often the cluster is asked.
pub(super) const EVERY: Duration = Duration::from_secs(3);
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
    pub(super) asked: Instant,
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

/// What the source asks for.
pub(super) enum Order {
    /// A round now, with the bounds of these partitions.
    Ask(Vec<Place>),
    /// Positions for the group.
    Commit(Vec<(Place, u64)>),
}

/// Keeps librdkafka's words: errors are remembered, so that a trouble can be told with its cause.
#[derive(Clone, Default)]
pub(super) struct Voice {
    last_error: Arc<Mutex<Option<String>>>,
    /// What became of the last commit to the group.
    committed: Arc<Mutex<Option<KafkaResult<()>>>>,
}

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(?level, facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!("librdkafka: {reason}");
        let mut last = self.last_error.lock().expect("no code panics while it holds an error");
        // That all brokers are down comes behind the reason why one is.
        if last.is_none() || error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *last = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Voice {
    fn commit_callback(&self, outcome: KafkaResult<()>, _: &TopicPartitionList) {
        *self.committed.lock().expect("no code panics while it holds an outcome") = Some(outcome);
    }
}

impl Voice {
    /// The last error since the cluster answered.
    pub(super) fn said(&self) -> Option<String> {
        self.last_error.lock().expect("no code panics while it holds an error").clone()
    }

    fn forget(&self) {
        *self.last_error.lock().expect("no code panics while it holds an error") = None;
    }
}

/// The thread, seen from the source. It ends when this is dropped.
pub(super) struct Control {
    orders: Sender<Order>,
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
        let consumer = BaseConsumer::from_config_and_context(config, voice.clone())?;
        let (orders, received) = channel();
        let (reports, heard) = channel();
        let topics: Vec<Arc<str>> = topics.iter().map(|topic| topic.as_str().into()).collect();
        let names = topics.iter().filter_map(|topic| CString::new(topic.as_bytes()).ok()).collect();
        let asker =
            Asker { source: source.clone(), consumer, voice: voice.clone(), topics, names, start, troubled: None };
        let _ = std::thread::Builder::new().name("kafka-control".into()).spawn(move || asker.run(&received, &reports));
        Ok(Self { orders, reports: heard, voice })
    }

    pub(super) fn order(&self, order: Order) {
        // The thread is there as long as this is.
        let _ = self.orders.send(order);
    }
}

struct Asker {
    source: Arc<str>,
    consumer: BaseConsumer<Voice>,
    voice: Voice,
    topics: Vec<Arc<str>>,
    names: Vec<CString>,
    start: Start,
    /// When it was last told that commits fail.
    troubled: Option<Instant>,
}

impl Asker {
    fn run(mut self, orders: &Receiver<Order>, reports: &Sender<Report>) {
        let mut wanted = Vec::new();
        loop {
            let report = self.ask(&wanted);
            self.look_at_commits();
            wanted.clear();
            if reports.send(report).is_err() {
                return;
            }
            let until = Instant::now() + EVERY;
            while wanted.is_empty() {
                match orders.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(Order::Ask(places)) => wanted.extend(places),
                    Ok(Order::Commit(positions)) => self.commit(&positions),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }

    fn ask(&self, wanted: &[Place]) -> Report {
        let asked = Instant::now();
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

    fn commit(&mut self, positions: &[(Place, u64)]) {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), next) in positions {
            let _ = list.add_partition_offset(topic, *partition, Offset::Offset(*next as i64));
        }
        // Not waited for: without a coordinator it would take for ever. The outcome comes to `Voice`.
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            self.voice.commit_callback(Err(error), &list);
        }
    }

    /// Tells when commits begin to fail, once a minute as long as they do, and when they succeed again.
    fn look_at_commits(&mut self) {
        let outcome = self.voice.committed.lock().expect("no code panics while it holds an outcome").take();
        match outcome {
            Some(Ok(())) if self.troubled.take().is_some() => {
                info!(source = %self.source, "positions are shown in the consumer group again");
            }
            Some(Err(error)) if self.troubled.is_none_or(|told| told.elapsed() >= TELL_EVERY) => {
                self.troubled = Some(Instant::now());
                warn!(source = %self.source, %error, "positions can't be shown in the consumer group, so lag monitors do not \
                    see them; reading goes on. If others consume with this group, choose another `group`");
            }
            _ => {}
        }
    }
}
