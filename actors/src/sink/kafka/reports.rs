//! The word that librdkafka sends on each message, kept for the sink.

use std::sync::{Arc, Mutex, MutexGuard};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedMessage};
use rdkafka::producer::ProducerContext;
use tokio::sync::Notify;

use crate::kafka::voice::Voice;

/// Called by the producer's own thread.
#[derive(Clone, Default)]
pub(super) struct Reports(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    voice: Voice,
}

#[derive(Default)]
struct State {
    under_way: usize,
    failed: Vec<Failed>,
}

/// A message that was not delivered.
pub(super) struct Failed {
    /// The number that the sink gave it.
    pub(super) number: usize,
    pub(super) code: RDKafkaErrorCode,
    pub(super) message: OwnedMessage,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.voice.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let failed = result.as_ref().err().map(|(error, message)| Failed {
            number,
            code: error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
            message: message.detach(),
        });
        if failed.is_none() {
            self.0.voice.forget();
        }
        let mut state = self.lock();
        state.under_way = state.under_way.saturating_sub(1);
        state.failed.extend(failed);
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no code panics while it holds the reports")
    }

    /// A message is about to be handed to the producer.
    pub(super) fn sends(&self) {
        self.lock().under_way += 1;
    }

    /// The producer did not take it.
    pub(super) fn sends_not(&self) {
        self.lock().under_way -= 1;
    }

    /// Messages whose fate is not known.
    pub(super) fn under_way(&self) -> usize {
        self.lock().under_way
    }

    /// Whether something was not delivered.
    pub(super) fn has_failed(&self) -> bool {
        !self.lock().failed.is_empty()
    }

    /// What was not delivered, in the order of the numbers.
    pub(super) fn take_failed(&self) -> Vec<Failed> {
        let mut failed = std::mem::take(&mut self.lock().failed);
        failed.sort_by_key(|failed| failed.number);
        failed
    }

    /// The next report.
    pub(super) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.changed.notified()
    }

    /// The last trouble since something was delivered.
    pub(super) fn said(&self) -> Option<String> {
        self.0.voice.said()
    }
}
