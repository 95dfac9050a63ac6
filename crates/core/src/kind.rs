//! Descriptions of kinds and their options. One description serves `check`, `kinds` and `schema`.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::sink::Guarantee;

/// Where in a topology a kind belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `[sources.NAME]`
    Source,
    /// `[stages.NAME]`
    Stage,
    /// `[sinks.NAME]`
    Sink,
}

/// What flows over an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing: the end of a topology.
    Nothing,
    /// Lines or messages that are yet to be parsed.
    Lines,
    /// Blocks of Avro container files that are yet to be parsed.
    AvroBlocks,
    /// Lines, or Avro blocks, as the option `framing` of the source says.
    Framed,
    /// Typed events.
    Rows,
}

/// Whether a kind keeps state between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No: it may run in a pool of several workers.
    Stateless,
    /// Yes: one worker.
    Stateful,
}

/// A kind of source, stage or sink.
#[derive(Debug)]
pub struct KindSpec {
    /// `kind = "..."`
    pub name: &'static str,
    /// Where it belongs.
    pub role: Role,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What else there is to know: limits, guarantees, cost. Plain text, paragraphs separated by empty lines.
    pub details: &'static str,
    /// Its options, beyond `kind`, `from`, `types` (stages and sinks) and `workers` (stateless stages).
    pub options: &'static [OptionSpec],
    /// What it takes.
    pub input: Shape,
    /// What it sends.
    pub output: Shape,
    /// Whether it keeps state.
    pub state: State,
    /// What a sink promises about repeats.
    pub guarantee: Option<Guarantee>,
}

impl KindSpec {
    /// A sink of your own.
    #[must_use]
    pub const fn sink(
        name: &'static str,
        summary: &'static str,
        guarantee: Guarantee,
        options: &'static [OptionSpec],
    ) -> Self {
        Self {
            name,
            role: Role::Sink,
            summary,
            details: "",
            options,
            input: Shape::Rows,
            output: Shape::Nothing,
            state: State::Stateful,
            guarantee: Some(guarantee),
        }
    }
}

impl OptionSpec {
    /// An option that must be given.
    #[must_use]
    pub const fn required(name: &'static str, ty: OptionType, doc: &'static str) -> Self {
        Self { name, ty, default: DefaultValue::Required, doc, shapes_state: false }
    }

    /// An option with a default, written as in TOML.
    #[must_use]
    pub const fn optional(name: &'static str, ty: OptionType, default: &'static str, doc: &'static str) -> Self {
        Self { name, ty, default: DefaultValue::Toml(default), doc, shapes_state: false }
    }
}

/// One option of a kind.
#[derive(Debug)]
pub struct OptionSpec {
    /// Its key in the TOML table.
    pub name: &'static str,
    /// What it takes.
    pub ty: OptionType,
    /// What holds when it is left out.
    pub default: DefaultValue,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
    /// Whether a change makes existing state unusable (the change is then refused at start).
    pub shapes_state: bool,
}

/// What holds when an option is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// It can't be.
    Required,
    /// Nothing.
    Absent,
    /// This value, written as in TOML: `"10m"` with its quotes, `true`, `64`.
    Toml(&'static str),
}

/// What an option takes, and what the kind's config gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptionType {
    /// `true` or `false`; a JSON boolean.
    Boolean,
    /// A whole number; a JSON number.
    Integer {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// A number; a JSON number.
    Float {
        /// Least value.
        min: f64,
        /// Greatest value.
        max: f64,
    },
    /// Text; a JSON string.
    Text,
    /// `"250ms"`, `"10s"`, `"5m"`, `"1h"`, `"1d"`; a JSON number of milliseconds.
    Duration {
        /// Least value in milliseconds.
        min_ms: u64,
        /// Greatest value in milliseconds.
        max_ms: u64,
    },
    /// `"512B"`, `"64KiB"`, `"16MiB"`, `"1GiB"`; a JSON number of bytes.
    Size {
        /// Least value in bytes.
        min_bytes: u64,
        /// Greatest value in bytes.
        max_bytes: u64,
    },
    /// One of these texts; a JSON string.
    Choice(&'static [&'static str]),
    /// A list of texts; a JSON array of strings.
    TextList {
        /// Least number of items.
        min_items: usize,
    },
    /// Names of fields of the types that arrive; a JSON array of strings. The kind checks them in `plan`.
    FieldList {
        /// Least number of items.
        min_items: usize,
    },
    /// An expression over fields; a JSON string. The kind checks it in `plan`.
    Expression,
    /// A path with `{...}` in it, of the directory of an hour; a JSON string. The kind checks it in `plan`. When it is absent,
    /// it stands for `{event_type}/` and [`Limits::hour_path`](crate::Limits::hour_path) behind it.
    PathTemplate,
    /// How a record's type is told: a table with exactly one of `column` (number, from 0), `field` (name), `const` (type name),
    /// `header` (name) or `topic` (`true`).
    TypeFrom,
    /// A table of names and texts, such as `{ "fetch.wait.max.ms" = "50" }`; numbers and booleans are taken as they are
    /// written. A JSON object of strings in the order written.
    TextTable,
    /// How a pond is bounded: a table of `max_bytes` (a size) and `when_full` (`"block"` or `"dead_letter"`), both of which may be left
    /// out; a JSON object of both.
    Pond,
    /// A table of output field = aggregate call, such as `{ events = "count()" }`; a JSON object of strings in the order written.
    Measures,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The topology can't run.
    Error,
    /// It can, but probably not as meant.
    Warning,
}

/// What a kind has to say about options that its descriptions can't check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Stable code, such as `unknown-field`.
    pub code: &'static str,
    /// The option at fault; `None` means the whole table.
    pub option: Option<&'static str>,
    /// The item of the option at fault: an index into a list or a key of a table.
    pub item: Option<String>,
    /// Bytes of the option's text that are at fault, counted inside the quotes.
    pub range: Option<std::ops::Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Finding {
    /// An error about an option.
    #[must_use]
    pub fn error(code: &'static str, option: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            option: Some(option),
            item: None,
            range: None,
            message: message.into(),
            help: None,
        }
    }

    /// The same with what to do.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The same about one item of the option.
    #[must_use]
    pub fn item(self, item: impl Into<String>) -> Self {
        Self { item: Some(item.into()), ..self }
    }
}

/// Options that were checked against their descriptions: all there, defaults filled in, durations in milliseconds and
/// sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options(pub Map<String, Value>);

/// Options that do not fit a kind's config: the kind's description and its config disagree.
#[derive(Debug, thiserror::Error)]
#[error("the options do not fit the kind's config")]
pub struct OptionsError(#[from] serde_json::Error);

impl Options {
    /// The options as the kind's own config; fields are named like the options.
    ///
    /// # Errors
    /// When the description and the config of the kind disagree, which is a fault of the kind.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, OptionsError> {
        Ok(serde_json::from_value(Value::Object(self.0.clone()))?)
    }
}
