//! The open sink.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rdkafka::Timestamp;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tidemill_core::{Batch, CutId, DeliveryId, Refused, Resume, Sink, SinkContext, SinkError};

use super::config::{Delivery, Format, KafkaConfig};
use super::encode::Encoder;
use super::reports::{Failed, Reports};
use super::transactions::{TooManyRefused, TransactionError, Transactions};
use super::verdict::{Verdict, verdict};
use crate::kafka::registry::{Registry, RegistryError};

/// Without any word for so long, it is said what is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before messages are sent again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a transaction may be open when the settings do not say otherwise: the default of `transaction.timeout.ms`.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Bits of a message's number that hold its row; above them is its delivery.
const ROW_BITS: u32 = 32;

/// See the module above.
pub struct KafkaSink {
    producer: ThreadedProducer<Reports>,
    reports: Reports,
    encoder: Encoder,
    /// By type.
    topics: BTreeMap<Arc<str>, String>,
    type_header: Option<String>,
    attempts: u32,
    /// For exactly once.
    transactions: Option<Transactions>,
    known: KnownRefused,
    /// To connect anew.
    config: KafkaConfig,
    context: SinkContext,
    /// Deliveries since all was settled; a message's number points into it.
    deliveries: Vec<DeliveryId>,
    /// Rows of the last delivery that were taken when it had to be broken off.
    taken: usize,
    refused: Vec<Refused>,
    /// To be sent again, because of an outage.
    again: VecDeque<Failed>,
    /// To be sent one by one, with the number of times that each was: a broker that refuses one message refuses its whole batch.
    alone: VecDeque<(Failed, u32)>,
    value: Vec<u8>,
    key: Vec<u8>,
}

/// Rows that the broker refuses, with its reason, as long as their transaction may come again. They outlive a sink, which is opened anew when
/// its transaction is void.
#[derive(Clone, Default)]
pub(super) struct KnownRefused(Arc<Mutex<BTreeMap<DeliveryId, BTreeMap<usize, String>>>>);

impl KnownRefused {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeliveryId, BTreeMap<usize, String>>> {
        self.0.lock().expect("no code panics while it holds what is refused")
    }

    fn of(&self, id: &DeliveryId) -> BTreeMap<usize, String> {
        self.lock().get(id).cloned().unwrap_or_default()
    }
}

