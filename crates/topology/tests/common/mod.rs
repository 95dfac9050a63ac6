//! A small registry of kinds, modelled on the real ones, and schemas for topologies in tests.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tidemill_core::{
    DefaultValue::{Absent, Required, Toml},
    EventType, Finding, Guarantee, KindSpec, OptionSpec, OptionType as Ty, Options, Role, Shape, StageInput, State,
};
use tidemill_topology::{Kinds, Loaded, load};

const fn option(name: &'static str, ty: Ty, default: tidemill_core::DefaultValue, doc: &'static str) -> OptionSpec {
    OptionSpec { name, ty, default, doc, shapes_state: false }
}

const fn kind(name: &'static str, role: Role, input: Shape, output: Shape, options: &'static [OptionSpec]) -> KindSpec {
    let state = State::Stateless;
    KindSpec { name, role, summary: "A kind for tests.", details: "", options, input, output, state, guarantee: None }
}

const ANY: Ty = Ty::Integer { min: 0, max: i64::MAX };

static FILE: KindSpec = kind(
    "file",
    Role::Source,
    Shape::Nothing,
    Shape::Framed,
    &[
        OptionSpec {
            shapes_state: true,
            ..option("paths", Ty::TextList { min_items: 1 }, Required, "Paths and globs of the files to read.")
        },
        option("framing", Ty::Choice(&["lines", "avro"]), Toml("\"lines\""), "What the files hold."),
        option("compression", Ty::Choice(&["auto", "none", "gzip", "zstd"]), Toml("\"auto\""), "How they are packed."),
    ],
);
static GENERATE: KindSpec = kind(
    "generate",
    Role::Source,
    Shape::Nothing,
    Shape::Lines,
    &[
        option("events", ANY, Toml("1000000"), "Events to make."),
        option("seed", ANY, Toml("1"), "The same seed makes the same events."),
        option("duplicates", Ty::Float { min: 0.0, max: 0.5 }, Toml("0.02"), "Share of events that are sent again."),
        option("batch", Ty::Size { min_bytes: 1024, max_bytes: 16 << 20 }, Toml("\"1MiB\""), "Bytes in a chunk."),
    ],
);
const TYPE_FROM: OptionSpec = option("type_from", Ty::TypeFrom, Required, "Where a record's type is told.");
static TSV: KindSpec = kind(
    "tsv",
    Role::Stage,
    Shape::Lines,
    Shape::Rows,
    &[
        TYPE_FROM,
        option("separator", Ty::Text, Toml(r#""\t""#), "One character between the columns."),
        option("null", Ty::TextList { min_items: 0 }, Toml(r#"[""]"#), "Texts that stand for null."),
        option("header", Ty::Boolean, Toml("false"), "Whether the first line of a file names the columns."),
        option("time", Ty::Choice(&["iso8601", "s", "ms", "us"]), Toml("\"iso8601\""), "How times are written."),
    ],
);
static JSON: KindSpec = kind("json", Role::Stage, Shape::Lines, Shape::Rows, &[TYPE_FROM]);
static AVRO: KindSpec = kind("avro", Role::Stage, Shape::AvroBlocks, Shape::Rows, &[TYPE_FROM]);
static DEDUP: KindSpec = KindSpec {
    state: State::Stateful,
    ..kind(
        "dedup",
        Role::Stage,
        Shape::Rows,
        Shape::Rows,
        &[
            OptionSpec {
                shapes_state: true,
                ..option(
                    "window",
                    Ty::Duration { min_ms: 60_000, max_ms: 7 * 86_400_000 },
                    Toml("\"24h\""),
                    "How long an id is remembered, in event time.",
                )
            },
            OptionSpec {
                shapes_state: true,
                ..option(
                    "keys",
                    Ty::FieldList { min_items: 1 },
                    Absent,
                    "The fields compared; the type's id if left out.",
                )
            },
        ],
    )
};
static HOURLY: KindSpec = KindSpec {
    state: State::Stateful,
    ..kind(
        "hourly",
        Role::Stage,
        Shape::Rows,
        Shape::Rows,
        &[
            OptionSpec {
                shapes_state: true,
                ..option("group_by", Ty::FieldList { min_items: 1 }, Required, "The fields that make a group.")
            },
            OptionSpec { shapes_state: true, ..option("measures", Ty::Measures, Required, "What is measured.") },
        ],
    )
};
static FILTER: KindSpec = kind(
    "filter",
    Role::Stage,
    Shape::Rows,
    Shape::Rows,
    &[option("where", Ty::Expression, Required, "Events for which it is true pass.")],
);
static AVRO_FILES: KindSpec = KindSpec {
    state: State::Stateful,
    guarantee: Some(Guarantee::Transactional),
    ..kind(
        "avro_files",
        Role::Sink,
        Shape::Rows,
        Shape::Nothing,
        &[
            OptionSpec {
                shapes_state: true,
                ..option("path", Ty::PathTemplate, Absent, "Folder of an hour, below the output root.")
            },
            option(
                "codec",
                Ty::Choice(&["null", "deflate", "snappy", "zstd"]),
                Toml("\"zstd\""),
                "How blocks are packed.",
            ),
            option("level", Ty::Integer { min: 1, max: 19 }, Toml("1"), "Level of the codec."),
            option(
                "roll",
                Ty::Size { min_bytes: 1 << 20, max_bytes: 64 << 30 },
                Toml("\"1GiB\""),
                "Size at which a new part begins.",
            ),
        ],
    )
};
static CONSOLE: KindSpec = KindSpec {
    guarantee: Some(Guarantee::AtLeastOnce),
    ..kind("console", Role::Sink, Shape::Rows, Shape::Nothing, &[])
};
static BLACKHOLE: KindSpec = kind("blackhole", Role::Sink, Shape::Rows, Shape::Nothing, &[]);

/// The kinds of these tests.
pub(crate) struct TestKinds;

impl Kinds for TestKinds {
    fn specs(&self, role: Role) -> Vec<&'static KindSpec> {
        match role {
            Role::Source => vec![&FILE, &GENERATE],
            Role::Stage => vec![&AVRO, &DEDUP, &FILTER, &HOURLY, &JSON, &TSV],
            Role::Sink => vec![&AVRO_FILES, &BLACKHOLE, &CONSOLE],
        }
    }

    fn check_source(&self, kind: &str, options: &Options) -> Vec<Finding> {
        let paths = options.0.get("paths").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let bad = paths.iter().enumerate().filter(|(_, path)| kind == "file" && path.as_str() == Some(""));
        bad.map(|(at, _)| Finding::error("bad-path", "paths", "a path can't be empty").item(at.to_string())).collect()
    }

    fn plan(&self, _: Role, kind: &str, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        let mut found = Vec::new();
        match kind {
            "dedup" => plan_dedup(input, &mut found),
            "hourly" => return plan_hourly(input),
            "filter" => plan_filter(input, &mut found),
            "avro_files" => plan_avro_files(input, &mut found),
            "tsv" => {
                let separator = input.options.0["separator"].as_str().unwrap_or_default();
                if separator.chars().count() != 1 {
                    let finding = Finding::error("bad-separator", "separator", "the separator must be one character");
                    found.push(finding.help("for tabs, write \"\\t\" or leave it out"));
                }
            }
            _ => {}
        }
        let sink = matches!(kind, "avro_files" | "console" | "blackhole");
        let constant = input.options.0.get("type_from").and_then(|from| from["const"].as_str());
        let sends = input.types.iter().filter(|sent| !sink && constant.is_none_or(|constant| *sent.name == *constant));
        if found.is_empty() { Ok(sends.cloned().collect()) } else { Err(found) }
    }

    fn warnings(&self, _: Role, kind: &str, input: &StageInput) -> Vec<Finding> {
        let window = input.options.0.get("window").and_then(Value::as_i64);
        match window {
            Some(window) if kind == "dedup" && window < input.limits.allowed_lateness_ms => {
                let finding =
                    Finding::error("short-window", "window", "the window is shorter than the allowed lateness");
                vec![finding.help("make it longer")]
            }
            _ => Vec::new(),
        }
    }
}

fn unknown_field(input: &StageInput, option: &'static str, field: &str) -> Option<Finding> {
    let lacking = input.types.iter().find(|event_type| event_type.field(field).is_none())?;
    let names: Vec<&str> = lacking.fields.iter().map(|field| field.name.as_str()).collect();
    let message = format!("type `{}` has no field `{field}`", lacking.name);
    Some(Finding::error("unknown-field", option, message).help(format!("its fields are: {}", names.join(", "))))
}

fn fields<'a>(input: &'a StageInput, option: &str) -> Vec<&'a str> {
    input.options.0.get(option).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn plan_dedup(input: &StageInput, found: &mut Vec<Finding>) {
    let keys = fields(input, "keys");
    for (at, key) in keys.iter().enumerate() {
        found.extend(unknown_field(input, "keys", key).map(|finding| finding.item(at.to_string())));
    }
    for event_type in input.types.iter().filter(|event_type| keys.is_empty() && event_type.id.is_empty()) {
        let message = format!("type `{}` has no `id`, so its duplicates can't be told", event_type.name);
        let help = "give the type an `id`, or this stage `keys`";
        found.push(Finding { option: None, ..Finding::error("no-id", "keys", message).help(help) });
    }
}

fn plan_hourly(input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
    let mut found = Vec::new();
    for (at, field) in fields(input, "group_by").iter().enumerate() {
        found.extend(unknown_field(input, "group_by", field).map(|finding| finding.item(at.to_string())));
    }
    for (name, call) in input.options.0["measures"].as_object().into_iter().flatten() {
        let call = call.as_str().unwrap_or_default();
        let open = call.find('(').unwrap_or(call.len());
        let (function, field) = (&call[..open], call[open..].trim_matches(['(', ')']));
        if !["count", "sum", "min", "max", "mean", "approx_distinct"].contains(&function) {
            let message = format!("there is no aggregate `{function}`");
            let finding = Finding::error("unknown-aggregate", "measures", message).item(name);
            found.push(Finding { range: Some(0..open), ..finding });
        } else if !field.is_empty() {
            let finding = unknown_field(input, "measures", field).map(|finding| finding.item(name));
            found.extend(finding.map(|finding| Finding { range: Some(open + 1..open + 1 + field.len()), ..finding }));
        }
    }
    if !found.is_empty() {
        return Err(found);
    }
    let schema = r#"{"type": "record", "name": "Counts", "fields": [
        {"name": "hour", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "event_type", "type": "string"}, {"name": "events", "type": "long"}]}"#;
    let made = EventType::new(&input.name, schema, "hour", &["event_type".to_owned()], None);
    Ok(vec![Arc::new(made.expect("the schema is right"))])
}

