//! The options of the sink, and the configuration of its producer.

use rdkafka::ClientConfig;
use serde::Deserialize;
use tidemill_core::{Clusters, Finding, Guarantee, Properties, StageInput};

use super::transactions::name_of;
use crate::kafka::client::{ClientError, Owned, client_config};
use crate::kafka::topic_fault;

/// The options, as the kind describes them.
#[derive(Clone, Debug, Deserialize)]
pub struct KafkaConfig {
    pub(super) cluster: String,
    topic: String,
    pub(super) format: Format,
    subject: String,
    pub(super) key: Vec<String>,
    #[serde(default)]
    pub(super) type_header: Option<String>,
    pub(super) delivery: Delivery,
    compression: String,
    linger: u64,
    in_flight: u64,
    pub(super) attempts: u32,
    properties: Properties,
}

/// What a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Json,
    Avro,
    Raw,
}

/// How often an event may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

const PROMISES: &str = "what is promised about repeats and order rests on it";
const OWNED: &[Owned] = &[
    ("enable.idempotence", PROMISES),
    ("transactional.id", PROMISES),
    ("acks", PROMISES),
    ("request.required.acks", PROMISES),
    ("max.in.flight", PROMISES),
    ("max.in.flight.requests.per.connection", PROMISES),
    ("message.timeout.ms", "an outage is waited for, as long as it takes"),
    ("delivery.timeout.ms", "an outage is waited for, as long as it takes"),
    ("retries", "an outage is waited for; use the option `attempts` for everything else"),
    ("message.send.max.retries", "an outage is waited for; use the option `attempts` for everything else"),
    ("queue.buffering.max.kbytes", "use the option `in_flight`"),
    ("queue.buffering.max.messages", "use the option `in_flight`"),
    ("queue.buffering.max.ms", "use the option `linger`"),
    ("linger.ms", "use the option `linger`"),
    ("compression.codec", "use the option `compression`"),
    ("compression.type", "use the option `compression`"),
    ("log.queue", "log lines go to Tidemill's own log"),
];

/// Messages that wait for their batch at most, beside the bound in bytes.
const MESSAGES_MAX: &str = "1000000";

impl KafkaConfig {
    /// The topic of events of a type.
    pub(super) fn topic(&self, event_type: &str) -> String {
        self.topic.replace("{event_type}", event_type)
    }

    /// The subject of the schema of a type.
    pub(super) fn subject(&self, event_type: &str) -> String {
        self.subject.replace("{topic}", &self.topic(event_type)).replace("{event_type}", event_type)
    }

    /// Everything that is wrong with them.
    pub(super) fn check(&self, input: &StageInput) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut texts = vec![("topic", self.topic.clone())];
        texts.extend(
            input
                .types
                .iter()
                .flat_map(|known| [("topic", self.topic(&known.name)), ("subject", self.subject(&known.name))]),
        );
        let help = "a name has 1 to 249 letters, digits, `.`, `_` and `-`; {event_type} stands for the name of a type";
        for (option, text) in texts.iter().skip(usize::from(!input.types.is_empty())) {
            let is_told = findings.iter().any(|finding: &Finding| finding.option == Some(*option));
            if !is_told && topic_fault(text) {
                let finding =
                    Finding::error("bad-topic", option, format!("`{text}` is no name that a {option} can have"));
                findings.push(finding.help(help));
            }
        }
        for (at, name) in self.key.iter().enumerate() {
            for known in &input.types {
                let problem = match known.field(name) {
                    None => format!("type `{}` has no field `{name}`", known.name),
                    Some((_, field)) if !field.kind.is_scalar() => {
                        format!(
                            "field `{name}` of type `{}` is a {}, which can't be part of a key",
                            known.name,
                            field.kind.name()
                        )
                    }
                    Some(_) => continue,
                };
                let names: Vec<&str> = known.fields.iter().map(|field| field.name.as_str()).collect();
                let finding = Finding::error("unknown-field", "key", problem).item(at.to_string());
                findings.push(finding.help(format!("its fields are {}", names.join(", "))));
            }
        }
        findings
    }

    pub(super) fn guarantee(&self) -> Guarantee {
        match self.delivery {
            Delivery::AtLeastOnce => Guarantee::AtLeastOnce,
            Delivery::ExactlyOnce => Guarantee::Transactional,
        }
    }

    /// The configuration of a client that reads offsets.
    pub(super) fn consumer(&self, clusters: &Clusters) -> Result<ClientConfig, ClientError> {
        client_config(clusters, &self.cluster, &Properties::default(), OWNED)
    }

    /// The configuration of the producer; `pond` is the first that the sink's events come from.
    pub(super) fn producer(&self, clusters: &Clusters, pond: &str) -> Result<ClientConfig, ClientError> {
        let mut config = client_config(clusters, &self.cluster, &self.properties, OWNED)?;
        // How large a message may be is the broker's to say. Java's clients spread keys with murmur2.
        for (name, value) in
            [("client.id", "tidemill"), ("message.max.bytes", "1000000000"), ("partitioner", "murmur2_random")]
        {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        }
        config
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.kbytes", (self.in_flight / 1024).max(1).to_string())
            .set("queue.buffering.max.messages", MESSAGES_MAX)
            .set("queue.buffering.max.ms", self.linger.to_string())
            .set("compression.codec", &self.compression);
        match self.delivery {
            // For ever.
            Delivery::AtLeastOnce => config.set("message.timeout.ms", "0"),
            // As long as a transaction lasts.
            Delivery::ExactlyOnce => config.set("transactional.id", name_of(pond)),
        };
        Ok(config)
    }
}
