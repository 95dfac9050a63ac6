//! Calls of librdkafka that `rdkafka` has no safe form for.
//!
//! Why they are needed: taking messages one by one through `rdkafka` costs more than twice as much as taking them in batches
//! (240 ns a message against 100 ns on two cores, with the local queue full); its end-of-partition error names neither topic
//! nor offset; and it does not tell the id of a topic, without which a topic that was deleted and made again can't be told from the one before.
//!
//! The only module of the crate with `unsafe` beside `parse::views`. Each block says why it is sound. They call a C library,
//! so Miri can't run them; the tests against a real broker do.

#![expect(unsafe_code, reason = "a C library is called")]

use std::ffi::{CStr, CString, c_char};
use std::ptr::{NonNull, null_mut, slice_from_raw_parts};
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{IsError, RDKafkaErrorCode};
use tidemill_core::MessageTime;

/// Most messages that one call takes.
const BATCH: usize = 4_096;

/// What came out of a consumer's queue.
pub(crate) enum Event<'a> {
    Message(Message<'a>),
    /// A partition was read to its end.
    End {
        topic: &'a str,
        partition: i32,
        offset: i64,
    },
    /// A partition, or (without topic) the consumer, has a problem.
    Failed {
        topic: Option<&'a str>,
        partition: i32,
        code: RDKafkaErrorCode,
        text: String,
    },
}

/// A message, as long as the event is looked at.
pub(crate) struct Message<'a> {
    raw: &'a rd::rd_kafka_message_t,
}

/// A consumer, and the queue that its messages come through.
pub(crate) struct Queue<C: ConsumerContext> {
    queue: NonNull<rd::rd_kafka_queue_t>,
    batch: Vec<*mut rd::rd_kafka_message_t>,
    /// Behind `queue`, which must not outlive it.
    consumer: BaseConsumer<C>,
}

// SAFETY: librdkafka's queues may be used from any thread, and the pointers in `batch` are valid only during `take`.
unsafe impl<C: ConsumerContext> Send for Queue<C> {}

impl<C: ConsumerContext> Queue<C> {
    /// The queue of a consumer that has a group; `None` when it has none.
    pub(crate) fn new(consumer: BaseConsumer<C>) -> Option<Self> {
        // SAFETY: the pointer belongs to a live client; the result is a reference of our own, given back in `drop`.
        let queue = unsafe { rd::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Some(Self { queue: NonNull::new(queue)?, batch: vec![null_mut(); BATCH], consumer })
    }

    pub(crate) fn consumer(&self) -> &BaseConsumer<C> {
        &self.consumer
    }

    /// Waits until there is a full batch or `wait` is over, and shows all that has come. Returns whether there was less than a
    /// full batch.
    pub(crate) fn take(&mut self, wait: Duration, mut see: impl FnMut(Event<'_>)) -> bool {
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is live, and `batch` has room for `batch.len()` pointers. What is returned is ours.
        let count = unsafe {
            rd::rd_kafka_consume_batch_queue(self.queue.as_ptr(), wait_ms, self.batch.as_mut_ptr(), self.batch.len())
        };
        let count = usize::try_from(count).unwrap_or(0);
        let mut taken = Taken { messages: &self.batch[..count], next: 0 };
        while let Some(message) = taken.messages.get(taken.next) {
            // SAFETY: librdkafka gave a pointer to a message that is ours until it is destroyed, which `taken` does below.
            let raw = unsafe { &**message };
            see(event(raw));
            taken.destroy();
        }
        count < self.batch.len()
    }

    /// First and last offset of a partition as the last answer of the broker had them; asks nobody.
    pub(crate) fn known_watermarks(&self, topic: &CStr, partition: i32) -> Option<(i64, i64)> {
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client is live, the name ends in 0, and both targets are written before the call returns.
        let error = unsafe {
            let client = self.consumer.client().native_ptr();
            rd::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &mut low, &mut high)
        };
        (!error.is_error() && high >= 0).then_some((low, high))
    }
}

impl<C: ConsumerContext> Drop for Queue<C> {
    fn drop(&mut self) {
        // SAFETY: the reference was taken in `new`, and the consumer is still there.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// Messages of a batch that are still to be destroyed, even when somebody who looks at one panics.
struct Taken<'a> {
    messages: &'a [*mut rd::rd_kafka_message_t],
    next: usize,
}

impl Taken<'_> {
    fn destroy(&mut self) {
        let message = self.messages[self.next];
        self.next += 1;
        // SAFETY: each message is ours and is destroyed once: `next` has moved past it.
        unsafe { rd::rd_kafka_message_destroy(message) }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        while self.next < self.messages.len() {
            self.destroy();
        }
    }
}

#[inline]
fn event(raw: &rd::rd_kafka_message_t) -> Event<'_> {
    if raw.err == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Event::Message(Message { raw });
    }
    let (partition, offset) = (raw.partition, raw.offset);
    match topic(raw) {
        Some(topic) if raw.err == Code::RD_KAFKA_RESP_ERR__PARTITION_EOF => Event::End { topic, partition, offset },
        topic => {
            // SAFETY: the text belongs to the message, ends in 0 and is copied at once.
            let text = unsafe { text(rd::rd_kafka_message_errstr(raw)) }.unwrap_or_default().to_owned();
            Event::Failed { topic, partition, code: raw.err.into(), text }
        }
    }
}

