//! Clusters that sources and sinks connect to. They come from the platform's settings, never from a topology.

use std::collections::BTreeMap;

/// Properties of one cluster, as its client library names them.
pub type Properties = BTreeMap<String, String>;

/// Properties whose values are no secrets.
const HARMLESS: &[&str] = &[
    "acks",
    "bootstrap.servers",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.type",
    "enable.ssl.certificate.verification",
    "group.id",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "schema.registry.url",
    "security.protocol",
    "ssl.endpoint.identification.algorithm",
];
/// Ends of the names of such properties: lengths of time, sizes, paths.
const HARMLESS_ENDS: &[&str] = &[".ms", ".bytes", ".location"];

/// What may be shown of a property of a cluster, written with dots or underscores: its value, when its name is one of those that
/// are known to hold no secret. Others may hold one, whatever they are called.
#[must_use]
pub fn shown_property<'v>(name: &str, value: &'v str) -> Option<&'v str> {
    let name = name.to_ascii_lowercase().replace('_', ".");
    let harmless = HARMLESS.contains(&&*name) || HARMLESS_ENDS.iter().any(|end| name.ends_with(end));
    // An address may hold a name and a password.
    let holds_password = value.contains("://") && value.contains('@');
    (harmless && !holds_password).then_some(value)
}

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

#[cfg(test)]
mod tests {
    use super::shown_property;

    #[test]
    fn only_values_that_are_known_to_be_harmless_are_shown() {
        for name in
            ["bootstrap_servers", "sasl.username", "ssl_ca_location", "socket.timeout.ms", "schema_registry_url"]
        {
            assert_eq!(shown_property(name, "x"), Some("x"), "{name}");
        }
        for name in ["sasl_password", "sasl.jaas.config", "schema_registry_basic_auth_user_info", "ssl.key.pem", "new"]
        {
            assert_eq!(shown_property(name, "x"), None, "{name}");
        }
        assert_eq!(shown_property("schema_registry_url", "http://me:secret@registry"), None);
        assert_eq!(shown_property("sasl_username", "me@home"), Some("me@home"));
    }
}