/// What the sink waits for.
#[derive(Debug, thiserror::Error)]
enum Waits {
    #[error("no word on {under_way} messages for {} s: {why}", PATIENCE.as_secs())]
    Silence { under_way: usize, why: String },
    #[error("{count} messages were not delivered: {why}")]
    Outage { count: usize, why: String },
    #[error("the cluster does not answer about the transaction: {0}")]
    Transaction(#[source] KafkaError),
}

/// Why a transaction has to be sent anew.
#[derive(Debug, thiserror::Error)]
enum Void {
    #[error("the broker refuses {0} messages; the transaction is sent anew without them")]
    Refused(usize),
    #[error("{count} messages of the transaction were not delivered ({why}); it is sent anew")]
    Outage { count: usize, why: String },
    #[error("the transaction can't go on; it is sent anew")]
    Failed(#[source] KafkaError),
}

fn transaction_error(error: TransactionError) -> SinkError {
    match error {
        TransactionError::Again(error) => retry(PAUSE, Waits::Transaction(error)),
        TransactionError::Void(error) => fatal(Void::Failed(error)),
        TransactionError::TooManyRefused => fatal(TooManyRefused),
    }
}

/// The producer is of no use any more.
#[derive(Debug, thiserror::Error)]
#[error("the producer can't go on: {why} ({code})")]
struct Broken {
    code: RDKafkaErrorCode,
    why: String,
}

fn fatal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SinkError {
    SinkError::Fatal { source: source.into() }
}

fn retry(after: Duration, source: Waits) -> SinkError {
    SinkError::Retry { after, source: source.into() }
}

type Connected = (ThreadedProducer<Reports>, Reports, Option<Transactions>);

/// A producer; with transactions, those of an earlier one are void then.
fn connect(config: &KafkaConfig, context: &SinkContext) -> Result<Connected, SinkError> {
    let reports = Reports::default();
    let pond = context.ponds.first().map(|pond| &**pond).unwrap_or_default();
    let producer = config.producer(&context.clusters, pond).map_err(fatal)?;
    let timeout_ms = producer.get("transaction.timeout.ms").and_then(|text| text.parse().ok());
    let timeout = timeout_ms.map_or(TRANSACTION_TIMEOUT, Duration::from_millis);
    let producer: ThreadedProducer<Reports> = producer.create_with_context(reports.clone()).map_err(fatal)?;
    let transactions = match (config.delivery, context.input.types.first()) {
        (Delivery::ExactlyOnce, Some(first)) => {
            let consumer = config.consumer(&context.clusters).map_err(fatal)?;
            let begun = Transactions::begin(&producer, &context.ponds, &config.topic(&first.name), &consumer, timeout);
            Some(begun.map_err(transaction_error)?)
        }
        _ => None,
    };
    Ok((producer, reports, transactions))
}

impl KafkaSink {
    pub(super) fn open(config: &KafkaConfig, context: &SinkContext, known: KnownRefused) -> Result<Self, SinkError> {
        let types = &context.input.types;
        let mut schema_ids = BTreeMap::new();
        if config.format == Format::Avro {
            let registry = Registry::of(&context.clusters, &config.cluster).map_err(fatal)?;
            for known in types {
                let id = registry.register(&config.subject(&known.name), &known.schema_json);
                let id = id.map_err(|error| match error {
                    RegistryError::Unavailable { .. } => SinkError::Retry { after: PAUSE, source: error.into() },
                    error => fatal(error),
                })?;
                schema_ids.insert(known.name.clone(), id);
            }
        }
        let (producer, reports, transactions) = connect(config, context)?;
        Ok(Self {
            producer,
            reports,
            encoder: Encoder::new(config, schema_ids),
            topics: types.iter().map(|known| (known.name.clone(), config.topic(&known.name))).collect(),
            type_header: config.type_header.clone(),
            attempts: config.attempts,
            transactions,
            known,
            config: config.clone(),
            context: context.clone(),
            deliveries: Vec::new(),
            taken: 0,
            refused: Vec::new(),
            again: VecDeque::new(),
            alone: VecDeque::new(),
            value: Vec::new(),
            key: Vec::new(),
        })
    }

    /// Hands a message to the producer. `None` means that it has no room now.
    fn send(
        &self,
        number: usize,
        topic: &str,
        value: Option<&[u8]>,
        key: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
    ) -> Option<Result<(), RDKafkaErrorCode>> {
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, number);
        (record.payload, record.key, record.headers) = (value, key, headers);
        self.reports.sends();
        let error = match self.producer.send(record) {
            Ok(()) => return Some(Ok(())),
            Err((error, _)) => error,
        };
        self.reports.sends_not();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => None,
            code => Some(Err(code.unwrap_or(RDKafkaErrorCode::Unknown))),
        }
    }

    /// Waits for a report, and looks whether the producer is still of use.
    async fn report(&self) -> Result<(), SinkError> {
        let changed = self.reports.changed();
        let under_way = self.reports.under_way();
        if under_way == 0 || tokio::time::timeout(PATIENCE, changed).await.is_ok() {
            return Ok(());
        }
        if let Some((code, why)) = self.producer.client().fatal_error() {
            return Err(fatal(Broken { code, why }));
        }
        let why = self.reports.said().unwrap_or_else(|| "the cluster does not answer".to_owned());
        Err(retry(Duration::ZERO, Waits::Silence { under_way, why }))
    }

    /// Sends a message that failed once more. It is the caller's until this has succeeded.
    async fn resend(&self, failed: &Failed) -> Result<(), SinkError> {
        let message: &OwnedMessage = &failed.message;
        loop {
            let headers = message.headers().cloned();
            match self.send(failed.number, message.topic(), message.payload(), message.key(), headers) {
                Some(Ok(())) => return Ok(()),
                Some(Err(code)) if verdict(code) == Verdict::Outage => {
                    return Err(retry(PAUSE, Waits::Outage { count: self.again.len().max(1), why: code.to_string() }));
                }
                Some(Err(code)) => return Err(fatal(KafkaError::MessageProduction(code))),
                None => self.report().await?,
            }
        }
    }

    /// Rows of a delivery that are known to be refused, and why: from a transaction that was void, or one that was committed before a crash.
    fn refused_before(&self, id: &DeliveryId) -> BTreeMap<usize, String> {
        let Some(transactions) = &self.transactions else { return BTreeMap::new() };
        let reason = || "the broker refused it, before the sink was restarted".to_owned();
        let mut refused: BTreeMap<_, _> = transactions.had_refused(id).map(|row| (row, reason())).collect();
        refused.extend(self.known.of(id));
        refused
    }

