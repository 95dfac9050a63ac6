//! What librdkafka says of its troubles.

use std::sync::{Arc, Mutex, MutexGuard};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::debug;

/// Keeps librdkafka's words: errors are remembered, so that a trouble can be told with its cause.
#[derive(Clone, Default)]
pub(crate) struct Voice {
    last_error: Arc<Mutex<Option<String>>>,
}

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(?level, facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!("librdkafka: {reason}");
        let mut last = self.lock();
        // That all brokers are down comes behind the reason why one is.
        if last.is_none() || error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *last = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Voice {}

impl Voice {
    /// The last error since the cluster answered.
    pub(crate) fn said(&self) -> Option<String> {
        self.lock().clone()
    }

    /// The cluster has answered.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.last_error.lock().expect("no code panics while it holds an error")
    }
}
