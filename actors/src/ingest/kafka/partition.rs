//! A partition: where it is read, and what is known of its end.

use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidemill_core::{Lag, PartitionPosition};

use super::builder::Builder;
use super::control::{Bounds, End};
use super::partition_name;
use crate::ingest::{Looked, now_ms};

/// What goes into [`PartitionPosition::resume`].
#[derive(Serialize, Deserialize)]
struct Resume {
    topic_id: String,
}

/// See the module.
pub(super) struct Partition {
    pub(super) name: Arc<str>,
    pub(super) topic: Arc<str>,
    pub(super) topic_name: CString,
    pub(super) number: i32,
    /// Id of the topic that `next` is a position of; empty when the cluster has no ids.
    topic_id: Arc<str>,
    /// The same for the ledger.
    resume: Arc<str>,
    /// Behind what was handed on; `None` until it is known where to start.
    pub(super) next: Option<u64>,
    /// Behind what was taken from the consumer.
    pub(super) taken: u64,
    pub(super) builder: Builder,
    /// Where to stop, with --until-end.
    pub(super) end: Option<u64>,
    /// Highest end that is known.
    high: u64,
    /// Since when `taken` has not moved.
    pub(super) quiet_since: Instant,
    /// Since when there is something to hand on.
    pub(super) ready_since: Instant,
    /// When it gave something last, or we began to ask for it.
    pub(super) gave_at: Instant,
    /// When the cluster was asked, and said that there is nothing behind `next`.
    proven: Option<Looked>,
    /// Timestamp of the newest message that was handed on.
    newest_ms: Option<i64>,
    /// Why it is read no further, and when that was told.
    pub(super) stopped: Option<(String, Instant)>,
    pub(super) is_assigned: bool,
    /// Its position as it was said last.
    said: Option<PartitionPosition>,
}

/// A position that is not in the partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// What happened, and what is lost.
    pub(super) what: String,
    /// The oldest message there is.
    pub(super) low: u64,
}

impl Partition {
    pub(super) fn new(topic: &Arc<str>, number: i32, saved: Option<&PartitionPosition>) -> Self {
        let resume = saved.and_then(|saved| serde_json::from_str::<Resume>(&saved.resume).ok());
        let topic_id = resume.map_or_else(String::new, |resume| resume.topic_id);
        Self {
            name: partition_name(topic, number),
            topic: topic.clone(),
            // A name with a 0 in it was refused by `check`.
            topic_name: CString::new(topic.as_bytes()).unwrap_or_default(),
            number,
            resume: resume_of(&topic_id),
            topic_id: topic_id.into(),
            next: saved.map(|saved| saved.next),
            taken: saved.map_or(0, |saved| saved.next),
            builder: Builder::default(),
            end: None,
            high: 0,
            quiet_since: Instant::now(),
            ready_since: Instant::now(),
            gave_at: Instant::now(),
            proven: None,
            newest_ms: None,
            stopped: None,
            is_assigned: false,
            said: None,
        }
    }

    /// Its place in the ledger; `None` until it is known where to start.
    pub(super) fn position(&self) -> Option<PartitionPosition> {
        self.next.map(|next| PartitionPosition { next, resume: self.resume.clone(), ended: self.is_done() })
    }

    /// The same, unless it was said before.
    pub(super) fn moved(&mut self) -> Option<PartitionPosition> {
        let ended = self.is_done();
        let is_said = |said: &PartitionPosition| Some(said.next) == self.next && said.ended == ended;
        if self.said.as_ref().is_some_and(|said| is_said(said) && Arc::ptr_eq(&said.resume, &self.resume)) {
            return None;
        }
        self.said = self.position();
        self.said.clone()
    }

