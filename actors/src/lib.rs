//! The sources, stages and sinks that come with Tidemill: one folder a family.
//!
//! They see `tidemill-core` only, never the runtime.

mod accounts;
mod audit;
mod by_hour;
pub mod dedup;
pub mod filter;
pub mod hourly;
pub mod ingest;
mod kafka;
pub mod parse;
pub mod reread;
pub mod sink;

use std::sync::Arc;

use tidemill_core::{SourceKind, StageKind};

/// The kinds of sources.
#[must_use]
pub fn source_kinds() -> Vec<Arc<dyn SourceKind>> {
    ingest::kinds()
}

/// The kinds of stages, and of sinks that write through Logs. `sink::Kafka`, `sink::Console` and `sink::Blackhole` deliver by
/// themselves.
#[must_use]
pub fn stage_kinds() -> Vec<Arc<dyn StageKind>> {
    let keyed = [dedup::kind(), hourly::kind(), filter::kind(), accounts::kind(), audit::kind()];
    parse::kinds().into_iter().chain(keyed).chain(sink::kinds()).collect()
}
