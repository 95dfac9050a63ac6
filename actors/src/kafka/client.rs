//! Configurations of librdkafka's clients.

use rdkafka::ClientConfig;
use tidemill_core::{Clusters, Properties, UnknownCluster};

/// Prefix of a cluster's properties that are not librdkafka's: those of its schema registry.
pub(crate) const REGISTRY_PREFIX: &str = "schema.registry.";

/// A property that a source or sink sets by itself, and why nobody else may.
pub(crate) type Owned = (&'static str, &'static str);

/// Why a client can't be configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(transparent)]
    Cluster(#[from] UnknownCluster),
    #[error(
        "cluster `{0}` has no `bootstrap_servers`; write them into its settings, such as \"kafka1:9092,kafka2:9092\""
    )]
    NoServers(String),
    #[error("`{name}`, of {place}, can't be set: {reason}")]
    Owned { name: String, place: String, reason: &'static str },
}

/// The configuration of a client: the cluster's properties, then those of the topology.
///
/// # Errors
/// When the cluster is unknown, or a property is one of `owned`. Names and values are checked by librdkafka when the
/// client is made.
pub(crate) fn client_config(
    clusters: &Clusters,
    cluster: &str,
    own: &Properties,
    owned: &[Owned],
) -> Result<ClientConfig, ClientError> {
    let shared = clusters.kafka(cluster)?;
    if shared.get("bootstrap.servers").is_none_or(|servers| servers.trim().is_empty()) {
        return Err(ClientError::NoServers(cluster.to_owned()));
    }
    let mut config = ClientConfig::new();
    let places = [(shared, format!("cluster `{cluster}` in the settings")), (own, "`properties`".to_owned())];
    for (properties, place) in places {
        for (name, value) in properties.iter().filter(|(name, _)| !name.starts_with(REGISTRY_PREFIX)) {
            if let Some((_, reason)) = owned.iter().find(|(owned, _)| owned == name) {
                return Err(ClientError::Owned { name: name.clone(), place, reason });
            }
            config.set(name, value);
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clusters(properties: &[(&str, &str)]) -> Clusters {
        let main = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Clusters { kafka: [("main".to_owned(), main)].into() }
    }

    #[test]
    fn properties_of_the_topology_win_and_owned_ones_are_refused_with_their_reason() {
        let all =
            clusters(&[("bootstrap.servers", "a:1"), ("fetch.wait.max.ms", "10"), ("schema.registry.url", "http://r")]);
        let own = [("fetch.wait.max.ms".to_owned(), "20".to_owned())].into();
        let config = client_config(&all, "main", &own, &[]).unwrap();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("20"));
        assert_eq!(config.get("schema.registry.url"), None);
        let error = client_config(&all, "main", &own, &[("fetch.wait.max.ms", "it is ours")]).unwrap_err().to_string();
        assert!(error.contains("it is ours") && error.contains("cluster `main`"), "{error}");
        assert!(client_config(&all, "none", &own, &[]).unwrap_err().to_string().contains("`none`"));
        let error = client_config(&clusters(&[]), "main", &own, &[]).unwrap_err().to_string();
        assert!(error.contains("bootstrap_servers"), "{error}");
    }
}
