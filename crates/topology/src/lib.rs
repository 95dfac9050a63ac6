//! TOML text to a checked [`Plan`], or all diagnostics with their places.

mod plan;

pub use plan::{Edge, Kinds, Node, Plan, Port};
