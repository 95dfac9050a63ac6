//! What a topology comes to once everything in it has been checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tidemill_core::{EventType, Finding, Guarantee, KindSpec, Limits, Options, Role, StageInput};

use crate::lineage::ComesFrom;
use crate::pond::PondOptions;

/// A checked topology.
#[derive(Debug)]
pub struct Plan {
    /// `[topology] name`: letters, digits, `-` and `_`.
    pub name: Arc<str>,
    /// Folder of the topology file; relative paths start there.
    pub base_dir: PathBuf,
    /// Widths and limits.
    pub limits: Arc<Limits>,
    /// What a stage may put aside before it is paused.
    pub caps: DeadLetterCaps,
    /// The declared types, in order of name.
    pub types: Vec<Arc<EventType>>,
    /// Where types say that they come from.
    pub comes_from: BTreeMap<Arc<str>, Vec<ComesFrom>>,
    /// How soon hours are to be sealed.
    pub seal_within: SealWithin,
    /// Sources, stages and sinks in topological order: every node comes after all that it takes from.
    pub nodes: Vec<Node>,
}

/// How long after its end and the allowed lateness an hour is to be sealed, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealWithin {
    /// Of types that do not say it.
    pub default_ms: i64,
    /// Of types that do.
    pub by_type: BTreeMap<Arc<str>, i64>,
}

/// How many dead letters a stage may make; no bound where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterCaps {
    /// With nothing good in between.
    pub in_a_row: Option<u64>,
    /// Of what came, in percent.
    pub percent: Option<u64>,
}

impl Plan {
    /// How long after its end and the allowed lateness an hour of a type is to be sealed, in milliseconds.
    #[must_use]
    pub fn seal_within_ms(&self, event_type: &str) -> i64 {
        self.seal_within.by_type.get(event_type).copied().unwrap_or(self.seal_within.default_ms)
    }
}

/// A source, stage or sink.
#[derive(Debug)]
pub struct Node {
    /// Its name; unique over all roles.
    pub name: Arc<str>,
    /// What it is.
    pub role: Role,
    /// Its kind.
    pub kind: &'static KindSpec,
    /// Its options, checked, with defaults filled in.
    pub options: Options,
    /// Workers of its pool; 1 unless its kind is stateless.
    pub workers: usize,
    /// The pond in front of it, if the topology asks for one or its kind needs it.
    pub pond: Option<PondOptions>,
    /// What it takes from; empty for sources.
    pub inputs: Vec<Edge>,
    /// Types that can arrive.
    pub accepts: Vec<Arc<EventType>>,
    /// Types that it sends on its data port.
    pub sends: Vec<Arc<EventType>>,
}

/// A connection between two nodes.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Index of the node it comes from.
    pub from: usize,
    /// Which of its ports.
    pub port: Port,
    /// The types that pass; `None` means all.
    pub types: Option<Vec<Arc<str>>>,
}

/// What a node sends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// `from = ["name"]`: records or events.
    Data,
    /// `from = ["name.dead_letters"]`: what it could not deal with.
    DeadLetters,
}

/// The kinds that there are; the runtime's registry implements it.
pub trait Kinds {
    /// Descriptions of all kinds of a role, in order of name.
    fn specs(&self, role: Role) -> Vec<&'static KindSpec>;

    /// Whether sinks of a kind deliver by calls of their own, so that they are given a pond.
    fn delivers_by_itself(&self, _kind: &str) -> bool {
        false
    }

    /// Checks the options of a source.
    fn check_source(&self, kind: &str, options: &Options) -> Vec<Finding>;

    /// What may not be as meant in a stage or sink that `plan` accepts.
    fn warnings(&self, _role: Role, _kind: &str, _input: &StageInput) -> Vec<Finding> {
        Vec::new()
    }

    /// What a sink promises about repeats with these options.
    fn guarantee(&self, kind: &KindSpec, _options: &Options) -> Option<Guarantee> {
        kind.guarantee
    }

    /// Checks a stage or sink against the types that arrive; returns the types it sends.
    ///
    /// # Errors
    /// Everything that is wrong.
    fn plan(&self, role: Role, kind: &str, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>>;
}
