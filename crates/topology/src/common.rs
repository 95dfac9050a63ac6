//! The keys that do not belong to a kind, described like the options of kinds.

use tidemill_core::{DefaultValue, KindSpec, OptionSpec, OptionType, Role, State};

const YEAR_MS: u64 = 365 * DAY_MS;
pub(crate) const DAY_MS: u64 = 86_400_000;

/// Values of `late`.
const LATE: &[&str] = &["dead_letter", "revise", "next_hour"];

const fn option(name: &'static str, ty: OptionType, default: DefaultValue, doc: &'static str) -> OptionSpec {
    OptionSpec { name, ty, default, doc, shapes_state: false }
}

/// Keys of `[topology]`.
pub const TOPOLOGY_KEYS: &[OptionSpec] = &[
    option(
        "name",
        OptionType::Text,
        DefaultValue::Required,
        "Name of the topology: letters, digits, `-` and `_`. State on disk belongs to it.",
    ),
    OptionSpec {
        name: "bucket",
        ty: OptionType::Duration { min_ms: 60_000, max_ms: DAY_MS },
        default: DefaultValue::Toml("\"1h\""),
        doc: "Width of an hour of event time. It must divide a day.",
        shapes_state: true,
    },
    option(
        "allowed_lateness",
        OptionType::Duration { min_ms: 0, max_ms: YEAR_MS },
        DefaultValue::Toml("\"10m\""),
        "How long after an hour's end, in event time, it is left open. What comes later is late.",
    ),
    option(
        "late",
        OptionType::Choice(LATE),
        DefaultValue::Toml("\"dead_letter\""),
        "What becomes of events whose hour is sealed: dead letters, a further revision of their hour (`revise`), or part of the first hour that is \
         not sealed, with their own hour in the column `true_hour` (`next_hour`). Types can say otherwise.",
    ),
    option(
        "late_within",
        OptionType::Duration { min_ms: 0, max_ms: YEAR_MS },
        DefaultValue::Toml("\"24h\""),
        "How long ago, in event time before the newest sealed hour, the hour of a late event may have ended. Later ones become dead letters.",
    ),
    option(
        "late_delay",
        OptionType::Duration { min_ms: 0, max_ms: DAY_MS },
        DefaultValue::Toml("\"10m\""),
        "How long a revision is left open for more late events: an hour gets no more than one revision in this time.",
    ),
    option(
        "seal_within",
        OptionType::Duration { min_ms: 0, max_ms: YEAR_MS },
        DefaultValue::Absent,
        "What is aimed at: how long after its end and `allowed_lateness`, by the clock, an hour is sealed. Nothing depends on it but metrics and alarms. \
         Where nothing is said, it is 1 minute for types of the tier `high`, 5 for `normal` and 30 for `low`.",
    ),
    option(
        "hold_at_most",
        OptionType::Duration { min_ms: 1_000, max_ms: YEAR_MS },
        DefaultValue::Toml("\"6h\""),
        "How long a partition that can't be read, or gives nothing although it has something, holds hours open. Then they are sealed without it, and \
         their manifests name it.",
    ),
    option(
        "max_ahead",
        OptionType::Duration { min_ms: 0, max_ms: 100 * YEAR_MS },
        DefaultValue::Toml("\"1h\""),
        "How far ahead of its arrival an event's time may be. Events further ahead become dead letters.",
    ),
    option(
        "max_open_hours",
        OptionType::Integer { min: 1, max: 10_000_000 },
        DefaultValue::Toml("10000"),
        "Hours open at the same time, over all types. Beyond it, the log warns; nothing is lost.",
    ),
    option(
        "max_groups",
        OptionType::Integer { min: 1, max: 1_000_000_000 },
        DefaultValue::Toml("100000"),
        "Groups open at the same time in one stage. Beyond it, the log warns; nothing is lost.",
    ),
    option(
        "max_path_values",
        OptionType::Integer { min: 1, max: 10_000_000 },
        DefaultValue::Toml("1000"),
        "Different values that a path may take in one hour of a type. Events beyond it become dead letters.",
    ),
    option(
        "max_event",
        OptionType::Size { min_bytes: 1, max_bytes: 64 << 20 },
        DefaultValue::Toml("\"1MiB\""),
        "Longest record. Longer ones become dead letters.",
    ),
    option(
        "delivery",
        OptionType::Choice(&["at_least_once", "exactly_once"]),
        DefaultValue::Toml("\"at_least_once\""),
        "What its sinks have to promise over a crash. `check` warns of those that promise less.",
    ),
    option(
        "max_dead_in_a_row",
        OptionType::Integer { min: 1, max: i64::MAX },
        DefaultValue::Absent,
        "A stage that makes more dead letters than this, with nothing good in between, is paused. Counted by portions.",
    ),
    option(
        "max_dead_percent",
        OptionType::Integer { min: 1, max: 99 },
        DefaultValue::Absent,
        "A stage that makes dead letters of a greater share of 10,000 records or more is paused.",
    ),
];

