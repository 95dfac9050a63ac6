//! Exactly once: what a sink sends is visible with the offset up to which its ponds were delivered, in one transaction.
//!
//! A transaction lasts from one cut to the next, or, when that takes long, for a part of the time that Kafka gives it: so a sink that is slow goes on, however much
//! waits before the next barrier. Its *cursors* are offsets of consumer groups, one for each pond: group `tidemill-<pond>`, partition
//! 0 of the sink's first topic, the offset behind the last delivery. After a crash the cursors in Kafka count, not the ledger: a delivery that comes
//! again and lies before its cursor is in a transaction that was committed, and is left out.
//!
//! A message that the broker refuses makes its transaction void. It is found by sending what failed one by one, in transactions that are aborted;
//! then the sink is opened anew, everything since the last cut comes again, and what is refused is left out. What was refused is noted
//! beside the cursor, because its dead letters are in a cut that may not have been made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::producer::{Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidemill_core::DeliveryId;

use super::reports::Reports;

/// How long a call to the cluster may take; then it is repeated.
const CALL: Duration = Duration::from_secs(5);
/// Kafka keeps 4,096 bytes beside an offset, unless it is told otherwise (`offset.metadata.max.bytes`).
const NOTE_BYTES_MAX: usize = 4_000;
/// The form of the note.
const NOTE: &str = "1";

/// By what a pond's consumer group, and the transactions of a sink whose first pond it is, are called in Kafka.
pub(super) fn name_of(pond: &str) -> String {
    format!("tidemill-{}", pond.replace('/', "-"))
}

type Client = ThreadedProducer<Reports>;

/// See the module.
pub(super) struct Transactions {
    groups: BTreeMap<Arc<str>, Group>,
    /// When the transaction that is open began.
    open_since: Option<Instant>,
    /// How long one may be open before it is committed between two cuts.
    open_max: Duration,
    /// The cursors are in it: all that is left is the commit.
    is_ready: bool,
}

/// One pond.
struct Group {
    metadata: ConsumerGroupMetadata,
    topic: String,
    /// Everything before it is in a committed transaction.
    cursor: u64,
    /// What was refused of it there, as far as that may come again.
    refused: BTreeSet<(u64, usize)>,
    /// Behind the last delivery of the transaction that is open.
    next: u64,
    /// What was refused since the last barrier, and before it since the one before.
    refused_next: BTreeSet<(u64, usize)>,
    refused_last: BTreeSet<(u64, usize)>,
}

/// More was refused since the last cut than can be noted.
#[derive(Debug, thiserror::Error)]
#[error(
    "more messages of one cut are refused than can be noted beside a transaction; look at the limits of the topic (`max.message.bytes`), or use delivery = \"at_least_once\""
)]
pub(super) struct TooManyRefused;

/// Why a call to the cluster failed.
#[derive(Debug)]
pub(super) enum TransactionError {
    /// It may be repeated as it is.
    Again(KafkaError),
    /// The producer can't go on with this transaction.
    Void(KafkaError),
    TooManyRefused,
}

impl From<KafkaError> for TransactionError {
    fn from(error: KafkaError) -> Self {
        match &error {
            KafkaError::Transaction(inner) if inner.is_retriable() && !inner.txn_requires_abort() => Self::Again(error),
            // Asked of a consumer, which keeps nothing.
            KafkaError::OffsetFetch(_) | KafkaError::MetadataFetch(_) => Self::Again(error),
            _ => Self::Void(error),
        }
    }
}

impl Transactions {
    /// Makes every transaction of an earlier producer of this sink void, and reads the cursors. `consumer` is the configuration of a client of
    /// the cluster; `timeout` is how long Kafka lets a transaction of this producer be open.
    pub(super) fn begin(
        producer: &Client,
        ponds: &[Arc<str>],
        topic: &str,
        consumer: &ClientConfig,
        timeout: Duration,
    ) -> Result<Self, TransactionError> {
        producer.init_transactions(CALL)?;
        let mut groups = BTreeMap::new();
        for pond in ponds {
            let mut config = consumer.clone();
            config.set("group.id", name_of(pond));
            config.set("isolation.level", "read_committed").set("enable.auto.commit", "false");
            let consumer: BaseConsumer = config.create()?;
            let metadata = consumer.group_metadata().ok_or(KafkaError::Canceled)?;
            let mut asked = TopicPartitionList::new();
            asked.add_partition(topic, 0);
            let told = consumer.committed_offsets(asked, CALL)?;
            let found = told.find_partition(topic, 0);
            if let Some(Err(error)) = found.as_ref().map(|found| found.error()) {
                return Err(TransactionError::Again(error));
            }
            let cursor = found.as_ref().and_then(|found| match found.offset() {
                Offset::Offset(offset) => u64::try_from(offset).ok(),
                _ => None,
            });
            let refused = found.as_ref().map(|found| read_note(found.metadata())).unwrap_or_default();
            let cursor = cursor.unwrap_or(0);
            let group = Group {
                metadata,
                topic: topic.to_owned(),
                cursor,
                refused,
                next: cursor,
                refused_next: BTreeSet::new(),
                refused_last: BTreeSet::new(),
            };
            groups.insert(pond.clone(), group);
        }
        Ok(Self { groups, open_since: None, open_max: timeout / 3, is_ready: false })
    }

    /// Whether a delivery is in a transaction that was committed.
    pub(super) fn has(&self, id: &DeliveryId) -> bool {
        self.groups.get(&id.pond).is_some_and(|group| id.offset < group.cursor)
    }

