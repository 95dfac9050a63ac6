//! What of a topology the state on disk depends on, and what a change of it means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidemill_core::{Late, LatePolicy, Role, State};

use crate::common::role_names;
use crate::paths::path_options;
use crate::plan::{Plan, Port};
use crate::pond::PondOptions;
use crate::regions::MAIN;
use crate::units;

/// What the ledger keeps of a plan, to tell at the next start which edits its state can live with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    name: String,
    bucket_ms: i64,
    limits: BTreeMap<String, i64>,
    types: BTreeMap<String, TypePrint>,
    nodes: BTreeMap<String, NodePrint>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TypePrint {
    time: String,
    /// Fields and their Avro types: the id's hash is made of both.
    id: Vec<(String, String)>,
    schema: String,
    /// What becomes of late events; empty where an earlier version did not say it.
    #[serde(default)]
    late: String,
    /// A source or stage with state has seen it.
    has_state: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NodePrint {
    role: String,
    kind: String,
    has_state: bool,
    /// Options that shape the state.
    shaping: Map<String, Value>,
    /// The others.
    options: Map<String, Value>,
    workers: usize,
    inputs: Vec<String>,
    accepts: Vec<String>,
    /// The region that it is in: where its state lies.
    #[serde(default = "main")]
    region: String,
    /// The regions that its ponds come from.
    #[serde(default)]
    fed_by: Vec<String>,
    /// The bounds of the pond in front of it.
    #[serde(default)]
    pond: Option<PondOptions>,
}

/// One thing that differs between two fingerprints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Whether the state of the old topology can be used with the new one.
    pub compatible: bool,
    /// What changed.
    pub what: String,
    /// What it means, or what to do.
    pub help: String,
}

impl Plan {
    /// What of the plan its state on disk depends on.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let regions = self.region_names();
        let nodes = self.nodes.iter().zip(regions).map(|(node, region)| {
            let shapes = |name: &str| node.kind.options.iter().any(|spec| spec.name == name && spec.shapes_state);
            // A path that is left out depends on the bucket, and writing the same path out changes nothing.
            let paths = path_options(node.kind, &node.options, &self.limits);
            let paths = paths.into_iter().map(|path| (path.name.to_owned(), Value::from(path.template)));
            let (shaping, options) =
                node.options.0.clone().into_iter().chain(paths).partition(|(name, _)| shapes(name));
            let input = |edge: &crate::Edge| {
                let port = if edge.port == Port::DeadLetters { ".dead_letters" } else { "" };
                format!("{}{port}", self.nodes[edge.from].name)
            };
            let print = NodePrint {
                role: role_names(node.role).0.to_owned(),
                kind: node.kind.name.to_owned(),
                has_state: node.role == Role::Source
                    || node.kind.state == State::Stateful
                    || node.pond.is_some()
                    || !region.1.is_empty(),
                shaping,
                options,
                workers: node.workers,
                inputs: sorted(node.inputs.iter().map(input)),
                accepts: sorted(node.accepts.iter().map(|event_type| event_type.name.to_string())),
                region: region.0.to_string(),
                fed_by: region.1.iter().map(ToString::to_string).collect(),
                pond: node.pond,
            };
            (node.name.to_string(), print)
        });
        let types = self.types.iter().map(|event_type| {
            let field = |at: &usize| {
                let field = &event_type.fields[*at];
                (field.name.clone(), field.kind.name().to_owned())
            };
            let stateful = self.nodes.iter().filter(|node| node.kind.state == State::Stateful);
            let print = TypePrint {
                time: event_type.fields[event_type.time].name.clone(),
                id: event_type.id.iter().map(field).collect(),
                schema: event_type.fingerprint.clone(),
                late: late(&event_type.late),
                has_state: stateful.flat_map(|node| &node.accepts).any(|accepted| accepted.name == event_type.name),
            };
            (event_type.name.to_string(), print)
        });
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let limits = [
            ("allowed_lateness", self.limits.allowed_lateness_ms),
            ("hold_at_most", self.limits.hold_at_most_ms),
            ("max_ahead", self.limits.max_ahead_ms),
            ("max_open_hours", count(self.limits.max_open_hours)),
            ("max_groups", count(self.limits.max_groups)),
            ("max_path_values", count(self.limits.max_path_values)),
            ("max_event", count(self.limits.max_event_bytes)),
        ];
        Fingerprint {
            name: self.name.to_string(),
            bucket_ms: self.limits.bucket_ms,
            limits: limits.map(|(name, value)| (name.to_owned(), value)).into(),
            types: types.collect(),
            nodes: nodes.collect(),
        }
    }
}

