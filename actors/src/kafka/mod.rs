//! What the source and the sink of Kafka have in common.

pub(crate) mod client;
pub(crate) mod native;
mod references;
pub(crate) mod registry;
pub(crate) mod voice;

use tidemill_core::{DefaultValue, OptionSpec, OptionType};

/// The option `cluster`.
pub(crate) const CLUSTER: OptionSpec = option(
    "cluster",
    OptionType::Text,
    DefaultValue::Required,
    "Name of the cluster: `[kafka.NAME]` in the settings holds its addresses and credentials.",
);

/// An option that state does not depend on.
pub(crate) const fn option(name: &'static str, ty: OptionType, default: DefaultValue, doc: &'static str) -> OptionSpec {
    OptionSpec { name, ty, default, doc, shapes_state: false }
}

/// Whether a topic, or a subject, can't have that name (Kafka: 1 to 249 of these characters).
pub(crate) fn topic_fault(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.is_empty() || name.len() > 249 || !name.bytes().all(is_legal)
}
