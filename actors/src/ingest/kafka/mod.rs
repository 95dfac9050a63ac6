//! The source kind `kafka`: all partitions of some topics.
//!
//! - It assigns itself all partitions; positions come from the ledger. The group gets them afterwards, for lag monitors.
//! - One thread takes messages, in batches ([`source`]). Another one asks the cluster about its topics ([`control`]),
//!   because such calls block.
//! - A partition is named `topic/number`; its position is the offset of the next message. The id of its topic is in
//!   [`PartitionPosition::resume`](tidemill_core::PartitionPosition::resume), so that a topic that was made again is noticed.

mod builder;
mod config;
mod control;
mod ends;
mod partition;
mod schemas;
mod source;
mod still;

use std::sync::Arc;

use tidemill_core::{
    Cure, DefaultValue, Finding, KindSpec, OptionSpec, OptionType, Options, Role, Shape, Source, SourceContext,
    SourceError, SourceKind, State,
};

use self::config::Config;
use super::broken;
use crate::kafka::{CLUSTER, option, topic_fault};

static OPTIONS: [OptionSpec; 11] = [
    CLUSTER,
    option(
        "topics",
        OptionType::TextList { min_items: 1 },
        DefaultValue::Required,
        "Topics; all their partitions are read. Partitions that are added later are taken up from their beginning.",
    ),
    OptionSpec {
        shapes_state: true,
        ..option(
            "framing",
            OptionType::Choice(&["messages", "avro"]),
            DefaultValue::Toml("\"messages\""),
            "What the messages hold: \"messages\", which a stage that parses text takes one by one; or \"avro\", a datum behind the id of its \
             schema, which is looked up in the cluster's registry (`schema_registry_url`), for the stage `avro`.",
        )
    },
    option(
        "start",
        OptionType::Text,
        DefaultValue::Toml("\"earliest\""),
        "Where partitions without a position in the state start: \"earliest\", \"latest\", or a time such as \
         \"2026-01-31T00:00:00Z\", which means the first message with that timestamp or a later one.",
    ),
    option(
        "group",
        OptionType::Text,
        DefaultValue::Absent,
        "Consumer group that committed positions are shown in, for lag monitors; by default `tidemill.TOPOLOGY.SOURCE`. \
         Nothing is ever read from it.",
    ),
    option(
        "prefetch",
        OptionType::Size { min_bytes: 1 << 20, max_bytes: 2 << 30 },
        DefaultValue::Toml("\"64MiB\""),
        "Bytes that are fetched ahead, over all partitions; at that bound fetching pauses.",
    ),
    option(
        "connect_timeout",
        OptionType::Duration { min_ms: 100, max_ms: 86_400_000 },
        DefaultValue::Toml("\"30s\""),
        "How long a run with --until-end waits at its start for the cluster and the topics before it gives up with exit code \
         69. Other runs, and runs that have begun, wait as long as it takes.",
    ),
    option(
        "idle_timeout",
        OptionType::Duration { min_ms: 10, max_ms: 86_400_000 },
        DefaultValue::Toml("\"10s\""),
        "A partition that was read to its end, and has got nothing new for so long, holds no hour open. The cluster is asked \
         before that is believed.",
    ),
    option(
        "stall_timeout",
        OptionType::Duration { min_ms: 1_000, max_ms: 86_400_000 },
        DefaultValue::Toml("\"60s\""),
        "A partition that has messages but gives none for so long, while others may, is assigned anew.",
    ),
    option(
        "on_gap",
        OptionType::Choice(&["stop", "continue"]),
        DefaultValue::Toml("\"stop\""),
        "What to do where messages were lost before they were read: retention took them, or the topic was deleted and made \
         again. `stop` reads no further in that partition, and says so; `continue` goes on with the oldest message there is.",
    ),
    option(
        "properties",
        OptionType::TextTable,
        DefaultValue::Toml("{}"),
        "Properties of librdkafka for this source, beyond those of the cluster.",
    ),
];

static SPEC: KindSpec = KindSpec {
    name: "kafka",
    role: Role::Source,
    summary: "Reads all partitions of Kafka topics.",
    details: "Each partition is named `topic/number`; its position is the offset of the next message, and is kept in the state \
              directory. The group only gets copies of it, and a foreign member of the group changes nothing but that \
              these copies can't be written, which is logged.\n\n\
              A cluster that can't be reached is waited for: /ready says no, and the log says why once a minute. With --until-end, \
              each partition is read to the end that it has at the start.\n\n\
              Nothing is skipped in silence. Where a position is not there any more (retention, a topic deleted and made \
              again), that partition stops: it keeps its position, holds its hours open, /ready says no, and the log says what is \
              lost and what to do, once a minute; a run with --until-end ends with exit code 75. The other partitions go on. \
              `on_gap = \"continue\"` goes on behind the gap.\n\n\
              Messages have keys, headers and timestamps, which `type_from` and `from_message` of the stages that parse can use. A \
              message without a value (a tombstone) becomes a dead letter `no_value`. Offsets may have gaps (compaction, \
              transactions). Only committed messages are read, unless `isolation.level` says otherwise; with \
              --until-end, a transaction that is open is waited for.\n\n\
              A schema registry that does not answer is waited for, as a cluster is: messages are held back until their schema is known. An \
              id that it does not know makes dead letters `unknown_schema`; it is asked again after 30 s.\n\n\
              Memory: `prefetch`, plus up to 1 MiB for each partition; with `framing = \"avro\"`, 1,000 schemas and those of the messages in hand.",
    options: &OPTIONS,
    input: Shape::Nothing,
    output: Shape::Framed,
    state: State::Stateful,
    guarantee: None,
};

/// See the module.
#[derive(Debug)]
pub(super) struct KafkaKind;

impl SourceKind for KafkaKind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn check(&self, options: &Options) -> Vec<Finding> {
        let Ok(config) = options.parse::<Config>() else { return Vec::new() };
        let mut findings = Vec::new();
        if let Err(error) = config.start() {
            let message = format!("`start` is neither \"earliest\" nor \"latest\" nor a time: {error}");
            findings.push(Finding::error("bad-time", "start", message).help("write it like \"2026-01-01T00:00:00Z\""));
        }
        for (index, topic) in config.topics.iter().enumerate() {
            let problem = if topic_fault(topic) {
                "is no name that a topic can have"
            } else if config.topics[..index].contains(topic) {
                "is there twice"
            } else {
                continue;
            };
            let help = "a name has 1 to 249 letters, digits, `.`, `_` and `-`, and is written once";
            let finding = Finding::error("bad-topic", "topics", format!("topic `{topic}` {problem}"));
            findings.push(finding.item(index.to_string()).help(help));
        }
        findings
    }

    fn ends(&self, _options: &Options) -> bool {
        true
    }

    fn open(&self, context: &SourceContext) -> Result<Box<dyn Source>, SourceError> {
        let config: Config = context
            .options
            .parse()
            .map_err(|error| broken("its options can't be used".to_owned(), Some(error.into())))?;
        Ok(Box::new(source::KafkaSource::open(config, context)?))
    }
}

/// The settings or the options are wrong.
fn misconfigured(error: impl std::error::Error + Send + Sync + 'static) -> SourceError {
    SourceError { message: error.to_string(), cure: Cure::Reconfigure, source: None }
}

/// Name of a partition.
fn partition_name(topic: &str, number: i32) -> Arc<str> {
    format!("{topic}/{number}").into()
}