/// As a topology says it.
fn late(late: &Late) -> String {
    let policy = match late.policy {
        LatePolicy::DeadLetter => return "dead_letter".to_owned(),
        LatePolicy::Revise => "revise",
        LatePolicy::NextHour => return format!("next_hour within {}", ms(late.within_ms)),
    };
    format!("{policy} within {}, with a delay of {}", ms(late.within_ms), ms(late.delay_ms))
}

/// The order in which names are written means nothing.
fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn main() -> String {
    MAIN.to_owned()
}

const FRESH: &str = "undo the change, or start with empty state: `tidemill run --fresh` sets the old state aside";

struct Changes(Vec<Change>);

impl Changes {
    fn refused(&mut self, what: String) {
        self.0.push(Change { compatible: false, what, help: FRESH.to_owned() });
    }
    fn refused_because(&mut self, what: String, why: &str) {
        self.0.push(Change { compatible: false, what, help: format!("{why}; {FRESH}") });
    }
    fn fine(&mut self, what: String, help: &str) {
        self.0.push(Change { compatible: true, what, help: help.to_owned() });
    }
}

impl Fingerprint {
    /// Name of the topology.
    #[must_use]
    pub fn topology(&self) -> &str {
        &self.name
    }

    /// Width of an hour, in milliseconds.
    #[must_use]
    pub fn bucket_ms(&self) -> i64 {
        self.bucket_ms
    }

    /// Sinks by name, with the region that each is in and the types that it takes.
    pub fn sinks(&self) -> impl Iterator<Item = (&str, &str, &[String])> {
        let sinks = self.nodes.iter().filter(|(_, node)| node.role == role_names(Role::Sink).0);
        sinks.map(|(name, node)| (name.as_str(), node.region.as_str(), node.accepts.as_slice()))
    }

    /// How long an hour is left open behind its end, in milliseconds.
    #[must_use]
    pub fn allowed_lateness_ms(&self) -> i64 {
        self.limits.get("allowed_lateness").copied().unwrap_or_default()
    }

    /// What is different in `new`; `self` is what the state was made with. Refused changes come first.
    #[must_use]
    pub fn compare(&self, new: &Self) -> Vec<Change> {
        let mut changes = Changes(Vec::new());
        if self.name != new.name {
            let what = format!("the topology is named `{}`, but the state belongs to `{}`", new.name, self.name);
            changes.refused_because(what, "give every topology a state directory of its own");
        }
        if self.bucket_ms != new.bucket_ms {
            let what = format!("`bucket` was {}, now {}", ms(self.bucket_ms), ms(new.bucket_ms));
            changes.refused_because(what, "open and sealed hours have the old width");
        }
        for (name, old) in &self.limits {
            let Some(value) = new.limits.get(name).filter(|value| *value != old) else { continue };
            let (old, value) = match name.as_str() {
                "allowed_lateness" | "hold_at_most" | "max_ahead" => (ms(*old), ms(*value)),
                "max_event" => (bytes(*old), bytes(*value)),
                _ => (old.to_string(), value.to_string()),
            };
            changes.fine(
                format!("`{name}` was {old}, now {value}"),
                "it holds from now on; sealed hours stay as they are",
            );
        }
        self.compare_types(new, &mut changes);
        self.compare_nodes(new, &mut changes);
        changes.0.sort_by_key(|change| change.compatible);
        changes.0
    }

    fn compare_types(&self, new: &Self, changes: &mut Changes) {
        for (name, old) in &self.types {
            let Some(now) = new.types.get(name) else {
                let what = format!("type `{name}` was removed");
                match old.has_state {
                    true => changes.refused_because(what, "its open hours and ids would be lost"),
                    false => changes.fine(what, "no stage with state has seen it"),
                }
                continue;
            };
            if old.time != now.time {
                let what = format!("the time of type `{name}` was field `{}`, now `{}`", old.time, now.time);
                changes.refused_because(what, "its events would fall in other hours");
            }
            if old.id != now.id {
                let what = format!("the id of type `{name}` was {}, now {}", id(&old.id), id(&now.id));
                changes.refused_because(what, "ids seen so far could not be compared with new ones");
            }
            if old.schema != now.schema {
                changes.fine(format!("the schema of type `{name}` changed"), "open hours go on in a new part file");
            }
            if old.late != now.late && !old.late.is_empty() {
                let what = format!("late events of type `{name}`: {}, now {}", old.late, now.late);
                changes.fine(what, "it holds for hours that are sealed from now on");
            }
        }
        for name in new.types.keys().filter(|name| !self.types.contains_key(*name)) {
            changes.fine(format!("type `{name}` is new"), "its hours begin with what is read from now on");
        }
    }