/// Words of the expression are fields, unless they are numbers or quoted.
fn plan_filter(input: &StageInput, found: &mut Vec<Finding>) {
    let expression = input.options.0["where"].as_str().unwrap_or_default();
    let mut at = 0;
    for word in expression.split(' ') {
        let is_name = word.starts_with(|c: char| c.is_ascii_lowercase())
            && !["and", "or", "not", "in", "is", "null"].contains(&word);
        if is_name {
            let finding = unknown_field(input, "where", word);
            found.extend(finding.map(|finding| Finding { range: Some(at..at + word.len()), ..finding }));
        }
        at += word.len() + 1;
    }
}

fn plan_avro_files(input: &StageInput, found: &mut Vec<Finding>) {
    let path = input.options.0.get("path").and_then(Value::as_str).unwrap_or_default();
    for (open, _) in path.match_indices('{') {
        let Some(len) = path[open..].find('}') else {
            let finding = Finding::error("bad-path", "path", "this `{` is never closed");
            found.push(Finding { range: Some(open..open + 1), ..finding.help("write `{name}`") });
            continue;
        };
        let name = &path[open + 1..open + len];
        if !["event_type", "year", "month", "day", "hour", "minute"].contains(&name) {
            let finding = unknown_field(input, "path", name);
            found.extend(finding.map(|finding| Finding { range: Some(open..open + len + 1), ..finding }));
        }
    }
}

