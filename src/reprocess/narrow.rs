//! A topology, narrowed to some types of one hour.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tidemill_actors::reread::{Nowhere, Window, WindowConfig};
use tidemill_core::{Hour, Options, Role, StageKind};
use tidemill_runtime::Registry;
use tidemill_topology::{DeadLetterCaps, Edge, Node, Plan, Port};

/// Types by the sinks that they are wanted in.
pub(crate) type Wanted = BTreeMap<String, BTreeSet<String>>;

/// The kinds that a narrowed topology has beyond those of the registry.
pub(super) fn with_kinds(mut registry: Registry) -> Registry {
    registry.add_stage(Arc::new(Window));
    registry.add_stage(Arc::new(Nowhere));
    registry
}

/// The longest time between an event and a repeat of it that `dedup` would find, in milliseconds: by `docs/kinds.md` one and a quarter windows.
pub(super) fn reach_ms(plan: &Plan) -> i64 {
    let reach = plan.nodes.iter().filter_map(window_ms).max().unwrap_or(0);
    reach.saturating_add(reach / 4)
}

/// The topology without ponds, with nothing in place of the sinks that are not wanted, and with windows: what holds hours open gets the hour alone, and `dedup`
/// what it could take for the same event.
pub(crate) fn narrowed(plan: Plan, hour: Hour, wanted: &Wanted) -> Plan {
    let mut nodes: Vec<Node> = Vec::with_capacity(plan.nodes.len());
    let mut places: Vec<usize> = Vec::new();
    for mut node in plan.nodes {
        node.pond = None;
        for edge in &mut node.inputs {
            edge.from = places[edge.from];
        }
        let types = wanted.get(&*node.name);
        if node.role == Role::Sink && types.is_none() {
            (node.kind, node.options, node.workers) = (Nowhere.spec(), Options::default(), 1);
        }
        let exact = WindowConfig { from_ms: hour.start_ms, until_ms: hour.end_ms(), types: types.cloned() };
        let window = match (node.role, window_ms(&node)) {
            (Role::Sink, _) => types.is_some().then_some(exact),
            (_, Some(window_ms)) => {
                let reach_ms = window_ms.saturating_mul(2).saturating_add(hour.width_ms);
                Some(WindowConfig {
                    from_ms: hour.start_ms.saturating_sub(reach_ms),
                    until_ms: hour.end_ms().saturating_add(reach_ms),
                    types: None,
                })
            }
            (_, None) => (node.kind.name == "hourly").then_some(exact),
        };
        if let Some(window) = window {
            let (data, letters): (Vec<Edge>, Vec<Edge>) =
                node.inputs.into_iter().partition(|edge| edge.port == Port::Data);
            node.inputs = letters;
            node.inputs.push(Edge { from: nodes.len(), port: Port::Data, types: None });
            nodes.push(Node {
                name: format!("@window.{}", node.name).into(),
                role: Role::Stage,
                kind: Window.spec(),
                options: options(&window),
                workers: 1,
                pond: None,
                inputs: data,
                accepts: node.accepts.clone(),
                sends: node.accepts.clone(),
            });
        }
        places.push(nodes.len());
        nodes.push(node);
    }
    // What was put aside then is put aside again.
    Plan { nodes, caps: DeadLetterCaps::default(), ..plan }
}

/// The window of a `dedup`.
fn window_ms(node: &Node) -> Option<i64> {
    (node.kind.name == "dedup").then(|| node.options.0.get("window")?.as_i64())?
}

fn options(window: &WindowConfig) -> Options {
    match serde_json::to_value(window) {
        Ok(Value::Object(members)) => Options(members),
        // Two numbers and a list of texts.
        _ => Options::default(),
    }
}
