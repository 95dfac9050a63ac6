//! The kinds that a binary knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::{
    EventType, Finding, Guarantee, KindSpec, Options, Role, SinkKind, SourceKind, StageInput, StageKind,
};
use tidemill_topology::Kinds;

use crate::external::{External, ExternalKind};

/// Kinds by name. Add your own before a topology is loaded.
#[derive(Clone, Default)]
pub struct Registry {
    pub(crate) sources: BTreeMap<&'static str, Arc<dyn SourceKind>>,
    pub(crate) stages: BTreeMap<&'static str, Arc<dyn StageKind>>,
    pub(crate) sinks: BTreeMap<&'static str, SinkEntry>,
}

/// The two forms of sinks.
#[derive(Clone)]
pub(crate) enum SinkEntry {
    /// Writes through Logs.
    Logged(Arc<dyn StageKind>),
    /// Delivers by calls of its own.
    External(Arc<dyn ExternalKind>),
}

impl Registry {
    /// Adds a kind of source.
    pub fn add_source(&mut self, kind: Arc<dyn SourceKind>) {
        self.sources.insert(kind.spec().name, kind);
    }

    /// Adds a kind of stage, or of sink that writes through Logs.
    pub fn add_stage(&mut self, kind: Arc<dyn StageKind>) {
        match kind.spec().role {
            Role::Sink => self.sinks.insert(kind.spec().name, SinkEntry::Logged(kind)).map(|_| ()),
            Role::Source | Role::Stage => self.stages.insert(kind.spec().name, kind).map(|_| ()),
        };
    }

    /// Adds a kind of sink of your own.
    pub fn add_sink<K: SinkKind>(&mut self, kind: K) {
        self.sinks.insert(kind.spec().name, SinkEntry::External(Arc::new(External(Arc::new(kind)))));
    }
}

impl Kinds for Registry {
    fn specs(&self, role: Role) -> Vec<&'static KindSpec> {
        match role {
            Role::Source => self.sources.values().map(|kind| kind.spec()).collect(),
            Role::Stage => self.stages.values().map(|kind| kind.spec()).collect(),
            Role::Sink => (self.sinks.values())
                .map(|kind| match kind {
                    SinkEntry::Logged(kind) => kind.spec(),
                    SinkEntry::External(kind) => kind.spec(),
                })
                .collect(),
        }
    }

    fn delivers_by_itself(&self, kind: &str) -> bool {
        matches!(self.sinks.get(kind), Some(SinkEntry::External(_)))
    }

    fn check_source(&self, kind: &str, options: &Options) -> Vec<Finding> {
        self.sources.get(kind).map(|kind| kind.check(options)).unwrap_or_default()
    }

    fn warnings(&self, role: Role, kind: &str, input: &StageInput) -> Vec<Finding> {
        match (role, self.stages.get(kind), self.sinks.get(kind)) {
            (Role::Stage, Some(kind), _) | (Role::Sink, _, Some(SinkEntry::Logged(kind))) => kind.warnings(input),
            (Role::Sink, _, Some(SinkEntry::External(kind))) => kind.warnings(input),
            _ => Vec::new(),
        }
    }

    fn guarantee(&self, kind: &KindSpec, options: &Options) -> Option<Guarantee> {
        match self.sinks.get(kind.name) {
            Some(SinkEntry::External(external)) => Some(external.guarantee(options)),
            _ => kind.guarantee,
        }
    }

    fn plan(&self, role: Role, kind: &str, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        match (role, self.stages.get(kind), self.sinks.get(kind)) {
            (Role::Stage, Some(kind), _) | (Role::Sink, _, Some(SinkEntry::Logged(kind))) => kind.plan(input),
            (Role::Sink, _, Some(SinkEntry::External(kind))) => kind.plan(input),
            _ => Ok(Vec::new()),
        }
    }
}