    /// The delivery and the row that a message's number stands for.
    fn named(&self, number: usize) -> (DeliveryId, usize) {
        (self.deliveries[number >> ROW_BITS].clone(), number & ((1 << ROW_BITS) - 1))
    }

    fn refuse(&mut self, number: usize, reason: String) {
        let (id, row) = self.named(number);
        self.refused.push(Refused { id, row, reason });
    }

    /// Looks for what the broker refuses among the messages that failed, by sending them one by one in transactions that are aborted. Everything
    /// has to be sent anew then: why is what this returns.
    async fn find_refused(&mut self, mut failed: Vec<Failed>) -> SinkError {
        // A message that fails makes the client purge all behind it. These say nothing, once it is known why it did.
        let is_purged = |code| matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight);
        if failed.iter().any(|failed| !is_purged(failed.code)) {
            failed.retain(|failed| !is_purged(failed.code));
        }
        if let Some(outage) = failed.iter().find(|failed| verdict(failed.code) == Verdict::Outage) {
            return fatal(Void::Outage { count: failed.len(), why: outage.code.to_string() });
        }
        match self.try_each(failed).await {
            Ok(refused) => fatal(Void::Refused(refused)),
            // Nothing of this producer is of use: the next one begins with what is known by now.
            Err(SinkError::Retry { source, .. }) => SinkError::Fatal { source },
            Err(error) => error,
        }
    }

    async fn try_each(&mut self, failed: Vec<Failed>) -> Result<usize, SinkError> {
        // The old producer keeps what it has not sent until the transaction's time is over, and does not abort before.
        let (producer, reports, transactions) = connect(&self.config, &self.context)?;
        (self.producer, self.reports) = (producer, reports);
        let Some(mut transactions) = transactions else { return Ok(0) };
        let count = failed.len();
        let mut refused = 0;
        for one in failed {
            for times in 1..=self.attempts {
                transactions.open(&self.producer).map_err(transaction_error)?;
                self.resend(&one).await?;
                while self.reports.under_way() > 0 {
                    self.report().await?;
                }
                let Some(again) = self.reports.take_failed().pop() else { break };
                transactions.abort(&self.producer).map_err(transaction_error)?;
                match verdict(again.code) {
                    Verdict::Outage => return Err(fatal(Void::Outage { count, why: again.code.to_string() })),
                    Verdict::Unclear if times < self.attempts => tokio::time::sleep(PAUSE).await,
                    Verdict::Refused | Verdict::Unclear => {
                        let (id, row) = self.named(one.number);
                        self.known.lock().entry(id).or_default().insert(row, again.code.to_string());
                        refused += 1;
                        break;
                    }
                }
            }
        }
        transactions.abort(&self.producer).map_err(transaction_error)?;
        Ok(refused)
    }

    /// Sorts out what was not delivered. Returns what an outage was the reason of.
    fn sort_out(&mut self) -> Option<Waits> {
        let mut failed = self.reports.take_failed();
        // Sent alone, and under way no more: what is said is said of this message.
        let was_sent = self.alone.front().is_some_and(|(_, times)| *times > 0);
        if let Some((one, times)) = was_sent.then(|| self.alone.pop_front()).flatten() {
            match failed.pop() {
                None => {}
                Some(failed) => match verdict(failed.code) {
                    Verdict::Outage => {
                        let why = failed.code.to_string();
                        self.alone.push_front((failed, 0));
                        return Some(Waits::Outage { count: self.alone.len(), why });
                    }
                    // It was sent once before, with others.
                    Verdict::Unclear if times + 1 < self.attempts => self.alone.push_front((failed, times)),
                    Verdict::Unclear | Verdict::Refused => self.refuse(one.number, failed.code.to_string()),
                },
            }
        }
        for failed in failed {
            match verdict(failed.code) {
                Verdict::Outage => self.again.push_back(failed),
                Verdict::Refused | Verdict::Unclear => self.alone.push_back((failed, 0)),
            }
        }
        let last = self.again.back()?;
        Some(Waits::Outage { count: self.again.len(), why: last.code.to_string() })
    }
}