    /// Whether it was read to the end that was to be read to.
    pub(super) fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.next.is_some_and(|next| next >= end))
    }

    /// What was built is handed on, all of it. Behind it there may be offsets without messages that were seen meanwhile.
    pub(super) fn handed_on(&mut self, next: u64, newest_ms: Option<i64>) {
        self.next = Some(next.max(self.taken));
        self.gave_at = Instant::now();
        self.newest_ms = newest_ms.or(self.newest_ms);
    }

    /// It was read to `offset`, where there is nothing now. Offsets before it that hold no message are behind us.
    pub(super) fn at_end(&mut self, offset: u64) {
        // What came behind the end that was to be read to was not taken.
        let offset = self.end.map_or(offset, |end| offset.min(end));
        if offset > self.taken {
            self.taken = offset;
            self.quiet_since = Instant::now();
            self.gave_at = self.quiet_since;
        }
        self.reaches(offset);
        if self.builder.is_empty() {
            self.next = self.next.map(|next| next.max(offset));
        }
    }

    /// A new end is known.
    pub(super) fn reaches(&mut self, high: u64) {
        self.high = self.high.max(high);
    }

    /// Whether its position is one of another topic than that with this id.
    pub(super) fn is_of_other_topic(&self, topic_id: &str) -> bool {
        !self.topic_id.is_empty() && !topic_id.is_empty() && *self.topic_id != *topic_id
    }

    /// Its position is one of the topic with this id, unless it is known of which.
    pub(super) fn is_of(&mut self, topic_id: &Arc<str>) {
        if self.topic_id.is_empty() {
            self.topic_id = topic_id.clone();
            self.resume = resume_of(topic_id);
        }
    }

    /// The cluster was asked for the end. Returns whether it is not before what was read.
    pub(super) fn heard(&mut self, end: End) -> bool {
        self.reaches(end.high);
        if self.builder.is_empty() && self.next == Some(end.high) {
            self.proven = Some(end.asked);
        }
        self.next.is_none_or(|next| next <= end.high)
    }

    /// Until when (milliseconds since 1970) nothing had come, when it holds no hour: read to its end, quiet for `timeout`,
    /// and that is no old news.
    pub(super) fn idle_ms(&self, timeout: Duration, fresh: Duration) -> Option<i64> {
        let is_quiet = self.stopped.is_none() && self.quiet_since.elapsed() >= timeout && self.builder.is_empty();
        let is_proof = |proven: &Looked| proven.at >= self.quiet_since && proven.at.elapsed() <= fresh;
        self.proven.filter(|proven| is_quiet && is_proof(proven)).map(|proven| proven.at_ms)
    }

    /// For how long it has given nothing, and nobody has said that there is nothing. What was taken and waits for its turn is not silent.
    pub(super) fn silence(&self, waits_for_schemas: bool) -> Duration {
        if !self.builder.is_empty() && !waits_for_schemas {
            return Duration::ZERO;
        }
        let proven_at = self.proven.map(|proven| proven.at);
        proven_at.into_iter().fold(self.gave_at, Instant::max).elapsed()
    }

    /// Whether there is something to read.
    pub(super) fn is_behind(&self) -> bool {
        self.taken < self.high
    }

    pub(super) fn lag(&self) -> Lag {
        let events = self.next.map_or(0, |next| self.high.saturating_sub(next));
        let age_ms = || self.newest_ms.map_or(0, |newest_ms| now_ms().saturating_sub(newest_ms).max(0) as u64);
        Lag { events, ms: if events == 0 { 0 } else { age_ms() } }
    }

    /// What is wrong with reading on at `taken` in the topic of that id, if anything. The cluster was asked at `asked` for the
    /// bounds: what was taken since then may well lie behind the end of that time.
    pub(super) fn gap(&self, topic_id: &str, bounds: Bounds, asked: Instant) -> Option<Gap> {
        let Bounds { low, high, .. } = bounds;
        let (name, taken) = (&self.name, self.taken);
        let what = if self.is_of_other_topic(topic_id) {
            format!(
                "topic `{}` was deleted and made again: position {taken} of partition {name} is of the old one; what was \
                 behind it there is lost, and the new one has offsets {low} to {high}",
                self.topic
            )
        } else if taken < low {
            format!(
                "position {taken} of partition {name} is gone: the oldest message is {low}, so retention took {} messages \
                 before they were read",
                low - taken
            )
        } else if taken > high && (!self.is_assigned || self.quiet_since < asked) {
            format!(
                "position {taken} of partition {name} is behind its end {high}: the partition was truncated or made again, \
                 and messages were lost"
            )
        } else {
            return None;
        };
        Some(Gap { what, low })
    }

    /// Goes on behind a gap.
    pub(super) fn skip_to(&mut self, low: u64, topic_id: &Arc<str>) {
        self.next = Some(low);
        self.taken = low;
        self.topic_id = topic_id.clone();
        self.resume = resume_of(topic_id);
        self.high = low;
        self.proven = None;
        self.stopped = None;
    }
}

