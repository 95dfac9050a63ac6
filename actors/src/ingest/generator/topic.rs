//! Generated events as messages of a Kafka topic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use tidemill_core::{Clusters, Properties};

use super::pace::each_portion;
use super::{GeneratorConfig, Truth};
use crate::kafka::client::{ClientError, client_config};
use crate::kafka::voice::Voice;

/// Longest wait for an answer, and for the last messages.
const ANSWER: Duration = Duration::from_secs(30);
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// Why a topic can't be filled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The settings say too little, or something wrong.
    #[error("{0}")]
    Settings(String),
    /// The cluster did not do something.
    #[error("{what}: {why}")]
    Cluster {
        /// What it was to do.
        what: String,
        /// What it said.
        why: String,
    },
}

impl From<ClientError> for TopicError {
    fn from(error: ClientError) -> Self {
        Self::Settings(error.to_string())
    }
}

/// Counts what was not delivered.
#[derive(Clone, Default)]
struct Losses {
    count: Arc<AtomicU64>,
    voice: Voice,
}

impl ClientContext for Losses {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.error(error, reason);
    }
}

impl ProducerContext for Losses {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.count.fetch_add(1, Ordering::Relaxed);
            self.voice.error(error.clone(), &error.to_string());
        }
    }
}

/// Sends all lines, without their line feeds, to a topic: line `i` to partition `i % partitions`. A topic that is not there is
/// made with that many partitions, and one that is there must have as many. `rate` and `progress` are those of
/// [`write_files`](super::write_files).
///
/// # Errors
/// See [`TopicError`]. Some messages may have been sent then.
pub fn write_topic(
    config: &GeneratorConfig,
    clusters: &Clusters,
    cluster: &str,
    topic: &str,
    partitions: i32,
    rate: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Truth, TopicError> {
    let mut client = client_config(clusters, cluster, &Properties::new(), &[])?;
    client.set("enable.idempotence", "true").set("compression.codec", "lz4").set("queue.buffering.max.ms", "20");
    let losses = Losses::default();
    let producer: BaseProducer<Losses> =
        client.create_with_context(losses.clone()).map_err(|error| TopicError::Settings(error.to_string()))?;
    let failed = |what: &str, why: String| TopicError::Cluster { what: format!("topic `{topic}`: {what}"), why };
    let said = |error: KafkaError| losses.voice.said().unwrap_or_else(|| error.to_string());
    let admin: AdminClient<DefaultClientContext> =
        client.create().map_err(|error| TopicError::Settings(error.to_string()))?;
    make(&admin, topic, partitions).map_err(|why| failed("it can't be made", losses.voice.said().unwrap_or(why)))?;
    // The answer that a topic is made comes before every broker knows of it.
    let begin = Instant::now();
    let found = loop {
        let metadata = producer.client().fetch_metadata(Some(topic), ANSWER);
        let metadata = metadata.map_err(|error| failed("the cluster does not answer", said(error)))?;
        let found = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if found > 0 || begin.elapsed() >= ANSWER {
            break found;
        }
        std::thread::sleep(ASK_PAUSE);
    };
    if i32::try_from(found) != Ok(partitions) {
        let why =
            format!("it has {found} partitions, not {partitions}; say --partitions {found}, or take another topic");
        return Err(TopicError::Settings(format!("topic `{topic}`: {why}")));
    }
    let mut text = Vec::new();
    let truth = each_portion(config, rate, progress, |first, events| {
        for (line, event) in (first..).zip(events) {
            text.clear();
            event.write(&mut text);
            let value = text.strip_suffix(b"\n").unwrap_or(&text);
            let partition = (line % u64::from(partitions.unsigned_abs())) as i32;
            loop {
                let record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(value);
                match producer.send(record) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        producer.poll(Duration::from_millis(50));
                    }
                    Err((error, _)) => return Err(failed("a message can't be sent", error.to_string())),
                }
            }
        }
        producer.poll(Duration::ZERO);
        Ok(())
    })?;
    producer.flush(ANSWER).map_err(|error| failed("not all messages were delivered", said(error)))?;
    match losses.count.load(Ordering::Relaxed) {
        0 => Ok(truth),
        lost => Err(failed(&format!("{lost} messages were not delivered"), losses.voice.said().unwrap_or_default())),
    }
}

/// Makes the topic unless it is there.
fn make(admin: &AdminClient<DefaultClientContext>, topic: &str, partitions: i32) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
    let made = runtime.block_on(admin.create_topics([&new], &options)).map_err(|error| error.to_string())?;
    match made.into_iter().next() {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(code.to_string()),
    }
}