impl Sink for KafkaSink {
    async fn write(&mut self, batch: &Batch, id: DeliveryId) -> Result<(), SinkError> {
        let is_going_on = self.deliveries.last() == Some(&id);
        if !is_going_on {
            self.deliveries.push(id);
            self.taken = 0;
        }
        let slot = self.deliveries.len() - 1;
        let id = &self.deliveries[slot];
        let was_sent = self.transactions.as_ref().is_some_and(|transactions| transactions.has(id));
        if let Some(transactions) = self.transactions.as_mut().filter(|_| !was_sent) {
            transactions.take(&self.producer, id).map_err(transaction_error)?;
        }
        let refused = self.refused_before(id);
        let encoder = self.encoder.batch(batch).map_err(fatal)?;
        let name = &batch.event_type.name;
        let topic = self.topics.get(name).cloned().unwrap_or_default();
        let headers = self
            .type_header
            .as_ref()
            .map(|header| OwnedHeaders::new_with_capacity(1).insert(Header { key: header, value: Some(&**name) }));
        for row in batch.indexes().skip(self.taken) {
            let number = (slot << ROW_BITS) | row;
            let (mut value, mut key) = (std::mem::take(&mut self.value), std::mem::take(&mut self.key));
            let encoded = encoder.value(row, &mut value);
            let encoded = encoded.and_then(|()| refused.get(&row).cloned().map_or(Ok(()), Err));
            let has_key = encoder.key(row, &mut key);
            let sent = match encoded {
                Err(reason) => Err(reason),
                Ok(()) if was_sent => Ok(()),
                Ok(()) => loop {
                    let key = has_key.then_some(&key[..]);
                    match self.send(number, &topic, Some(&value), key, headers.clone()) {
                        Some(Ok(())) => break Ok(()),
                        Some(Err(code)) if verdict(code) == Verdict::Refused => break Err(code.to_string()),
                        Some(Err(code)) => {
                            let (value, key) = (Some(value.clone()), key.map(<[u8]>::to_vec));
                            let timestamp = Timestamp::NotAvailable;
                            let message =
                                OwnedMessage::new(value, key, topic.clone(), timestamp, -1, -1, headers.clone());
                            self.again.push_back(Failed { number, code, message });
                            break Ok(());
                        }
                        None => self.report().await?,
                    }
                },
            };
            if let Err(reason) = sent {
                // Also of what was sent before: its dead letter is in a cut that may fail once more.
                if let Some(transactions) = &mut self.transactions {
                    transactions.refuse(&self.deliveries[slot], row);
                }
                self.refuse(number, reason);
            }
            self.taken += 1;
            (self.value, self.key) = (value, key);
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<Vec<Refused>, SinkError> {
        if self.transactions.is_some() {
            // Once one has failed, the others of its transaction are not sent any more.
            while self.reports.under_way() > 0 && !self.reports.has_failed() {
                self.report().await?;
            }
            let mut failed = self.reports.take_failed();
            failed.extend(self.again.drain(..));
            if !failed.is_empty() {
                return Err(self.find_refused(failed).await);
            }
            if let Some(transactions) = &mut self.transactions {
                transactions.commit_if_long(&self.producer).map_err(transaction_error)?;
            }
            self.deliveries.clear();
            return Ok(std::mem::take(&mut self.refused));
        }
        loop {
            while let Some(failed) = self.again.front() {
                self.resend(failed).await?;
                self.again.pop_front();
            }
            while self.reports.under_way() > 0 {
                self.report().await?;
            }
            if let Some(outage) = self.sort_out() {
                return Err(retry(PAUSE, outage));
            }
            let Some((one, times)) = self.alone.front() else { break };
            if *times > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            self.resend(one).await?;
            self.alone[0].1 += 1;
        }
        self.deliveries.clear();
        Ok(std::mem::take(&mut self.refused))
    }

    async fn flush(&mut self, _cut: CutId) -> Result<Resume, SinkError> {
        // All was settled before.
        if let Some(transactions) = &mut self.transactions {
            let committed = transactions.commit(&self.producer);
            if let Err(TransactionError::TooManyRefused) = committed {
                // Who mends the topic finds them sent again.
                self.known.lock().clear();
            }
            committed.map_err(transaction_error)?;
            self.known.lock().retain(|id, _| !transactions.has(id));
        }
        Ok(Resume::new())
    }
}
