//! The sources, stages and sinks that come with Tidemill: one folder a family.
//!
//! They see `tidemill-core` only, never the runtime.

pub mod dedup;
pub mod filter;
pub mod hourly;
pub mod ingest;
pub mod parse;
pub mod sink;
