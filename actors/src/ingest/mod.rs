//! Where records come from: the source kinds `file`, `generate` and `kafka`, and the generator of listening events with its truth.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

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
