//! The options of the source, and the configurations of its clients.

use std::time::Duration;

use rdkafka::ClientConfig;
use serde::Deserialize;
use tidemill_core::{Clusters, Properties};

use crate::kafka::client::{ClientError, Owned, client_config};

/// The options, as [`SPEC`](super::SPEC) describes them.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    pub(super) cluster: String,
    pub(super) topics: Vec<String>,
    pub(super) framing: Framing,
    start: String,
    #[serde(default)]
    pub(super) group: Option<String>,
    prefetch: u64,
    connect_timeout: u64,
    idle_timeout: u64,
    stall_timeout: u64,
    pub(super) on_gap: OnGap,
    #[serde(default)]
    properties: Properties,
}

/// What the messages hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Framing {
    Messages,
    /// Avro data behind the ids of their schemas.
    Avro,
}

/// What to do where a position is not in the partition any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OnGap {
    Stop,
    Continue,
}

/// Where a partition starts that has no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Earliest,
    Latest,
    /// The first message of that time or later, in milliseconds since 1970.
    Time(i64),
}

const POSITIONS: &str = "positions come from the state directory; the group only shows them to others";
const OWNED: &[Owned] = &[
    ("group.id", "use the option `group`"),
    ("group.instance.id", POSITIONS),
    ("group.protocol", POSITIONS),
    ("partition.assignment.strategy", POSITIONS),
    ("enable.auto.commit", POSITIONS),
    ("enable.auto.offset.store", POSITIONS),
    ("auto.commit.interval.ms", POSITIONS),
    ("auto.offset.reset", "a position that is gone is never replaced by chance; use the options `start` and `on_gap`"),
    ("enable.partition.eof", "the source has to know when it is at the end"),
    ("queued.max.messages.kbytes", "use the option `prefetch`"),
    ("allow.auto.create.topics", "a name that is misspelt would make a topic"),
    ("log.queue", "log lines go to Tidemill's own log"),
];

impl Config {
    /// `start`, or why it is wrong.
    pub(super) fn start(&self) -> Result<Start, jiff::Error> {
        match &*self.start {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            time => time.parse::<jiff::Timestamp>().map(|time| Start::Time(time.as_millisecond())),
        }
    }

    /// The client that messages come through.
    pub(super) fn data_client(&self, clusters: &Clusters, group: &str) -> Result<ClientConfig, ClientError> {
        let mut config = self.client(clusters, group)?;
        // Each time its queue is full, librdkafka's fetcher sleeps for `fetch.queue.backoff.ms`, by default a second.
        for (name, value) in [("fetch.queue.backoff.ms", "5"), ("queued.min.messages", "1000000")] {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        }
        config
            .set("queued.max.messages.kbytes", (self.prefetch / 1024).max(1).to_string())
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true");
        Ok(config)
    }

    /// The client that asks the cluster about topics and commits to the group.
    pub(super) fn control_client(&self, clusters: &Clusters, group: &str) -> Result<ClientConfig, ClientError> {
        self.client(clusters, group)
    }

    fn client(&self, clusters: &Clusters, group: &str) -> Result<ClientConfig, ClientError> {
        let mut config = client_config(clusters, &self.cluster, &self.properties, OWNED)?;
        if config.get("client.id").is_none() {
            config.set("client.id", "tidemill");
        }
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("allow.auto.create.topics", "false");
        Ok(config)
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout)
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout)
    }

    pub(super) fn stall_timeout(&self) -> Duration {
        Duration::from_millis(self.stall_timeout)
    }
}
