//! Where records come from: the source kinds `file`, `generate` and `kafka`, and the generator of listening events with its truth.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidemill_core::{Cure, SourceError, SourceKind};

pub mod file;
pub mod generate;
pub mod generator;
mod kafka;

/// The source kinds that come with Tidemill.
#[must_use]
pub fn kinds() -> Vec<Arc<dyn SourceKind>> {
    vec![Arc::new(file::FileKind), Arc::new(generate::GenerateKind), Arc::new(kafka::KafkaKind)]
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A source error that repeating the call does not cure.
fn broken(message: String, source: Option<Cause>) -> SourceError {
    SourceError { message, cure: Cure::Stop, source }
}

/// The wall clock in milliseconds since 1970.
fn now_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    }
}

/// When it was looked, or somebody was asked, by both clocks: what was found holds for then, however long the process has stood still since,
/// and of a machine that was suspended one clock stood still.
#[derive(Clone, Copy, Debug)]
struct Looked {
    at: Instant,
    /// Milliseconds since 1970.
    at_ms: i64,
}

impl Looked {
    fn now() -> Self {
        Self { at: Instant::now(), at_ms: now_ms() }
    }

    /// Looks again; returns the time that has passed since, by the clock by which it was more.
    fn again(&mut self) -> Duration {
        let before = std::mem::replace(self, Self::now());
        let passed_ms = self.at_ms.saturating_sub(before.at_ms).unsigned_abs();
        self.at.duration_since(before.at).max(Duration::from_millis(passed_ms))
    }

    /// Looks again; whether so much time has passed since that what was quiet meanwhile means nothing.
    fn again_after(&mut self, limit: Duration) -> bool {
        self.again() >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_passes_by_one_clock_alone_is_noticed_once() {
        let mut looked = Looked::now();
        let limit = Duration::from_secs(3_600);
        assert!(!looked.again_after(limit));
        looked.at_ms -= 3_600_000;
        assert!(looked.again_after(limit) && !looked.again_after(limit));
        looked.at_ms += 7_200_000;
        assert!(looked.again_after(limit), "it was set back");
        assert!(looked.again_after(Duration::ZERO));
    }
}
