//! Dead letters: events that could not be dealt with, with all that is needed to find out why and to try again.

use std::sync::{Arc, LazyLock};

use arrow_array::builder::{BinaryViewBuilder, StringViewBuilder};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};

use crate::batch::{Batch, Origin, RowOrigins};
use crate::event_type::EventType;
use crate::schema::TimeColumn;

/// Name of the event type that dead letters are.
pub const DEAD_LETTER_TYPE: &str = "dead_letter";

const SCHEMA: &str = include_str!("dead_letter.avsc");

/// Why an event could not be dealt with. The text is a stable label, in files and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The record does not have the form that the stage expects (missing columns, not JSON, not UTF-8, ...).
    Malformed,
    /// The message has no value: a tombstone.
    NoValue,
    /// A value does not fit its field's type.
    BadValue,
    /// The record names a type that the topology does not declare.
    UnknownType,
    /// The schema that the message refers to is not to be had.
    UnknownSchema,
    /// The record is longer than `max_event`.
    TooLarge,
    /// Its event time is outside the years 1 to 9999.
    TimeOutOfRange,
    /// Its event time is more than `max_ahead` ahead of its arrival.
    TooFarAhead,
    /// It is so old that ids it would have to be compared with are forgotten, so that a duplicate could not be told.
    TooOldToJudge,
    /// Its hour is sealed.
    Late,
    /// A limit of the topology on path values was reached.
    TooManyPathValues,
    /// A sink refused it.
    Refused,
    /// The pond in front of a stage or sink is full, and the topology says that what comes becomes dead letters then.
    PondFull,
    /// The stage failed on this very event, again and again.
    StageFailed,
}

impl Reason {
    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoValue => "no_value",
            Self::BadValue => "bad_value",
            Self::UnknownType => "unknown_type",
            Self::UnknownSchema => "unknown_schema",
            Self::TooLarge => "too_large",
            Self::TimeOutOfRange => "time_out_of_range",
            Self::TooFarAhead => "too_far_ahead",
            Self::TooOldToJudge => "too_old_to_judge",
            Self::Late => "late",
            Self::TooManyPathValues => "too_many_path_values",
            Self::Refused => "refused",
            Self::PondFull => "pond_full",
            Self::StageFailed => "stage_failed",
        }
    }
}

/// One dead letter, as a stage hands it over. The runtime adds the stage and the time.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Where the event came from.
    pub origin: Arc<Origin>,
    /// Its position in the partition.
    pub position: u64,
    /// Its type, where that is known.
    pub event_type: Option<Arc<str>>,
    /// The label of what is wrong.
    pub reason: Reason,
    /// What is wrong, with the field and the value in question.
    pub message: String,
    /// The event as it was received; the runtime cuts it at `max_event`.
    pub payload: Vec<u8>,
    /// Full length of the event in bytes; `payload` may be its beginning only.
    pub length: u64,
    /// When the event arrived, in milliseconds since 1970.
    pub arrived_at_ms: i64,
    /// Of an event that was parsed: its time in milliseconds since 1970, and the hash of its id (0 where the type has none).
    pub parsed: Option<(i64, u128)>,
}

impl DeadLetter {
    /// A row of a batch as a dead letter.
    #[must_use]
    pub fn of_row(batch: &Batch, row: usize, reason: Reason, message: String) -> Self {
        let times = TimeColumn::of(&batch.records, batch.event_type.time);
        let id = batch.counts.as_ref().map_or(0, |counts| counts.id(row));
        Self {
            origin: batch.origin.clone(),
            position: batch.position(row),
            event_type: Some(batch.event_type.name.clone()),
            reason,
            message,
            payload: batch.received(row).to_vec(),
            length: batch.received(row).len() as u64,
            arrived_at_ms: batch.arrived_at_ms,
            parsed: times.map(|times| (times.ms(row), id)),
        }
    }
}

/// The event type of dead letters; its time is the arrival of the event.
#[must_use]
pub fn dead_letter_type() -> Arc<EventType> {
    static TYPE: LazyLock<Arc<EventType>> = LazyLock::new(|| {
        let id = ["source", "partition", "position", "stage"].map(str::to_owned);
        let made = EventType::new(DEAD_LETTER_TYPE, SCHEMA, "arrived_at", &id, None);
        Arc::new(made.expect("the schema of dead letters is an event type"))
    });
    TYPE.clone()
}

/// The dead letters of one call of `stage` as a batch; payloads are cut at `max_event_bytes`.
/// `None` when there are none.
///
/// # Panics
/// Never: the columns are made after the schema.
#[must_use]
pub fn dead_letter_batch(stage: &str, letters: &[DeadLetter], max_event_bytes: usize) -> Option<Batch> {
    let last = letters.last()?;
    let event_type = dead_letter_type();
    let (mut source, mut partition, mut stages, mut reason, mut message, mut types) = (
        StringViewBuilder::new(),
        StringViewBuilder::new(),
        StringViewBuilder::new(),
        StringViewBuilder::new(),
        StringViewBuilder::new(),
        StringViewBuilder::new(),
    );
    let mut payload = BinaryViewBuilder::new();
    let mut payload_bytes = 0;
    for letter in letters {
        source.append_value(&letter.origin.source);
        partition.append_value(&letter.origin.partition);
        stages.append_value(stage);
        reason.append_value(letter.reason.as_str());
        message.append_value(&letter.message);
        types.append_option(letter.event_type.as_deref());
        let kept = letter.payload.len().min(max_event_bytes);
        payload_bytes += kept + letter.message.len();
        payload.append_value(&letter.payload[..kept]);
    }
    let long = |value: fn(&DeadLetter) -> i64| -> Int64Array { letters.iter().map(value).collect() };
    let arrived = TimestampMillisecondArray::from_iter_values(letters.iter().map(|letter| letter.arrived_at_ms));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(source.finish()),
        Arc::new(partition.finish()),
        Arc::new(long(|letter| letter.position as i64)),
        Arc::new(stages.finish()),
        Arc::new(types.finish()),
        Arc::new(reason.finish()),
        Arc::new(message.finish()),
        Arc::new(arrived.with_timezone("UTC")),
        Arc::new(payload.finish()),
        Arc::new(long(|letter| letter.length as i64)),
    ];
    let records = RecordBatch::try_new(event_type.arrow.clone(), columns).expect("columns as in the schema");
    Some(Batch {
        event_type,
        records,
        selection: None,
        rows: RowOrigins::default(),
        origin: last.origin.entered(),
        arrived_at_ms: last.arrived_at_ms,
        payload_bytes,
        counts: None,
    })
}
