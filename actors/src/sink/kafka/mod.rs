//! The sink kind `kafka`: each event becomes a message.
//!
//! - `write` gives messages to librdkafka, which sends them in batches; `settle` waits for the word on each of them
//!   ([`sink`]). So nothing is under way at a barrier, and the cut needs no state of the sink.
//! - With `delivery = "exactly_once"` they are in a transaction from cut to cut ([`transactions`]).
//! - What a failed delivery means is decided in [`verdict`]: an outage is waited for, a message that can't be taken becomes a
//!   dead letter.

mod config;
mod encode;
mod reports;
mod sink;
mod transactions;
mod verdict;

use tidemill_core::{
    DefaultValue, Finding, Guarantee, KindSpec, OptionSpec, OptionType, Resume, Role, Shape, SinkContext, SinkError,
    SinkKind, StageInput, State,
};

use crate::kafka::{CLUSTER, option};

pub use self::config::KafkaConfig;
pub use self::sink::KafkaSink;
use self::sink::KnownRefused;

static OPTIONS: [OptionSpec; 12] = [
    CLUSTER,
    option(
        "topic",
        OptionType::Text,
        DefaultValue::Required,
        "Topic that messages go to; {event_type} in it is the name of the event's type. It is not made: it has to be there.",
    ),
    option(
        "format",
        OptionType::Choice(&["json", "avro", "raw"]),
        DefaultValue::Toml("\"json\""),
        "What a message holds. \"json\": an object of the fields, times in RFC 3339, bytes in hex, decimals as text. \"avro\": the datum behind the \
         id of its schema, which is registered at the cluster's registry (`schema_registry_url`). \"raw\": the bytes as they were received; an \
         event that a stage has made has none, and is refused.",
    ),
    option(
        "subject",
        OptionType::Text,
        DefaultValue::Toml("\"{topic}-value\""),
        "Subject that schemas are registered under, with `format = \"avro\"`; {topic} and {event_type} may be in it.",
    ),
    option(
        "key",
        OptionType::FieldList { min_items: 0 },
        DefaultValue::Toml("[]"),
        "Fields that make the key of a message: of one field its text, of several a JSON array. Equal keys go to the same partition. Without \
         fields, or where the one is null, a message has no key and goes to any partition.",
    ),
    option(
        "type_header",
        OptionType::Text,
        DefaultValue::Absent,
        "Name of a header that holds the name of the event's type; without it, there is none.",
    ),
    option(
        "delivery",
        OptionType::Choice(&["at_least_once", "exactly_once"]),
        DefaultValue::Toml("\"at_least_once\""),
        "\"exactly_once\": messages are sent in transactions, one for each cut. Who reads with `isolation.level=read_committed` sees each event once, \
         some `cut.interval` later.",
    ),
    option(
        "compression",
        OptionType::Choice(&["none", "gzip", "snappy", "lz4", "zstd"]),
        DefaultValue::Toml("\"lz4\""),
        "How batches of messages are compressed.",
    ),
    option(
        "linger",
        OptionType::Duration { min_ms: 0, max_ms: 10_000 },
        DefaultValue::Toml("\"5ms\""),
        "How long to wait for more messages of a batch.",
    ),
    option(
        "in_flight",
        OptionType::Size { min_bytes: 1 << 20, max_bytes: 2 << 30 },
        DefaultValue::Toml("\"32MiB\""),
        "Bytes of messages that are on their way at most; then the sink's input waits.",
    ),
    option(
        "attempts",
        OptionType::Integer { min: 1, max: 1_000 },
        DefaultValue::Toml("5"),
        "How often a message is sent that the broker refuses for a reason that is neither an outage nor the message itself, before it becomes a \
         dead letter.",
    ),
    option(
        "properties",
        OptionType::TextTable,
        DefaultValue::Toml("{}"),
        "Properties of librdkafka for this sink, beyond those of the cluster.",
    ),
];

static SPEC: KindSpec = KindSpec {
    name: "kafka",
    role: Role::Sink,
    summary: "Sends events to Kafka topics.",
    details: "At least once, unless `delivery` says otherwise: after a crash, or when the sink is restarted, what came after the last cut is \
              sent again. The producer is idempotent, so its own retries repeat nothing, and messages of one partition keep their order unless one \
              is refused.\n\n\
              Exactly once: each transaction commits an offset of the consumer group `tidemill-...` of its pond, on partition 0 of the (first) topic, \
              by which a later start knows what was sent. The transactional id begins with `tidemill-` too; who may write needs rights to both. A \
              transaction is committed with its cut, or between two cuts when it has been open for a third of `transaction.timeout.ms` (60 s); one that \
              is open for longer, because the cluster is away or a single delivery takes so long, is sent anew. When the broker refuses messages, the transaction is sent \
              anew without them; some 1,000 of one cut may be refused, with more the sink stands still until the limits of the topic are \
              mended.\n\n\
              A cluster that can't be reached, refuses the name or password, or lacks the topic is waited for: the sink's input waits, the log says \
              why once a minute, `tidemill_stage_waiting` is 1. What the broker will never take (a message that is too large, say) becomes a dead \
              letter `refused` with the broker's reason.\n\n\
              Messages carry the time at which they are sent, not that of the event, so that retention counts from then. Keys are spread over \
              partitions as Java's clients do (murmur2).\n\n\
              Memory: `in_flight`, and librdkafka's own buffers.",
    options: &OPTIONS,
    input: Shape::Rows,
    output: Shape::Nothing,
    state: State::Stateful,
    guarantee: Some(Guarantee::AtLeastOnce),
};

/// The sink kind `kafka`.
#[derive(Default)]
pub struct Kafka {
    known: KnownRefused,
}

impl SinkKind for Kafka {
    type Config = KafkaConfig;
    type Sink = KafkaSink;

    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn guarantee(&self, config: &Self::Config) -> Guarantee {
        config.guarantee()
    }

    fn check(&self, config: &Self::Config, input: &StageInput) -> Vec<Finding> {
        config.check(input)
    }

    async fn open(
        &self,
        config: &Self::Config,
        context: &SinkContext,
        _resume: Option<Resume>,
    ) -> Result<Self::Sink, SinkError> {
        KafkaSink::open(config, context, self.known.clone())
    }
}