fn resume_of(topic_id: &str) -> Arc<str> {
    serde_json::json!(Resume { topic_id: topic_id.to_owned() }).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(next: u64, topic_id: &str) -> Partition {
        let saved = PartitionPosition { next, resume: format!("{{\"topic_id\":\"{topic_id}\"}}").into(), ended: false };
        Partition::new(&"events".into(), 3, Some(&saved))
    }

    fn bounds(low: u64, high: u64) -> Bounds {
        Bounds { low, high, start: low, asked: Looked::now() }
    }

    #[test]
    fn a_position_that_is_gone_and_a_topic_made_again_are_gaps() {
        let mut partition = at(100, "a");
        let now = Instant::now();
        assert_eq!(partition.gap("a", bounds(0, 100), now), None);
        assert_eq!(partition.gap("a", bounds(100, 100), now), None);
        let lost = partition.gap("a", bounds(130, 200), now).unwrap();
        assert!(lost.what.contains("took 30 messages") && lost.what.contains("events/3"), "{}", lost.what);
        assert_eq!(lost.low, 130);
        assert!(partition.gap("a", bounds(0, 99), now).unwrap().what.contains("truncated"));
        assert!(partition.gap("b", bounds(0, 500), now).unwrap().what.contains("made again"));
        // A cluster without ids: nothing can be told from the id.
        assert_eq!(at(100, "").gap("b", bounds(0, 500), now), None);
        // An end that was asked for before the last messages came says nothing about them.
        partition.is_assigned = true;
        partition.quiet_since = now + Duration::from_secs(1);
        assert_eq!(partition.gap("a", bounds(0, 99), now), None);
        assert!(partition.gap("a", bounds(0, 99), now + Duration::from_secs(2)).is_some());
    }

    #[test]
    fn it_goes_on_where_it_was_with_the_id_of_its_topic() {
        let partition = at(7, "a");
        let again = Partition::new(&"events".into(), 3, partition.position().as_ref());
        assert_eq!((again.next, &*again.topic_id), (Some(7), "a"));
    }

    #[test]
    fn offsets_without_messages_are_behind_it_only_when_nothing_is_waiting() {
        let mut partition = at(7, "a");
        partition.end = Some(9);
        assert!(!partition.is_done());
        partition.at_end(9);
        assert!(partition.is_done());
        assert_eq!(partition.position().map(|position| (position.next, position.ended)), Some((9, true)));
    }

    #[test]
    fn an_end_that_was_seen_while_messages_waited_counts_when_they_are_handed_on_and_no_later_one_does() {
        let mut partition = at(7, "a");
        partition.end = Some(11);
        // Messages up to 10 were taken, and the mark of a transaction at 10 was read behind them.
        partition.taken = 11;
        partition.handed_on(10, None);
        assert!(partition.is_done(), "{:?}", partition.next);
        // Others came meanwhile, and are for the next run.
        partition.at_end(15);
        assert_eq!((partition.next, partition.taken), (Some(11), 11));
    }

    #[test]
    fn it_is_idle_only_on_fresh_proof() {
        let mut partition = at(7, "a");
        let (now, long) = (Duration::ZERO, Duration::from_secs(60));
        assert!(partition.idle_ms(now, long).is_none(), "nobody was asked");
        partition.heard(bounds(0, 8).end());
        assert!(partition.idle_ms(now, long).is_none(), "there is a message");
        partition.heard(End { high: 7, asked: Looked { at: Instant::now(), at_ms: 4_711 } });
        assert_eq!(partition.idle_ms(now, long), Some(4_711), "when the cluster was asked");
        assert!(partition.idle_ms(long, long).is_none(), "not quiet for long enough");
        partition.quiet_since = Instant::now();
        assert!(partition.idle_ms(now, long).is_none(), "the proof is older than the last message");
    }
}