fn topic(raw: &rd::rd_kafka_message_t) -> Option<&str> {
    if raw.rkt.is_null() {
        return None;
    }
    // SAFETY: a message holds a reference on its topic, whose name ends in 0 and lives as long.
    unsafe { text(rd::rd_kafka_topic_name(raw.rkt)) }
}

/// # Safety
/// `text` is null, or ends in 0 and lives for `'a`.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a str> {
    // SAFETY: as asked for.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }).and_then(|text| text.to_str().ok())
}

/// # Safety
/// `start` is null, or the start of `len` bytes that live for `'a`.
unsafe fn bytes<'a>(start: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: as asked for.
    (!start.is_null()).then(|| unsafe { &*slice_from_raw_parts(start, len) })
}

impl<'a> Message<'a> {
    /// A number that messages of one partition share, and others of the same batch do not.
    #[inline]
    pub(crate) fn place(&self) -> (usize, i32) {
        (self.raw.rkt as usize, self.raw.partition)
    }

    pub(crate) fn topic(&self) -> &'a str {
        topic(self.raw).unwrap_or_default()
    }

    pub(crate) fn partition(&self) -> i32 {
        self.raw.partition
    }

    #[inline]
    pub(crate) fn offset(&self) -> i64 {
        self.raw.offset
    }

    #[inline]
    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: pointer and length are those of a live message.
        unsafe { bytes(self.raw.payload.cast(), self.raw.len) }
    }

    #[inline]
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: as above.
        unsafe { bytes(self.raw.key.cast(), self.raw.key_len) }
    }

    #[inline]
    pub(crate) fn time(&self) -> MessageTime {
        use rd::rd_kafka_timestamp_type_t as Kind;
        let mut kind = Kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is live.
        let ms = unsafe { rd::rd_kafka_message_timestamp(self.raw, &mut kind) };
        match kind {
            Kind::RD_KAFKA_TIMESTAMP_CREATE_TIME if ms >= 0 => MessageTime::Producer(ms),
            Kind::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME if ms >= 0 => MessageTime::Append(ms),
            _ => MessageTime::Unknown,
        }
    }

    /// Shows name and value of each header.
    #[inline]
    pub(crate) fn headers(&self, mut see: impl FnMut(&[u8], Option<&[u8]>)) {
        let mut headers = null_mut();
        // SAFETY: the message is live, and keeps the headers.
        if unsafe { rd::rd_kafka_message_headers(self.raw, &mut headers) }.is_error() {
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: the headers live as long as the message; all targets are written when there is no error.
            let found = unsafe { rd::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size) };
            if found.is_error() {
                return;
            }
            // SAFETY: the name ends in 0, value and size belong together.
            unsafe { see(CStr::from_ptr(name).to_bytes(), bytes(value.cast(), size)) }
        }
    }
}