/// Loads a text as if it lay in `tests/broken`, where the schemas are.
pub(crate) fn load_text(name: &str, text: &str) -> Loaded {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    load(text, Path::new(name), &TestKinds, &|path| std::fs::read_to_string(folder.join(path)))
}

/// A topology with every role; `extra` is added at its end.
pub(crate) fn good(extra: &str) -> String {
    format!(
        r#"[topology]
name = "plays"

[types.play]
schema = "schemas/play.avsc"
time = "played_at"
id = ["event_id"]

[types.skip]
schema = "schemas/skip.avsc"
time = "skipped_at"
id = ["event_id"]

[sources.events]
kind = "file"
paths = ["in/*.tsv"]

[stages.parse]
kind = "tsv"
from = ["events"]
workers = 2
type_from = {{ column = 0 }}

[stages.dedup]
kind = "dedup"
from = ["parse"]

[stages.counts]
kind = "hourly"
from = ["dedup"]
group_by = ["country"]
measures = {{ users = "approx_distinct(user_id)", events = "count()" }}

[sinks.warehouse]
kind = "avro_files"
from = ["dedup"]
path = "{{event_type}}/year={{year}}/month={{month}}/day={{day}}/hour={{hour}}"

[sinks.counts_out]
kind = "avro_files"
from = ["counts"]
path = "{{event_type}}/{{year}}-{{month}}-{{day}}T{{hour}}"
{extra}"#
    )
}
