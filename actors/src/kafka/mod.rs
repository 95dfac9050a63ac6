//! What the source and the sink of Kafka have in common.

pub(crate) mod client;
pub(crate) mod native;
