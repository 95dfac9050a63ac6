//! Sinks: hourly Avro files, Kafka, the console, nothing at all; and the reading side of the files.

mod avro_files;
mod blackhole;
mod cat;
mod codec;
mod console;
mod container;
mod dead_letters;
mod encode;
mod json;
mod kafka;
mod latest;
mod manifest;
mod reader;
mod revisions;
mod template;
pub mod verify;

use std::sync::Arc;

use tidemill_core::StageKind;

pub use avro_files::{AdoptedDirectory, Adoption, AvroFiles, own_counts};
pub use blackhole::{Blackhole, BlackholeConfig, BlackholeSink};
pub use cat::{CatError, cat};
pub use console::{Console, ConsoleConfig, ConsoleSink};
pub use dead_letters::{DeadLetters, DeadLettersError, Letter};
pub use kafka::{Kafka, KafkaConfig, KafkaSink};
pub use latest::{LATEST_NAME, Latest};
pub use manifest::{
    Counted, EventTimes, FileEntry, Ids, MANIFEST_FORMAT, MANIFEST_NAME, MANIFEST_VERSION, Manifest, ManifestAccount,
    ManifestError, ManifestHour, ManifestProducers, Mode, SUCCESS_NAME, WriterInfo,
};
pub use revisions::{Revision, RevisionError};

/// The kinds of sink that write through Logs.
#[must_use]
pub fn kinds() -> Vec<Arc<dyn StageKind>> {
    vec![Arc::new(AvroFiles)]
}