    /// The rows of such a delivery that were refused there.
    pub(super) fn had_refused(&self, id: &DeliveryId) -> impl Iterator<Item = usize> {
        let refused = self.groups.get(&id.pond).filter(|group| id.offset < group.cursor).map(|group| &group.refused);
        let of_delivery = (id.offset, 0)..=(id.offset, usize::MAX);
        refused.into_iter().flat_map(move |refused| refused.range(of_delivery.clone())).map(|(_, row)| *row)
    }

    /// A delivery comes into the transaction, which begins if none is open.
    pub(super) fn take(&mut self, producer: &Client, id: &DeliveryId) -> Result<(), TransactionError> {
        self.open(producer)?;
        if let Some(group) = self.groups.get_mut(&id.pond) {
            group.next = group.next.max(id.offset + 1);
        }
        Ok(())
    }

    /// A row of a delivery of the transaction is refused.
    pub(super) fn refuse(&mut self, id: &DeliveryId, row: usize) {
        if let Some(group) = self.groups.get_mut(&id.pond) {
            group.refused_next.insert((id.offset, row));
        }
    }

    /// Makes everything since the last commit visible, and moves the cursors behind it. To be called at a barrier: the cut before is made.
    pub(super) fn commit(&mut self, producer: &Client) -> Result<(), TransactionError> {
        let notes: Vec<String> = self.groups.values().map(|group| note(&group.refused_next)).collect();
        if notes.iter().any(|note| note.len() > NOTE_BYTES_MAX) {
            return Err(TransactionError::TooManyRefused);
        }
        self.commit_with(producer, notes)?;
        for group in self.groups.values_mut() {
            group.refused_last = std::mem::take(&mut group.refused_next);
            group.refused = group.refused_last.clone();
        }
        Ok(())
    }

    /// The same between two barriers, when the transaction has been open for long. Neither cut may have been made that the one before and the next
    /// barrier stand for, so what was refused before both is noted; if that is too much to note, the transaction stays open.
    pub(super) fn commit_if_long(&mut self, producer: &Client) -> Result<(), TransactionError> {
        if self.open_since.is_none_or(|since| since.elapsed() < self.open_max) {
            return Ok(());
        }
        let refused = |group: &Group| group.refused_last.union(&group.refused_next).copied().collect();
        let refused: Vec<BTreeSet<(u64, usize)>> = self.groups.values().map(refused).collect();
        let notes: Vec<String> = refused.iter().map(note).collect();
        if notes.iter().any(|note| note.len() > NOTE_BYTES_MAX) {
            return Ok(());
        }
        self.commit_with(producer, notes)?;
        self.groups.values_mut().zip(refused).for_each(|(group, refused)| group.refused = refused);
        Ok(())
    }

    /// `notes`: what to note beside the cursor of each group.
    fn commit_with(&mut self, producer: &Client, notes: Vec<String>) -> Result<(), TransactionError> {
        if self.open_since.is_none() {
            return Ok(());
        }
        let is_ready = std::mem::replace(&mut self.is_ready, false);
        for (group, note) in self.groups.values().zip(notes).filter(|(group, _)| group.next > group.cursor && !is_ready)
        {
            let mut offsets = TopicPartitionList::new();
            let mut cursor = offsets.add_partition(&group.topic, 0);
            cursor.set_offset(Offset::Offset(group.next.cast_signed()))?;
            cursor.set_metadata(note);
            producer.send_offsets_to_transaction(&offsets, &group.metadata, CALL)?;
        }
        self.is_ready = true;
        producer.commit_transaction(CALL)?;
        (self.open_since, self.is_ready) = (None, false);
        self.groups.values_mut().for_each(|group| group.cursor = group.next);
        Ok(())
    }

    /// Begins a transaction, if none is open.
    pub(super) fn open(&mut self, producer: &Client) -> Result<(), TransactionError> {
        if self.open_since.is_none() {
            producer.begin_transaction()?;
            self.open_since = Some(Instant::now());
        }
        Ok(())
    }

    /// Makes the transaction void, if one is open.
    pub(super) fn abort(&mut self, producer: &Client) -> Result<(), TransactionError> {
        if self.open_since.is_some() {
            producer.abort_transaction(CALL)?;
            self.open_since = None;
        }
        Ok(())
    }
}

/// `1`, then for each row offset and row in base 36, offsets as differences: such as `1;2s.4;0.7`.
fn note(refused: &BTreeSet<(u64, usize)>) -> String {
    let mut text = NOTE.to_owned();
    let mut last = 0;
    for (offset, row) in refused {
        text.push_str(&format!(";{}.{}", base36(offset - last), base36(*row as u64)));
        last = *offset;
    }
    text
}

fn read_note(text: &str) -> BTreeSet<(u64, usize)> {
    let mut parts = text.split(';');
    if parts.next() != Some(NOTE) {
        return BTreeSet::new();
    }
    let mut last = 0;
    let row = |part: &str| {
        let (offset, row) = part.split_once('.')?;
        last += u64::from_str_radix(offset, 36).ok()?;
        Some((last, usize::from_str_radix(row, 36).ok()?))
    };
    parts.filter_map(row).collect()
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_which_rows_were_refused() {
        let refused = BTreeSet::from([(0, 3), (100, 0), (100, 35), (u64::from(u32::MAX) * 7, 10_000)]);
        let text = note(&refused);
        assert_eq!(text.split(';').nth(1), Some("0.3"));
        assert_eq!(read_note(&text), refused);
        assert!(read_note("").is_empty() && read_note("2;0.3").is_empty());
    }
}
