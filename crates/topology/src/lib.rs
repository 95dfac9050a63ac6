//! TOML text to a checked [`Plan`], or all diagnostics with their places.
//!
//! [`load`] is a pure function: it reads nothing but the schemas, and those through a function that it is given. The same
//! descriptions of options ([`tidemill_core::OptionSpec`]) serve the checks, the text of [`describe`] and the [`json_schema`].

mod codes;
mod common;
mod describe;
mod diagnostic;
mod fingerprint;
mod graph;
mod json_schema;
mod lineage;
mod load;
mod paths;
mod plan;
mod pond;
mod regions;
mod render;
mod replay;
mod suggest;
mod text;
mod units;
mod unread;

pub use codes::CODES;
pub use common::{TOPOLOGY_KEYS, TYPE_KEYS};
pub use describe::{describe, describe_kind, describe_type, suggest_kind};
pub use diagnostic::{Diagnostic, Related};
pub use fingerprint::{Change, Fingerprint};
pub use graph::{GraphFormat, graph};
pub use json_schema::json_schema;
pub use lineage::{ComesFrom, Derived, Lineage, Origin};
pub use load::{Loaded, load};
pub use plan::{DeadLetterCaps, Edge, Kinds, Node, Plan, Port};
pub use pond::{POND_IN, POND_OUT, PondOptions, WhenFull};
pub use regions::{MAIN, Pond, RegionPlan, Regions};
pub use replay::REPLAY;
pub use unread::{not_utf8, unreadable};
