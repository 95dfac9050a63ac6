//! Clusters that sources and sinks connect to. They come from the platform's settings, never from a topology.

use std::collections::BTreeMap;

/// Properties of one cluster, as its client library names them.
pub type Properties = BTreeMap<String, String>;

/// The clusters of the settings, by name.
#[derive(Clone, Default)]
pub struct Clusters {
    /// `[kafka.NAME]`
    pub kafka: BTreeMap<String, Properties>,
}

/// Properties may be passwords, so only names are shown.
impl std::fmt::Debug for Clusters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clusters").field("kafka", &self.kafka.keys()).finish()
    }
}

/// A name that no cluster of the settings has.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no Kafka cluster `{name}` in the settings, which have {known}; add `[kafka.{name}]` with `bootstrap_servers` to a settings file"
)]
pub struct UnknownCluster {
    name: String,
    known: String,
}

impl Clusters {
    /// The properties of a Kafka cluster.
    ///
    /// # Errors
    /// When there is none with that name.
    pub fn kafka(&self, name: &str) -> Result<&Properties, UnknownCluster> {
        self.kafka.get(name).ok_or_else(|| {
            let names: Vec<String> = self.kafka.keys().map(|name| format!("`{name}`")).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            UnknownCluster { name: name.to_owned(), known }
        })
    }
}