/// What a cluster says of a topic.
pub(crate) struct TopicDescription {
    pub(crate) name: String,
    /// Its id, which a topic of the same name that is made later does not have; and the number of its partitions. Or why
    /// the cluster says neither.
    pub(crate) outcome: Result<(String, Vec<PartitionView>), (RDKafkaErrorCode, String)>,
}

/// What the cluster says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionView {
    pub(crate) number: i32,
    pub(crate) has_leader: bool,
}

/// Asks the cluster for topics. Blocks up to `timeout`, and calls `meanwhile` ten times a second.
pub(crate) fn describe_topics<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &[CString],
    timeout: Duration,
    mut meanwhile: impl FnMut(),
) -> Result<Vec<TopicDescription>, String> {
    let client = consumer.client().native_ptr();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let mut names: Vec<*const c_char> = topics.iter().map(|topic| topic.as_ptr()).collect();
    // SAFETY: the client is live. Names are copied by the collection. Everything that is made here is destroyed here, the
    // event last, because what is read below belongs to it.
    unsafe {
        let queue = rd::rd_kafka_queue_new(client);
        let collection = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = rd::rd_kafka_AdminOptions_new(client, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let mut error = [0; 256];
        rd::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, error.as_mut_ptr(), error.len());
        rd::rd_kafka_DescribeTopics(client, collection, options, queue);
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_TopicCollection_destroy(collection);
        // librdkafka answers by itself when the time is over; the second more is for that.
        let mut event = null_mut();
        for _ in 0..timeout_ms / 100 + 10 {
            event = rd::rd_kafka_queue_poll(queue, 100);
            if !event.is_null() {
                break;
            }
            meanwhile();
        }
        rd::rd_kafka_queue_destroy(queue);
        if event.is_null() {
            return Err(format!("no answer within {timeout_ms} ms"));
        }
        let described = described(event);
        rd::rd_kafka_event_destroy(event);
        described
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn described(event: *mut rd::rd_kafka_event_t) -> Result<Vec<TopicDescription>, String> {
    // SAFETY: all that is read belongs to the event, and is copied before this returns.
    unsafe {
        if rd::rd_kafka_event_error(event).is_error() {
            return Err(text(rd::rd_kafka_event_error_string(event)).unwrap_or("unknown error").to_owned());
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err("an answer of another kind".to_owned());
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let topics = if count == 0 { &[] } else { &*slice_from_raw_parts(topics, count) };
        Ok(topics.iter().map(|topic| description(*topic)).collect())
    }
}

/// # Safety
/// `topic` is a live description.
unsafe fn description(topic: *const rd::rd_kafka_TopicDescription_t) -> TopicDescription {
    // SAFETY: as above.
    unsafe {
        let name = text(rd::rd_kafka_TopicDescription_name(topic)).unwrap_or_default().to_owned();
        let error = rd::rd_kafka_TopicDescription_error(topic);
        let code = rd::rd_kafka_error_code(error);
        if code.is_error() {
            let why = text(rd::rd_kafka_error_string(error)).unwrap_or_default().to_owned();
            return TopicDescription { name, outcome: Err((code.into(), why)) };
        }
        let mut count = 0;
        let partitions = rd::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let partitions = if count == 0 { &[] } else { &*slice_from_raw_parts(partitions, count) };
        let view = |partition: &*const rd::rd_kafka_TopicPartitionInfo_t| {
            let leader = rd::rd_kafka_TopicPartitionInfo_leader(*partition);
            let has_leader = !leader.is_null() && rd::rd_kafka_Node_id(leader) >= 0;
            PartitionView { number: rd::rd_kafka_TopicPartitionInfo_partition(*partition), has_leader }
        };
        let partitions = partitions.iter().map(view).collect();
        let id = text(rd::rd_kafka_Uuid_base64str(rd::rd_kafka_TopicDescription_topic_id(topic)));
        let id = id.unwrap_or_default().to_owned();
        TopicDescription { name, outcome: Ok((id, partitions)) }
    }
}