/// Keys of `[types.NAME]`.
pub const TYPE_KEYS: &[OptionSpec] = &[
    option(
        "schema",
        OptionType::Text,
        DefaultValue::Required,
        "Path of an Avro record schema (JSON), from the folder of the topology file.",
    ),
    OptionSpec {
        name: "time",
        ty: OptionType::Text,
        default: DefaultValue::Required,
        doc: "The field that holds the event time: a timestamp-millis or timestamp-micros that is never null.",
        shapes_state: true,
    },
    OptionSpec {
        name: "id",
        ty: OptionType::TextList { min_items: 0 },
        default: DefaultValue::Absent,
        doc: "The fields that tell one event from all others: single values that are never null.",
        shapes_state: true,
    },
    option("owner", OptionType::Text, DefaultValue::Absent, "Who answers for the type."),
    option(
        "tier",
        OptionType::Choice(&["high", "normal", "low"]),
        DefaultValue::Toml("\"normal\""),
        "How much the type matters: who is called when its hours are late, how soon they are to be sealed where nothing is said (1, 5 and 30 minutes), and, \
         with `types = [\"tier:high\"]`, what stages and sinks of its own it has.",
    ),
    option(
        "comes_from",
        OptionType::TextList { min_items: 1 },
        DefaultValue::Absent,
        "Where its events come from: `SOURCE`, or `SOURCE/PARTITION`, or `SOURCE/` and what names of partitions begin with up to a `/`, such as a \
         topic. Its hours then wait for these alone, and not for all that the type could come from.",
    ),
    option(
        "producer",
        OptionType::Text,
        DefaultValue::Absent,
        "The field that says which producer sent the event: a string, uuid or enum that is never null. Hours then wait for every producer, until it has \
         sent an event of a later time, or `lease` is over.",
    ),
    option(
        "sequence",
        OptionType::Text,
        DefaultValue::Absent,
        "An int or long field, never null, in which a producer numbers its events of the type: the stage `accounts` tells what is missing. In a marker: the \
         number of the last event that its producer had sent.",
    ),
    option(
        "lease",
        OptionType::Duration { min_ms: 1_000, max_ms: DAY_MS },
        DefaultValue::Toml("\"5m\""),
        "How long a producer is waited for that comes no further. Then hours are sealed without it, and their manifests name it.",
    ),
    option(
        "marks",
        OptionType::TextList { min_items: 1 },
        DefaultValue::Absent,
        "The types that its events are markers of: each says that its producer has sent all events of these types with times before its own.",
    ),
    option(
        "ends",
        OptionType::Text,
        DefaultValue::Absent,
        "With `marks`: a boolean field, never null, that is true when the producer sends nothing more: it is not waited for until it is heard of again.",
    ),
    option(
        "seal_within",
        OptionType::Duration { min_ms: 0, max_ms: YEAR_MS },
        DefaultValue::Absent,
        "`seal_within` of [topology], for this type.",
    ),
    option("late", OptionType::Choice(LATE), DefaultValue::Absent, "`late` of [topology], for this type."),
    option(
        "late_within",
        OptionType::Duration { min_ms: 0, max_ms: YEAR_MS },
        DefaultValue::Absent,
        "`late_within` of [topology], for this type.",
    ),
    option(
        "late_delay",
        OptionType::Duration { min_ms: 0, max_ms: DAY_MS },
        DefaultValue::Absent,
        "`late_delay` of [topology], for this type.",
    ),
];

/// `kind`, of every source, stage and sink.
pub(crate) const KIND: OptionSpec = option("kind", OptionType::Text, DefaultValue::Required, "Its kind.");

const FROM: OptionSpec = option(
    "from",
    OptionType::TextList { min_items: 1 },
    DefaultValue::Required,
    "What it takes from: names of sources and stages, or `NAME.dead_letters` for what a stage or sink could not deal with.",
);

const TYPES: OptionSpec = option(
    "types",
    OptionType::TextList { min_items: 1 },
    DefaultValue::Absent,
    "Takes only events of these types; `tier:high`, `tier:normal` and `tier:low` stand for all declared types of a tier. Without it, all that arrive.",
);

/// The pond in front of a stage or sink.
pub(crate) const POND: OptionSpec = option(
    "pond",
    OptionType::Pond,
    DefaultValue::Absent,
    "A queue on disk in front of it, `{ max_bytes = \"4GiB\", when_full = \"block\" }`: what is behind it can fail or wait without holding \
     anything back. Sinks that deliver by calls of their own always have one. With `when_full = \"block\"` the sources before a full pond wait, \
     with `\"dead_letter\"` events become dead letters (pond_full).",
);

/// Workers of a stage without state.
pub(crate) const WORKERS: OptionSpec = option(
    "workers",
    OptionType::Integer { min: 1, max: 64 },
    DefaultValue::Toml("1"),
    "Workers that run side by side, each on a thread of its own.",
);

const SOURCE_COMMON: &[OptionSpec] = &[KIND];
const COMMON: &[OptionSpec] = &[KIND, FROM, TYPES, POND];
const POOL_COMMON: &[OptionSpec] = &[KIND, FROM, TYPES, POND, WORKERS];

/// The keys that every source, stage or sink has, beside the options of its kind; `None` stands for a kind that is not known.
pub(crate) fn common_keys(role: Role, kind: Option<&KindSpec>) -> &'static [OptionSpec] {
    match role {
        Role::Source => SOURCE_COMMON,
        Role::Stage if kind.is_none_or(|kind| kind.state == State::Stateless) => POOL_COMMON,
        Role::Stage | Role::Sink => COMMON,
    }
}

/// The name of a role, as a thing and as the table that holds all of them.
pub(crate) fn role_names(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Source => ("source", "sources"),
        Role::Stage => ("stage", "stages"),
        Role::Sink => ("sink", "sinks"),
    }
}

/// Pattern of names of topologies, types, sources, stages and sinks.
pub(crate) const NAME_PATTERN: &str = "^[A-Za-z0-9_-]+$";

/// Whether it fits [`NAME_PATTERN`].
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