    fn compare_nodes(&self, new: &Self, changes: &mut Changes) {
        for (name, old) in &self.nodes {
            let Some(now) = new.nodes.get(name) else {
                let what = format!("{} `{name}` (kind `{}`) was removed", old.role, old.kind);
                let renamed = new.nodes.iter().find(|(name, print)| {
                    print.kind == old.kind && print.role == old.role && !self.nodes.contains_key(*name)
                });
                match (old.has_state, renamed) {
                    (true, Some((renamed, _))) => {
                        changes.refused_because(what, &format!("if it is `{renamed}` now: state goes by the old name"));
                    }
                    (true, None) if old.role == "source" => {
                        changes.refused_because(what, "its positions, and the hours it holds open, would be lost");
                    }
                    (true, None) => changes.refused_because(what, "its state would be lost"),
                    (false, _) => changes.fine(what, "it kept no state"),
                }
                continue;
            };
            if (&old.role, &old.kind) != (&now.role, &now.kind) {
                let what = format!(
                    "`{name}` was a {} of kind `{}`, now a {} of kind `{}`",
                    old.role, old.kind, now.role, now.kind
                );
                match old.has_state {
                    true => changes.refused_because(what, "one kind can't read another's state"),
                    false => changes.fine(what, "it kept no state"),
                }
                continue;
            }
            compare_node(name, old, now, changes);
        }
        for (name, now) in new.nodes.iter().filter(|(name, _)| !self.nodes.contains_key(*name)) {
            changes.fine(format!("{} `{name}` is new", now.role), "it begins with what is read from now on");
        }
    }
}

fn compare_node(name: &str, old: &NodePrint, now: &NodePrint, changes: &mut Changes) {
    for (option, was, is) in different(&old.shaping, &now.shaping) {
        let what = format!("option `{option}` of `{name}` was {was}, now {is}");
        match old.has_state {
            true => changes.refused(what),
            false => changes.fine(what, "the stage keeps no state"),
        }
    }
    for (option, was, is) in different(&old.options, &now.options) {
        changes.fine(format!("option `{option}` of `{name}` was {was}, now {is}"), "it holds from now on");
    }
    if old.workers != now.workers {
        let what = format!("`workers` of `{name}` was {}, now {}", old.workers, now.workers);
        changes.fine(what, "the order of events does not depend on it");
    }
    if old.pond.is_some() != now.pond.is_some() {
        let what = format!("`{name}` {} a pond", if now.pond.is_some() { "now has" } else { "no longer has" });
        changes.refused_because(what, "its state lies elsewhere with one than without");
    } else if old.pond != now.pond {
        changes.fine(format!("the bounds of the pond of `{name}` changed"), "they hold from now on");
    }
    if old.fed_by.iter().any(|region| !now.fed_by.contains(region)) {
        let now = if now.fed_by.is_empty() { "none".to_owned() } else { now.fed_by.join(", ") };
        let what = format!("the ponds of `{name}` were filled by region {}, now by {now}", old.fed_by.join(", "));
        changes.refused_because(what, "what is still in the old one would not be delivered");
    } else if old.region != now.region && old.has_state {
        let what = format!("`{name}` was in region `{}`, now in `{}`", old.region, now.region);
        changes.refused_because(what, "each region commits by itself, and its state can't move");
    }
    if old.inputs != now.inputs {
        let what = format!("`{name}` took from {}, now from {}", old.inputs.join(", "), now.inputs.join(", "));
        changes.fine(what, "it holds from now on");
    }
    if old.accepts != now.accepts {
        let what = format!("`{name}` took types {}, now {}", old.accepts.join(", "), now.accepts.join(", "));
        changes.fine(what, "it holds from now on");
    }
}

fn different(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<(String, String, String)> {
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    let text = |value: Option<&Value>| value.map_or_else(|| "left out".to_owned(), Value::to_string);
    names
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| (name.clone(), text(old.get(name)), text(new.get(name))))
        .collect()
}

fn id(fields: &[(String, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, kind)| format!("`{name}` ({kind})")).collect();
    if fields.is_empty() { "left out".to_owned() } else { fields.join(", ") }
}

fn ms(value: i64) -> String {
    units::duration(u64::try_from(value).unwrap_or_default())
}

fn bytes(value: i64) -> String {
    units::size(u64::try_from(value).unwrap_or_default())
}
