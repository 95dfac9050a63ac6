//! Ponds as a topology declares them.

use serde::{Deserialize, Serialize};
use tidemill_core::{DefaultValue, Guarantee, KindSpec, OptionSpec, OptionType, Role, Shape, State};

/// How a pond is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PondOptions {
    /// Bytes on disk.
    pub max_bytes: u64,
    /// What happens beyond them.
    pub when_full: WhenFull,
}

/// What happens when a pond is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The sources of the region that fills it wait.
    Block,
    /// What comes becomes a dead letter.
    DeadLetter,
}

impl Default for PondOptions {
    fn default() -> Self {
        Self { max_bytes: 4 << 30, when_full: WhenFull::Block }
    }
}

/// `max_bytes` of a pond.
pub(crate) const MAX_BYTES: OptionSpec = OptionSpec {
    name: "max_bytes",
    ty: OptionType::Size { min_bytes: 8 << 20, max_bytes: 1 << 44 },
    default: DefaultValue::Toml("\"4GiB\""),
    doc: "Bytes on disk that the pond may hold. What is in flight before it (the setting `runtime.replay`) is at most an eighth of it.",
    shapes_state: false,
};

/// `when_full` of a pond.
pub(crate) const WHEN_FULL: OptionSpec = OptionSpec {
    name: "when_full",
    ty: OptionType::Choice(&["block", "dead_letter"]),
    default: DefaultValue::Toml("\"block\""),
    doc: "Whether the sources before a full pond wait, or events become dead letters (pond_full).",
    shapes_state: false,
};

/// The end of a pond that is written to: the last node of a region.
pub static POND_IN: KindSpec = KindSpec {
    name: "pond",
    role: Role::Sink,
    summary: "Keeps events on disk for another region.",
    details: "",
    options: &[],
    input: Shape::Rows,
    output: Shape::Nothing,
    state: State::Stateful,
    guarantee: Some(Guarantee::Transactional),
};

/// The end of a pond that is read from: a source of the region behind it.
pub static POND_OUT: KindSpec = KindSpec {
    name: "pond",
    role: Role::Source,
    summary: "Gives back what another region has put into a pond.",
    details: "",
    options: &[],
    input: Shape::Nothing,
    output: Shape::Rows,
    state: State::Stateful,
    guarantee: None,
};
