//! The source of replayed dead letters, which every topology has.

use tidemill_core::{KindSpec, Options, Role, Shape, State};

use crate::plan::{Edge, Node, Port};

/// Its name, which no node of a topology file can have.
pub const REPLAY: &str = "@replay";

/// Its kind.
static SPEC: KindSpec = KindSpec {
    name: "replay",
    role: Role::Source,
    summary: "Gives dead letters that are to be dealt with again.",
    details: "",
    options: &[],
    input: Shape::Nothing,
    output: Shape::Framed,
    state: State::Stateful,
    guarantee: None,
};

/// The source, the first node of the region that has the sources.
pub(crate) fn source() -> Node {
    Node {
        name: REPLAY.into(),
        role: Role::Source,
        kind: &SPEC,
        options: Options::default(),
        workers: 1,
        pond: None,
        inputs: Vec::new(),
        accepts: Vec::new(),
        sends: Vec::new(),
    }
}

/// The edge from it to a stage that parses.
pub(crate) fn edge() -> Edge {
    Edge { from: 0, port: Port::Data, types: None }
}
